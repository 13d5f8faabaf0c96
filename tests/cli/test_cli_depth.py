"""`render --depth`: depth maps and videos, what explains them, resuming, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import pytest
import torch
from cli_scenes import cli, write_scenes

from nvs_app.model.state import SceneState
from nvs_app.rendering.depth_files import coloured, masked_depth
from nvs_app.rendering.renderer import Renderer
from nvs_app.rendering.views import RenderedViews
from nvs_app.scenes.camera_path import read_camera_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes and checkpoints, a state and a path of two cameras."""
    folder = tmp_path_factory.mktemp("depth")
    write_scenes(folder)
    path = ("--path", "orbit", "--frames", 2, "--image-hw", 33, 47, "--save-path", folder / "path.json")
    what = ("--checkpoint", "detailed", "--precision", "fp32", "--context", 3)
    out = ("--state", folder / "one.safetensors", "--out", folder / "first")
    cli(folder, "render", folder / "one", *what, *path, *out)
    return folder


@pytest.fixture(scope="module")
def views(folder: Path) -> RenderedViews:
    """What the command is to write."""
    renderer = Renderer.from_checkpoint(folder / "checkpoints" / "detailed", "cpu", "fp32")
    cameras = read_camera_path(folder / "path.json").cameras
    return renderer.render(SceneState.load(folder / "one.safetensors"), cameras, depth=True)


def words(folder: Path, out: Path, *more: object) -> list[object]:
    what = ["render", "--state", folder / "one.safetensors", "--path", folder / "path.json", "--out", out]
    return [*what, "--checkpoint", "detailed", "--precision", "fp32", "--depth", *more]


def test_png_maps_are_depth_times_the_scale(folder: Path, tmp_path: Path, here, views: RenderedViews) -> None:
    out = tmp_path / "images"
    cli(folder, *words(folder, out))
    maps = ["00000.depth.png", "00001.depth.png"]
    names = {"00000.png", "00001.png", *maps, "depth.json", "render.json"}
    assert {path.name for path in out.iterdir()} == names
    notes = json.loads((out / "depth.json").read_text())
    assert notes["scale"] == 1000 and notes["files"] == "NNNNN.depth.png" and notes["invalid"].startswith("0: ")
    assert "units of the scene's own frame" in notes["depth"]
    sure = (views.surface >= 0.5) & (views.seen >= 0.5)
    assert sure.any() and not sure.all()
    for index, name in enumerate(maps):
        stored = cv2.imread(str(out / name), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == np.uint16 and stored.shape == (33, 47)
        assert np.array_equal(stored > 0, sure[index].numpy())
        depth = views.depth[index].numpy()[stored > 0]
        assert np.abs(stored[stored > 0] / 1000 - depth).max() <= 0.00051 + 1e-5 * depth.max()

    # One map and one image are missing: each is made again, and nothing else.
    first = (out / maps[1]).read_bytes()
    (out / maps[1]).unlink()
    (out / "00000.png").unlink()
    kept = {name: (out / name).stat().st_mtime_ns for name in (maps[0], "00001.png")}
    here(*words(folder, out))
    assert (out / maps[1]).read_bytes() == first and (out / "00000.png").is_file()
    assert kept["00001.png"] == (out / "00001.png").stat().st_mtime_ns
    assert "all 2 images" in here(*words(folder, out))[0]
    _, err = here(*words(folder, out, "--depth-scale", 100), code=2)
    assert "depth maps of another format or scale; use another folder or --overwrite" in err
    # Too fine a scale: the largest value, and a note.
    _, err = here(*words(folder, out, "--depth-scale", 1e5, "--overwrite"))
    stored = cv2.imread(str(out / maps[0]), cv2.IMREAD_UNCHANGED)
    assert stored.max() == 65535 and "note: " in err and "farther than 0.65535" in err
    assert not list(out.rglob(".*tmp"))


def test_arrays(folder: Path, tmp_path: Path, here, views: RenderedViews) -> None:
    """Depth can be added to images that are there; .npy is masked, .npz holds everything."""
    for kind in ("npy", "npz"):
        out = tmp_path / kind
        plain = [word for word in words(folder, out) if word != "--depth"]
        here(*plain)
        image = (out / "00001.png").stat().st_mtime_ns
        here(*words(folder, out, "--depth-format", kind))
        assert (out / "00001.png").stat().st_mtime_ns == image
        found = np.load(out / f"00001.depth.{kind}")
        if kind == "npy":
            assert found.dtype == np.float32 and found.shape == (33, 47)
            assert np.allclose(found, masked_depth(views)[1].numpy(), rtol=1e-5)
        else:
            assert set(found) == {"depth", "uncertainty", "surface", "seen"}
            for name in found:
                assert found[name].dtype == np.float32
                assert np.allclose(found[name], getattr(views, name)[1].numpy(), rtol=1e-4)


def test_videos(folder: Path, tmp_path: Path, here, views: RenderedViews) -> None:
    """In the colours of turbo, over one range that the JSON file tells; skipped only when both videos are there."""
    video, depth_video, notes_file = (tmp_path / name for name in ("o.gif", "o.depth.gif", "o.depth.json"))
    here(*words(folder, video))
    frames = list(iio.imiter(depth_video, plugin="pillow"))
    assert len(frames) == len(list(iio.imiter(video, plugin="pillow"))) == 2
    notes = json.loads(notes_file.read_text())
    depth = masked_depth(views).numpy()
    assert depth[depth > 0].min() <= notes["nearest"] < notes["farthest"] <= depth.max()
    for frame, of in zip(frames, depth):
        expected = coloured(of, notes["nearest"], notes["farthest"])
        assert np.abs(frame[..., :3].astype(int) - expected).mean() < 4  # a GIF has 256 colours
    depth_video.unlink()
    assert "skipped" not in here(*words(folder, video))[0] and depth_video.is_file()
    assert "skipped" in here(*words(folder, video))[0]
    mp4 = tmp_path / "o.mp4"
    here(*words(folder, mp4))
    assert iio.imread(tmp_path / "o.depth.mp4").shape == (2, 34, 48, 3)
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name or "tmp" in path.name]


