"""The orbit of the sliders, and what the page does with scenes, without a browser."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from nvs_app.engine.framing import vertical_fov
from nvs_app.engine.renderer import Renderer
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.web.orbit import Orbit
from nvs_app.web.studio import Studio, find_examples


def capture(count: int = 12, elevation: float = 25.0, up: tuple = (0.0, 0.0, 1.0)) -> Cameras:
    azimuth = torch.linspace(0, 2 * torch.pi, count + 1)[:count]
    height = torch.deg2rad(torch.tensor(elevation))
    local = torch.stack((azimuth.cos() * height.cos(), azimuth.sin() * height.cos(), height.sin().expand(count)), -1)
    z = torch.tensor(up)
    x = torch.linalg.cross(torch.tensor([0.3, 0.5, 0.1]), z)
    x = x / x.norm()
    eye = 4 * local @ torch.stack((x, torch.linalg.cross(z, x), z)) + torch.tensor([1.0, 2.0, 3.0])
    c2w = look_at(eye, torch.tensor([1.0, 2.0, 3.0]).expand(count, 3), z.expand(count, 3))
    return Cameras(c2w, torch.tensor([50.0, 50.0, 32.0, 32.0]).expand(count, 4), (64, 64))


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (0.6, 0.0, 0.8)])
def test_orbit_is_the_captures_own(up: tuple) -> None:
    cameras = capture(up=up)
    orbit = Orbit.around(cameras)
    assert torch.allclose(orbit.focus, torch.tensor([1.0, 2.0, 3.0]), atol=0.05)
    assert torch.allclose(orbit.axes[2], torch.tensor(up), atol=0.02)
    assert orbit.radius == pytest.approx(4, rel=0.02) and orbit.elevation == pytest.approx(25, abs=1)
    start = orbit.camera(orbit.azimuth, orbit.elevation, orbit.distance, orbit.fov, (64, 64))
    distance = (cameras.c2w - start.c2w).flatten(1).norm(dim=1).min()
    assert distance < 0.15  # the page starts at one of the capture's cameras
    assert float(vertical_fov(start)[0]) == pytest.approx(float(vertical_fov(cameras)[0]), abs=0.1)


def test_sliders_do_what_they_say() -> None:
    orbit = Orbit.around(capture())

    def eye(*values: float) -> torch.Tensor:
        return (orbit.camera(*values, (32, 48)).c2w[0, :3, 3] - orbit.focus) @ orbit.axes.T / orbit.radius

    assert torch.allclose(eye(0, 0, 1, 50), torch.tensor([1.0, 0, 0]), atol=1e-5)
    assert torch.allclose(eye(90, 0, 2, 50), torch.tensor([0.0, 2, 0]), atol=1e-5)
    assert torch.allclose(eye(0, 90, 0.5, 50), torch.tensor([0.0, 0, 0.5]), atol=1e-5)
    camera = orbit.camera(30, 20, 1.5, 40, (32, 48))
    forward = camera.c2w[0, :3, 2]
    to_focus = orbit.focus - camera.c2w[0, :3, 3]
    assert torch.allclose(forward, to_focus / to_focus.norm(), atol=1e-5)
    assert camera.image_hw == (32, 48) and float(vertical_fov(camera)[0]) == pytest.approx(40)


@pytest.fixture
def studio() -> Studio:
    torch.manual_seed(0)
    return Studio(Renderer(LaCT(PRESETS["tiny"]), "cpu"), (32, 32), num_context=3)


def picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))


def test_open_draw_compare(studio: Studio, small_scene: Path) -> None:
    encoded = studio.open(small_scene)
    assert studio.open(str(small_scene)) is encoded  # encoded once
    assert len(encoded.split.context) == 3 and len(encoded.split.target) == 3
    assert picture(encoded.context_jpegs[0]).size == (32, 32)
    image, milliseconds = studio.draw(encoded, encoded.orbit.camera(10, 20, 1, 50, (24, 40)))
    assert image.shape == (3, 24, 40) and milliseconds > 0
    comparison = studio.compare(encoded, encoded.split.target[0])
    assert picture(comparison.rendered).size == picture(comparison.photo).size == (32, 32)
    assert 0 < comparison.psnr < 40 and -1 <= comparison.ssim <= 1
    with pytest.raises(NVSError, match="no such file"):
        studio.open("/absent")
    with pytest.raises(NVSError, match="view 99"):
        studio.compare(encoded, 99)


def test_old_scenes_leave_memory(studio: Studio, small_scene: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("nvs_app.web.studio.KEPT_SCENES", 1)
    folders = [Path(shutil.copytree(small_scene, tmp_path / f"copy {i}")) for i in range(2)]
    first = studio.open(folders[0])
    for folder in folders[1:]:
        studio.open(folder)
    assert studio.open(folders[-1]) is studio.open(folders[-1])
    assert studio.open(folders[0]) is not first


def test_examples_are_found(small_scene: Path, tmp_path: Path) -> None:
    (tmp_path / "examples" / "b_room").mkdir(parents=True)
    (tmp_path / "examples" / "b_room" / "transforms.json").write_text("{}")
    (tmp_path / "examples" / "notes").mkdir()
    found = find_examples(tmp_path / "examples", [small_scene])
    assert list(found.values()) == [small_scene, tmp_path / "examples" / "b_room"]
    assert list(found)[1] == "b room"
    assert find_examples(tmp_path / "absent") == {}
