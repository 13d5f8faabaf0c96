"""Triangles to rasterise, some of which cross the camera plane."""

import torch


def random_triangles(faces: int):
    """Arguments of ``rasterize``: random triangles in two scenes of two views."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.rand(*shape, generator=generator) - 0.5

    size = torch.rand(faces, 1, 1, generator=generator)
    triangles = random(faces, 1, 3) * 2 + random(faces, 3, 3) * size
    triangles[:, :, 2] += 1.5  # some cross the camera plane
    scene = torch.arange(faces) % 2
    w2c = torch.eye(4)[:3].expand(2, 2, 3, 4).clone()
    w2c[:, 1, 2, 3] = 0.7
    intrinsics = torch.tensor([40.0, 38.0, 20.0, 24.0]).expand(2, 2, 4).clone()
    return triangles, scene, w2c, intrinsics, (48, 40)