def test_colours() -> None:
    shown = coloured(np.array([[1.0, 0.5, 10.0, 99.0, 0.0, 3.1622777]], np.float32), 1.0, 10.0)[0]
    assert np.array_equal(shown[0], shown[1]) and np.array_equal(shown[2], shown[3])  # beyond the range: its ends
    assert shown[0][0] > 100 > shown[0][2] and shown[2][2] > 50 > shown[2][1]  # near is red, far is blue
    assert not shown[4].any() and shown[5][1] > 200  # nothing is black, the middle green
    assert not coloured(np.zeros((2, 2), np.float32), 1.0, 1.0).any()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--checkpoint", "tiny"), "--depth: checkpoint tiny has no detail head; choose another with --checkpoint"),
        (("--no-detail",), "--depth: --no-detail switches the detail head off"),
        (("--depth-scale", "10", "--depth-format", "npy"), "--depth-scale 10: of PNG only"),
        (("--out", "x.mp4", "--depth-format", "npy"), "--depth-format npy: depth of a video is a video"),
    ],
)
def test_mistakes_get_one_line(folder: Path, tmp_path: Path, here, more: tuple[str, ...], said: str) -> None:
    out, err = here(*words(folder, tmp_path / "images", *more), code=2)
    assert said in err and err.count("\n") == 1 and out == ""
    assert not list(tmp_path.iterdir())


def test_depth_needs_photos_in_the_state(folder: Path, tmp_path: Path, here) -> None:
    what = ("render", folder / "one", "--context", 3, "--checkpoint", "detailed", "--no-detail", "--frames", 1)
    here(*what, "--state", tmp_path / "bare.safetensors", "--out", tmp_path / "one")
    more = ("--state", tmp_path / "bare.safetensors")
    _, err = here(*words(folder, tmp_path / "two", *more), code=2)
    assert err.splitlines()[-1].startswith("error: --depth: ") and "was encoded without a detail head" in err
    assert not (tmp_path / "two").exists()
    plain = [word for word in words(folder, tmp_path / "two") if word != "--depth"]
    _, err = here(*plain, "--depth-scale", 5, code=2)
    assert "--depth-scale 5.0: only with --depth" in err


def test_a_depth_of_nothing_is_zero() -> None:
    """No surface, or none that a photo shows."""
    ones = torch.ones(1, 1, 3)
    views = RenderedViews(
        torch.zeros(1, 3, 1, 3), 2 * ones, ones, torch.tensor([[[0.4, 0.6, 0.6]]]), torch.tensor([[[0.9, 0.4, 0.6]]])
    )
    assert masked_depth(views).tolist() == [[[0, 0, 2]]]
