"""A capture in map coordinates (UTM) is the same capture: what is drawn, chosen, saved and shown does not depend on
where in the world it lies. float32 would round its positions to half a metre."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from camera_rings import ring_c2w
from image_scenes import image_scene, noise
from small_scenes import plain_renderer

from data_tools.colmap_export import save_colmap
from data_tools.readers import open_scene
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.paths import capture, orbit, spiral
from nvs_app.model.state import SceneState, context_cameras
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.camera_path import CameraPath, read_camera_path, write_camera_path
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import choose_views
from nvs_app.web.services.viewpoint import Viewpoint, camera_from_page

PLACE = torch.tensor([456_789.123, 5_432_100.456, 212.789], dtype=torch.float64)


def placed(c2w: torch.Tensor) -> torch.Tensor:
    c2w = c2w.double().clone()
    c2w[..., :3, 3] += PLACE
    return c2w


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Scene]:
    """The same capture at the origin and on the map."""
    folder = tmp_path_factory.mktemp("map")
    near = image_scene(folder / "near", noise(8, (32, 40)), ring_c2w(8).double(), (50.0, 50.0, 20.0, 16.0))
    return near, replace(near, c2w=placed(near.c2w))


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return plain_renderer(True)


def test_it_is_chosen_and_drawn_alike(scenes: tuple[Scene, Scene], renderer: Renderer, tmp_path: Path) -> None:
    near, far = scenes
    views = choose_views(near, 4).context
    assert choose_views(far, 4).context == views
    states = [renderer.encode(scene.load(views)) for scene in scenes]
    for make in (orbit, spiral, capture):
        paths = [make(scene.cameras(views), 3) for scene in scenes]
        torch.testing.assert_close(paths[1].c2w, placed(paths[0].c2w), atol=1e-6, rtol=0)
    here, there = (renderer.render(state, path, depth=True) for state, path in zip(states, paths))
    torch.testing.assert_close(there.images, here.images, atol=1e-4, rtol=0)
    torch.testing.assert_close(there.depth, here.depth, atol=1e-4, rtol=1e-4)
    # From a file of the state and a file of the path, as another day.
    state = SceneState.load(states[1].save(tmp_path / "far.safetensors"))
    known = context_cameras(state)
    assert known is not None and torch.equal(known.c2w, far.c2w[views])
    path = read_camera_path(write_camera_path(tmp_path / "path.json", CameraPath(paths[1]))).cameras
    assert torch.equal(path.c2w, paths[1].c2w)
    # The path's file has one focal length and a centred principal point.
    path = Cameras(path.c2w, paths[1].fxfycxcy, path.image_hw)
    torch.testing.assert_close(renderer.render(state, path), there.images, atol=1e-4, rtol=0)


def test_it_is_saved_to_the_last_digit(scenes: tuple[Scene, Scene], tmp_path: Path) -> None:
    _, far = scenes
    assert torch.equal(open_scene(far.save(tmp_path / "scene")).c2w, far.c2w)
    project = open_scene(save_colmap(far, tmp_path / "colmap"))
    torch.testing.assert_close(project.c2w, far.c2w, atol=2e-6, rtol=0)


def test_the_page_looks_at_it_alike(scenes: tuple[Scene, Scene]) -> None:
    near, far = (Viewpoint.of(scene.cameras()).for_page() for scene in scenes)
    assert far["radius"] == pytest.approx(near["radius"], abs=1e-6)
    sent = [
        torch.tensor([view["c2w"], *view["turn"]["path"]], dtype=torch.float64).view(-1, 4, 4) for view in (near, far)
    ]
    torch.testing.assert_close(sent[1], placed(sent[0]), atol=1e-5, rtol=0)
    back = camera_from_page({"c2w": far["c2w"], "fov": far["fov"], "hw": [32, 40]}, 64)
    torch.testing.assert_close(back.c2w[0], sent[1][0], atol=1e-6, rtol=0)
