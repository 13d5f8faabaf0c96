"""Depth of the pixels' centres from the rasteriser's visibility buffer, for supervision and measures of depth."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from data_tools.procedural.raster_constants import EMPTY

_CHUNK_PIXELS = 2**24
_REACH = 2.0
"""By how much depth may differ a quarter of a pixel away: beyond, a face is seen edge-on and its plane says nothing."""


def pixel_depth(
    visibility: Int64[Tensor, "n p q"],
    c2w: Float[Tensor, "n 4 4"],
    fxfycxcy: Float[Tensor, "n 4"],
    triangles: Float[Tensor, "f 3 3"],
    sky: Bool[Tensor, " f"],
) -> Float[Tensor, "n h w"]:
    """Depth along the camera's forward axis where the ray through a pixel's centre meets what the pixel shows.

    The centre lies between the pixel's 2 x 2 samples. A surface counts if at least two of them see it or something
    nearer (so silhouettes neither grow nor shrink); its plane is then met with the ray through the centre, which is
    exact for flat faces and, where a face ends inside the pixel, goes on in its plane by a quarter of a pixel.

    Args:
        visibility: of ``rasterize`` at twice the image's size: p = 2 h, q = 2 w.
        c2w: cameras, OpenCV axes; fxfycxcy: intrinsics in pixels of the image.
        triangles: corners in world space, numbered as in ``visibility``; sky: faces that stand for the sky.

    Returns:
        float32 in units of the world; 0 where there is no surface, inf for sky.
    """
    n, height, width = visibility.shape[0], visibility.shape[1] // 2, visibility.shape[2] // 2
    normal = torch.linalg.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normal = torch.nn.functional.normalize(normal, dim=-1, eps=1e-30)
    offset = (normal * triangles[:, 0]).sum(-1)
    planes = torch.cat([normal, torch.where(sky, torch.inf, offset)[:, None]], 1)
    depth = torch.empty((n, height, width), device=visibility.device)
    step = max(1, _CHUNK_PIXELS // (height * width))
    for start in range(0, n, step):
        part = slice(start, start + step)
        depth[part] = _views(visibility[part], c2w[part], fxfycxcy[part], planes)
    return depth


def _views(
    visibility: Int64[Tensor, "n p q"],
    c2w: Float[Tensor, "n 4 4"],
    fxfycxcy: Float[Tensor, "n 4"],
    planes: Float[Tensor, "f 4"],
) -> Float[Tensor, "n h w"]:
    a, b, c, d = visibility[:, ::2, ::2], visibility[:, ::2, 1::2], visibility[:, 1::2, ::2], visibility[:, 1::2, 1::2]
    # The second smallest of four; EMPTY is the largest.
    second = torch.minimum(
        torch.maximum(torch.minimum(a, b), torch.minimum(c, d)),
        torch.minimum(torch.maximum(a, b), torch.maximum(c, d)),
    )
    hit = second != EMPTY
    sample = (second >> 32).to(torch.int32).view(torch.float32)
    nx, ny, nz, offset = planes[torch.where(hit, second & 0xFFFFFFFF, 0)].unbind(-1)
    height, width = second.shape[1:]
    fx, fy, cx, cy = fxfycxcy[:, :, None, None].unbind(1)
    x = (torch.arange(width, device=visibility.device) + 0.5 - cx) / fx
    y = (torch.arange(height, device=visibility.device)[:, None] + 0.5 - cy) / fy
    m = c2w[:, :3, :, None, None]

    def along(column: Float[Tensor, "n 3 _ _"]) -> Float[Tensor, "n h w"]:
        return nx * column[:, 0] + ny * column[:, 1] + nz * column[:, 2]

    slope = along(m[:, :, 0] * x[:, None] + m[:, :, 1] * y[:, None] + m[:, :, 2])
    met = (offset - along(m[:, :, 3])) / slope
    met = torch.where(torch.isfinite(met), met, sample)
    met = torch.minimum(torch.maximum(met, sample / _REACH), sample * _REACH)
    met = torch.where(offset == torch.inf, torch.inf, met)
    return torch.where(hit, met, 0.0)
