"""The slow turn beside the cameras of a capture."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.geometry.sway import sway


def capture(azimuth: Tensor, height: Tensor, reach: Tensor) -> Cameras:
    """Cameras that look at (5, 0, 0); angles in degrees."""
    azimuth, height = torch.deg2rad(azimuth), torch.deg2rad(height)
    ray = torch.stack([height.cos() * azimuth.cos(), height.cos() * azimuth.sin(), height.sin()], -1)
    eye = torch.tensor([5.0, 0, 0]) + reach[:, None] * ray
    poses = look_at(eye, torch.tensor([5.0, 0, 0]).expand_as(eye), torch.tensor([0.0, 0, 1]))
    return Cameras(poses, torch.tensor([50.0, 50, 32, 32]).expand(len(eye), 4).clone(), (64, 64))


def directions(path: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Azimuth and elevation in degrees, and distance, about (5, 0, 0)."""
    off = path.c2w[:, :3, 3] - torch.tensor([5.0, 0, 0])
    reach = off.norm(dim=-1)
    return torch.rad2deg(torch.atan2(off[:, 1], off[:, 0])), torch.rad2deg(torch.asin(off[:, 2] / reach)), reach


def test_an_arc_is_swayed_within_and_begun_at_its_camera() -> None:
    azimuth = torch.linspace(-60, 60, 13)
    cameras = capture(azimuth, 20 + azimuth / 6, 2 + azimuth / 120)  # higher and farther away to one side
    path = sway(cameras, 3, 72)
    assert torch.allclose(path.c2w[0], cameras.c2w[3], atol=0.02)
    around, height, reach = directions(path)
    assert -60 < around.min() < -45 and 45 < around.max() < 60
    assert ((height - 20 - around / 6).abs() < 4).all() and ((reach - 2 - around / 120).abs() < 0.2).all()
    step = (path.c2w[:, :3, 3] - path.c2w[:, :3, 3].roll(1, 0)).norm(dim=-1)
    assert step.max() < 0.3  # closed, and without a jump


def test_a_ring_is_gone_around() -> None:
    azimuth = torch.arange(0, 360, 30.0)
    path = sway(capture(azimuth, torch.full_like(azimuth, 25.0), torch.full_like(azimuth, 3.0)), 4, 36)
    around, height, reach = directions(path)
    assert (torch.histc(torch.remainder(around + 185, 360).float(), 12, 0, 360) == 3).all()
    assert ((height - 25).abs() < 0.5).all() and ((reach - 3).abs() < 0.02).all()
    assert abs(float(around[0]) - 120) < 0.5


def test_photos_from_the_middle_of_a_room_turn_there() -> None:
    azimuth = torch.arange(0, 360, 30.0).deg2rad()
    ray = torch.stack([azimuth.cos(), azimuth.sin(), torch.zeros_like(azimuth)], -1)
    eye = 0.1 * ray
    poses = look_at(eye, eye + ray, torch.tensor([0.0, 0, 1]))
    cameras = Cameras(poses, torch.tensor([50.0, 50, 32, 32]).expand(12, 4).clone(), (64, 64))
    path = sway(cameras, 0, 24)
    assert path.c2w[:, :3, 3].norm(dim=-1).max() < 0.15
    assert float((path.c2w[0, :3, 2] * ray[0]).sum()) > math.cos(math.radians(20))
    assert (path.c2w[:, :3, 2].sum(0).abs() < 1e-3).all()  # all around


def test_one_camera_and_what_cannot_be() -> None:
    one = capture(torch.tensor([10.0]), torch.tensor([20.0]), torch.tensor([2.0]))
    path = sway(one, 0, 8)
    assert torch.isfinite(path.c2w).all() and torch.allclose(path.c2w[0], one.c2w[0], atol=1e-2)
    with pytest.raises(NVSError, match="one of 1"):
        sway(one, 1, 8)
