"""Cameras, and crop_resize moving pixels and cameras together."""

from __future__ import annotations

import pytest
import torch

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import (
    Cameras,
    crop_resize,
    crop_resize_cameras,
    look_at,
    opencv_to_opengl,
    opengl_to_opencv,
)

UP = torch.tensor([0.0, 0.0, 1.0])


def make_cameras(count: int, image_hw: tuple[int, int] = (48, 64)) -> Cameras:
    eye = torch.randn(count, 3) * 2
    fxfycxcy = torch.tensor([70.0, 60.0, 30.0, 25.0]) + torch.rand(count, 4)
    return Cameras(look_at(eye, torch.zeros(3), UP), fxfycxcy, image_hw)


def project(camera: Cameras, points: torch.Tensor) -> torch.Tensor:
    """World points [n, 3] -> pixels [n, 2] of one camera."""
    local = points @ camera.w2c[:3, :3].T + camera.w2c[:3, 3]
    return local[:, :2] / local[:, 2:] * camera.fxfycxcy[:2] + camera.fxfycxcy[2:]


def test_look_at_by_hand() -> None:
    c2w = look_at(torch.tensor([0.0, -4.0, 0.0]), torch.zeros(3), UP)
    # Looking along +y with z up: x to the right, down is -z.
    expected = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, -4], [0, -1, 0, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(c2w, expected)


def test_look_at_degenerate_is_still_a_rotation() -> None:
    eye = torch.tensor([[0.0, 0, 3], [0, 0, -3], [1, 2, 3]])
    target = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 2, 3]])
    rotation = look_at(eye, target, UP)[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(3))
    torch.testing.assert_close(rotation[0, :, 2], torch.tensor([0.0, 0, -1]))


def test_w2c_inverts_and_axes_flip_twice() -> None:
    cameras = make_cameras(5)
    torch.testing.assert_close(cameras.w2c @ cameras.c2w, torch.eye(4).expand(5, 4, 4), atol=1e-5, rtol=0)
    flipped = opencv_to_opengl(cameras.c2w)
    torch.testing.assert_close(flipped[:, :3, 1], -cameras.c2w[:, :3, 1])
    torch.testing.assert_close(flipped[:, :3, 2], -cameras.c2w[:, :3, 2])
    torch.testing.assert_close(flipped[:, :3, [0, 3]], cameras.c2w[:, :3, [0, 3]])
    assert torch.equal(opengl_to_opencv(flipped), cameras.c2w)


def test_indexing_and_joining() -> None:
    cameras = make_cameras(6)
    grid = Cameras(cameras.c2w.reshape(2, 3, 4, 4), cameras.fxfycxcy.reshape(2, 3, 4), cameras.image_hw)
    assert grid.shape == (2, 3) and len(grid) == 2
    assert torch.equal(grid[1, 2].c2w, cameras.c2w[5])
    assert torch.equal(grid[..., 1].fxfycxcy, cameras.fxfycxcy[[1, 4]])
    assert torch.equal(grid[:, :2].c2w, grid.c2w[:, :2])
    assert torch.equal(cameras[[4, 0]].c2w, cameras.c2w[[4, 0]])
    assert torch.equal(cameras[torch.tensor([True, False] * 3)].c2w, cameras.c2w[::2])
    assert torch.equal(grid.flatten().c2w, cameras.c2w)
    assert torch.equal(Cameras.stack([cameras[i] for i in range(6)]).c2w, cameras.c2w)
    assert Cameras.stack([cameras, cameras], dim=-1).shape == (6, 2)
    assert Cameras.cat([grid, grid], dim=-1).shape == (2, 6)
    assert Cameras.cat([cameras[:2], cameras[2:]]).shape == (6,)
    with pytest.raises(ValueError, match="image sizes"):
        Cameras.cat([cameras, cameras.scaled_to((10, 10))])
    with pytest.raises(TypeError):
        len(cameras[0])


def test_scaled_to() -> None:
    cameras = Cameras(torch.eye(4), torch.tensor([100.0, 80.0, 30.0, 20.0]), (48, 64))
    scaled = cameras.scaled_to((96, 32))
    assert scaled.image_hw == (96, 32)
    torch.testing.assert_close(scaled.fxfycxcy, torch.tensor([50.0, 160.0, 15.0, 40.0]))


def test_impossible_cameras_are_refused() -> None:
    with pytest.raises(ValueError, match="image_hw"):
        Cameras(torch.eye(4), torch.ones(4), (0, 4))


@pytest.mark.parametrize(
    ("image_hw", "out_hw", "expected"),
    [
        # Whole factor: 4 columns cut on each side, then a factor of 2.
        ((40, 48), (20, 20), (35.0, 30.0, (17.0 - 4) / 2, 23.0 / 2)),
        # Off-centre cut of an odd rest: 41 -> 40 rows leaves the odd row at the bottom.
        ((41, 40), (20, 20), (35.0, 30.0, 8.5, 11.5)),
        # Enlarging by 2, then cutting 80 columns to 60.
        ((30, 40), (60, 60), (140.0, 120.0, 34.0 - 10, 46.0)),
        # Shrinking by 2.5 with an odd cut: 5 rows of 45 to 40.
        ((45, 40), (16, 16), (28.0, 24.0, 6.8, (23.0 - 2) / 2.5)),
    ],
)
def test_crop_resize_intrinsics_by_hand(image_hw, out_hw, expected) -> None:
    camera = Cameras(torch.eye(4), torch.tensor([70.0, 60.0, 17.0, 23.0]), image_hw)
    image, result = crop_resize(torch.rand(3, *image_hw), camera, out_hw)
    assert image.shape == (3, *out_hw) and result.image_hw == out_hw
    torch.testing.assert_close(result.fxfycxcy, torch.tensor(expected))
    torch.testing.assert_close(crop_resize_cameras(camera, out_hw).fxfycxcy, result.fxfycxcy)


