"""What the page's Export tab writes of a scene whose depth is known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import trimesh
from image_scenes import image_scene

from nvs_app.model.state import SceneState
from nvs_app.scenes.images import to_uint8
from nvs_app.web.app_state import AppState
from nvs_app.web.services.geometry import Geometry
from nvs_app.web.services.opening import LoadedScene

sys.path.insert(0, str(Path(__file__).parents[2] / "export"))
from analytic import analytic_views, cameras


def test_a_mesh_takes_its_texture_from_the_scene_s_files(tmp_path: Path) -> None:
    pytest.importorskip("open3d", reason="open3d is not installed (make setup)")
    views, fine = analytic_views(cameras()), analytic_views(cameras(side=128))
    lens = (1.2 * 128, 1.25 * 128, 65.0, 62.0)
    scene = image_scene(tmp_path / "scene", list(to_uint8(fine.images).numpy()), fine.cameras.c2w, lens)
    read = views.cameras
    known = {"c2w": read.c2w.tolist(), "fxfycxcy": read.fxfycxcy.tolist(), "image_hw": list(read.image_hw)}
    state = SceneState([], meta={"context_cameras": json.dumps(known)})
    app_state = Mock(spec=AppState, state=lambda opened: state)
    steps: list[float] = []
    words = []
    for name, files in (("files", scene), ("alone", None)):
        opened = Mock(spec=LoadedScene, scene=files)
        out = tmp_path / f"{name}.glb"
        words.append(
            Geometry(app_state)._write(out, views, "Mesh (GLB)", lambda share, said: steps.append(share), opened)
        )
        (mesh,) = trimesh.load(out).geometry.values()
        assert mesh.visual.kind == "texture"
        width, height = mesh.visual.material.baseColorTexture.size
        assert words[-1] == f"{len(mesh.faces):,} triangles, texture {width}x{height}"
    assert words[0] != words[1]  # photos of twice the size give more texels
    assert steps[: len(steps) // 2] == sorted(steps[: len(steps) // 2]) and max(steps) <= 1
