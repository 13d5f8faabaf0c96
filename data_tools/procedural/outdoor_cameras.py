"""Cameras of open places: around the cluster on foot, walks, along a facade, and from a drone."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from data_tools.procedural.cameras import as_cameras, look_at
from data_tools.procedural.capture_styles import NARROW, WIDE, sample_capture_styles, view_rng
from data_tools.procedural.outdoor import OutdoorLayout
from data_tools.procedural.rng import CounterRNG
from data_tools.procedural.scenery import polar, xyz
from nvs_app.geometry.cameras import Cameras

CANDIDATES = 3
ARC, WALK, FACADE, DRONE = range(4)
_CLEAR = 0.35
"""Metres that are enough between a camera and a thing."""
_LOWEST = 0.2


def outdoor_cameras(
    keys: Int64[Tensor, " s"],
    layout: OutdoorLayout,
    num_views: int,
    image_hw: tuple[int, int],
    capture: Int64[Tensor, " s"],
) -> Cameras:
    """Views of an open place, of fields of view of 35-100 degrees where no style says otherwise.

    capture: numbers in ``CAPTURES``.
    """
    scene, view = CounterRNG(keys, "cameras", 96), view_rng(keys, num_views, 192)
    style = sample_capture_styles(keys, num_views, capture, narrow=0.12, wide=0.15)
    n, up = CANDIDATES, (1, 1)
    radius, reach = layout.radius[:, None, None], layout.reach[:, None, None]
    mode = scene.choice((0.46, 0.18, 0.16, 0.2))
    step = torch.where(style.lens == NARROW, 3.0, torch.where(style.lens == WIDE, 0.8, 1.0))[:, None, None]
    person = scene.uniform(*up, low=1.2, high=1.8) + view.normal(n, std=0.12)
    wobble = torch.stack([view.normal(n), view.normal(n), view.normal(n) * 0.4], -1)

    # Arc: a person walks around the cluster, all around or on one side, at one height or at several.
    arc = torch.where(scene.bernoulli(0.45), 2 * math.pi, scene.uniform(low=1.2, high=4.0))[:, None, None]
    start = scene.uniform(*up, high=2 * math.pi)
    azimuth = start + arc * (view.uniform(n) - 0.5)
    distance = (radius * scene.uniform(*up, low=1.1, high=2.1) + 0.5) * step
    distance = distance * torch.exp(view.normal(n) * scene.uniform(*up, low=0.04, high=0.2))
    varied = scene.bernoulli(0.4, *up)
    height = torch.where(varied, person * view.uniform(n, low=0.3, high=1.6), person)
    focus = layout.focus[:, None, None]
    arc_eye = polar(azimuth, distance, height)
    arc_aim = focus + wobble * (radius * scene.uniform(*up, low=0.05, high=0.3))[..., None]

    # Walk: towards the cluster and past it, looking ahead or to it, a little up or down.
    heading = scene.uniform(*up, high=2 * math.pi)
    span = torch.minimum(reach, 5.0 * radius + 6.0)
    along = (view.uniform(n) * scene.uniform(*up, low=0.5, high=1.3) - 1.1) * span
    beside = scene.normal(*up, std=0.3) * span + view.normal(n, std=0.03) * span
    c, s = torch.cos(heading), torch.sin(heading)
    walk_eye = xyz(c * along - s * beside, s * along + c * beside, person)
    gaze = torch.where(scene.bernoulli(0.6, *up), 0.0, scene.normal(*up, std=0.5)) + view.normal(n, std=0.25)
    ahead = walk_eye + polar(heading + gaze, torch.ones_like(person), scene.uniform(*up, low=-0.2, high=0.25)
                             + view.normal(n, std=0.05))  # fmt: skip
    inwards = scene.bernoulli(0.5, *up)[..., None]
    walk_aim = torch.where(inwards, focus + wobble * (0.15 * span)[..., None], ahead)

    # Facade: sideways along the nearest house, looking at it.
    inward = -polar(layout.front, torch.ones_like(layout.front))[:, None, None]
    side = xyz(-inward[..., 1], inward[..., 0], 0.0)
    broad, tall = layout.broad[:, None, None, :1], layout.broad[:, None, None, 1:]
    shift = (2.0 * view.uniform(n) - 1.0)[..., None] * broad * scene.uniform(*up, 1, low=0.4, high=1.1)
    away = (scene.uniform(*up, 1, low=0.7, high=1.6) * broad + 1.0) * step[..., None]
    away = away * torch.exp(view.normal(n) * 0.08)[..., None]
    facade = layout.facade[:, None, None]
    facade_eye = facade + side * shift + inward * away
    facade_eye = xyz(facade_eye[..., 0], facade_eye[..., 1], person)
    level = xyz(0.0, 0.0, tall[..., 0] * (scene.uniform(*up, low=-0.7, high=0.3)))
    facade_aim = facade + level + side * (shift * scene.uniform(*up, 1, low=0.3, high=1.0))
    facade_aim = facade_aim + wobble * 0.12 * broad

    # Drone: circles above the place, or flies over it looking straight down.
    mapping = scene.bernoulli(0.3, *up)
    tilt = scene.uniform(*up, low=0.4, high=1.25) + view.normal(n, std=0.06)
    ring = torch.where(scene.bernoulli(0.6, *up), radius * 3.0 + 2.0, reach * 0.9) * scene.uniform(
        *up, low=0.8, high=1.6
    )
    ring = ring * step.clamp_min(1.0) * torch.exp(view.normal(n) * 0.08)
    circle = polar(azimuth, ring * torch.cos(tilt), ring * torch.sin(tilt))
    flight = torch.stack([view.uniform(n), view.uniform(n)], -1) - 0.5
    over = torch.cat([flight * (0.8 * ring)[..., None], (0.9 * ring + view.normal(n, std=0.02) * ring)[..., None]], -1)
    drone_eye = torch.where(mapping[..., None], over, circle)
    below = xyz(over[..., 0], over[..., 1], 0.0) + wobble * (0.08 * ring)[..., None]
    drone_aim = torch.where(mapping[..., None], below, focus + wobble * (0.1 * ring)[..., None])

    pick = mode[:, None, None, None]

    def chosen(
        arc: Float[Tensor, "s v c 3"],
        walk: Float[Tensor, "s v c 3"],
        facade: Float[Tensor, "s v c 3"],
        drone: Float[Tensor, "s v c 3"],
    ) -> Float[Tensor, "s v c 3"]:
        return torch.where(
            pick == ARC, arc, torch.where(pick == WALK, walk, torch.where(pick == FACADE, facade, drone))
        )

    eye = chosen(arc_eye, walk_eye, facade_eye, drone_eye)
    aim = chosen(arc_aim, walk_aim, facade_aim, drone_aim)
    eye = torch.cat([eye[..., :2], eye[..., 2:].clamp_min(_LOWEST)], -1)
    best = _clearest(eye, aim, layout.blocks)[..., None, None].expand(*eye.shape[:2], 1, 3)
    eye, aim = eye.gather(2, best)[:, :, 0], aim.gather(2, best)[:, :, 0]

    fov = torch.where(scene.bernoulli(0.3), scene.uniform(low=70.0, high=100.0), scene.uniform(low=35.0, high=70.0))
    fov = style.field_of_view(fov * (math.pi / 180.0))
    roll = view.normal(std=1.0) * scene.uniform(1, high=0.08) + style.roll
    centre = scene.normal(1, 2, std=0.012) * scene.bernoulli(0.3, 1, 1)
    return as_cameras(look_at(eye, aim, roll), fov, centre, image_hw)


def _clearest(
    eye: Float[Tensor, "s v c 3"],
    aim: Float[Tensor, "s v c 3"],
    blocks: tuple[Float[Tensor, "s n 3"], Float[Tensor, "s n 3 3"]],
) -> Int64[Tensor, "s v"]:
    """Number [s, v] of the first candidate that is clear of all things and sees some way, or of the clearest."""
    middle, axes = blocks
    length = axes.norm(dim=-2)  # half sides, [s, n, 3]
    unit = axes / length.clamp_min(1e-6)[..., None, :]
    count = eye.shape[2]
    # The eye, and points towards what it looks at: something right before the lens hides all else.
    line = torch.stack([eye, torch.lerp(eye, aim, 0.15), torch.lerp(eye, aim, 0.4)], 3).flatten(1, 3)
    local = torch.einsum("snij,spi->spnj", unit, line) - torch.einsum("snij,sni->snj", unit, middle)[:, None]
    gap = (local.abs() - length[:, None]).amax(-1).amin(-1)
    # Also near edges: the box's distance is at least this.
    gap = gap.unflatten(1, (eye.shape[1], count, 3)).clamp_max(_CLEAR)
    clear = gap[..., 0] + 0.3 * gap[..., 1:].clamp(-_CLEAR, 0.0).sum(-1)
    return (clear - 1e-4 * torch.arange(count, device=eye.device)).argmax(-1)
