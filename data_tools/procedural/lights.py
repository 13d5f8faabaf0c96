"""Lights and exposure of scenes, one row of numbers each."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from data_tools.procedural.rng import CounterRNG, constant

LIGHT_FIELDS = 24
"""0-2 sky radiance, 3-5 ground radiance, 6-8 key position, 9-11 key radiance, 12-14 fill direction,
15-17 fill radiance, 18 shadow strength, 19 shadow blur in texels, 20-22 background, 23 exposure."""


def _warmth(rng: CounterRNG, strength: float) -> Float[Tensor, "*keys 3"]:
    """A slight colour of light from bluish to orange, [*keys, 3], largest channel 1."""
    shift = rng.normal(std=strength)
    green = rng.normal(std=strength * 0.25)
    colour = torch.stack([1.0 + shift, 1.0 + green, 1.0 - shift], -1).clamp_min(0.3)
    return colour / colour.amax(-1, keepdim=True)


def _direction(azimuth: Float[Tensor, "*b"], height: Float[Tensor, "*b"]) -> Float[Tensor, "*b 3"]:
    """Unit vectors of that z."""
    flat = (1.0 - height * height).clamp_min(0).sqrt()
    return torch.stack([flat * torch.cos(azimuth), flat * torch.sin(azimuth), height], -1)


def _slanting(azimuth: Float[Tensor, "*b"]) -> Float[Tensor, "*b 3"]:
    """Unit vectors that rise by 37 degrees."""
    return torch.stack([0.8 * torch.cos(azimuth), 0.8 * torch.sin(azimuth), torch.full_like(azimuth, 0.6)], -1)


def object_lights(keys: Int64[Tensor, " s"]) -> Float[Tensor, "s l"]:
    """Soft studio light around the unit ball at the origin, white background; [s, LIGHT_FIELDS]."""
    rng = CounterRNG(keys, "light", 64)
    soft = rng.uniform(low=0.5, high=1.0)  # share of the sky; NeRF-synthetic and product scans are lit softly
    soft = torch.where(rng.bernoulli(0.15), rng.uniform(low=0.2, high=0.5), soft)
    level = rng.uniform(low=1.2, high=1.7)
    sky = _warmth(rng, 0.04) * (soft * level)[..., None]
    ground = sky * rng.uniform(1, low=0.35, high=0.95)
    direction = _direction(rng.uniform(high=2 * math.pi), rng.uniform(low=0.35, high=1.0))
    key = _warmth(rng, 0.06) * ((1.05 - soft) * level * 1.1)[..., None]
    fill_direction = _direction(rng.uniform(high=2 * math.pi), rng.uniform(low=-0.3, high=0.8))
    fill = _warmth(rng, 0.06) * rng.uniform(1, high=0.3)
    strength = torch.where(rng.bernoulli(0.7), rng.uniform(low=0.4, high=1.0), 0.0)
    blur, exposure = rng.ranges((1.0, 5.0), (0.95, 1.7))
    rest = torch.stack([strength, blur, *[torch.ones_like(strength)] * 3, exposure], -1)
    return torch.cat([sky, ground, direction * 5.0, key, fill_direction, fill, rest], -1)


def room_lights(
    keys: Int64[Tensor, " s"],
    room_half: Float[Tensor, "s 2"],
    room_height: Float[Tensor, " s"],
    focus: Float[Tensor, "s 3"],
) -> Float[Tensor, "s l"]:
    """A lamp below the ceiling (or the sun through it), bounced light, a random exposure; [s, LIGHT_FIELDS]."""
    rng = CounterRNG(keys, "light", 64)
    level = rng.uniform(low=0.35, high=0.75)
    cast = _warmth(rng, 0.16)
    sky = cast * level[..., None]
    ground = sky * rng.uniform(1, low=0.35, high=0.8) * _warmth(rng, 0.08)
    spread = rng.uniform(2, low=-0.75, high=0.75) * room_half
    spread = focus[..., :2] + (spread - focus[..., :2]) * rng.uniform(1, low=0.2, high=0.9)
    position = torch.cat([spread, (room_height * rng.uniform(low=0.85, high=0.97))[..., None]], -1)
    key = cast * _warmth(rng, 0.08) * rng.uniform(1, low=0.25, high=0.9)
    fill_direction = _slanting(rng.uniform(high=2 * math.pi))
    fill = _warmth(rng, 0.15) * rng.uniform(1, low=0.05, high=0.3)
    strength = torch.where(rng.bernoulli(0.85), rng.uniform(low=0.4, high=1.0), 0.0)
    # Phones under-expose as often as not: a quarter of the captures is dark.
    exposure = torch.where(rng.bernoulli(0.25), rng.log_uniform(low=0.15, high=0.7), rng.uniform(low=0.8, high=1.7))
    rest = torch.stack([strength, rng.uniform(low=1.0, high=5.0)], -1)
    return torch.cat([sky, ground, position, key, fill_direction, fill, rest, sky * 0.5, exposure[..., None]], -1)


def outdoor_lights(
    keys: Int64[Tensor, " s"],
    focus: Float[Tensor, "s 3"],
    reach: Float[Tensor, " s"],
    sun: Float[Tensor, " s"],
    overcast: Bool[Tensor, " s"],
) -> Float[Tensor, "s l"]:
    """Sun and sky, or a bright grey sky alone; [s, LIGHT_FIELDS].

    Args:
        focus: [s, 3] middle of the place; reach: [s] its half side, metres.
        sun: [s] azimuth of the sun, radians; overcast: bool [s].
    """
    rng = CounterRNG(keys, "light", 64)
    level = torch.where(overcast, rng.uniform(low=0.75, high=1.05), rng.uniform(low=0.35, high=0.6))
    blue = constant((0.93, 0.98, 1.06), keys.device)
    sky = _warmth(rng, 0.04) * torch.where(overcast[:, None], 1.0, blue) * level[:, None]
    ground = sky * rng.uniform(1, low=0.35, high=0.7) * _warmth(rng, 0.08)
    height = rng.uniform(low=0.22, high=0.95)
    direction = _direction(sun, height)
    # Low suns are warm ones.
    warm = torch.stack([torch.ones_like(height), 0.82 + 0.16 * height, 0.62 + 0.34 * height], -1)
    bright = torch.where(overcast, rng.uniform(high=0.12), rng.uniform(low=0.8, high=1.6))
    key = warm * bright[:, None]
    fill = _warmth(rng, 0.1) * rng.uniform(1, low=0.02, high=0.15)
    strength = rng.uniform(low=0.75, high=1.0)
    blur = torch.where(overcast, 5.0, rng.uniform(low=0.6, high=2.0))
    exposure = torch.where(rng.bernoulli(0.15), rng.log_uniform(low=0.35, high=0.7), rng.uniform(low=0.8, high=1.25))
    # Far enough that its rays are all but parallel.
    position = focus + direction * (reach * 40.0)[:, None]
    rest = torch.stack([strength, blur], -1)
    return torch.cat([sky, ground, position, key, -direction, fill, rest, sky, exposure[:, None]], -1)


def tabletop_lights(
    keys: Int64[Tensor, " s"], height: Float[Tensor, " s"], focus: Float[Tensor, "s 3"]
) -> Float[Tensor, "s l"]:
    """Soft light of a ceiling, a window or a lamp on the table, often warm and often too little; [s, LIGHT_FIELDS]."""
    rng = CounterRNG(keys, "light", 64)
    level, share = rng.ranges((0.22, 0.6), (0.0, 1.0))
    # Half of the captures have the colour of bulbs, as cameras leave it that were set to daylight.
    warm = rng.uniform() * rng.bernoulli(0.6)
    cast = torch.stack([torch.ones_like(warm), 1.0 - 0.38 * warm, 1.0 - 0.82 * warm], -1) * _warmth(rng, 0.05)
    sky = cast * level[:, None]
    ground = sky * rng.uniform(1, low=0.3, high=0.7) * _warmth(rng, 0.08)
    kind = rng.choice((0.5, 0.3, 0.2))  # ceiling, window, lamp
    azimuth = rng.uniform(high=2 * math.pi)
    far, low = rng.ranges((0.2, 1.1), (0.0, 1.0))
    far = torch.where(kind == 1, 1.0 + far, torch.where(kind == 2, 0.4 + 0.3 * far, far))
    rise = torch.where(
        kind == 1, 0.6 + 0.6 * low, torch.where(kind == 2, 0.35 + 0.25 * low, height - focus[:, 2] - 0.1)
    )
    position = focus + torch.stack([far * torch.cos(azimuth), far * torch.sin(azimuth), rise], -1)
    key = cast * _warmth(rng, 0.06) * (level * (0.9 + 1.5 * share))[:, None]
    fill_direction = _slanting(rng.uniform(high=2 * math.pi))
    fill = cast * rng.uniform(1, low=0.05, high=0.3)
    exposure = torch.where(rng.bernoulli(0.5), rng.log_uniform(low=0.15, high=0.6), rng.uniform(low=0.6, high=1.4))
    rest = torch.stack([rng.uniform(low=0.6, high=1.0), rng.uniform(low=2.0, high=9.0)], -1)
    return torch.cat([sky, ground, position, key, fill_direction, fill, rest, sky * 0.5, exposure[:, None]], -1)
