"""Rays of pixel centres against hand-computed values and projection."""

from __future__ import annotations

import torch

from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.geometry.rays import pixel_rays, ray_features


def test_rays_of_a_camera_at_the_origin_by_hand() -> None:
    camera = Cameras(torch.eye(4), torch.tensor([2.0, 4.0, 1.0, 0.5]), (2, 3))
    origins, directions = pixel_rays(camera)
    assert origins.shape == directions.shape == (3, 2, 3)
    assert torch.equal(origins, torch.zeros(3, 2, 3))
    # Row 1, column 2: x = (2.5 - 1) / 2, y = (1.5 - 0.5) / 4.
    expected = torch.tensor([0.75, 0.25, 1.0])
    torch.testing.assert_close(directions[:, 1, 2], expected / expected.norm())


def test_points_along_a_ray_project_to_its_pixel() -> None:
    eye = torch.randn(2, 3, 3)
    c2w = look_at(eye, torch.zeros(3), torch.tensor([0.0, 1.0, 0.2]))
    cameras = Cameras(c2w, torch.tensor([30.0, 25.0, 11.3, 6.1]).expand(2, 3, 4), (14, 20))
    origins, directions = pixel_rays(cameras)
    assert directions.shape == (2, 3, 3, 14, 20)
    torch.testing.assert_close(directions.norm(dim=2), torch.ones(2, 3, 14, 20))
    points = origins + 2.5 * directions
    w2c = cameras.w2c
    local = torch.einsum("bvij,bvjhw->bvihw", w2c[..., :3, :3], points) + w2c[..., :3, 3, None, None]
    x = local[:, :, 0] / local[:, :, 2] * 30 + 11.3
    y = local[:, :, 1] / local[:, :, 2] * 25 + 6.1
    torch.testing.assert_close(x, (torch.arange(20) + 0.5).expand_as(x), atol=2e-4, rtol=0)
    torch.testing.assert_close(y, (torch.arange(14) + 0.5)[:, None].expand_as(y), atol=2e-4, rtol=0)


def test_ray_features_are_o_d_and_moment() -> None:
    c2w = look_at(torch.randn(4, 3), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    cameras = Cameras(c2w, torch.tensor([8.0, 8.0, 4.0, 4.0]).expand(4, 4), (8, 8))
    features = ray_features(cameras)
    origins, directions = pixel_rays(cameras)
    assert features.shape == (4, 9, 8, 8)
    assert torch.equal(features[:, :3], origins) and torch.equal(features[:, 3:6], directions)
    by_hand = torch.linalg.cross(origins[1, :, 3, 5], directions[1, :, 3, 5])
    torch.testing.assert_close(features[1, 6:, 3, 5], by_hand)
    # The moment is the same for every point of the ray: that is what it is for.
    moved = torch.linalg.cross(origins + 3 * directions, directions, dim=1)
    torch.testing.assert_close(features[:, 6:], moved, atol=1e-5, rtol=0)


def test_rays_are_exact_under_autocast() -> None:
    cameras = Cameras(
        look_at(torch.randn(3, 3), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])), torch.full((3, 4), 8.0), (8, 8)
    )
    plain = ray_features(cameras)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ray_features(cameras), plain)