def ramps(height: int, width: int) -> torch.Tensor:
    """An image whose value says where a pixel is: channel 0 its x, channel 1 its y (continuous pixels)."""
    x = (torch.arange(width) + 0.5).expand(height, width)
    y = (torch.arange(height) + 0.5)[:, None].expand(height, width)
    return torch.stack([x, y, torch.ones(height, width)])


@pytest.mark.parametrize(
    ("image_hw", "out_hw"),
    [((97, 131), (32, 32)), ((97, 131), (64, 40)), ((64, 64), (32, 32)), ((33, 47), (80, 100)), ((50, 50), (50, 31))],
)
def test_crop_resize_moves_pixels_as_cameras(image_hw, out_hw) -> None:
    """A linear image resampled by an even filter stays linear: its values tell where each pixel came from.

    An antialiasing filter of a broken factor keeps it so to 0.05 pixels; half a pixel would be 5e-3 here.
    """
    camera = Cameras(torch.eye(4), torch.tensor([90.0, 80.0, 51.3, 20.9]), image_hw)
    image, result = crop_resize(ramps(*image_hw), camera, out_hw)
    rows, columns = slice(6, out_hw[0] - 6), slice(6, out_hw[1] - 6)  # away from the filter's border
    x = (torch.arange(out_hw[1]) + 0.5).expand(out_hw)
    y = (torch.arange(out_hw[0]) + 0.5)[:, None].expand(out_hw)
    old, new = camera.fxfycxcy, result.fxfycxcy
    # The same ray: (x' - cx') / fx' = (x - cx) / fx.
    torch.testing.assert_close(
        ((image[0] - old[2]) / old[0])[rows, columns], ((x - new[2]) / new[0])[rows, columns], atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        ((image[1] - old[3]) / old[1])[rows, columns], ((y - new[3]) / new[1])[rows, columns], atol=1e-3, rtol=0
    )


def test_crop_resize_keeps_a_projected_point_on_its_pixel() -> None:
    """Draw a dot where a point projects; after crop and resize it is where the new camera projects it."""
    camera = Cameras(
        look_at(torch.tensor([2.0, 1.0, 0.5]), torch.zeros(3), UP), torch.tensor([160.0, 150.0, 70.0, 41.0]), (90, 120)
    )
    point = torch.tensor([[0.05, -0.1, 0.08]])
    pixel = project(camera, point)[0]
    y, x = (torch.arange(90) + 0.5)[:, None], torch.arange(120) + 0.5
    image = torch.exp(-((x - pixel[0]) ** 2 + (y - pixel[1]) ** 2) / 18).expand(3, 90, 120)
    small, result = crop_resize(image, camera, (37, 41))
    weight = small[0] / small[0].sum()
    found = torch.stack([(weight * (torch.arange(41) + 0.5)).sum(), (weight * (torch.arange(37) + 0.5)[:, None]).sum()])
    torch.testing.assert_close(found, project(result, point)[0], atol=0.02, rtol=0)


def test_crop_resize_antialiases_and_leaves_its_input() -> None:
    checker = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).float().expand(2, 4, 64, 64).clone()
    camera = Cameras(torch.eye(4), torch.tensor([64.0, 64.0, 32.0, 32.0]), (64, 64))
    before, intrinsics = checker.clone(), camera.fxfycxcy.clone()
    image, _ = crop_resize(checker, camera, (32, 32))
    torch.testing.assert_close(image, torch.full((2, 4, 32, 32), 0.5))  # the mean of each 2x2, not a sample
    odd, _ = crop_resize(checker, camera, (23, 23))
    assert (odd - 0.5).abs().max() < 0.2
    assert torch.equal(checker, before) and torch.equal(camera.fxfycxcy, intrinsics)
    same, unchanged = crop_resize(checker, camera, (64, 64))
    assert torch.equal(same, checker) and unchanged.fxfycxcy is camera.fxfycxcy


def test_crop_resize_uint8_rounds() -> None:
    image = torch.tensor([[0, 255], [255, 254]], dtype=torch.uint8).expand(3, 2, 2)
    camera = Cameras(torch.eye(4), torch.ones(4), (2, 2))
    small, _ = crop_resize(image, camera, (1, 1))
    assert small.dtype == torch.uint8 and small.flatten().tolist() == [191, 191, 191]


def test_crop_resize_refuses() -> None:
    camera = Cameras(torch.eye(4), torch.ones(4), (4, 4))
    with pytest.raises(ValueError, match="5x4"):
        crop_resize(torch.rand(3, 5, 4), camera, (2, 2))
    with pytest.raises(NVSError, match="at least 1"):
        crop_resize(torch.rand(3, 4, 4), camera, (0, 2))
