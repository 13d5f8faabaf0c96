"""Deferred shading: one pass over the samples, from visible triangles to linear RGB.

``shade`` is the plain reference, for a CPU; ``shade_triton`` does the same in one kernel on a GPU.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32, Int64, UInt8
from torch import Tensor

from data_tools.procedural.raster_constants import EMPTY, PANEL
from data_tools.procedural.shading_buffers import ShadingBuffers

SHADOW_TAPS = (
    (-0.94, -0.4),
    (0.94, -0.77),
    (-0.09, -0.93),
    (0.34, 0.29),
    (-0.64, 0.75),
    (0.5, 0.9),
    (-0.2, -0.1),
    (0.95, 0.2),
)

_CHUNK_SAMPLES = 2**18


def shade(
    visibility: Int64[Tensor, "n h w"],
    view_rows: Float[Tensor, "n 16"],
    view_scene: Int64[Tensor, " n"],
    buffers: ShadingBuffers,
) -> Float[Tensor, "n 3 h w"]:
    """Colours of all samples.

    Args:
        visibility: what the rasteriser found in n views.
        view_rows: c2w rows (12), then fx, fy, cx, cy in samples; view_scene: the scene of each view.

    Returns:
        Linear RGB in [0, 1].
    """
    n, height, width = visibility.shape
    hit = visibility != EMPTY
    face = torch.where(hit, visibility & 0xFFFFFFFF, 0)
    rows, lights, material = buffers.faces, buffers.lights, buffers.material
    scene = view_scene[:, None, None].expand(n, height, width)

    def view(k: int) -> Float[Tensor, "n 1 1"]:
        return view_rows[:, k][:, None, None]

    x = (torch.arange(width, device=visibility.device) + 0.5 - view(14)) / view(12)
    y = (torch.arange(height, device=visibility.device)[:, None] + 0.5 - view(15)) / view(13)
    d = [view(4 * k) * x + view(4 * k + 1) * y + view(4 * k + 2) for k in range(3)]
    eye = [view(4 * k + 3) for k in range(3)]

    # Barycentric weights from the ray: d . (v_j - o) x (v_k - o).
    v = [[rows[face, 3 * c + k] - eye[k] for k in range(3)] for c in range(3)]
    weight = [_dot(d, _cross(v[1], v[2])), _dot(d, _cross(v[2], v[0])), _dot(d, _cross(v[0], v[1]))]
    total = weight[0] + weight[1] + weight[2]
    total = torch.where(total.abs() < 1e-20, 1.0, total)
    weight = [(w / total).clamp(0.0, 1.0) for w in weight]

    def mixed(first: int, step: int) -> Float[Tensor, "n h w"]:
        a, b, c = (weight[corner] * rows[face, first + step * corner] for corner in range(3))
        return a + b + c

    position = [sum(weight[c] * v[c][k] for c in range(3)) + eye[k] for k in range(3)]
    normal = _unit([mixed(9 + k, 3) for k in range(3)])
    toward = _unit([-component for component in d])
    facing = _dot(normal, toward)
    normal = [torch.where(facing < 0, -component, component) for component in normal]
    depth = _dot([p - e for p, e in zip(position, eye, strict=True)], [view(2), view(6), view(10)]).clamp_min(1e-3)

    part = buffers.instance[face]
    number = buffers.texture[part]
    footprint = rows[face, 24] * depth / view(12) / facing.abs().clamp_min(0.12).sqrt()
    level = (torch.log2(footprint.clamp_min(1e-6)) + 0.4).floor().clamp(0.0, 4.0).to(torch.int64)
    texel = _fetch(buffers.texels, buffers.texture_table, number, level, mixed(18, 2), mixed(19, 2))

    def look(k: int) -> Float[Tensor, "n h w"]:
        return material[part, k]

    def light(k: int) -> Float[Tensor, "n h w"]:
        return lights[scene, k]

    albedo = []
    for k in range(3):
        value = sum(look(3 * k + c) * texel[c] for c in range(3)) + look(9 + k)
        # The coding of images is close to a square root: light adds up in squares.
        albedo.append(value.clamp(0.0, 1.0).square())

    sky = mixed(25, 1)
    up = 0.5 + 0.5 * normal[2]
    to_key = _unit([light(6 + k) - position[k] for k in range(3)])
    visible = 1.0 - light(18) * _shadow(
        position, normal, to_key, buffers.shadow_camera, buffers.shadow_depth, scene, light(19)
    )
    key = _dot(normal, to_key).clamp_min(0.0) * visible
    fill_direction = [light(12 + k) for k in range(3)]
    fill = (0.5 + 0.5 * _dot(normal, fill_direction)) * (0.4 + 0.6 * sky)
    shine = look(12) * (0.25 + 0.75 * (1.0 - facing.abs().clamp_max(1.0)) ** 3)
    gloss = look(13)
    half_key = _unit([a + b for a, b in zip(to_key, toward, strict=True)])
    half_fill = _unit([a + b for a, b in zip(fill_direction, toward, strict=True)])
    bright_key = shine * visible * _dot(normal, half_key).clamp_min(0.0) ** gloss * (1.0 + gloss * 0.08)
    bright_fill = shine * _dot(normal, half_fill).clamp_min(0.0) ** gloss * (1.0 + gloss * 0.08)
    # What mirrors shows the surroundings, more of them at grazing angles: walls between ground and sky, and lamps.
    mirror = look(22) * (0.12 + 0.88 * (1.0 - facing.abs().clamp_max(1.0)) ** 4)
    away = [2.0 * facing.abs() * n - t for n, t in zip(normal, toward, strict=True)]
    around = 0.5 + 0.5 * away[2]
    reach = (light(8) - position[2]) / away[2].clamp_min(0.05)
    lamp = ((away[2] - 0.05) * 5.0).clamp(0.0, 1.0)
    for k in range(2):
        along = (position[k] - light(6 + k) + away[k] * reach) / PANEL[0]
        along = (along - (along + 0.5).floor()).abs() * PANEL[0]
        lamp = lamp * ((PANEL[1 + k] - along) / (0.03 + 4.0 / gloss) + 0.5).clamp(0.0, 1.0)
    colour = []
    for k in range(3):
        ambient = (light(3 + k) + (light(k) - light(3 + k)) * up) * sky
        diffuse = albedo[k] * (ambient + light(9 + k) * key + light(15 + k) * fill + look(14) * 0.8)
        value = diffuse + light(9 + k) * bright_key + (light(15 + k) + 0.3 * light(k)) * bright_fill
        reflected = 0.5 * (light(3 + k) + (light(k) - light(3 + k)) * around) + 3.0 * light(9 + k) * lamp
        value = value + mirror * reflected * (0.4 + 0.6 * sky)
        colour.append(torch.where(hit, (value * light(23)).clamp(0.0, 1.0), light(20 + k)))
    return torch.stack(colour, 1)


def shade_pixels(
    visibility: Int64[Tensor, "n p_h p_w"],
    view_rows: Float[Tensor, "n 16"],
    view_scene: Int64[Tensor, " n"],
    buffers: ShadingBuffers,
    samples: int,
) -> UInt8[Tensor, "n 3 h w"]:
    """Images: the samples shaded (see :func:`shade`), averaged in linear light, coded and rounded.

    Args:
        samples: samples along either side of a pixel; the sides of ``visibility`` are multiples of it.

    Returns:
        h = p_h / samples and w = p_w / samples; an exposed white of 1 is exactly 255.
    """
    if visibility.device.type == "cuda":
        from data_tools.procedural.shade_triton import shade_pixels_triton

        return shade_pixels_triton(visibility, view_rows, view_scene, buffers, samples)
    images = []
    step = max(1, _CHUNK_SAMPLES // (visibility.shape[1] * visibility.shape[2]))
    for start in range(0, len(visibility), step):
        part = slice(start, start + step)
        linear = shade(visibility[part], view_rows[part], view_scene[part], buffers)
        mean = torch.nn.functional.avg_pool2d(linear, samples)
        images.append((mean.sqrt() * 255.0 + 0.5).to(torch.uint8))
    return torch.cat(images)


def _dot(a: list[Float[Tensor, "n h w"]], b: list[Float[Tensor, " n #h #w"]]) -> Float[Tensor, "n h w"]:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: list[Float[Tensor, "n h w"]], b: list[Float[Tensor, "n h w"]]) -> list[Float[Tensor, "n h w"]]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def _unit(a: list[Float[Tensor, "n h w"]]) -> list[Float[Tensor, "n h w"]]:
    scale = _dot(a, a).clamp_min(1e-20).rsqrt()
    return [component * scale for component in a]


def _fetch(
    texels: Int32[Tensor, " texels"],
    table: Int32[Tensor, "t 8"],
    number: Int64[Tensor, "n h w"],
    level: Int64[Tensor, "n h w"],
    u: Float[Tensor, "n h w"],
    v: Float[Tensor, "n h w"],
) -> list[Float[Tensor, "n h w"]]:
    """Bilinear texels of one mip level: three channels in [0, 1]."""
    start = table[number, level].to(torch.int64)
    repeats = table[number, 7] > 0
    # The atlases' last level is stored for all deeper ones.
    level = torch.where(repeats, level, level.clamp_max(1))
    w, h = table[number, 5].to(torch.int64) >> level, table[number, 6].to(torch.int64) >> level
    w, h = w.clamp_min(1), h.clamp_min(1)
    u = torch.where(repeats, u - u.floor(), u.clamp(0.0, 1.0)) * w - 0.5
    v = torch.where(repeats, v - v.floor(), v.clamp(0.0, 1.0)) * h - 0.5
    x0, y0 = u.floor(), v.floor()
    fx, fy = u - x0, v - y0

    def inside(i: Int64[Tensor, "n h w"], size: Int64[Tensor, "n h w"]) -> Int64[Tensor, "n h w"]:
        wrapped = torch.where(i < 0, i + size, torch.where(i >= size, i - size, i))
        return torch.where(repeats, wrapped, torch.minimum(i.clamp_min(0), size - 1))

    x0, y0 = x0.to(torch.int64), y0.to(torch.int64)
    x1, y1 = inside(x0 + 1, w), inside(y0 + 1, h)
    x0, y0 = inside(x0, w), inside(y0, h)
    taps = [texels[start + yy * w + xx] for yy in (y0, y1) for xx in (x0, x1)]
    weights = [(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy]

    def channel(k: int) -> Float[Tensor, "n h w"]:
        a, b, c, d = (weight * ((tap >> (8 * k)) & 255) for tap, weight in zip(taps, weights, strict=True))
        return (a + b + c + d) * (1.0 / 255.0)

    return [channel(k) for k in range(3)]


def _shadow(
    position: list[Float[Tensor, "n h w"]],
    normal: list[Float[Tensor, "n h w"]],
    to_key: list[Float[Tensor, "n h w"]],
    camera: Float[Tensor, "s 16"],
    depth: Float[Tensor, "s r r"],
    scene: Int64[Tensor, "n h w"],
    blur: Float[Tensor, "n h w"],
) -> Float[Tensor, "n h w"]:
    """Share of the taps around the point that lie in shadow; [n, h, w]."""
    side = depth.shape[-1]
    flat = depth.reshape(-1)

    def cam(k: int) -> Float[Tensor, "n h w"]:
        return camera[scene, k]

    local = [sum(cam(4 * r + k) * position[k] for k in range(3)) + cam(4 * r + 3) for r in range(3)]
    z = local[2].clamp_min(1e-3)
    x, y = local[0] / z * cam(12) + cam(14), local[1] / z * cam(13) + cam(15)
    slope = _dot(normal, to_key).clamp(0.05, 1.0)
    # A texel's width times the slope, for the blur's reach, keeps a surface from shadowing itself.
    bias = z / cam(12) * (1.5 + blur) * (0.6 + (1.0 - slope * slope).sqrt() / slope).clamp_max(6.0)
    dark = 0.0
    for dx, dy in SHADOW_TAPS:
        px = (x + dx * blur).clamp(0, side - 1).to(torch.int64)
        py = (y + dy * blur).clamp(0, side - 1).to(torch.int64)
        dark = dark + (z - bias > flat[(scene * side + py) * side + px]).to(torch.float32)
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side) & (local[2] > 1e-2)
    return torch.where(inside, dark / len(SHADOW_TAPS), 0.0)
