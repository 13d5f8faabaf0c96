"""The rasteriser of ``rasterize`` as two Triton kernels; same arithmetic, same result up to ties on edges."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

from data_tools.procedural.raster_constants import EDGE_TOLERANCE, EMPTY, NEAR_PLANE

_NEAR_PLANE = tl.constexpr(NEAR_PLANE)
_EDGE_TOLERANCE = tl.constexpr(EDGE_TOLERANCE)


@triton.jit
def _corner(tri_ptr, cam_ptr, k_ptr, face, image, corner, mask):
    x = tl.load(tri_ptr + face * 9 + corner * 3, mask, 0.0)
    y = tl.load(tri_ptr + face * 9 + corner * 3 + 1, mask, 0.0)
    z = tl.load(tri_ptr + face * 9 + corner * 3 + 2, mask, 0.0)
    m = cam_ptr + image * 12
    cx = tl.load(m, mask, 0.0) * x + tl.load(m + 1, mask, 0.0) * y + tl.load(m + 2, mask, 0.0) * z
    cy = tl.load(m + 4, mask, 0.0) * x + tl.load(m + 5, mask, 0.0) * y + tl.load(m + 6, mask, 0.0) * z
    cz = tl.load(m + 8, mask, 0.0) * x + tl.load(m + 9, mask, 0.0) * y + tl.load(m + 10, mask, 0.0) * z
    cx += tl.load(m + 3, mask, 0.0)
    cy += tl.load(m + 7, mask, 0.0)
    cz += tl.load(m + 11, mask, 0.0)
    k = k_ptr + image * 4
    hx = cx * tl.load(k, mask, 0.0) + cz * tl.load(k + 2, mask, 0.0)
    hy = cy * tl.load(k + 1, mask, 0.0) + cz * tl.load(k + 3, mask, 0.0)
    return hx, hy, cz


# Counts differ from call to call: specialised on (divisible by 16, equal to 1), each kind would compile anew.
@triton.jit(do_not_specialize=["pairs", "views"])
def _setup_kernel(tri_ptr, scene_ptr, cam_ptr, k_ptr, box_ptr, tiles_ptr, pairs, views, width, height,
                  BLOCK: tl.constexpr):  # fmt: skip
    """Sample rectangle and number of tiles of every (triangle, view) pair."""
    pair = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = pair < pairs
    face = pair // views
    image = tl.load(scene_ptr + face, mask, 0) * views + pair % views
    ax, ay, az = _corner(tri_ptr, cam_ptr, k_ptr, face, image, 0, mask)
    bx, by, bz = _corner(tri_ptr, cam_ptr, k_ptr, face, image, 1, mask)
    cx, cy, cz = _corner(tri_ptr, cam_ptr, k_ptr, face, image, 2, mask)
    z_low = tl.minimum(tl.minimum(az, bz), cz)
    z_high = tl.maximum(tl.maximum(az, bz), cz)
    out = (z_high < _NEAR_PLANE) | (tl.maximum(tl.maximum(ax, bx), cx) < 0) | (tl.maximum(tl.maximum(ay, by), cy) < 0)
    right = tl.minimum(tl.minimum(ax - az * width, bx - bz * width), cx - cz * width)
    below = tl.minimum(tl.minimum(ay - az * height, by - bz * height), cy - cz * height)
    out = out | (right > 0) | (below > 0)
    crosses = z_low < _NEAR_PLANE
    az = tl.maximum(az, _NEAR_PLANE)
    bz = tl.maximum(bz, _NEAR_PLANE)
    cz = tl.maximum(cz, _NEAR_PLANE)
    ax /= az
    bx /= bz
    cx /= cz
    ay /= az
    by /= bz
    cy /= cz
    x0 = tl.where(crosses, 0.0, tl.maximum(tl.ceil(tl.minimum(tl.minimum(ax, bx), cx) - 0.5), 0.0))
    y0 = tl.where(crosses, 0.0, tl.maximum(tl.ceil(tl.minimum(tl.minimum(ay, by), cy) - 0.5), 0.0))
    x1 = tl.where(crosses, width - 1.0, tl.minimum(tl.floor(tl.maximum(tl.maximum(ax, bx), cx) - 0.5), width - 1.0))
    y1 = tl.where(crosses, height - 1.0, tl.minimum(tl.floor(tl.maximum(tl.maximum(ay, by), cy) - 0.5), height - 1.0))
    out = out | (x1 < x0) | (y1 < y0) | (mask == 0)
    x0 = tl.where(out, 0.0, x0).to(tl.int32)
    y0 = tl.where(out, 0.0, y0).to(tl.int32)
    x1 = tl.where(out, 0.0, x1).to(tl.int32)
    y1 = tl.where(out, 0.0, y1).to(tl.int32)
    across = x1 - x0 + 1
    down = y1 - y0 + 1
    small = (across <= 4) & (down <= 4)
    tiles = tl.where(small, 1, ((across + 7) // 8) * ((down + 7) // 8))
    # A negative count marks the pairs that fit one 4x4 tile: they go to a second, narrower launch.
    tiles = tl.where(out, 0, tl.where(small, -1, tiles))
    tl.store(tiles_ptr + pair, tiles, mask)
    tl.store(box_ptr + pair * 2, x0 | (y0 << 16), mask & (out == 0))
    tl.store(box_ptr + pair * 2 + 1, x1 | (y1 << 16), mask & (out == 0))


@triton.jit(do_not_specialize=["jobs", "views"])
def _raster_kernel(tri_ptr, scene_ptr, cam_ptr, k_ptr, box_ptr, job_ptr, number_ptr, key_ptr, jobs, views,
                   width, height, JOBS: tl.constexpr, TILE: tl.constexpr, SINGLE: tl.constexpr):  # fmt: skip
    """One row of lanes for each job: a tile of TILE x TILE samples of one pair."""
    job = tl.program_id(0).to(tl.int64) * JOBS + tl.arange(0, JOBS)
    mask = job < jobs
    pair = tl.load(job_ptr + job, mask, 0)
    face = pair // views
    image = tl.load(scene_ptr + face, mask, 0) * views + pair % views
    ax, ay, az = _corner(tri_ptr, cam_ptr, k_ptr, face, image, 0, mask)
    bx, by, bz = _corner(tri_ptr, cam_ptr, k_ptr, face, image, 1, mask)
    cx, cy, cz = _corner(tri_ptr, cam_ptr, k_ptr, face, image, 2, mask)
    first = tl.load(box_ptr + pair * 2, mask, 0)
    last = tl.load(box_ptr + pair * 2 + 1, mask, 0)
    x0 = first & 0xFFFF
    y0 = first >> 16
    x1 = last & 0xFFFF
    y1 = last >> 16
    if not SINGLE:
        number = tl.load(number_ptr + job, mask, 0).to(tl.int32)
        tiles_x = (x1 - x0 + TILE) // TILE
        x0 += number % tiles_x * TILE
        y0 += number // tiles_x * TILE
    e0x, e0y, e0z = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    e1x, e1y, e1z = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
    e2x, e2y, e2z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    det = e0x * ax + e0y * ay + e0z * az
    good = mask & (tl.abs(det) > 1e-12)
    inv = 1.0 / tl.where(good, det, 1.0)
    lane = tl.arange(0, TILE * TILE)
    x = x0[:, None] + (lane % TILE)[None, :]
    y = y0[:, None] + (lane // TILE)[None, :]
    sx = x.to(tl.float32) + 0.5
    sy = y.to(tl.float32) + 0.5
    e0 = (e0x * inv)[:, None] * sx + (e0y * inv)[:, None] * sy + (e0z * inv)[:, None]
    e1 = (e1x * inv)[:, None] * sx + (e1y * inv)[:, None] * sy + (e1z * inv)[:, None]
    e2 = (e2x * inv)[:, None] * sx + (e2y * inv)[:, None] * sy + (e2z * inv)[:, None]
    total = e0 + e1 + e2
    # Not -constant * total: Triton's interpreter has no product of a constant and a tensor.
    inside = tl.minimum(tl.minimum(e0, e1), e2) >= -(total * _EDGE_TOLERANCE)
    inside = inside & (total > 0) & (total < 1.0 / _NEAR_PLANE) & good[:, None]
    inside = inside & (x <= x1[:, None]) & (y <= y1[:, None])
    depth = 1.0 / tl.where(inside, total, 1.0)
    bits = depth.to(tl.int32, bitcast=True).to(tl.int64)
    key = (bits << 32) | face[:, None]
    at = key_ptr + (image[:, None] * height + y) * width + x
    # A plain read first: most hidden samples need no atomic at all (a stale value only costs an atomic).
    old = tl.load(at, inside, 0)
    tl.atomic_min(at, key, inside & (key < old), sem="relaxed")


def rasterize_triton(
    triangles: Float[Tensor, "f 3 3"],
    face_scene: Int64[Tensor, " f"],
    w2c: Float[Tensor, "s v 3 4"],
    fxfycxcy: Float[Tensor, "s v 4"],
    sample_hw: tuple[int, int],
) -> Int64[Tensor, "s v h w"]:
    """:func:`data_tools.procedural.rasterize.rasterize` on a GPU; sides up to 32,767 samples."""
    (scenes, views), (height, width) = w2c.shape[:2], sample_hw
    device, faces = triangles.device, len(triangles)
    visibility = torch.full((scenes, views, height, width), EMPTY, dtype=torch.int64, device=device)
    triangles, w2c, fxfycxcy = triangles.contiguous(), w2c.contiguous(), fxfycxcy.contiguous()
    pairs = faces * views
    if not pairs:
        return visibility
    boxes = torch.empty(pairs, 2, dtype=torch.int32, device=device)
    tiles = torch.empty(pairs, dtype=torch.int32, device=device)
    shared = (triangles, face_scene, w2c, fxfycxcy, boxes)
    block = 256
    _setup_kernel[(triton.cdiv(pairs, block),)](*shared, tiles, pairs, views, width, height, BLOCK=block)
    small = (tiles < 0).nonzero().squeeze(-1)
    if len(small):
        grid = (triton.cdiv(len(small), 16),)
        _raster_kernel[grid](*shared, small, small, visibility, len(small), views, width, height,
                             JOBS=16, TILE=4, SINGLE=True)  # fmt: skip
    large = (tiles > 0).nonzero().squeeze(-1)
    if len(large):
        count = tiles[large].to(torch.int64)
        job = torch.repeat_interleave(torch.arange(len(large), device=device), count)
        number = torch.arange(len(job), device=device) - (count.cumsum(0) - count)[job]
        grid = (triton.cdiv(len(job), 4),)
        _raster_kernel[grid](*shared, large[job], number, visibility, len(job), views, width, height,
                             JOBS=4, TILE=8, SINGLE=False)  # fmt: skip
    return visibility
