"""Projection of points at given depths against matrices written out, one point after another."""

from __future__ import annotations

import torch

from nvs_app.geometry.cameras import look_at
from nvs_app.geometry.warp import plane_rays, project, relative_pose


def setting(dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(0)
    eye = torch.randn(2, 4, 3, generator=generator, dtype=dtype)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=dtype).expand(2, 4, 3)
    c2w = look_at(eye, 0.3 * torch.randn(2, 4, 3, generator=generator, dtype=dtype), up)
    fxfycxcy = torch.rand(2, 4, 4, generator=generator, dtype=dtype) + torch.tensor([30.0, 32.0, 11.0, 9.0])
    depth = 0.3 + torch.rand(2, 5, 3, 4, generator=generator, dtype=dtype)
    return c2w, fxfycxcy, depth


def test_points_land_where_written_out_matrices_put_them() -> None:
    c2w, k, depth = setting()
    rays = plane_rays(k[:, 0], (18, 24), (3, 4))
    seen = project(rays, depth, relative_pose(c2w[:, 0], c2w[:, 1:]), k[:, 1:], (20, 22))
    for n, view, d, i, j in [(0, 0, 0, 0, 0), (1, 2, 4, 2, 3), (0, 1, 2, 1, 2), (1, 0, 3, 0, 3)]:
        fx, fy, cx, cy = k[n, 0]
        # The centre of cell (i, j) of 3 x 4 cells over 18 x 24 pixels.
        x, y = ((j + 0.5) * 6 - cx) / fx, ((i + 0.5) * 6 - cy) / fy
        z = depth[n, d, i, j]
        world = c2w[n, 0] @ torch.stack([x * z, y * z, z, torch.ones_like(z)])
        own = torch.linalg.inv(c2w[n, view + 1]) @ world
        gx, gy, px, py = k[n, view + 1]
        u, v = own[0] / own[2] * gx + px, own[1] / own[2] * gy + py
        inside = bool((own[2] > 1e-3) & (u >= 0) & (u <= 22) & (v >= 0) & (v <= 20))
        at = (n, view, d, i, j)
        assert bool(seen.valid[at]) == inside
        torch.testing.assert_close(seen.depth[at], own[2])
        if inside:
            torch.testing.assert_close(seen.grid[at], torch.stack([u / 22 * 2 - 1, v / 20 * 2 - 1]))
        to_source, to_target = world[:3] - c2w[n, view + 1, :3, 3], world[:3] - c2w[n, 0, :3, 3]
        cosine = torch.dot(to_source, to_target) / (to_source.norm() * to_target.norm())
        torch.testing.assert_close(seen.cosine[at], cosine)
        torch.testing.assert_close(seen.ratio[at], (to_source.norm() / to_target.norm()).log())


def test_a_camera_seen_by_itself_is_the_identity() -> None:
    c2w, k, depth = setting()
    rays = plane_rays(k[:, 0], (18, 24), (3, 4))
    seen = project(rays, depth, relative_pose(c2w[:, 0], c2w[:, :1]), k[:, :1], (18, 24))
    columns = (torch.arange(4, dtype=torch.float64) + 0.5) / 4 * 2 - 1
    torch.testing.assert_close(seen.grid[..., 0], columns.expand_as(seen.grid[..., 0]))
    torch.testing.assert_close(seen.depth, depth[:, None])
    torch.testing.assert_close(seen.cosine, torch.ones_like(seen.cosine))
    assert seen.ratio.abs().max() < 1e-9 and seen.valid.all()


def test_the_gradient_by_depth_is_that_of_small_steps() -> None:
    c2w, k, depth = setting()
    rays = plane_rays(k[:, 0], (18, 24), (3, 4))
    pose = relative_pose(c2w[:, 0], c2w[:, 1:])

    def what(values: torch.Tensor) -> torch.Tensor:
        seen = project(rays, values, pose, k[:, 1:], (20, 22))
        return torch.cat([seen.grid.flatten(), seen.depth.flatten(), seen.cosine.flatten(), seen.ratio.flatten()])

    # Away from the edges of the frame, where numbers are cut off, and from the camera's plane.
    assert torch.autograd.gradcheck(what, (depth.requires_grad_(),), eps=1e-7, atol=1e-4)
