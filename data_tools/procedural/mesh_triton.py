"""Two steps of meshing as Triton kernels, each of which would be hundreds of small launches.

Their references: ``shapes.surface`` and ``shadows.sky_visibility_torch``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

_PI = tl.constexpr(3.141592653589793)
_SURFACE_BLOCK = 256
_SKY_BLOCK = 256


@triton.jit
def _power(base, exponent):
    """base > 0 to the exponent."""
    return tl.exp2(exponent * tl.log2(base))


@triton.jit
def _tanh(x):
    # Of a bounded x, so that the exponential cannot overflow.
    e = tl.exp(2.0 * tl.minimum(tl.maximum(x, -15.0), 15.0))
    return (e - 1.0) / (e + 1.0)


@triton.jit
def _wave(x, y, z, phase, scale):
    angle = (x * tl.sin(phase) + y * tl.sin(phase * 1.7 + 2.0) + z * tl.sin(phase * 2.3 + 4.0)) * scale
    return tl.sin(angle + phase * 5.0)


@triton.jit
def _slab(centre, size, x):
    """Where the line through the origin and x enters and leaves the slab, along one axis."""
    safe = tl.where(tl.abs(x) < 1e-5, 1e-5, x)
    one, two = (centre - size) / safe, (centre + size) / safe
    return tl.minimum(one, two), tl.maximum(one, two)


@triton.jit(do_not_specialize=["lanes"])
def _surface_kernel(shape_ptr, instance_ptr, patch_ptr, a_ptr, b_ptr, out_ptr, lanes, FIELDS: tl.constexpr,
                    BLOCK: tl.constexpr):  # fmt: skip
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < lanes
    instance = tl.load(instance_ptr + lane, mask, 0)
    patch = tl.load(patch_ptr + lane, mask, 0).to(tl.int32)
    a = tl.load(a_ptr + lane, mask, 0.0)
    b = tl.load(b_ptr + lane, mask, 0.0)
    # The order of shapes.SHAPE_FIELDS.
    f = shape_ptr + instance * FIELDS
    family = tl.load(f, mask, 0.0)
    power = tl.maximum(tl.load(f + 1, mask, 2.0), 0.5)
    taper, bulge = tl.load(f + 2, mask, 1.0), tl.load(f + 3, mask, 0.0)
    wave, waves = tl.load(f + 4, mask, 0.0), tl.load(f + 5, mask, 0.0)
    tube, arc = tl.load(f + 6, mask, 0.3), tl.load(f + 7, mask, 1.0)

    # The cube: patches 0-3 go around z, 4 is the top and 5 the bottom.
    cap = patch >= 4
    x = tl.where(patch == 0, 1.0, tl.where(patch == 1, -a, tl.where(patch == 2, -1.0, a)))
    y = tl.where(patch == 0, a, tl.where(patch == 1, 1.0, tl.where(patch == 2, -a, -1.0)))
    z = tl.where(patch == 4, 1.0, tl.where(patch == 5, -1.0, b))
    x = tl.where(cap, a, x)
    y = tl.where(cap, b, y)
    ax, ay, az = tl.abs(x), tl.abs(y), tl.abs(z)

    length = _power(tl.maximum(ax, 1e-6), power) + _power(tl.maximum(ay, 1e-6), power)
    length = _power(length + _power(tl.maximum(az, 1e-6), power), 1.0 / power)
    flat = power >= 60.0
    length = tl.where(flat, 1.0, length)

    reach = tl.maximum(tl.maximum(ax, ay), 1e-6)
    section = _power(tl.maximum(ax / reach, 1e-6), power) + _power(tl.maximum(ay / reach, 1e-6), power)
    section = _power(tl.maximum(section, 1.0), 1.0 / power)
    profile = 1.0 + (taper - 1.0) * (0.5 * (z + 1.0)) + bulge * (1.0 - z * z)
    profile = tl.maximum(profile + wave * tl.sin(waves * _PI * z), 0.0)
    ratio = profile / tl.where(flat, 1.0, section)

    around = arc * (2.0 * _PI) * (patch.to(tl.float32) + 0.5 * (a + 1.0)) / 6.0
    cos_around, sin_around = tl.cos(around), tl.sin(around)
    inner = 1.0 - tube + tube * tl.cos(b * _PI)

    ball, lathe = family < 0.5, family < 1.5
    x = tl.where(ball, x / length, tl.where(lathe, x * ratio, inner * cos_around))
    y = tl.where(ball, y / length, tl.where(lathe, y * ratio, inner * sin_around))
    z = tl.where(ball, z / length, tl.where(lathe, z, tube * tl.sin(b * _PI)))

    # The cut: points inside the cutter slide towards the centre until they leave it.
    cut, size = tl.load(f + 16, mask, 0.0), tl.maximum(tl.load(f + 20, mask, 1.0), 1e-3)
    cx, cy, cz = tl.load(f + 17, mask, 0.0), tl.load(f + 18, mask, 0.0), tl.load(f + 19, mask, 0.0)
    along = x * cx + y * cy + z * cz
    square = tl.maximum(x * x + y * y + z * z, 1e-8)
    root = along * along - square * (cx * cx + cy * cy + cz * cz - size * size)
    edge = tl.sqrt(tl.maximum(root, 0.0))
    in_x, out_x = _slab(cx, size, x)
    in_y, out_y = _slab(cy, size, y)
    in_z, out_z = _slab(cz, size, z)
    box_in, box_out = tl.maximum(tl.maximum(in_x, in_y), in_z), tl.minimum(tl.minimum(out_x, out_y), out_z)
    box = cut > 1.5
    enter = tl.where(box, box_in, (along - edge) / square)
    leave = tl.where(box, box_out, (along + edge) / square)
    hit = ((box & (box_in < box_out)) | ((cut <= 1.5) & (root > 0))) & (cut > 0.5)
    hit = hit & (enter > 0.05) & (enter < 1.0) & (leave > 1.0)
    slide = tl.where(hit, enter, 1.0)
    x, y, z = x * slide, y * slide, z * slide

    # The displacement, away from the centre (of the tube, for a torus).
    phase, scale = tl.load(f + 15, mask, 0.0), tl.load(f + 13, mask, 0.0)
    total = _wave(x, y, z, phase, scale) + _wave(x, y, z, phase * 1.37, scale * 1.45) / 1.4
    total += _wave(x, y, z, phase * 1.74, scale * 1.9) / 1.8 + _wave(x, y, z, phase * 2.11, scale * 2.35) / 2.2
    total = total / 1.6
    bump = tl.load(f + 12, mask, 0.0) * (total + (_tanh(total * 6.0) - total) * tl.load(f + 14, mask, 0.0))
    ox = x - tl.where(lathe, 0.0, cos_around * (1.0 - tube))
    oy = y - tl.where(lathe, 0.0, sin_around * (1.0 - tube))
    step = bump / tl.maximum(tl.sqrt(ox * ox + oy * oy + z * z), 1e-4)
    x, y, z = x + ox * step, y + oy * step, z + z * step

    scale = 1.0 + tl.load(f + 11, mask, 0.0) * 0.5 * (z + 1.0)
    angle = tl.load(f + 8, mask, 0.0) * 0.5 * z
    c, s = tl.cos(angle) * scale, tl.sin(angle) * scale
    out = out_ptr + lane * 3
    tl.store(out, c * x - s * y + tl.load(f + 9, mask, 0.0) * z * z, mask)
    tl.store(out + 1, s * x + c * y + tl.load(f + 10, mask, 0.0) * z * z, mask)
    tl.store(out + 2, z, mask)


def surface_triton(
    shape: Float[Tensor, "p k"],
    instance: Int64[Tensor, " n"],
    patch: Int64[Tensor, " n"],
    a: Float[Tensor, " n"],
    b: Float[Tensor, " n"],
) -> Float[Tensor, "n 3"]:
    """:func:`data_tools.procedural.shapes.surface_of` on a GPU, [n, 3]."""
    out = torch.empty(len(a), 3, device=a.device)
    if len(a):
        grid = (triton.cdiv(len(a), _SURFACE_BLOCK),)
        _surface_kernel[grid](shape.contiguous(), instance, patch, a, b, out, len(a), FIELDS=shape.shape[1],
                              BLOCK=_SURFACE_BLOCK)  # fmt: skip
    return out


@triton.jit(do_not_specialize=["lanes"])
def _sky_kernel(corner_ptr, normal_ptr, scene_ptr, radius_ptr, direction_ptr, w2c_ptr, k_ptr, depth_ptr, out_ptr,
                lanes, DIRECTIONS: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < lanes
    scene = tl.load(scene_ptr + lane // 3, mask, 0)
    texel = tl.load(radius_ptr + scene, mask, 1.0) * 2.0 / SIDE
    x, y, z = (
        tl.load(corner_ptr + lane * 3, mask, 0.0),
        tl.load(corner_ptr + lane * 3 + 1, mask, 0.0),
        tl.load(corner_ptr + lane * 3 + 2, mask, 0.0),
    )
    nx, ny, nz = (
        tl.load(normal_ptr + lane * 3, mask, 0.0),
        tl.load(normal_ptr + lane * 3 + 1, mask, 0.0),
        tl.load(normal_ptr + lane * 3 + 2, mask, 0.0),
    )
    length = tl.maximum(tl.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
    nx, ny, nz = nx / length, ny / length, nz / length
    front_seen = tl.zeros([BLOCK], tl.float32) + 0.3 * 0.7
    back_seen = tl.zeros([BLOCK], tl.float32) + 0.3 * 0.7
    front = tl.zeros([BLOCK], tl.float32) + 0.3
    back = tl.zeros([BLOCK], tl.float32) + 0.3
    for k in range(DIRECTIONS):
        d = direction_ptr + k * 3
        cosine = nx * tl.load(d) + ny * tl.load(d + 1) + nz * tl.load(d + 2)
        out_by = texel * 1.2 * tl.where(cosine > 0, 1.0, tl.where(cosine < 0, -1.0, 0.0))
        px, py, pz = x + nx * out_by, y + ny * out_by, z + nz * out_by
        view = scene * DIRECTIONS + k
        m = w2c_ptr + view * 12
        cx = tl.load(m, mask, 0.0) * px + tl.load(m + 1, mask, 0.0) * py + tl.load(m + 2, mask, 0.0) * pz
        cy = tl.load(m + 4, mask, 0.0) * px + tl.load(m + 5, mask, 0.0) * py + tl.load(m + 6, mask, 0.0) * pz
        cz = tl.load(m + 8, mask, 0.0) * px + tl.load(m + 9, mask, 0.0) * py + tl.load(m + 10, mask, 0.0) * pz
        cx += tl.load(m + 3, mask, 0.0)
        cy += tl.load(m + 7, mask, 0.0)
        cz = tl.maximum(cz + tl.load(m + 11, mask, 0.0), 1e-3)
        i = k_ptr + view * 4
        cx = cx / cz * tl.load(i, mask, 1.0) + tl.load(i + 2, mask, 0.0)
        cy = cy / cz * tl.load(i + 1, mask, 1.0) + tl.load(i + 3, mask, 0.0)
        inside = (cx >= 0) & (cx < SIDE) & (cy >= 0) & (cy < SIDE) & mask
        ix = tl.minimum(tl.maximum(cx, 0.0), SIDE - 1.0).to(tl.int32)
        iy = tl.minimum(tl.maximum(cy, 0.0), SIDE - 1.0).to(tl.int32)
        nearest = tl.load(depth_ptr + (view * SIDE + iy) * SIDE + ix, inside, 1e9)
        open_to = tl.where((cz - 1.5 * texel > nearest) & inside, 0.0, 1.0)
        weight = tl.maximum(cosine, 0.0)
        front_seen += weight * open_to
        front += weight
        weight = tl.maximum(-cosine, 0.0)
        back_seen += weight * open_to
        back += weight
    tl.store(out_ptr + lane, 0.2 + 0.8 * tl.maximum(front_seen / front, back_seen / back), mask)


def sky_visibility_triton(
    corners: Float[Tensor, "f 3 3"],
    normals: Float[Tensor, "f 3 3"],
    scene: Int64[Tensor, " f"],
    radius: Float[Tensor, " s"],
    direction: Float[Tensor, "k 3"],
    w2c: Float[Tensor, "s k 3 4"],
    fxfycxcy: Float[Tensor, "s k 4"],
    depth: Float[Tensor, "s k r r"],
) -> Float[Tensor, "f 3"]:
    """:func:`data_tools.procedural.shadows.sky_visibility_torch` on a GPU, [f, 3]."""
    out = torch.empty(len(corners), 3, device=corners.device)
    if len(corners):
        grid = (triton.cdiv(out.numel(), _SKY_BLOCK),)
        tensors = (corners, normals, scene, radius, direction, w2c, fxfycxcy, depth)
        _sky_kernel[grid](*(tensor.contiguous() for tensor in tensors), out, out.numel(), DIRECTIONS=len(direction),
                          SIDE=depth.shape[-1], BLOCK=_SKY_BLOCK)  # fmt: skip
    return out
