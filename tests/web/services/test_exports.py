"""What a visitor takes away opens again, and the command line renders the same images."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from networks import WITH_HEAD
from PIL import Image

from data_tools.readers import open_scene
from data_tools.readers.archives import extract
from data_tools.structure_from_motion.job import Cancelled
from data_tools.structure_from_motion.scene import write_ply
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.rays import pixel_rays
from nvs_app.geometry.timeline import Timeline, keyframes_of
from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.images import to_uint8
from nvs_app.web.services import exports
from nvs_app.web.services.paths import preset, save_path

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    for name, config in (("tiny", PRESETS["tiny"]), ("headed", WITH_HEAD)):
        save_checkpoint(folder / name, LaCT(config).state_dict(), config, {"train_image_hw": [32, 32]})
    return folder


@pytest.fixture(scope="module")
def made(checkpoints: Path, small_scene: Path):
    renderer = Renderer.from_checkpoint(checkpoints / "tiny", "cpu")
    scene = open_scene(small_scene)
    state = renderer.encode(scene.load([0, 2, 4], (32, 32)))
    return renderer, scene, state


@pytest.fixture(scope="module")
def headed(checkpoints: Path, small_scene: Path) -> SceneState:
    """Encoded with a detail head."""
    photos = open_scene(small_scene).load([0, 2, 4], (32, 32))
    return Renderer.from_checkpoint(checkpoints / "headed", "cpu").encode(photos)


@pytest.fixture(scope="module")
def timeline(made) -> Timeline:
    _, scene, _ = made
    path = preset("orbit", scene.cameras(None, (32, 32)), (24, 40), seconds=2, fps=6)
    return keyframes_of(path, 6, count=4, loop=True)


def plain(cameras: Cameras) -> torch.Tensor:
    """Images whose brightness says which camera they are of."""
    level = (cameras.c2w[:, 0, 3] * 0.5 + 0.5).clamp(0, 1)
    return level[:, None, None, None].expand(len(cameras), 3, *cameras.image_hw)


def row(count: int, image_hw: tuple[int, int] = (20, 30)) -> Cameras:
    c2w = torch.eye(4).repeat(count, 1, 1)
    c2w[:, 0, 3] = torch.linspace(-1, 1, count)
    return Cameras(c2w, torch.tensor([30.0, 30.0, 15.0, 10.0]).expand(count, 4), image_hw)


def frames_of(file: Path) -> list[np.ndarray]:
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as packed:
            return [np.asarray(Image.open(io.BytesIO(packed.read(name)))) for name in packed.namelist()]
    with imageio.get_reader(file) as reader:
        return [np.asarray(frame)[..., :3] for frame in reader]


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".zip"])
def test_videos_hold_every_image(tmp_path: Path, suffix: str) -> None:
    told: list[float] = []
    sizes: list[int] = []

    def draw(cameras: Cameras) -> torch.Tensor:
        sizes.append(len(cameras))
        return plain(cameras)

    out = exports.export_video(
        draw, row(11), 10, tmp_path / f"video{suffix}", lambda done, words: told.append(done), chunk=4
    )
    frames = frames_of(out)
    assert len(frames) == 11 and frames[0].shape == (20, 30, 3) and sizes == [4, 4, 3]
    assert np.allclose([frame.mean() for frame in frames], np.linspace(0, 255, 11), atol=3)
    assert told == sorted(told) and told[-1] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    if suffix == ".mp4":
        assert imageio.get_reader(out).get_meta_data()["fps"] == 10
    if suffix == ".zip":
        assert zipfile.ZipFile(out).namelist()[-1] == "00010.png"


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".zip"])
@pytest.mark.parametrize("after", [0, 2])
def test_cancelled_videos_leave_nothing(tmp_path: Path, suffix: str, after: int) -> None:
    calls: list[int] = []

    def draw(cameras: Cameras) -> torch.Tensor:
        calls.append(1)
        return plain(cameras)

    with pytest.raises(Cancelled, match=f"after {after} of 9"):
        exports.export_video(draw, row(9), 10, tmp_path / f"f{suffix}", cancelled=lambda: len(calls) >= after, chunk=1)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_one_line(tmp_path: Path, made) -> None:
    _, scene, state = made
    with pytest.raises(NVSError, match="ends in .mp4, .gif, .zip"):
        exports.export_video(plain, row(2), 10, tmp_path / "f.avi")
    (tmp_path / "file").write_text("")
    for write in (
        lambda: exports.export_video(plain, row(2), 10, tmp_path / "file/f.zip"),
        lambda: exports.export_video(plain, row(2), 10, tmp_path / "file/f.mp4"),
        lambda: exports.save_scene(scene, tmp_path / "file/s.zip"),
        lambda: exports.save_state(state, tmp_path / "file/s.safetensors"),
    ):
        with pytest.raises(NVSError, match="written|directory"):
            write()


def run(words: str, folder: Path, checkpoints: Path) -> None:
    command = shlex.split(words)
    assert command[0] == "python"
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPO),
        "NVS_CHECKPOINTS": str(checkpoints),
        "OMP_NUM_THREADS": "2",
    }
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("settings", [{}, {"views": 2}, {"detail": False}])
def test_the_command_line_renders_the_same_images(
    tmp_path: Path, headed, timeline, checkpoints: Path, settings: dict
) -> None:
    """From the state that was taken away, in a folder whose names need quoting; rendered in the same way."""
    renderer = Renderer.from_checkpoint(checkpoints / "headed", "cpu", **settings)
    state = headed
    folder = tmp_path / "taken away; it's mine"
    folder.mkdir()
    exports.save_state(state, folder / "my scene.safetensors")
    save_path(folder / "path.json", timeline)
    out = exports.export_video(
        lambda cameras: renderer.render(state, cameras), timeline.cameras(), 6, folder / "page.zip", chunk=5
    )
    run(
        exports.command_line(
            "command.zip",
            "path.json",
            checkpoint="headed",
            state_file="my scene.safetensors",
            **settings,
        ),
        folder,
        checkpoints,
    )
    mine = frames_of(out)
    theirs = [np.asarray(Image.open(path)) for path in sorted((folder / "command").glob("*.png"))]
    assert len(mine) == len(theirs) == 12 and mine[0].shape == (24, 40, 3)
    assert np.abs(np.stack(mine).astype(int) - np.stack(theirs).astype(int)).max() <= 1
    assert np.abs(mine[0].astype(int) - mine[5].astype(int)).max() > 1  # it moves


def test_the_scene_opens_again(tmp_path: Path, made) -> None:
    _, scene, _ = made
    out = exports.save_scene(scene, tmp_path / "out/scene.zip")
    again = open_scene(extract(out, tmp_path / "again"))
    assert torch.equal(again.c2w, scene.c2w) and torch.equal(again.fxfycxcy, scene.fxfycxcy)
    assert torch.equal(again.load().images, scene.load().images)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scene.zip"]


def test_the_colmap_project_opens_with_the_same_rays(tmp_path: Path, made, small_scene: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    import shutil

    folder = Path(shutil.copytree(small_scene, tmp_path / "scene"))
    write_ply(folder / "sparse.ply", np.eye(3, dtype=np.float32), np.full((3, 3), 7, np.uint8))
    scene = open_scene(folder)
    out = exports.save_colmap(scene, tmp_path / "colmap.zip")
    again = open_scene(extract(out, tmp_path / "again"))
    assert torch.equal(again.load().images, scene.load().images)
    for mine, theirs in zip(pixel_rays(scene.cameras()), pixel_rays(again.cameras())):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    model = pycolmap.Reconstruction(tmp_path / "again/sparse/0")
    assert len(model.images) == 6 and len(model.points3D) == 3
    packed = zipfile.ZipFile(exports.save_scene(scene, tmp_path / "scene.zip")).namelist()
    assert "sparse.ply" in packed and "transforms.json" in packed


def test_the_state_renders_the_same(tmp_path: Path, made) -> None:
    renderer, scene, state = made
    out = exports.save_state(state, tmp_path / "s.safetensors")
    cameras = scene.cameras([1], (32, 32))
    assert torch.equal(renderer.render(SceneState.load(out), cameras), renderer.render(state, cameras))
    with pytest.raises(NVSError, match="safetensors"):
        exports.save_state(state, tmp_path / "s.zip")


def test_snapshots_remember_their_camera(tmp_path: Path) -> None:
    camera = row(3)[1:2]
    image = torch.rand(3, 20, 30)
    out = exports.save_snapshot(image, camera, tmp_path / "shot.png", {"scene": "Stühle <b>", "c2w": "mine"})
    with Image.open(out) as saved:
        known = json.loads(saved.info["nvs_camera"])
        assert known["scene"] == "Stühle <b>" and known["image_hw"] == [20, 30]
        assert torch.allclose(torch.tensor(known["c2w"]).view(1, 4, 4), camera.c2w)
        assert torch.allclose(torch.tensor([known["fxfycxcy"]]), camera.fxfycxcy)
        assert (np.asarray(saved) == to_uint8(image).numpy()).all()
    with pytest.raises(NVSError, match="expected one"):
        exports.save_snapshot(image, row(2), tmp_path / "two.png")
