"""Printed things: pages, covers, packages, keyboards, screens; each print a pure function of (seed, number).

Batches of n prints as float32 [n, 3, S, S] in [0, 1]. Lettering has rounded strokes, lines, words and margins, so that
it looks like print where it is large and like grey lines where it is small.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from data_tools.procedural.patterns import PATTERN_SIZE, _fractal, _grid, _shapes, hsv_to_rgb, natural_colours
from data_tools.procedural.rng import CounterRNG, constant, scene_keys

PAGE, COVER, PACKAGE, KEYBOARD, SCREEN = range(5)
EACH = 32
"""Prints of each sort; print number EACH * sort + k."""
PRINTS = EACH * 5

_Image = Float[Tensor, "n 3 side side"]
_Mask = Float[Tensor, "n side side"]


def _lettering(rng: CounterRNG, rows: int, fill: float) -> _Mask:
    """Ink of lines of lettering over the whole print, [n, S, S] in [0, 1]; fill: share of a line that is written."""
    columns, n = rows * 2, rng.batch[0]
    strokes = rng.bernoulli(0.4, rows, columns, 5, 3).float()
    stem = rng.bernoulli(0.7, rows, columns, 1, 1).float() * constant((1.0, 0.0, 0.0), rng.device)
    gap = rng.bernoulli(0.83, rows, columns, 1, 1)
    ends = torch.arange(columns, device=rng.device)[:, None, None] < rng.uniform(rows, 1, 1, 1, low=fill) * columns
    letters = F.pad(torch.maximum(strokes, stem) * gap * ends, (0, 1, 1, 2))
    image = letters.permute(0, 1, 3, 2, 4).reshape(n, 1, rows * 8, columns * 4)
    image = F.interpolate(image, (PATTERN_SIZE, PATTERN_SIZE), mode="bicubic", align_corners=False)[:, 0]
    return ((image - 0.5) * 4.0 + 0.5).clamp(0.0, 1.0) if rows < 20 else image.clamp(0.0, 1.0)


def _window(rng: CounterRNG, low: float, high: float, margin: float = 0.06) -> Bool[Tensor, "n side side"]:
    """A rectangle with sides between low and high, within the margins."""
    x, y = _grid(rng.device)
    size, place = rng.uniform(2, 1, 1, low=low, high=high), rng.uniform(2, 1, 1)
    start = margin + place * (1.0 - 2.0 * margin - size).clamp_min(0.0)
    inside_x = (x > start[:, 0]) & (x < start[:, 0] + size[:, 0])
    return inside_x & (y > start[:, 1]) & (y < start[:, 1] + size[:, 1])


def _put(image: _Image, mask: Tensor, colour: Tensor) -> _Image:
    """colour [n, 3] or an image, where the mask is 1."""
    colour = colour if colour.ndim == 4 else colour[:, :, None, None]
    return image + (colour - image) * mask[:, None].float()


def _picture(rng: CounterRNG) -> _Image:
    """A photo-like patch: soft bands of three colours with details."""
    colours = natural_colours(rng, 3)
    soft, fine = _fractal(rng, 1, 7), _fractal(rng, 2, 6)
    image = torch.lerp(
        colours[:, 0, :, None, None], colours[:, 1, :, None, None], ((soft - 0.5) * 3 + 0.5).clamp(0, 1)[:, None]
    )
    return _put(image, ((fine - 0.55) * 12).clamp(0, 1), colours[:, 2])


def _page(rng: CounterRNG) -> _Image:
    x, y = _grid(rng.device)
    paper = 0.86 + 0.12 * rng.uniform(1) + rng.normal(3, std=0.012)
    image = paper[:, :, None, None].expand(-1, 3, PATTERN_SIZE, PATTERN_SIZE)
    columns = rng.bernoulli(0.3, 1, 1)
    text = (x > 0.09) & (x < 0.91) & (y < 0.94) & ~(columns & ((x - 0.5).abs() < 0.02))
    start = rng.uniform(1, 1, low=0.1, high=0.3)
    ink = rng.uniform(3, high=0.12) + rng.uniform(1, high=0.3)
    image = _put(image, _lettering(rng, 32, 0.75) * (text & (y > start)), ink)
    image = _put(image, _lettering(rng, 12, 0.1) * (text & (y > start - 0.085) & (y < start)), ink * 0.4)
    figure = _window(rng, 0.25, 0.7) & rng.bernoulli(0.5, 1, 1)
    return _put(image, figure, torch.where(rng.bernoulli(0.5, 1, 1, 1), _picture(rng), paper[:, :, None, None] * 0.9))


def _cover(rng: CounterRNG) -> _Image:
    colours = natural_colours(rng, 3)
    image = colours[:, 0, :, None, None].expand(-1, -1, PATTERN_SIZE, PATTERN_SIZE)
    image = _put(image, _window(rng, 0.5, 1.0, 0.0) & rng.bernoulli(0.7, 1, 1), _picture(rng))
    _, y = _grid(rng.device)
    ink = torch.where(rng.bernoulli(0.5, 1), rng.uniform(1).round(), colours[:, 1])
    start = rng.uniform(1, 1, low=0.04, high=0.6)
    band = (y > start) & (y < start + 0.33)
    image = _put(image, band & rng.bernoulli(0.4, 1, 1), colours[:, 2])
    image = _put(image, _lettering(rng, 6, 0.4) * band, ink)
    return _put(image, _lettering(rng, 20, 0.2) * ((y > 0.86) & (y < 0.95)), ink)


def _package(rng: CounterRNG) -> _Image:
    x, y = _grid(rng.device)
    image = _shapes(rng, 4)
    colours = natural_colours(rng, 2)
    image = _put(image, _window(rng, 0.35, 0.6), _picture(rng))
    title = _window(rng, 0.5, 0.8)
    image = _put(
        image,
        _lettering(rng, 5, 0.5) * title,
        torch.where(rng.bernoulli(0.6, 1), rng.uniform(1).round(), colours[:, 0]),
    )
    # A table of facts, and a bar code, each on a field of its own.
    for share, kind in ((0.7, "facts"), (0.5, "bars")):
        field = _window(rng, 0.2, 0.4) & rng.bernoulli(share, 1, 1)
        if kind == "facts":
            ink = torch.maximum(_lettering(rng, 32, 0.6), ((y * 16) % 1.0 < 0.06).float().expand(len(x), -1, -1))
        else:
            bars = rng.bernoulli(0.5, 64).float()
            ink = bars.repeat_interleave(PATTERN_SIZE // 64, 1)[:, None].expand(-1, PATTERN_SIZE, -1)
        pale = 0.92 - 0.3 * rng.uniform(1) * rng.uniform(3)
        image = _put(image, field, pale)
        image = _put(image, field * ink, 0.15 * rng.uniform(3))
    return image


def _keyboard(rng: CounterRNG) -> _Image:
    x, y = _grid(rng.device)
    dark = rng.bernoulli(0.75, 1, 1)
    tone = torch.where(dark, rng.uniform(1, 1, low=0.03, high=0.16), rng.uniform(1, 1, low=0.55, high=0.9))
    rows, columns = 6.0, 17.0
    row = (y * 1.06 - 0.03) * rows
    along = x * 1.04 * columns - 0.34 + 0.37 * (row.floor() % 3)
    key = ((row % 1.0 - 0.5).abs() < 0.43) & ((along % 1.0 - 0.5).abs() < 0.42) & (row > 0) & (row < rows)
    key = key & (x > 0.02) & (x < 0.98)
    legend = ((row % 1.0 - 0.4).abs() < 0.16) & ((along % 1.0 - 0.36).abs() < 0.13)
    marks = _lettering(rng, 16, 0.98) * legend
    level = torch.where(key, tone * torch.where(dark, 1.0, 1.05), tone * torch.where(dark, 0.45, 0.75))
    level = torch.lerp(level, torch.where(dark, 0.75, 0.1).expand_as(level), marks)
    return level[:, None] * (1.0 + rng.normal(3, 1, 1, std=0.02))


def _screen(rng: CounterRNG) -> _Image:
    """Off, or with windows of text and pictures."""
    x, y = _grid(rng.device)
    frame = ((x - 0.5).abs() < 0.485) & ((y - 0.5).abs() < 0.475)
    image = torch.full((len(rng.uniform(1)), 3, PATTERN_SIZE, PATTERN_SIZE), 0.02, device=rng.device)
    desktop = hsv_to_rgb(rng.uniform(), rng.uniform(high=0.6), rng.uniform(low=0.05, high=0.6))
    shown = torch.where(rng.bernoulli(0.5, 1, 1, 1), _picture(rng), desktop[:, :, None, None])
    for _ in range(2):
        pane, light = _window(rng, 0.35, 0.8, 0.02), rng.bernoulli(0.5, 1)
        shown = _put(shown, pane, torch.where(light, 0.93, 0.12).expand(-1, 3))
        shown = _put(shown, _lettering(rng, 28, 0.3) * pane, torch.where(light, 0.1, 0.8).expand(-1, 3))
    return _put(image, frame & rng.bernoulli(0.35, 1, 1), shown)


_SORTS = (_page, _cover, _package, _keyboard, _screen)


def make_prints(sort: int, keys: Int64[Tensor, " n"]) -> UInt8[Tensor, "n 3 side side"]:
    """Prints of one sort, from 32-bit keys."""
    image = _SORTS[sort](CounterRNG(keys, f"print{sort}", 130_000))
    return (image.clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8)


def print_keys(seed: int, numbers: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """Keys for :func:`make_prints` of print numbers."""
    return scene_keys(seed ^ 0xB00C, numbers)
