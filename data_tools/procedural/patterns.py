"""Procedural texture patterns: fifteen families, each pattern a pure function of (seed, number).

All functions work on a batch of n tiles and return float32 [n, 3, S, S] in [0, 1]; most repeat seamlessly.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from data_tools.procedural.rng import CounterRNG, constant, hash32, scene_keys

PATTERN_SIZE = 256


def natural_colours(rng: CounterRNG, *shape: int) -> Float[Tensor, "*b 3"]:
    """Colours as things have them, [*keys, *shape, 3]: greys and whites, wood and skin tones, saturated paints."""
    kind, a, b, c = rng.uniform(4, *shape).unbind(len(rng.batch))
    grey, brown = kind < 0.34, kind < 0.58
    hue = torch.where(brown & ~grey, 0.03 + 0.1 * a, a)
    saturation = torch.where(grey, 0.14 * b * b, torch.where(brown, 0.15 + 0.5 * b, 0.3 + 0.7 * b))
    value = torch.where(grey, 0.06 + 0.92 * c, torch.where(brown, 0.2 + 0.72 * c, 0.25 + 0.72 * c))
    return hsv_to_rgb(hue, saturation, value)


def hsv_to_rgb(
    hue: Float[Tensor, "*b"], saturation: Float[Tensor, "*b"], value: Float[Tensor, "*b"]
) -> Float[Tensor, "*b 3"]:
    """All in [0, 1]; hue wraps. [...] each -> [..., 3]."""
    offsets = constant((0.0, 4.0, 2.0), hue.device)  # for r, g, b
    ramp = ((hue[..., None] * 6.0 + offsets) % 6.0 - 3.0).abs() - 1.0
    return value[..., None] * (1.0 + saturation[..., None] * (ramp.clamp(0.0, 1.0) - 1.0))


def _grid(device: torch.device) -> tuple[Float[Tensor, "1 1 side"], Float[Tensor, "1 side 1"]]:
    axis = (torch.arange(PATTERN_SIZE, device=device, dtype=torch.float32) + 0.5) / PATTERN_SIZE
    return axis[None, None, :], axis[None, :, None]


def _lattice(rng: CounterRNG, rows: int, columns: int) -> Float[Tensor, "n side side"]:
    """Smooth periodic noise of rows x columns random values, [n, S, S] in about [0, 1]."""
    values = rng.uniform(rows, columns)[:, None]
    values = F.pad(values, (2, 2, 2, 2), mode="circular")
    scale_y, scale_x = PATTERN_SIZE // rows, PATTERN_SIZE // columns
    image = F.interpolate(values, scale_factor=(scale_y, scale_x), mode="bicubic")
    return image[:, 0, 2 * scale_y : 2 * scale_y + PATTERN_SIZE, 2 * scale_x : 2 * scale_x + PATTERN_SIZE]


def _fractal(rng: CounterRNG, first: int = 1, octaves: int = 5, stretch: int = 1) -> Float[Tensor, "n side side"]:
    """Sum of noise octaves with a random roughness each, in [0, 1] about 0.5."""
    roughness = rng.uniform(1, 1, low=0.4, high=0.8)
    total, weight, norm = 0.0, 1.0, 0.0
    for octave in range(first, first + octaves):
        size = 2**octave
        total = total + weight * (_lattice(rng, max(2, size // stretch), size) - 0.5)
        norm = norm + weight * weight
        weight = weight * roughness
    return (0.5 + total / (norm**0.5) * 0.9).clamp(0.0, 1.0)


def _blend(amount: Float[Tensor, "n side side"], colours: Float[Tensor, "n k 3"]) -> Float[Tensor, "n 3 side side"]:
    """Mix the first two colours by amount."""
    a, b = colours[:, 0, :, None, None], colours[:, 1, :, None, None]
    return a + (b - a) * amount[:, None]


def _plain(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    strength = rng.uniform(1, 1, low=0.0, high=0.16)
    shade = 1.0 - strength * _fractal(rng, 2, 6)
    return shade[:, None].expand(-1, 3, -1, -1)


def _clouds(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    colours = natural_colours(rng, 3)
    noise = _fractal(rng, 1, 7)
    sharp = rng.uniform(1, 1, low=1.0, high=5.0)
    image = _blend(((noise - 0.5) * sharp + 0.5).clamp(0, 1), colours)
    patches = ((_fractal(rng, 2, 5) - 0.6) * 20.0).clamp(0, 1) * rng.bernoulli(0.5, 1, 1)
    return image + (colours[:, 2, :, None, None] - image) * patches[:, None]


def _marble(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    x, y = _grid(rng.device)
    waves = rng.randint(5, 2, 1, 1) + rng.randint(2, 2, 1, 1)
    phase = waves[:, 0] * x + (1 + waves[:, 1]) * y + rng.uniform(1, 1, low=0.2, high=2.5) * _fractal(rng, 1, 6)
    vein = (0.5 + 0.5 * torch.sin(2 * math.pi * phase)) ** rng.uniform(1, 1, low=0.5, high=4.0)
    return _blend(vein, natural_colours(rng, 2))


def _wood(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    x, y = _grid(rng.device)
    grain = _fractal(rng, 4, 4, stretch=8)
    rings = torch.sin(2 * math.pi * (rng.randint(8, 1, 1) + 3) * (x + 0.15 * _fractal(rng, 1, 2, stretch=2)))
    tone = 0.55 * grain + 0.25 * (0.5 + 0.5 * rings)
    planks = rng.randint(6, 1, 1) * rng.bernoulli(0.6, 1, 1)
    gap = ((x * planks) % 1.0 < 0.03) & (planks > 1)
    hue, value = rng.uniform(low=0.03, high=0.12), rng.uniform(low=0.35, high=0.95)
    dark = hsv_to_rgb(hue, rng.uniform(low=0.25, high=0.7), value * rng.uniform(low=0.4, high=0.8))
    light = hsv_to_rgb(hue, rng.uniform(low=0.15, high=0.5), value)
    return _blend(tone.clamp(0, 1), torch.stack([light, dark], 1)) * (1.0 - 0.6 * gap.float())[:, None]


def _stripes(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    x, y = _grid(rng.device)
    waves = rng.randint(13, 2, 1, 1)
    diagonal = rng.bernoulli(0.3, 1, 1)
    along = waves[:, 0].clamp_min(1) * x + torch.where(diagonal, waves[:, 1], 0) * y
    along = along + rng.uniform(1, 1, high=0.3) * rng.bernoulli(0.3, 1, 1) * _fractal(rng, 1, 4)
    phase = along % 1.0
    colours = natural_colours(rng, 4)
    edges = rng.uniform(3, low=0.02, high=1.0).sort(-1).values
    image = colours[:, 0, :, None, None].expand(-1, -1, PATTERN_SIZE, PATTERN_SIZE)
    for k in range(3):
        image = torch.where((phase > edges[:, k, None, None])[:, None], colours[:, k + 1, :, None, None], image)
    return image * (1.0 - 0.25 * rng.uniform(1, 1)[:, None] * _fractal(rng, 2, 6)[:, None])


def _checks(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    x, y = _grid(rng.device)
    nx, ny = rng.randint(10, 1, 1) + 1, rng.randint(10, 1, 1) + 1
    cell_x, cell_y = (x * 2 * nx).floor(), (y * 2 * ny).floor()
    check = (cell_x + cell_y) % 2
    plaid = 0.5 * (cell_x % 2 + cell_y % 2)
    amount = torch.where(rng.bernoulli(0.5, 1, 1), check, plaid)
    image = _blend(amount, natural_colours(rng, 2))
    return image * (1.0 - 0.3 * rng.uniform(1, 1)[:, None] * _fractal(rng, 3, 5)[:, None])


def _dots(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    x, y = _grid(rng.device)
    count = rng.randint(11, 1, 1) + 2
    shift = 0.5 * ((y * count).floor() % 2) * rng.bernoulli(0.5, 1, 1)
    u, v = (x * count + shift) % 1.0 - 0.5, (y * count) % 1.0 - 0.5
    power = rng.uniform(1, 1, low=0.8, high=4.0)
    radius = (u.abs() ** power + v.abs() ** power) ** (1.0 / power)
    size = rng.uniform(1, 1, low=0.12, high=0.45)
    colours = natural_colours(rng, 3)
    image = _blend((radius < size).float(), colours)
    ring = (radius < size * rng.uniform(1, 1)).float()[:, None]
    return image + (colours[:, 2, :, None, None] - image) * ring


def _bricks(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    x, y = _grid(rng.device)
    nx, ny = rng.randint(6, 1, 1) + 2, 2 * (rng.randint(6, 1, 1) + 1)
    row = (y * ny).floor()
    u = x * nx + 0.5 * (row % 2) * rng.bernoulli(0.7, 1, 1)
    gap = rng.uniform(1, 1, low=0.02, high=0.1)
    mortar = ((u % 1.0) < gap) | (((y * ny) % 1.0) < gap * ny / nx)
    identity = (u.floor() % nx) * 57 + row * 131 + rng.randint(10_000, 1, 1)
    shade = (hash32(identity.to(torch.int64)) & 1023).float() / 1023.0
    colours = natural_colours(rng, 3)
    image = _blend((0.6 * shade * rng.uniform(1, 1) + 0.4 * _fractal(rng, 3, 5)).clamp(0, 1), colours)
    return torch.where(mortar[:, None], colours[:, 2, :, None, None] * 0.8 + 0.1, image)


def _cells(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    x, y = _grid(rng.device)
    sites, levels = rng.uniform(28, 2), rng.uniform(28)
    near = torch.full((len(sites), PATTERN_SIZE, PATTERN_SIZE), 9.0, device=rng.device)
    second, shade = near, torch.zeros_like(near)
    for k in range(sites.shape[1]):
        dx, dy = (x - sites[:, k, 0, None, None]).abs(), (y - sites[:, k, 1, None, None]).abs()
        distance = torch.minimum(dx, 1 - dx) ** 2 + torch.minimum(dy, 1 - dy) ** 2
        closer = distance < near
        second = torch.where(closer, near, torch.minimum(second, distance))
        shade = torch.where(closer, levels[:, k, None, None], shade)
        near = torch.minimum(near, distance)
    colours = natural_colours(rng, 3)
    style = rng.uniform(1, 1)
    smooth = (near.sqrt() * 4.5).clamp(0, 1)
    image = _blend(torch.where(style < 0.6, shade, smooth), colours)
    line = ((second.sqrt() - near.sqrt()) < rng.uniform(1, 1, low=0.0, high=0.035)).float()[:, None]
    return image + (colours[:, 2, :, None, None] - image) * line


def _glyph_mask(rng: CounterRNG, rows: int) -> Float[Tensor, "n side side"]:
    """Rows of text-like marks, [n, S, S] of 0/1: random strokes on a 5 x 7 raster, with word gaps and ragged ends."""
    n, columns, cell = len(rng.uniform(1)), rows * 3 // 2, PATTERN_SIZE // rows
    strokes = rng.bernoulli(0.42, rows, columns, 7, 4)
    frame = rng.bernoulli(0.6, rows, columns, 1, 4) & (torch.arange(4, device=rng.device) == 0)
    letters = F.pad((strokes | frame).float(), (0, 1, 1, 2))  # one column and three rows of spacing
    words = rng.bernoulli(0.84, rows, columns, 1, 1)
    ends = torch.arange(columns, device=rng.device)[:, None, None] < rng.uniform(rows, 1, 1, 1, low=0.4) * columns
    image = (letters * words * ends).permute(0, 1, 3, 2, 4).reshape(n, 1, rows * 10, columns * 5)
    return F.interpolate(image, (rows * cell, PATTERN_SIZE), mode="nearest")[:, 0]


def _text(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    colours = natural_colours(rng, 3)
    paper = torch.where(rng.bernoulli(0.5, 1), 0.93, colours[:, 0])
    mask = torch.where(rng.bernoulli(0.5, 1, 1) > 0, _glyph_mask(rng, 16), _glyph_mask(rng, 8))
    image = _blend(mask, torch.stack([paper, colours[:, 1] * rng.uniform(1, high=0.7)], 1))
    return image * (1.0 - 0.1 * _fractal(rng, 2, 4))[:, None]


def _shapes(rng: CounterRNG, count: int = 14) -> Float[Tensor, "n 3 side side"]:
    """Sharp-edged boxes, discs and half-planes over each other."""
    x, y = _grid(rng.device)
    colours = natural_colours(rng, count + 1)
    image = colours[:, 0, :, None, None].expand(-1, -1, PATTERN_SIZE, PATTERN_SIZE)
    centre, angle = rng.uniform(count, 2), rng.uniform(count, high=math.pi)
    size = (
        rng.uniform(count, 2, low=0.02, high=0.4)
        * (1.0 - torch.arange(count, device=rng.device) / (count + 4))[:, None]
    )
    kind, right_angle = rng.uniform(count), rng.bernoulli(0.5)
    angle = torch.where(right_angle[:, None], 0.0, angle)
    for k in range(count):
        dx, dy = x - centre[:, k, 0, None, None], y - centre[:, k, 1, None, None]
        dx, dy = (d - d.round() for d in (dx, dy))
        c, s = torch.cos(angle[:, k, None, None]), torch.sin(angle[:, k, None, None])
        u, v = (c * dx + s * dy) / size[:, k, 0, None, None], (c * dy - s * dx) / size[:, k, 1, None, None]
        box, disc, triangle = (
            torch.maximum(u.abs(), v.abs()),
            torch.hypot(u, v),
            torch.maximum(u.abs() * 2 + v, -v),
        )
        which = kind[:, k, None, None]
        distance = torch.where(which < 0.55, box, torch.where(which < 0.8, disc, triangle))
        image = torch.where((distance < 1)[:, None], colours[:, k + 1, :, None, None], image)
    return image


def _label(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    """A packaging print: a few blocks, an image-like patch, large and small lettering."""
    x, y = _grid(rng.device)
    image = _shapes(rng, 5)
    colours = natural_colours(rng, 4)
    left, top = rng.uniform(1, 1, high=0.5), rng.uniform(1, 1, high=0.5)
    inside = (x > left) & (x < left + 0.45) & (y > top) & (y < top + 0.4)
    image = torch.where(inside[:, None], _blend(_fractal(rng, 1, 6), colours), image)
    for rows, share in ((4, 0.35), (16, 0.4)):
        low = rng.uniform(1, 1, high=1.0 - share)
        mask = _glyph_mask(rng, rows) * ((y > low) & (y < low + share))
        ink = torch.where(rng.bernoulli(0.5, 1), rng.uniform(1).round(), colours[:, 2])
        image = image + (ink[:, :, None, None] - image) * mask[:, None]
    return image


def _weave(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    x, y = _grid(rng.device)
    count = rng.randint(20, 1, 1) + 6
    u, v = torch.sin(2 * math.pi * count * x), torch.sin(2 * math.pi * count * y)
    thread = 0.5 + 0.25 * (u * v + torch.maximum(u, v))
    return _blend((thread + 0.4 * (_fractal(rng, 2, 6) - 0.5)).clamp(0, 1), natural_colours(rng, 2))


def _gradient(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    x, y = _grid(rng.device)
    mirrored = torch.where(rng.bernoulli(0.5, 1, 1), (2 * x - 1).abs() + 0 * y, (2 * y - 1).abs() + 0 * x)
    steps = rng.randint(6, 1, 1) + 2
    stepped = (mirrored * steps).floor() / steps
    return _blend(torch.where(rng.bernoulli(0.4, 1, 1), stepped, mirrored), natural_colours(rng, 2))


def _damask(rng: CounterRNG) -> Float[Tensor, "n 3 side side"]:
    """Brocade: a mirrored motif of contour bands in two colours, over a fine thread."""
    motif = _fractal(rng, 2, 5)[:, : PATTERN_SIZE // 4, : PATTERN_SIZE // 4]
    motif = torch.cat([motif, motif.flip(-1)], -1)
    motif = torch.cat([motif, motif.flip(-2)], -2).repeat(1, 2, 2)
    bands = torch.sin(motif * rng.uniform(1, 1, low=12.0, high=45.0))
    amount = (bands * rng.uniform(1, 1, low=1.0, high=4.0) + 0.5).clamp(0.0, 1.0)
    x, y = _grid(rng.device)
    turns = 2 * math.pi * PATTERN_SIZE / 4
    thread = 1.0 + torch.sin(turns * x) * torch.sin(turns * y) * rng.uniform(1, 1, high=0.25)
    return _blend(amount, natural_colours(rng, 2)) * thread[:, None]


FAMILIES = (_plain, _clouds, _marble, _wood, _stripes, _checks, _dots, _bricks, _cells, _text, _shapes, _label,
            _weave, _gradient, _damask)  # fmt: skip


def make_patterns(family: int, keys: Int64[Tensor, " n"]) -> UInt8[Tensor, "n 3 side side"]:
    """Patterns of one family, from 32-bit keys."""
    image = FAMILIES[family](CounterRNG(keys, f"tile{family}", 48_000))
    return (image.clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8)


def pattern_keys(seed: int, numbers: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """Keys for :func:`make_patterns` of pattern numbers."""
    return scene_keys(seed ^ 0x7115, numbers)
