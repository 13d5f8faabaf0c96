"""Camera path files: our reader and writer against nerfstudio's own reader."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at, opencv_to_opengl
from nvs_app.scenes.camera_path import CameraPath, read_camera_path, write_camera_path


def path(image_hw: tuple[int, int] = (120, 200)) -> CameraPath:
    eye = torch.randn(5, 3) * 3 + torch.tensor([0.0, 0, 5])
    c2w = look_at(eye, torch.zeros(5, 3), torch.tensor([0.0, 0, 1]).expand(5, 3))
    focal = torch.linspace(90, 150, 5)
    centre = torch.tensor([image_hw[1] / 2, image_hw[0] / 2]).expand(5, 2)
    cameras = Cameras(c2w, torch.cat((focal[:, None], focal[:, None], centre), -1), image_hw)
    return CameraPath(cameras, fps=30.0, keyframes=[{"matrix": "[1]", "fov": 50}], extra={"smoothness_value": 0.5})


def test_round_trip(tmp_path: Path) -> None:
    written = path()
    read = read_camera_path(write_camera_path(tmp_path / "new" / "path.json", written))
    assert torch.allclose(read.cameras.c2w.float(), written.cameras.c2w, atol=1e-6)
    assert torch.allclose(read.cameras.fxfycxcy, written.cameras.fxfycxcy, atol=1e-3)
    assert read.cameras.image_hw == (120, 200)
    assert (read.fps, read.keyframes, read.extra) == (written.fps, written.keyframes, written.extra)
    data = json.loads((tmp_path / "new" / "path.json").read_text())
    assert data["seconds"] == pytest.approx(5 / 30)
    first = data["camera_path"][0]
    assert len(first["camera_to_world"]) == 16 and first["aspect"] == pytest.approx(200 / 120)
    assert first["fov"] == pytest.approx(math.degrees(2 * math.atan(60 / 90)))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["path.json"]


@pytest.mark.filterwarnings("ignore")
def test_nerfstudio_reads_the_same_cameras(tmp_path: Path) -> None:
    camera_paths = pytest.importorskip("nerfstudio.cameras.camera_paths")
    written = path()
    file = write_camera_path(tmp_path / "path.json", written)
    theirs = camera_paths.get_path_from_json(json.loads(file.read_text()))
    ours = read_camera_path(file).cameras
    assert torch.allclose(theirs.camera_to_worlds, opencv_to_opengl(ours.c2w)[:, :3].float(), atol=1e-6)
    their_k = torch.cat([theirs.fx, theirs.fy, theirs.cx, theirs.cy], dim=-1).float()
    assert torch.allclose(their_k, ours.fxfycxcy, atol=1e-3)
    assert (int(theirs.height[0]), int(theirs.width[0])) == ours.image_hw


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("camera_path"), 'no "camera_path" list'),
        (lambda d: d.update(camera_path=[]), 'no "camera_path" list'),
        (lambda d: d.update(camera_type="fisheye"), "only perspective"),
        (lambda d: d.pop("render_height"), "render_height is None, expected a number from 1"),
        (lambda d: d["camera_path"][2].update(fov=0), "camera 2: fov is 0, expected a number"),
        (lambda d: d["camera_path"][1].update(camera_to_world=[1.0] * 9), "camera 1: camera_to_world has 9 numbers"),
        (lambda d: d["camera_path"][1].update(camera_to_world=[float("nan")] * 16), "camera 1: .* holds NaN"),
        (lambda d: d["camera_path"][0].update(camera_to_world=[2.0] * 16), "does not hold a rotation"),
        (lambda d: d["camera_path"].append(7), "camera 5: int, expected an object"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change, said: str) -> None:
    file = write_camera_path(tmp_path / "path.json", path())
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    with pytest.raises(NVSError, match=said) as error:
        read_camera_path(file)
    assert str(error.value).startswith(str(file))


def test_other_spellings(tmp_path: Path) -> None:
    """The older viewer writes numbers as text; some tools write 3x4 or nested rows."""
    file = write_camera_path(tmp_path / "path.json", path())
    data = json.loads(file.read_text())
    expected = read_camera_path(file).cameras
    rows = data["camera_path"][0]["camera_to_world"]
    data["camera_path"][0]["camera_to_world"] = [rows[0:4], rows[4:8], rows[8:12], rows[12:16]]
    data["camera_path"][1]["camera_to_world"] = data["camera_path"][1]["camera_to_world"][:12]
    data["camera_path"][2]["fov"] = str(data["camera_path"][2]["fov"])
    file.write_text(json.dumps(data))
    read = read_camera_path(file).cameras
    assert torch.equal(read.c2w, expected.c2w) and torch.equal(read.fxfycxcy, expected.fxfycxcy)
    file.write_text("{")
    with pytest.raises(NVSError, match="not JSON"):
        read_camera_path(file)
    with pytest.raises(NVSError, match="cannot be read"):
        read_camera_path(tmp_path / "absent.json")
