"""The rasteriser against brute force and known pixels."""

import torch
from random_triangles import random_triangles

from data_tools.procedural.raster_constants import EMPTY
from data_tools.procedural.rasterize import rasterize_torch


def _brute_force(triangles, scene, w2c, intrinsics, sample_hw):
    """Every ray against every triangle (Moeller-Trumbore, float64): depth along the axis and face, inf where none."""
    height, width = sample_hw
    scenes, views = w2c.shape[:2]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    depth = torch.full((scenes, views, height, width), torch.inf, dtype=torch.float64)
    face = torch.full((scenes, views, height, width), -1)
    for s in range(scenes):
        for v in range(views):
            fx, fy, cx, cy = intrinsics[s, v].tolist()
            ray = torch.stack([(x - cx) / fx, (y - cy) / fy, torch.ones_like(x)], -1).double()
            for f in (scene == s).nonzero().flatten().tolist():
                matrix = w2c[s, v].double()
                a, b, c = triangles[f].double() @ matrix[:, :3].T + matrix[:, 3]
                e1, e2 = b - a, c - a
                p = torch.linalg.cross(ray, e2.expand_as(ray))
                det = (p * e1).sum(-1)
                u = -(p * a).sum(-1) / det
                q = torch.linalg.cross(-a, e1)
                w = (ray * q).sum(-1) / det
                t = (q * e2).sum(-1) / det
                hit = (u >= 0) & (w >= 0) & (u + w <= 1) & (t > 0.01) & (t < depth[s, v])
                depth[s, v] = torch.where(hit, t, depth[s, v])
                face[s, v] = torch.where(hit, f, face[s, v])
    return depth, face


def test_matches_brute_force():
    problem = random_triangles(60)
    keys = rasterize_torch(*problem)
    depth, face = _brute_force(*problem)
    found = torch.where(keys == EMPTY, -1, keys & 0xFFFFFFFF)
    assert (face >= 0).float().mean() > 0.05
    # The slack along edges may decide a few border samples otherwise.
    assert (found != face).float().mean() < 2e-3
    same = (found == face) & (face >= 0)
    got = (keys >> 32).to(torch.int32).view(torch.float32).double()
    torch.testing.assert_close(got[same], depth[same], rtol=1e-3, atol=1e-4)


def test_known_sample():
    # A tiny triangle around the centre of pixel (x=5, y=2), whose coordinates are (5.5, 2.5).
    fx, cx, cy, z = 20.0, 4.0, 3.0, 2.0
    middle = torch.tensor([(5.5 - cx) / fx * z, (2.5 - cy) / fx * z, z])
    triangle = middle + torch.tensor([[0.0, -0.03, 0.0], [0.03, 0.03, 0.0], [-0.03, 0.03, 0.0]])
    keys = rasterize_torch(triangle[None], torch.zeros(1, dtype=torch.int64), torch.eye(4)[None, None, :3],
                           torch.tensor([[[fx, fx, cx, cy]]]), (6, 9))  # fmt: skip
    assert (keys != EMPTY).nonzero().tolist() == [[0, 0, 2, 5]]


def test_watertight():
    # Two triangles that tile the frame and beyond, behind and in front of the camera plane: no cracks.
    corners = torch.tensor([[-9.0, 0.5, -5.0], [9.0, 0.5, -5.0], [9.0, 0.5, 30.0], [-9.0, 0.5, 30.0]])
    triangles = torch.stack([corners[[0, 1, 2]], corners[[0, 2, 3]]])
    keys = rasterize_torch(triangles, torch.zeros(2, dtype=torch.int64), torch.eye(4)[None, None, :3],
                           torch.tensor([[[50.0, 50.0, 32.0, 2.0]]]), (60, 64))  # fmt: skip
    assert (keys[..., 8:, :] != EMPTY).all()
