"""``shade.shade_pixels`` as one Triton kernel: each lane shades the samples of one output pixel and averages them.

Same arithmetic as ``shade.shade``, which is the reference; nothing but the uint8 image is written to memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from data_tools.procedural.raster_constants import EMPTY, PANEL
from data_tools.procedural.shading_buffers import ShadingBuffers

_EMPTY = tl.constexpr(EMPTY)
_PANEL, _PANEL_X, _PANEL_Y = (tl.constexpr(value) for value in PANEL)
_BLOCK = 128


@triton.jit
def _dot(ax, ay, az, bx, by, bz):
    return ax * bx + ay * by + az * bz


@triton.jit
def _inverse_length(x, y, z):
    return 1.0 / tl.sqrt(tl.maximum(x * x + y * y + z * z, 1e-20))


@triton.jit
def _mixed(row, first, step, w0, w1, w2, hit):
    """A corner attribute at the sample: barycentric mean of row[first], row[first + step], row[first + 2 step]."""
    a = tl.load(row + first, hit, 0.0)
    b = tl.load(row + first + step, hit, 0.0)
    c = tl.load(row + first + 2 * step, hit, 0.0)
    return w0 * a + w1 * b + w2 * c


@triton.jit
def _inside(i, size, repeats):
    wrapped = tl.where(i < 0, i + size, tl.where(i >= size, i - size, i))
    return tl.where(repeats, wrapped, tl.minimum(tl.maximum(i, 0), size - 1))


@triton.jit
def _channel(a, b, c, d, wa, wb, wc, wd, shift):
    total = wa * ((a >> shift) & 255).to(tl.float32) + wb * ((b >> shift) & 255).to(tl.float32)
    total += wc * ((c >> shift) & 255).to(tl.float32) + wd * ((d >> shift) & 255).to(tl.float32)
    return total * (1.0 / 255.0)


@triton.jit
def _fetch(texels_ptr, table_ptr, number, level, u, v, hit):
    """Bilinear texel of one mip level, three channels in [0, 1]."""
    entry = table_ptr + number * 8
    start = tl.load(entry + level, hit, 0)
    repeats = tl.load(entry + 7, hit, 0) > 0
    level = tl.where(repeats, level, tl.minimum(level, 1))
    w = tl.maximum(tl.load(entry + 5, hit, 1) >> level, 1)
    h = tl.maximum(tl.load(entry + 6, hit, 1) >> level, 1)
    u = tl.where(repeats, u - tl.floor(u), tl.minimum(tl.maximum(u, 0.0), 1.0)) * w.to(tl.float32) - 0.5
    v = tl.where(repeats, v - tl.floor(v), tl.minimum(tl.maximum(v, 0.0), 1.0)) * h.to(tl.float32) - 0.5
    left = tl.floor(u)
    top = tl.floor(v)
    fx = u - left
    fy = v - top
    x0 = left.to(tl.int32)
    y0 = top.to(tl.int32)
    x1 = _inside(x0 + 1, w, repeats)
    y1 = _inside(y0 + 1, h, repeats)
    x0 = _inside(x0, w, repeats)
    y0 = _inside(y0, h, repeats)
    a = tl.load(texels_ptr + start + y0 * w + x0, hit, 0)
    b = tl.load(texels_ptr + start + y0 * w + x1, hit, 0)
    c = tl.load(texels_ptr + start + y1 * w + x0, hit, 0)
    d = tl.load(texels_ptr + start + y1 * w + x1, hit, 0)
    wa, wb, wc, wd = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    return (_channel(a, b, c, d, wa, wb, wc, wd, 0), _channel(a, b, c, d, wa, wb, wc, wd, 8),
            _channel(a, b, c, d, wa, wb, wc, wd, 16))  # fmt: skip


@triton.jit
def _tap(depth_ptr, x, y, dx, dy, near, side, hit):
    px = tl.minimum(tl.maximum(x + dx, 0.0), side - 1.0).to(tl.int32)
    py = tl.minimum(tl.maximum(y + dy, 0.0), side - 1.0).to(tl.int32)
    return (near > tl.load(depth_ptr + py * side + px, hit, 0.0)).to(tl.float32)


@triton.jit
def _shadow(lamp, depth_ptr, px, py, pz, slope, blur, side, hit):
    """Share of the taps (``shade.SHADOW_TAPS``) around the point that lie in shadow."""
    x = tl.load(lamp) * px + tl.load(lamp + 1) * py + tl.load(lamp + 2) * pz + tl.load(lamp + 3)
    y = tl.load(lamp + 4) * px + tl.load(lamp + 5) * py + tl.load(lamp + 6) * pz + tl.load(lamp + 7)
    depth = tl.load(lamp + 8) * px + tl.load(lamp + 9) * py + tl.load(lamp + 10) * pz + tl.load(lamp + 11)
    z = tl.maximum(depth, 1e-3)
    focal = tl.load(lamp + 12)
    x = x / z * focal + tl.load(lamp + 14)
    y = y / z * tl.load(lamp + 13) + tl.load(lamp + 15)
    slope = tl.minimum(tl.maximum(slope, 0.05), 1.0)
    tilt = tl.minimum(0.6 + tl.sqrt(1.0 - slope * slope) / slope, 6.0)
    near = z - z / focal * (1.5 + blur) * tilt
    dark = _tap(depth_ptr, x, y, -0.94 * blur, -0.4 * blur, near, side, hit)
    dark += _tap(depth_ptr, x, y, 0.94 * blur, -0.77 * blur, near, side, hit)
    dark += _tap(depth_ptr, x, y, -0.09 * blur, -0.93 * blur, near, side, hit)
    dark += _tap(depth_ptr, x, y, 0.34 * blur, 0.29 * blur, near, side, hit)
    dark += _tap(depth_ptr, x, y, -0.64 * blur, 0.75 * blur, near, side, hit)
    dark += _tap(depth_ptr, x, y, 0.5 * blur, 0.9 * blur, near, side, hit)
    dark += _tap(depth_ptr, x, y, -0.2 * blur, -0.1 * blur, near, side, hit)
    dark += _tap(depth_ptr, x, y, 0.95 * blur, 0.2 * blur, near, side, hit)
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side) & (depth > 1e-2)
    return tl.where(inside, dark * 0.125, 0.0)


@triton.jit
def _power(base, exponent):
    return tl.exp2(exponent * tl.log2(tl.maximum(base, 1e-30)))


@triton.jit
def _albedo(look, k, red, green, blue, hit):
    value = tl.load(look + 3 * k, hit, 0.0) * red + tl.load(look + 3 * k + 1, hit, 0.0) * green
    value += tl.load(look + 3 * k + 2, hit, 0.0) * blue + tl.load(look + 9 + k, hit, 0.0)
    value = tl.minimum(tl.maximum(value, 0.0), 1.0)
    return value * value


@triton.jit
def _panel(offset, half, soft):
    """Share of a lamp of the grid that lies at an offset in metres from the key light."""
    along = offset / _PANEL
    along = tl.abs(along - tl.floor(along + 0.5)) * _PANEL
    return tl.minimum(tl.maximum(0.5 - (along - half) / soft, 0.0), 1.0)


@triton.jit
def _colour(light, k, albedo, up, sky, key, fill, glow, bright_key, bright_fill, mirror, around, panel, hit):
    """Linear light of channel k."""
    above, below = tl.load(light + k), tl.load(light + 3 + k)
    lamp, side = tl.load(light + 9 + k), tl.load(light + 15 + k)
    diffuse = albedo * ((below + (above - below) * up) * sky + lamp * key + side * fill + glow)
    value = diffuse + lamp * bright_key + (side + 0.3 * above) * bright_fill
    reflected = 0.5 * (below + (above - below) * around) + 3.0 * lamp * panel
    value = (value + mirror * reflected) * tl.load(light + 23)
    return tl.where(hit, tl.minimum(tl.maximum(value, 0.0), 1.0), tl.load(light + 20 + k))


@triton.jit
def _shade_kernel(key_ptr, view_ptr, view_scene_ptr, rows_ptr, instance_ptr, texture_ptr, material_ptr, table_ptr,
                  texels_ptr, light_ptr, lamp_ptr, depth_ptr, out_ptr, height, width, side,
                  ROW: tl.constexpr, MATERIAL: tl.constexpr, LIGHT: tl.constexpr, SAMPLES: tl.constexpr,
                  BLOCK: tl.constexpr):  # fmt: skip
    """A block of output pixels of one view: so its scene, camera and lights are scalars."""
    image = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = pixel < height * width
    px, py = pixel % width, pixel // width
    scene = tl.load(view_scene_ptr + image)
    m = view_ptr + image * 16
    light = light_ptr + scene * LIGHT
    lamp = lamp_ptr + scene * 16
    shadow_map = depth_ptr + scene * side * side
    ex, ey, ez = tl.load(m + 3), tl.load(m + 7), tl.load(m + 11)
    ax, ay, az = tl.load(m + 2), tl.load(m + 6), tl.load(m + 10)
    focal_x, focal_y, centre_x, centre_y = tl.load(m + 12), tl.load(m + 13), tl.load(m + 14), tl.load(m + 15)
    fill_x, fill_y, fill_z = tl.load(light + 12), tl.load(light + 13), tl.load(light + 14)
    total_r = tl.zeros([BLOCK], tl.float32)
    total_g = tl.zeros([BLOCK], tl.float32)
    total_b = tl.zeros([BLOCK], tl.float32)
    for sample in range(SAMPLES * SAMPLES):
        sx, sy = px * SAMPLES + sample % SAMPLES, py * SAMPLES + sample // SAMPLES
        at = (image * (height * SAMPLES) + sy) * (width * SAMPLES) + sx
        key = tl.load(key_ptr + at, valid, _EMPTY)
        hit = key != _EMPTY
        face = tl.where(hit, key & 0xFFFFFFFF, 0)
        row = rows_ptr + face * ROW
        x, y = (sx.to(tl.float32) + 0.5 - centre_x) / focal_x, (sy.to(tl.float32) + 0.5 - centre_y) / focal_y
        dx = tl.load(m) * x + tl.load(m + 1) * y + ax
        dy = tl.load(m + 4) * x + tl.load(m + 5) * y + ay
        dz = tl.load(m + 8) * x + tl.load(m + 9) * y + az

        # Barycentric weights from the ray: d . (v_j - o) x (v_k - o).
        v0x, v0y, v0z = (
            tl.load(row, hit, 0.0) - ex,
            tl.load(row + 1, hit, 0.0) - ey,
            tl.load(row + 2, hit, 0.0) - ez,
        )
        v1x, v1y, v1z = (
            tl.load(row + 3, hit, 0.0) - ex,
            tl.load(row + 4, hit, 0.0) - ey,
            tl.load(row + 5, hit, 0.0) - ez,
        )
        v2x, v2y, v2z = (
            tl.load(row + 6, hit, 0.0) - ex,
            tl.load(row + 7, hit, 0.0) - ey,
            tl.load(row + 8, hit, 0.0) - ez,
        )
        w0 = _dot(dx, dy, dz, v1y * v2z - v1z * v2y, v1z * v2x - v1x * v2z, v1x * v2y - v1y * v2x)
        w1 = _dot(dx, dy, dz, v2y * v0z - v2z * v0y, v2z * v0x - v2x * v0z, v2x * v0y - v2y * v0x)
        w2 = _dot(dx, dy, dz, v0y * v1z - v0z * v1y, v0z * v1x - v0x * v1z, v0x * v1y - v0y * v1x)
        total = w0 + w1 + w2
        total = tl.where(tl.abs(total) < 1e-20, 1.0, total)
        w0 = tl.minimum(tl.maximum(w0 / total, 0.0), 1.0)
        w1 = tl.minimum(tl.maximum(w1 / total, 0.0), 1.0)
        w2 = tl.minimum(tl.maximum(w2 / total, 0.0), 1.0)

        # Relative to the eye; the scene's own frame adds the eye.
        rx, ry, rz = (
            w0 * v0x + w1 * v1x + w2 * v2x,
            w0 * v0y + w1 * v1y + w2 * v2y,
            w0 * v0z + w1 * v1z + w2 * v2z,
        )
        nx = _mixed(row, 9, 3, w0, w1, w2, hit)
        ny = _mixed(row, 10, 3, w0, w1, w2, hit)
        nz = _mixed(row, 11, 3, w0, w1, w2, hit)
        scale = _inverse_length(nx, ny, nz)
        nx, ny, nz = nx * scale, ny * scale, nz * scale
        scale = -_inverse_length(dx, dy, dz)
        tx, ty, tz = dx * scale, dy * scale, dz * scale
        facing = _dot(nx, ny, nz, tx, ty, tz)
        flip = tl.where(facing < 0, -1.0, 1.0)
        nx, ny, nz, facing = nx * flip, ny * flip, nz * flip, tl.abs(facing)
        depth = tl.maximum(_dot(rx, ry, rz, ax, ay, az), 1e-3)
        wx, wy, wz = rx + ex, ry + ey, rz + ez

        part = tl.load(instance_ptr + face, hit, 0)
        number = tl.load(texture_ptr + part, hit, 0)
        look = material_ptr + part * MATERIAL
        footprint = tl.load(row + 24, hit, 0.0) * depth / focal_x / tl.sqrt(tl.maximum(facing, 0.12))
        level = tl.floor(tl.log2(tl.maximum(footprint, 1e-6)) + 0.4)
        level = tl.minimum(tl.maximum(level, 0.0), 4.0).to(tl.int32)
        u, v = _mixed(row, 18, 2, w0, w1, w2, hit), _mixed(row, 19, 2, w0, w1, w2, hit)
        red, green, blue = _fetch(texels_ptr, table_ptr, number, level, u, v, hit)

        sky = _mixed(row, 25, 1, w0, w1, w2, hit)
        up = 0.5 + 0.5 * nz
        lx, ly, lz = tl.load(light + 6) - wx, tl.load(light + 7) - wy, tl.load(light + 8) - wz
        scale = _inverse_length(lx, ly, lz)
        lx, ly, lz = lx * scale, ly * scale, lz * scale
        slope = _dot(nx, ny, nz, lx, ly, lz)
        dark = _shadow(lamp, shadow_map, wx, wy, wz, slope, tl.load(light + 19), side, hit)
        visible = 1.0 - tl.load(light + 18) * dark
        key_light = tl.maximum(slope, 0.0) * visible
        fill = (0.5 + 0.5 * _dot(nx, ny, nz, fill_x, fill_y, fill_z)) * (0.4 + 0.6 * sky)
        grazing = 1.0 - tl.minimum(facing, 1.0)
        shine = tl.load(look + 12, hit, 0.0) * (0.25 + 0.75 * grazing * grazing * grazing)
        gloss = tl.load(look + 13, hit, 1.0)
        strength = shine * (1.0 + gloss * 0.08)
        hx, hy, hz = lx + tx, ly + ty, lz + tz
        half_key = _dot(nx, ny, nz, hx, hy, hz) * _inverse_length(hx, hy, hz)
        hx, hy, hz = fill_x + tx, fill_y + ty, fill_z + tz
        half_fill = _dot(nx, ny, nz, hx, hy, hz) * _inverse_length(hx, hy, hz)
        bright_key = strength * visible * _power(half_key, gloss)
        bright_fill = strength * _power(half_fill, gloss)
        glow = tl.load(look + 14, hit, 0.0) * 0.8
        mirror = tl.load(look + 22, hit, 0.0) * (0.12 + 0.88 * grazing * grazing * grazing * grazing)
        mirror = mirror * (0.4 + 0.6 * sky)
        rx, ry, rz = 2.0 * facing * nx - tx, 2.0 * facing * ny - ty, 2.0 * facing * nz - tz
        reach, soft = (tl.load(light + 8) - wz) / tl.maximum(rz, 0.05), 0.03 + 4.0 / gloss
        panel = tl.minimum(tl.maximum((rz - 0.05) * 5.0, 0.0), 1.0)
        panel *= _panel(wx - tl.load(light + 6) + rx * reach, _PANEL_X, soft)
        panel *= _panel(wy - tl.load(light + 7) + ry * reach, _PANEL_Y, soft)
        around = 0.5 + 0.5 * rz
        albedo = _albedo(look, 0, red, green, blue, hit)
        total_r += _colour(light, 0, albedo, up, sky, key_light, fill, glow, bright_key, bright_fill, mirror, around,
                           panel, hit)  # fmt: skip
        albedo = _albedo(look, 1, red, green, blue, hit)
        total_g += _colour(light, 1, albedo, up, sky, key_light, fill, glow, bright_key, bright_fill, mirror, around,
                           panel, hit)  # fmt: skip
        albedo = _albedo(look, 2, red, green, blue, hit)
        total_b += _colour(light, 2, albedo, up, sky, key_light, fill, glow, bright_key, bright_fill, mirror, around,
                           panel, hit)  # fmt: skip
    plane = height * width
    out = out_ptr + image * 3 * plane + pixel
    share = 1.0 / (SAMPLES * SAMPLES)
    tl.store(out, (tl.sqrt(total_r * share) * 255.0 + 0.5).to(tl.int32).to(tl.uint8), valid)
    tl.store(out + plane, (tl.sqrt(total_g * share) * 255.0 + 0.5).to(tl.int32).to(tl.uint8), valid)
    tl.store(out + 2 * plane, (tl.sqrt(total_b * share) * 255.0 + 0.5).to(tl.int32).to(tl.uint8), valid)


def shade_pixels_triton(
    visibility: Int64[Tensor, "n p_h p_w"],
    view_rows: Float[Tensor, "n 16"],
    view_scene: Int64[Tensor, " n"],
    buffers: ShadingBuffers,
    samples: int,
) -> UInt8[Tensor, "n 3 h w"]:
    """:func:`data_tools.procedural.shade.shade_pixels` on a GPU, in one launch."""
    n, height, width = visibility.shape[0], visibility.shape[1] // samples, visibility.shape[2] // samples
    out = torch.empty(n, 3, height, width, dtype=torch.uint8, device=visibility.device)
    tensors = (visibility, view_rows, view_scene, *vars(buffers).values())
    grid = (n, triton.cdiv(height * width, _BLOCK))
    _shade_kernel[grid](
        *(tensor.contiguous() for tensor in tensors), out, height, width, buffers.shadow_depth.shape[-1],
        ROW=buffers.faces.shape[1], MATERIAL=buffers.material.shape[1], LIGHT=buffers.lights.shape[1],
        SAMPLES=samples, BLOCK=_BLOCK, num_warps=4,
    )  # fmt: skip
    return out
