"""Skies: textures of a whole hemisphere with haze, blue, a glow around the sun and clouds.

A texture runs once around the horizon (the sun's azimuth is 0) and from the top of the dome to a little below the
ground. It is made by the direction in which each texel is seen from the middle: nothing is pinched at the zenith.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from data_tools.procedural.patterns import PATTERN_SIZE, _fractal, hsv_to_rgb
from data_tools.procedural.rng import CounterRNG, constant, scene_keys

SKIES, OVERCAST = 24, 6
"""How many there are; the last ``OVERCAST`` of them have no sun."""
SKY_HW = (256, 1024)
BULGE, DIP = 0.35, 0.06
"""Shape of the dome that they are made for: a lathe of height and radius 1 that is a cone but for its bulge, and begins
this much below the ground."""


def sky_keys(seed: int, numbers: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """Keys for :func:`make_skies` of sky numbers (int64)."""
    return scene_keys(seed ^ 0x5C1E5, numbers)


def _directions(device: torch.device) -> Float[Tensor, "h w 3"]:
    """Unit vectors of the texels as seen from the dome's middle on the ground, [H, W, 3]."""
    height, width = SKY_HW
    share = 1.0 - (torch.arange(height, device=device) + 0.5) / height  # 1 at the top
    out = (1.0 - share) + BULGE * 4.0 * share * (1.0 - share)
    column = (torch.arange(width, device=device) + 0.5) * (4.0 / width)
    side = column.floor()
    azimuth = side * (0.5 * math.pi) + torch.atan(2.0 * (column - side) - 1.0)  # as on the faces of a cube
    up = (share - DIP)[:, None].expand(height, width)
    flat = torch.stack([torch.cos(azimuth), torch.sin(azimuth)], -1) * out[:, None, None]
    return F.normalize(torch.cat([flat, up[..., None]], -1), dim=-1)


def make_skies(keys: Int64[Tensor, " n"], overcast: Bool[Tensor, " n"]) -> UInt8[Tensor, "n 3 h w"]:
    """Skies uint8 [n, 3, *SKY_HW] of 32-bit keys [n], bool [n] without sun."""
    rng = CounterRNG(keys, "sky", 48_000)
    toward = _directions(keys.device)[None]
    up = toward[..., 2].clamp_min(0.0)
    hue, deep, bright, pale, power, glow, warmth = (
        value[:, None, None]
        for value in rng.ranges(
            (0.54, 0.605), (0.35, 0.75), (0.55, 0.95), (0.03, 0.2), (0.35, 0.9), (0.2, 1.0), (0.0, 1.0)
        )
    )
    dull = overcast[:, None, None]
    zenith = hsv_to_rgb(hue, torch.where(dull, 0.08, deep), torch.where(dull, 0.75, bright))
    horizon = hsv_to_rgb(hue, torch.where(dull, 0.03, pale), 0.82 + 0.13 * bright)
    # Evenings: a warm horizon on the sun's side.
    low = (warmth > 0.75) & ~dull
    level = rng.uniform(1, 1, low=0.25, high=0.95)
    level = torch.where(low, 0.12, level)
    sun = torch.stack([(1.0 - level * level).sqrt(), torch.zeros_like(level), level], -1)
    near = (toward * sun).sum(-1).clamp_min(0.0)
    tone = constant((1.0, 0.72, 0.45), keys.device)
    warm = torch.where(low[..., None], tone, torch.ones_like(tone))
    image = torch.lerp(horizon, zenith, (up**power)[..., None])
    halo = (0.25 * near**4 + 0.35 * near**24 + 0.6 * near**300) * glow * ~dull
    image = torch.lerp(image, warm, halo.clamp_max(1.0)[..., None])
    image = torch.lerp(image, warm * 0.95, (low * 0.6 * (1.0 - up) ** 8 * near)[..., None])

    # Clouds lie on a plane above: small and flat towards the horizon, where haze takes them.
    noise = _fractal(rng, 1, 7)
    cover, sharp, size, dark, mist = (
        value[:, None, None] for value in rng.ranges((0.35, 0.85), (1.5, 6.0), (0.06, 0.2), (0.55, 0.95), (0.04, 0.2))
    )
    cover, sharp = torch.where(dull, 0.3, cover), torch.where(dull, 1.2, sharp)
    across = toward[..., :2] / (up + 0.12)[..., None] * size[..., None]
    place = (across + rng.uniform(1, 1, 2)) % 1.0
    ring = F.pad(noise[:, None], (1, 1, 1, 1), mode="circular")
    at = ((place * PATTERN_SIZE + 1.0) / (PATTERN_SIZE + 2.0)) * 2.0 - 1.0
    cloud = F.grid_sample(ring, at, mode="bilinear", align_corners=False)[:, 0]
    amount = ((cloud - cover) * sharp).clamp(0.0, 1.0) * (up / mist).clamp(0.0, 1.0)
    body = torch.lerp(torch.full_like(cloud, 0.98), dark.expand_as(cloud), ((cloud - cover) * 1.5).clamp(0.0, 1.0))
    image = torch.lerp(image, body[..., None] * torch.lerp(torch.ones_like(tone), warm, 0.3), amount[..., None])
    return (image.clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8).permute(0, 3, 1, 2).contiguous()
