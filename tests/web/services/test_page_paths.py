"""Paths of the page: presets, the timeline of keyframes, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from camera_rings import ring_cameras

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, vertical_fov
from nvs_app.geometry.paths import dolly_zoom, spline
from nvs_app.geometry.timeline import Keyframe, Timeline, keyframes_of
from nvs_app.scenes.camera_path import CameraPath, read_camera_path
from nvs_app.web.services.paths import PRESETS, load_path, preset, save_path, timeline_from_dict


def ring(count: int = 10, radius: float = 3.0, height: float = 1.0) -> Cameras:
    return ring_cameras(count, (60, 80), (60.0, 60.0, 40.0, 30.0), radius=radius, height=height)


def timeline(seconds: tuple[float, ...] = (1.0, 0.5, 2.0, 1.5), **options) -> Timeline:
    cameras = ring(len(seconds) + 2)
    keys = tuple(Keyframe(cameras.c2w[i], 40.0 + 7 * i, s) for i, s in enumerate(seconds))
    return Timeline(keys, **{"fps": 20.0, "image_hw": (48, 64), **options})


def project(cameras: Cameras, point: torch.Tensor) -> torch.Tensor:
    """Pixels [n, 2] of a world point."""
    seen = cameras.w2c[:, :3, :3] @ point + cameras.w2c[:, :3, 3]
    fx, fy, cx, cy = cameras.fxfycxcy.unbind(-1)
    return torch.stack((fx * seen[:, 0] / seen[:, 2] + cx, fy * seen[:, 1] / seen[:, 2] + cy), -1)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_the_capture(name: str) -> None:
    path = preset(name, ring(), (48, 64), seconds=2.5, fps=12)
    assert len(path) == 30 and path.image_hw == (48, 64)
    middle = project(path, torch.zeros(3))
    assert ((middle - torch.tensor([32.0, 24.0])).norm(dim=-1) < 6).all()  # all look at the subject
    distance = path.c2w[:, :3, 3].norm(dim=-1)
    assert distance.min() > 1.5 and distance.max() < 5
    # The step from the last camera to the first is like the others: it can loop.
    if name != "capture":
        step = (path.c2w.roll(-1, 0) - path.c2w)[:, :3, 3].norm(dim=-1)
        assert step[-1] < 1.5 * step.max().clamp_min(1e-6)
    # It differs between presets and really moves.
    assert (path.c2w[0] - path.c2w[8]).norm() > 0.05


def test_dolly_zoom_keeps_the_subjects_size() -> None:
    start = ring()[2:3]
    subject = torch.tensor([0.0, 0.0, 0.0])
    path = dolly_zoom(start, subject, 40, strength=3.0)
    right, down = start.c2w[0, :3, 0], start.c2w[0, :3, 1]
    for offset in (0.4 * right, 0.3 * down, 0.2 * right - 0.3 * down):
        pixels = project(path, subject + offset)
        assert torch.allclose(pixels, pixels[:1].expand_as(pixels), atol=1e-3)
    # What is behind the subject changes its size.
    behind = subject + 2 * start.c2w[0, :3, 2] + 0.8 * right
    assert (project(path, behind)[:, 0].max() - project(path, behind)[:, 0].min()) > 2
    depth = path.c2w[:, :3, 3].norm(dim=-1)
    assert float(depth.max() / depth.min()) == pytest.approx(3, rel=0.02)
    assert torch.allclose(path.c2w[0], start.c2w[0])
    for bad in (0.5, 11, float("nan")):
        with pytest.raises(NVSError, match="strength"):
            dolly_zoom(start, subject, 4, strength=bad)
    away = Cameras(start.c2w @ torch.diag(torch.tensor([-1.0, 1, -1, 1])), start.fxfycxcy, start.image_hw)
    assert torch.isfinite(dolly_zoom(away, subject, 4).c2w).all()


def test_dolly_zoom_starts_from_the_present_view() -> None:
    present = Cameras(ring().c2w[3:4], torch.tensor([[100.0, 100.0, 50.0, 50.0]]), (100, 100))
    path = preset("dolly zoom", ring(), (50, 80), seconds=1, fps=8, start=present)
    assert torch.allclose(path.c2w[0], present.c2w[0], atol=1e-5)
    assert float(vertical_fov(path)[0]) == pytest.approx(float(vertical_fov(present)[0]), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "helix"}, "no preset"),
        ({"seconds": 0.0}, "expected 1 to"),
        ({"seconds": float("nan")}, "expected 1 to"),
        ({"seconds": 1e9}, "expected 1 to"),
        ({"image_hw": (0, 64)}, "pixels a side"),
        ({"image_hw": (64, 10**6)}, "pixels a side"),
    ],
)
def test_impossible_presets(options: dict, said: str) -> None:
    with pytest.raises(NVSError, match=said):
        preset(**{"name": "orbit", "cameras": ring(), "image_hw": (48, 64), "seconds": 2.0, **options})


@pytest.mark.parametrize("loop", [False, True])
def test_timeline_goes_through_its_keyframes_on_time(loop: bool) -> None:
    line = timeline(loop=loop)
    assert line.times == [0.0, 1.0, 1.5, 3.5]
    assert line.seconds == (5.0 if loop else 3.5) and line.frames == (100 if loop else 71)
    path = line.cameras()
    assert len(path) == line.frames and path.image_hw == (48, 64)
    for key, time in zip(line.keyframes, line.times):
        frame = round(time * line.fps)
        assert torch.allclose(path.c2w[frame], key.c2w.double(), atol=1e-4)
        assert float(vertical_fov(path)[frame]) == pytest.approx(key.fov, abs=1e-2)
    # Smooth: no step differs much from its neighbours although the seconds do.
    position = path.c2w[:, :3, 3]
    step = (position.roll(-1, 0) - position if loop else position[1:] - position[:-1]).norm(dim=-1)
    change = (step[1:] - step[:-1]).abs().max()
    assert float(change) < 0.25 * float(step.max()) and float(step.min()) > 0


def test_equal_seconds_are_the_plain_spline() -> None:
    line = timeline((1.0, 1.0, 1.0, 1.0), loop=True)
    keys = Cameras.cat([key.camera(line.image_hw) for key in line.keyframes])
    plain = spline(keys, 80, loop=True)
    assert torch.allclose(line.cameras().c2w, plain.c2w, atol=1e-5)
    assert torch.allclose(line.cameras().fxfycxcy, plain.fxfycxcy, atol=1e-3)


def test_one_keyframe_is_held_and_none_is_said() -> None:
    assert len(timeline((1.5,)).cameras()) == 30
    with pytest.raises(NVSError, match="no keyframes yet"):
        Timeline().cameras()
    with pytest.raises(NVSError, match="20000 at most"):
        timeline((600.0, 600.0), fps=240.0, loop=True).cameras()


def same(first: Timeline, second: Timeline) -> None:
    assert (first.fps, first.loop, first.image_hw) == (second.fps, second.loop, second.image_hw)
    assert len(first.keyframes) == len(second.keyframes)
    for one, two in zip(first.keyframes, second.keyframes):
        assert torch.allclose(one.c2w.double(), two.c2w.double(), atol=1e-6)
        assert (one.fov, one.seconds) == pytest.approx((two.fov, two.seconds))


@pytest.mark.parametrize("loop", [False, True])
def test_saved_path_is_edited_again(tmp_path: Path, loop: bool) -> None:
    line = timeline(loop=loop)
    file = save_path(tmp_path / "path.json", line)
    loaded = load_path(file)
    same(loaded.timeline, line)
    assert torch.allclose(loaded.path.cameras.c2w, line.cameras().c2w, atol=1e-5)
    assert torch.allclose(loaded.path.cameras.fxfycxcy, line.cameras().fxfycxcy, atol=1e-2)
    assert loaded.path.fps == 20 and len(read_camera_path(file).keyframes) == 4
    # Through the page and back, as JSON.
    same(timeline_from_dict(json.loads(json.dumps(line.to_dict()))), line)


def test_seconds_of_the_whole_are_shared_out() -> None:
    values = timeline().to_dict()
    for key in values["keyframes"]:
        del key["seconds"]
    for loop, gaps in ((False, 3), (True, 4)):
        line = timeline_from_dict({**values, "loop": loop, "seconds": 6})
        assert line.seconds == pytest.approx(6) and line.keyframes[0].seconds == pytest.approx(6 / gaps)
    with pytest.raises(NVSError, match="keyframe 0: seconds is None"):
        timeline_from_dict(values)


def test_nerfstudio_reads_the_file_and_times_it_alike(tmp_path: Path) -> None:
    """Its viewer gives a keyframe the seconds of the way to it; its renderer reads the sampled cameras."""
    camera_paths = pytest.importorskip("nerfstudio.cameras.camera_paths")
    line = timeline()
    data = json.loads(save_path(tmp_path / "path.json", line).read_text())
    ways = [key["override_transition_sec"] for key in data["keyframes"]]
    assert ways[1:] == [1.0, 0.5, 2.0] and data["is_cycle"] is False
    theirs = camera_paths.get_path_from_json(data)
    assert torch.allclose(theirs.camera_to_worlds[:, :, 3], line.cameras().c2w[:, :3, 3].float(), atol=1e-4)
    assert torch.allclose(theirs.fy.flatten().float(), line.cameras().fxfycxcy[:, 1], rtol=1e-4)


def test_paths_without_keyframes_become_editable(tmp_path: Path) -> None:
    path = preset("orbit", ring(), (48, 64), seconds=4, fps=20)
    assert torch.equal(preset("turntable", ring(), (48, 64), seconds=4, fps=20).c2w, path.c2w)  # its name before
    file = save_path(tmp_path / "orbit.json", CameraPath(path, 20.0))
    loaded = load_path(file)
    assert loaded.timeline is None and len(loaded.path.cameras) == 80
    line = keyframes_of(loaded.path.cameras, loaded.path.fps, count=8, loop=True)
    assert len(line.keyframes) == 8 and line.seconds == pytest.approx(4) and line.frames == 80
    assert float((line.cameras().c2w[:, :3, 3] - path.c2w[:, :3, 3]).norm(dim=-1).max()) < 0.1
    open_path = keyframes_of(path[:41], 20.0, count=5)
    assert open_path.frames == 41
    assert torch.allclose(open_path.cameras().c2w[-1], path.c2w[40].double(), atol=1e-4)


def test_keyframes_beyond_understanding_still_render(tmp_path: Path) -> None:
    data = json.loads(save_path(tmp_path / "path.json", timeline()).read_text())
    odd = ([3], [{"matrix": "x"}], [{"matrix": [0] * 16, "fov": 50}], [{}] * 501, [{"matrix": [1e999] * 16}])
    for keyframes in odd:
        (tmp_path / "odd.json").write_text(json.dumps({**data, "keyframes": keyframes}))
        loaded = load_path(tmp_path / "odd.json")
        assert loaded.timeline is None and len(loaded.path.cameras) == 71


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 200_000,
        '{"camera_path": ' + "[" * 200_000,
        "\ud800",
        "null",
        "[]",
        '{"camera_path": 7}',
        '{"camera_path": [{}], "render_height": 1e999, "render_width": 64}',
        '{"camera_path": [{}], "render_height": 1' + "0" * 400 + ', "render_width": 64}',
        '{"camera_path": [null], "render_height": 64, "render_width": 64}',
        '{"camera_path": [{"camera_to_world": [[1], 2, 3]}], "render_height": 64, "render_width": 64}',
        '{"camera_path": [{"camera_to_world": [' + ",".join(["1" + "0" * 400] * 16) + "]}],"
        '"render_height": 64, "render_width": 64}',
    ],
)
def test_hostile_files_are_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "path.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(NVSError) as caught:
        load_path(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvs_app.web.services.paths.MAX_FRAMES", 100)
    data = json.loads(save_path(tmp_path / "path.json", timeline((0.1, 0.1))).read_text())
    for change, said in (
        ({"camera_path": data["camera_path"][:1] * 101}, "100 at most"),
        ({"render_width": 50_000}, "pixels a side"),
    ):
        (tmp_path / "large.json").write_text(json.dumps({**data, **change}))
        with pytest.raises(NVSError, match=said):
            load_path(tmp_path / "large.json")
    for fps in (1e308, -1, "x", None):
        (tmp_path / "fps.json").write_text(json.dumps({**data, "fps": fps}))
        assert load_path(tmp_path / "fps.json").path.fps == 24


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {"keyframes": 1},
        {"keyframes": [1]},
        {"keyframes": [{}] * 501},
        {"keyframes": [], "image_hw": ["a", 1]},
        {"keyframes": [], "image_hw": [10**9, 1]},
        {"keyframes": [], "image_hw": [True, 1]},
        {"keyframes": [], "fps": "nan"},
        {"keyframes": [], "fps": 0},
        {"keyframes": [{"c2w": [float("nan")] * 16, "fov": 50, "seconds": 1}]},
        {"keyframes": [{"c2w": torch.eye(4).flatten().tolist(), "fov": 50, "seconds": -1}]},
        {"keyframes": [{"c2w": torch.eye(4).flatten().tolist(), "fov": float("inf"), "seconds": 1}]},
        {"keyframes": [{"c2w": [10**400] * 16, "fov": 50, "seconds": 1}]},
    ],
)
def test_hostile_values_are_one_line(values: object) -> None:
    with pytest.raises(NVSError) as caught:
        timeline_from_dict(values)
    assert "\n" not in str(caught.value)
