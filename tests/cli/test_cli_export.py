"""`export`: every kind of file from a small scene, in the scene's own frame; mistakes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh
from camera_rings import ring_c2w
from cli_scenes import WITH_HEAD, write_scenes
from image_scenes import image_scene, noise

from data_tools.readers import open_scene
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.lact import LaCT

WORLD = SimilarityTransform(
    torch.tensor(50.0), torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), torch.tensor([900.0, -70, 20])
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, the same in a world that is scaled, turned and moved, and checkpoints: that of "flat" sees in each view
    a wall where the cameras look."""
    folder = tmp_path_factory.mktemp("export")
    write_scenes(folder)
    c2w, photos = ring_c2w(5, step=0.2), noise(5, (36, 48))
    for name, poses in (("ring", c2w), ("moved", WORLD.apply_c2w(c2w))):
        image_scene(folder / "photos" / name, photos, poses, (50.0, 50.0, 24.0, 18.0)).save(folder / name)
    torch.manual_seed(0)
    model = LaCT(WITH_HEAD)  # what sets depth begins at zero: it is 1 everywhere, in the normalised frame
    with torch.no_grad():
        model.detail_head.guide.prior.bias[2] = 5.0
    card = {"normalization": "auto", "train_image_hw": [32, 32], "lact_resolution": {"least": 16}}
    save_checkpoint(folder / "checkpoints" / "flat", model.state_dict(), WITH_HEAD, card)
    return folder


def words(folder: Path, to: str, out: Path, *more: object, scene: str = "ring") -> list[object]:
    what = ["export", folder / scene, "--to", to, "--out", out, "--checkpoint", "flat", "--precision", "fp32"]
    return [*what, "--context", 5, *([] if to == "depth" else ["--tolerance", 0.2]), *more]


def test_points_lie_in_the_frame_of_the_cameras(folder: Path, tmp_path: Path, here) -> None:
    out, err = here(*words(folder, "points", tmp_path / "points.ply"))
    assert " points; encoded 5 views of " in out and "depth of 5 views ..." in err
    points = np.asarray(trimesh.load(tmp_path / "points.ply").vertices)
    assert len(points) > 300
    # Walls near the point that the cameras look at, which is the world's origin 3.2 away from each.
    c2w = open_scene(folder / "ring").c2w
    depth = ((points[:, None] - c2w[:, :3, 3].numpy()) * c2w[:, :3, 2].numpy()).sum(-1)
    assert np.abs(np.median(depth) - 10**0.5) < 0.5
    here(*words(folder, "points", tmp_path / "moved.ply", scene="moved"))
    moved = np.asarray(trimesh.load(tmp_path / "moved.ply").vertices)
    assert abs(len(moved) - len(points)) < 0.02 * len(points)
    back = WORLD.inverse().apply_points(torch.from_numpy(moved).float()).numpy()
    apart = np.linalg.norm(back[:, None] - points, axis=-1).min(1)
    assert np.quantile(apart, 0.95) < 0.01


def test_splats_mesh_and_depth(folder: Path, tmp_path: Path, here) -> None:
    state = ("--state", tmp_path / "ring.safetensors")
    assert "splats" in here(*words(folder, "splats", tmp_path / "s.ply", *state))[0]
    assert "f_dc_0" in (tmp_path / "s.ply").read_bytes()[:600].decode("latin-1")
    _, err = here(*words(folder, "splats", tmp_path / "s.splat", "--most", 100, *state))
    assert "note: 100 of " in err and (tmp_path / "s.splat").stat().st_size == 3200
    here(*words(folder, "splats", tmp_path / "s.html", *state))
    assert "<title>s</title>" in (tmp_path / "s.html").read_text("utf-8")
    pytest.importorskip("open3d", reason="open3d is not installed (make setup)")
    assert " triangles, texture 256x" in here(*words(folder, "mesh", tmp_path / "m.glb", *state))[0]
    (mesh,) = trimesh.load(tmp_path / "m.glb").geometry.values()
    assert len(mesh.faces) > 100 and mesh.visual.kind == "texture"
    alone = ["export", "--to", "mesh", "--out", tmp_path / "n.glb", "--tolerance", 0.2, *state]
    assert ", texture " in here(*alone, "--checkpoint", "flat", "--precision", "fp32")[0]
    assert (tmp_path / "n.glb").read_bytes() != (tmp_path / "m.glb").read_bytes()  # of photos as they were read
    assert "texture" not in here(*words(folder, "mesh", tmp_path / "v.glb", "--texture", 0, *state))[0]
    (plain,) = trimesh.load(tmp_path / "v.glb", process=False).geometry.values()
    assert plain.visual.vertex_attributes["color"].shape == (len(plain.vertices), 4)

    out, _ = here(*words(folder, "depth", tmp_path / "maps", *state))
    assert "depth of 5 views" in out
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    assert {"00004.png", "00004.depth.png", "depth.json", "transforms.json"} <= names and len(names) == 12
    scene = open_scene(tmp_path / "maps")  # a scene again, with the cameras that were given
    assert torch.allclose(scene.c2w, open_scene(folder / "ring").c2w, atol=1e-5)
    frame = json.loads((tmp_path / "maps" / "transforms.json").read_text())["frames"][0]
    depth = cv2.imread(str(tmp_path / "maps" / frame["depth_file_path"]), cv2.IMREAD_UNCHANGED)
    assert depth.shape == (frame["h"], frame["w"]) and abs(np.median(depth) / 1000 - 10**0.5) < 0.5
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("to", "out", "more", "said"),
    [
        ("splats", "a.obj", (), ".ply or .splat or .html"),
        ("depth", "a.ply", (), "a folder"),
        ("points", "there.ply", (), "is there; use another name or --overwrite"),
        ("points", "a.ply", ("--refine", 3), "only with --to splats"),
        ("points", "a.ply", ("--voxel", 3), "only with --to mesh"),
        ("points", "a.ply", ("--texture", 512), "only with --to mesh"),
        ("mesh", "a.glb", ("--texture", 100), "--texture 100: expected 0, or 256 to 8192 texels"),
        ("splats", "a.ply", ("--refine", 3, "--device", "cpu", "--context", 2), "expected 3 or more"),
        ("points", "a.ply", ("--no-detail",), "--no-detail switches the detail head off"),
        ("points", "a.ply", ("--least", 4, "--tolerance", 1e-7), "agree on no surface"),
    ],
)
def test_mistakes(folder: Path, tmp_path: Path, here, to: str, out: str, more: tuple, said: str) -> None:
    (tmp_path / "there.ply").write_text("mine")
    _, err = here(*words(folder, to, tmp_path / out, *more), code=2)
    assert said in err and len(err.strip().splitlines()[-1]) < 300
    assert (tmp_path / "there.ply").read_text() == "mine" and not (tmp_path / "a.ply").exists()


def test_without_open3d_a_mesh_says_what_to_install(folder: Path, tmp_path: Path, here, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    _, err = here(*words(folder, "mesh", tmp_path / "m.glb"), code=2)
    assert "pip install open3d" in err and not (tmp_path / "m.glb").exists()
