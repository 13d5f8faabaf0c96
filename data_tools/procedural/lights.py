"""Lights and exposure of scenes, one row of numbers each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from data_tools.procedural.draws import Draws

LIGHT_FIELDS = 24
"""0-2 sky radiance, 3-5 ground radiance, 6-8 key position, 9-11 key radiance, 12-14 fill direction,
15-17 fill radiance, 18 shadow strength, 19 shadow blur in texels, 20-22 background, 23 exposure."""


def _warmth(draws: Draws, strength: float) -> Tensor:
    """A slight colour of light from bluish to orange, [*keys, 3], largest channel 1."""
    shift = draws.normal(std=strength)
    green = draws.normal(std=strength * 0.25)
    colour = torch.stack([1.0 + shift, 1.0 + green, 1.0 - shift], -1).clamp_min(0.3)
    return colour / colour.amax(-1, keepdim=True)


def object_lights(keys: Tensor) -> Tensor:
    """Soft studio light around the unit ball at the origin, white background; [s, LIGHT_FIELDS]."""
    draws = Draws(keys, "light", 64)
    soft = draws.uniform(
        low=0.5, high=1.0
    )  # share of the sky; NeRF-synthetic and product scans are lit softly
    soft = torch.where(draws.chance(0.15), draws.uniform(low=0.2, high=0.5), soft)
    level = draws.uniform(low=1.2, high=1.7)
    sky = _warmth(draws, 0.04) * (soft * level)[..., None]
    ground = sky * draws.uniform(1, low=0.35, high=0.95)
    azimuth, height = draws.uniform(high=2 * math.pi), draws.uniform(low=0.35, high=1.0)
    flat = (1.0 - height * height).clamp_min(0).sqrt()
    direction = torch.stack([flat * torch.cos(azimuth), flat * torch.sin(azimuth), height], -1)
    key = _warmth(draws, 0.06) * ((1.05 - soft) * level * 1.1)[..., None]
    azimuth, height = draws.uniform(high=2 * math.pi), draws.uniform(low=-0.3, high=0.8)
    flat = (1.0 - height * height).sqrt()
    fill_direction = torch.stack([flat * torch.cos(azimuth), flat * torch.sin(azimuth), height], -1)
    fill = _warmth(draws, 0.06) * draws.uniform(1, high=0.3)
    strength = torch.where(draws.chance(0.7), draws.uniform(low=0.4, high=1.0), 0.0)
    blur, exposure = draws.ranges((1.0, 5.0), (0.95, 1.7))
    rest = torch.stack([strength, blur, *[torch.ones_like(strength)] * 3, exposure], -1)
    return torch.cat([sky, ground, direction * 5.0, key, fill_direction, fill, rest], -1)


def room_lights(keys: Tensor, room_half: Tensor, room_height: Tensor, focus: Tensor) -> Tensor:
    """A lamp below the ceiling (or the sun through it), bounced light, a random exposure; [s, LIGHT_FIELDS]."""
    draws = Draws(keys, "light", 64)
    level = draws.uniform(low=0.35, high=0.75)
    cast = _warmth(draws, 0.16)
    sky = cast * level[..., None]
    ground = sky * draws.uniform(1, low=0.35, high=0.8) * _warmth(draws, 0.08)
    spread = draws.uniform(2, low=-0.75, high=0.75) * room_half
    spread = focus[..., :2] + (spread - focus[..., :2]) * draws.uniform(1, low=0.2, high=0.9)
    position = torch.cat([spread, (room_height * draws.uniform(low=0.85, high=0.97))[..., None]], -1)
    key = cast * _warmth(draws, 0.08) * draws.uniform(1, low=0.25, high=0.9)
    azimuth = draws.uniform(high=2 * math.pi)
    fill_direction = torch.stack(
        [0.8 * torch.cos(azimuth), 0.8 * torch.sin(azimuth), torch.full_like(azimuth, 0.6)], -1
    )
    fill = _warmth(draws, 0.15) * draws.uniform(1, low=0.05, high=0.3)
    strength = torch.where(draws.chance(0.85), draws.uniform(low=0.4, high=1.0), 0.0)
    # Phones under-expose as often as not: a quarter of the captures is dark.
    exposure = torch.where(
        draws.chance(0.25), draws.log_uniform(low=0.15, high=0.7), draws.uniform(low=0.8, high=1.7)
    )
    rest = torch.stack([strength, draws.uniform(low=1.0, high=5.0)], -1)
    return torch.cat(
        [sky, ground, position, key, fill_direction, fill, rest, sky * 0.5, exposure[..., None]], -1
    )
