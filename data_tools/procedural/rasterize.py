"""A z-buffer rasteriser for triangles: homogeneous edge functions, tile jobs, one atomic minimum.

Every (triangle, view) pair is set up once; pairs that touch no sample are dropped; the others are cut into
jobs of K x K samples, and each covered sample takes the minimum of ``depth_bits << 32 | face``. Positive floats
keep their order as integers, so one 64-bit minimum does depth test and identity together.

The edge functions are rows of the inverse of the 3x3 matrix of the corners in camera axes (Olano and Greer,
"Triangle scan conversion using 2D homogeneous coordinates"), so a triangle may cross the camera plane and needs
no clipping. This module is the plain PyTorch path; ``rasterize_triton`` has the same arithmetic as GPU kernels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from data_tools.procedural.raster_constants import EDGE_TOLERANCE, EMPTY, NEAR_PLANE

_MAX_PAIRS = 2_000_000
_MAX_LANES = 8_000_000


def rasterize(
    triangles: Float[Tensor, "f 3 3"],
    face_scene: Int64[Tensor, " f"],
    w2c: Float[Tensor, "s v 3 4"],
    fxfycxcy: Float[Tensor, "s v 4"],
    sample_hw: tuple[int, int],
) -> Int64[Tensor, "s v h w"]:
    """Nearest triangle of every sample.

    Args:
        triangles: corners in world space; both sides are drawn.
        face_scene: scene in [0, s) of each triangle; it is drawn in all v views of that scene.
        w2c: world to camera, OpenCV axes.
        fxfycxcy: intrinsics in samples; the first sample lies at (0.5, 0.5).
        sample_hw: (height, width) in samples.

    Returns:
        Keys: ``EMPTY`` or ``(bits of the float32 depth along the axis << 32) | face``.
    """
    if triangles.device.type == "cuda":
        from data_tools.procedural.rasterize_triton import rasterize_triton

        return rasterize_triton(triangles, face_scene, w2c, fxfycxcy, sample_hw)
    return rasterize_torch(triangles, face_scene, w2c, fxfycxcy, sample_hw)


def rasterize_torch(
    triangles: Float[Tensor, "f 3 3"],
    face_scene: Int64[Tensor, " f"],
    w2c: Float[Tensor, "s v 3 4"],
    fxfycxcy: Float[Tensor, "s v 4"],
    sample_hw: tuple[int, int],
) -> Int64[Tensor, "s v h w"]:
    """:func:`rasterize` in plain PyTorch, for any device: the reference of the kernels."""
    (scenes, views), (height, width) = w2c.shape[:2], sample_hw
    visibility = torch.full((scenes * views * height * width,), EMPTY, dtype=torch.int64, device=triangles.device)
    step = max(1, _MAX_PAIRS // views)
    for start in range(0, len(triangles), step):
        _draw(triangles[start : start + step], start, face_scene[start : start + step], w2c, fxfycxcy,
              sample_hw, visibility)  # fmt: skip
    return visibility.view(scenes, views, height, width)


def pair_corners(
    triangles: Float[Tensor, "f 3 3"],
    face_scene: Int64[Tensor, " f"],
    w2c: Float[Tensor, "s v 3 4"],
    fxfycxcy: Float[Tensor, "s v 4"],
) -> Float[Tensor, "f v 3 3"]:
    """Corners in homogeneous sample coordinates (x * z, y * z, z) of every view of the triangle's scene."""
    matrix = w2c[face_scene]  # [f, v, 3, 4]
    camera = torch.einsum("fvij,fkj->fvki", matrix[..., :3], triangles) + matrix[..., None, :, 3]
    intrinsics = fxfycxcy[face_scene][:, :, None, :]
    z = camera[..., 2]
    x = camera[..., 0] * intrinsics[..., 0] + z * intrinsics[..., 2]
    y = camera[..., 1] * intrinsics[..., 1] + z * intrinsics[..., 3]
    return torch.stack([x, y, z], -1)


def pair_boxes(
    corners: Float[Tensor, "*b 3 3"], sample_hw: tuple[int, int]
) -> tuple[Int64[Tensor, "*b"], Int64[Tensor, "*b"], Int64[Tensor, "*b"], Int64[Tensor, "*b"]]:
    """Sample rectangle x0, y0, x1, y1 (inclusive, int64) of homogeneous corners [..., 3, 3]; empty when x1 < x0."""
    height, width = sample_hw
    x, y, z = corners.unbind(-1)
    crosses = (z < NEAR_PLANE).any(-1)
    safe = z.clamp_min(NEAR_PLANE)
    px, py = x / safe, y / safe

    def low(values: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
        return (values.amin(-1) - 0.5).ceil().clamp_min(0)

    def high(values: Float[Tensor, "*b 3"], size: int) -> Float[Tensor, "*b"]:
        return (values.amax(-1) - 0.5).floor().clamp_max(size - 1)

    x0, x1 = low(px).masked_fill(crosses, 0), high(px, width).masked_fill(crosses, width - 1)
    y0, y1 = low(py).masked_fill(crosses, 0), high(py, height).masked_fill(crosses, height - 1)
    outside = (z < NEAR_PLANE).all(-1) | (x < 0).all(-1) | (x > z * width).all(-1)
    outside |= (y < 0).all(-1) | (y > z * height).all(-1) | (x1 < x0) | (y1 < y0)
    x0, x1 = x0.masked_fill(outside, 0), x1.masked_fill(outside, -1)
    # Clamped before the cast: a point far outside the frame would overflow.
    x0, y0, x1, y1 = (edge.clamp(-1, max(height, width)).to(torch.int64) for edge in (x0, y0, x1, y1))
    return x0, y0, x1, y1


def edge_rows(corners: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rows of the inverse corner matrix, [..., 3, 3]: barycentric_i * (1 / depth) = row_i . (x, y, 1)."""
    a, b, c = corners.unbind(-2)
    rows = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -2)
    determinant = (rows[..., 0, :] * a).sum(-1)
    # An edge-on triangle has no inverse: it covers nothing.
    inverse = torch.where(determinant.abs() > 1e-12, 1.0 / determinant, torch.nan)
    return rows * inverse[..., None, None]


def _draw(triangles, first_face, face_scene, w2c, fxfycxcy, sample_hw, visibility) -> None:
    height, width = sample_hw
    views = w2c.shape[1]
    corners = pair_corners(triangles, face_scene, w2c, fxfycxcy)
    x0, y0, x1, y1 = pair_boxes(corners, sample_hw)
    kept = (x1 >= x0).nonzero()
    face, view = kept.unbind(-1)
    corners = corners[face, view]
    x0, y0, x1, y1 = (edge[face, view] for edge in (x0, y0, x1, y1))
    rows = edge_rows(corners)
    image = face_scene[face] * views + view
    across, down = x1 - x0 + 1, y1 - y0 + 1
    small = (across <= 4) & (down <= 4)
    for tile, chosen in ((4, small), (8, ~small)):
        pair = chosen.nonzero().squeeze(-1)
        tiles_x, tiles_y = (across[pair] + tile - 1) // tile, (down[pair] + tile - 1) // tile
        count = tiles_x * tiles_y
        job_pair = torch.repeat_interleave(torch.arange(len(pair), device=pair.device), count)
        number = torch.arange(len(job_pair), device=pair.device) - (count.cumsum(0) - count)[job_pair]
        left = x0[pair][job_pair] + number % tiles_x[job_pair] * tile
        top = y0[pair][job_pair] + number // tiles_x[job_pair] * tile
        job_pair = pair[job_pair]
        lane = torch.arange(tile * tile, device=pair.device)
        step = _MAX_LANES // (tile * tile)
        for start in range(0, len(job_pair), step):
            p = job_pair[start : start + step]
            x = left[start : start + step, None] + lane % tile
            y = top[start : start + step, None] + lane // tile
            row = rows[p]
            e = [row[:, i, 0:1] * (x + 0.5) + row[:, i, 1:2] * (y + 0.5) + row[:, i, 2:3] for i in range(3)]
            total = e[0] + e[1] + e[2]
            inside = torch.minimum(torch.minimum(e[0], e[1]), e[2]) >= -EDGE_TOLERANCE * total
            inside &= (total > 0) & (total < 1 / NEAR_PLANE) & (x <= x1[p, None]) & (y <= y1[p, None])
            job, hit = inside.nonzero().unbind(-1)
            depth = (1.0 / total[job, hit]).contiguous().view(torch.int32).to(torch.int64)
            position = (image[p][job] * height + y[job, hit]) * width + x[job, hit]
            visibility.scatter_reduce_(0, position, depth << 32 | (first_face + face[p][job]), "amin")
