"""Cameras of the scenes: spheres around objects, hand-held arcs around a table and along it, walks through a room.

The numbers of view j depend on (scene, j) alone: asking for more views adds views and changes none. Lenses and rolls
out of the ordinary are those of ``capture_styles``.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from data_tools.procedural.capture_styles import NARROW, ORDINARY, WIDE, sample_capture_styles, view_rng
from data_tools.procedural.rng import CounterRNG
from data_tools.procedural.rooms import RoomLayout
from nvs_app.geometry.cameras import Cameras

CANDIDATES = 4
WIDEST = math.radians(115)
"""Along the longer side: beyond, an image without distortion is little but its corners."""


def look_at(
    eye: Float[Tensor, "*b 3"], target: Float[Tensor, "*b 3"], roll: Float[Tensor, "*b"]
) -> Float[Tensor, "*b 3 4"]:
    """c2w [*b, 3, 4] with z up, turned by ``roll`` radians about the viewing direction."""
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    up = torch.zeros_like(forward)
    # Tilted a little off z: straight down still has a definite right.
    up[..., 1], up[..., 2] = 1e-3, 1.0
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    c, s = torch.cos(roll)[..., None], torch.sin(roll)[..., None]
    return torch.stack([c * right + s * down, c * down - s * right, forward, eye], -1)


def as_cameras(
    c2w: Float[Tensor, "s v 3 4"], fov: Float[Tensor, " s"], centre: Float[Tensor, "s 1 2"], image_hw: tuple[int, int]
) -> Cameras:
    """fov: radians along the shorter side, at most ``WIDEST`` along the longer one; centre: offset of the principal
    point as a share of the size."""
    height, width = image_hw
    focal = 0.5 * min(height, width) / torch.tan(0.5 * fov)
    focal = focal.clamp_min(0.5 * max(height, width) / math.tan(0.5 * WIDEST))[:, None].expand(c2w.shape[:2])
    cx, cy = ((0.5 + centre[..., axis]) * size for axis, size in enumerate((width, height)))
    cx, cy = cx.expand_as(focal), cy.expand_as(focal)
    bottom = torch.zeros_like(c2w[..., :1, :])
    bottom[..., 3] = 1.0
    return Cameras(torch.cat([c2w, bottom], -2), torch.stack([focal, focal, cx, cy], -1), image_hw)


def object_cameras(
    keys: Int64[Tensor, " s"], num_views: int, image_hw: tuple[int, int], capture: Int64[Tensor, " s"]
) -> Cameras:
    """Around an object inside the unit ball, which fills about 0.6 to 1.2 of the frame.

    capture: numbers in ``CAPTURES``.
    """
    scene, view = CounterRNG(keys, "cameras", 64), view_rng(keys, num_views, 48)
    style = sample_capture_styles(keys, num_views, capture, narrow=0.25, wide=0.12)
    fov = scene.uniform(low=math.radians(28), high=math.radians(65))
    fov = torch.where(scene.bernoulli(0.3), math.radians(39.6), fov)  # NeRF-synthetic's
    fov = style.field_of_view(fov)
    fill = scene.uniform(low=0.8, high=1.5)
    distance = (1.0 / (fill * torch.sin(0.5 * fov))).clamp_min(1.35)
    varied = scene.bernoulli(0.35)
    ratio = torch.where(varied[:, None], view.uniform(low=0.85, high=1.25), 1.0)
    azimuth = view.uniform(high=2 * math.pi)
    # Mostly from above, evenly over that part of the sphere; a third of the scenes from all sides.
    lowest = torch.where(scene.bernoulli(0.35), -0.95, torch.where(scene.bernoulli(0.5), -0.3, 0.0))
    lowest = torch.where(style.mixed & (lowest < -0.5), -1.0, lowest)
    highest = torch.where(style.mixed, 1.0, 0.97)
    height = lowest[:, None] + (highest - lowest)[:, None] * view.uniform()
    # A ring: products on turntables.
    ring = scene.bernoulli(torch.where(style.mixed & (style.lens == NARROW), 0.4, 0.15))
    height = torch.where(ring[:, None], scene.uniform(1, low=0.05, high=0.7) + view.normal(std=0.03), height)
    height = torch.where(style.pole.isnan(), height, style.pole)
    flat = (1.0 - height * height).clamp_min(0.0).sqrt()
    direction = torch.stack([flat * torch.cos(azimuth), flat * torch.sin(azimuth), height], -1)
    eye = direction * (distance[:, None] * ratio)[..., None]
    aim = view.normal(3) * (scene.uniform(1, 1, high=0.09) * scene.bernoulli(0.6, 1, 1))
    roll = view.normal() * (scene.bernoulli(0.12, 1) * 0.15) + style.roll
    centre = scene.normal(1, 2, std=0.02) * scene.bernoulli(0.2, 1, 1)
    return as_cameras(look_at(eye, aim, roll), fov, centre, image_hw)


def _clear_of_things(
    eye: Float[Tensor, "s v n 3"], target: Float[Tensor, "s v n 3"], layout: RoomLayout
) -> tuple[Float[Tensor, "s v 3"], Float[Tensor, "s v 3"]]:
    """Of n candidates in the room the first eye that is clear of all things, or the clearest, with its target."""
    n, device = eye.shape[2], eye.device
    margin = 0.12
    bound = torch.cat([layout.half - margin, layout.height[:, None] - margin], -1)[:, None, None]
    low = torch.cat([-layout.half + margin, torch.full_like(layout.height, margin)[:, None]], -1)[:, None, None]
    eye = torch.minimum(torch.maximum(eye, low), bound)
    gap = (eye[..., None, :] - layout.spheres[:, None, None, :, :3]).norm(dim=-1)
    radius = layout.spheres[:, None, None, :, 3]
    clear = torch.where(radius > 0, gap - radius, 9.0).amin(-1).clamp_max(0.06)
    best = (clear - 1e-4 * torch.arange(n, device=device)).argmax(-1)
    chosen = best[..., None, None].expand(*best.shape, 1, 3)
    eye, target = torch.gather(eye, 2, chosen)[:, :, 0], torch.gather(target, 2, chosen)[:, :, 0]
    # A target at the eye (both clamped into a corner) has no direction.
    close = (target - eye).norm(dim=-1, keepdim=True) < 0.05
    return eye, torch.where(close, eye + torch.tensor([0.1, -0.3, -0.1], device=device), target)


def room_cameras(
    keys: Int64[Tensor, " s"],
    layout: RoomLayout,
    num_views: int,
    image_hw: tuple[int, int],
    capture: Int64[Tensor, " s"],
) -> Cameras:
    """Captures of a table, walks, sweeps, and roams along it; eyes keep clear of things and stay in the room.

    capture: numbers in ``CAPTURES``.
    """
    scene, view = CounterRNG(keys, "cameras", 96), view_rng(keys, num_views, 192)
    style = sample_capture_styles(keys, num_views, capture, narrow=0.12, wide=0.18)
    mode = scene.choice((0.52, 0.18, 0.15, 0.15))  # capture, walk, sweep, roam
    # Nobody walks through a room with a telephoto lens; with one people step back, with a wide one they come near.
    lens = torch.where((style.lens == NARROW) & (mode == 1), ORDINARY, style.lens)
    step = torch.where(lens == NARROW, 2.0, torch.where(lens == WIDE, 0.7, 1.0))[:, None, None]
    n = CANDIDATES

    # Capture: an arc around the cluster, aiming at points spread over it, as a hand-held phone does.
    arc = torch.where(layout.free, scene.uniform(low=1.5, high=2 * math.pi), scene.uniform(low=1.0, high=2.7))
    start = layout.front + torch.where(layout.free, scene.uniform(high=2 * math.pi), 0.0)
    azimuth = start[:, None, None] + arc[:, None, None] * (view.uniform(n) - 0.5)
    elevation = scene.uniform(1, 1, low=0.25, high=0.9) + view.normal(n, std=1.0) * scene.uniform(
        1, 1, low=0.05, high=0.22
    )
    elevation = elevation.clamp(0.05, 1.45)
    distance = layout.radius[:, None, None] * scene.uniform(1, 1, low=0.55, high=1.5) * step
    distance = distance * torch.exp(view.normal(n, std=1.0) * scene.uniform(1, 1, low=0.05, high=0.25))
    flat = torch.cos(elevation)
    direction = torch.stack([flat * torch.cos(azimuth), flat * torch.sin(azimuth), torch.sin(elevation)], -1)
    aim = torch.stack([view.normal(n), view.normal(n), view.normal(n) * 0.3], -1)
    aim = (
        layout.focus[:, None, None]
        + aim * (layout.radius[:, None] * scene.uniform(1, low=0.05, high=0.35))[:, :, None, None]
    )
    capture = aim * 0.5 + layout.focus[:, None, None] * 0.5 + direction * distance[..., None]

    # Walk: along an ellipse or anywhere at eye height, looking towards the inside.
    phase = scene.uniform(1, 1, high=2 * math.pi) + scene.uniform(1, 1, low=1.0, high=2 * math.pi) * view.uniform(n)
    ring = torch.stack([torch.cos(phase), torch.sin(phase)], -1) * scene.uniform(1, 1, 2, low=0.35, high=0.8)
    spot = (ring + torch.stack([view.normal(n), view.normal(n)], -1) * 0.08) * layout.half[:, None, None]
    level = (scene.uniform(1, 1, low=0.35, high=0.7) + view.normal(n, std=0.04)) * layout.height.clamp_max(3.0)[
        :, None, None
    ]
    walk = torch.cat([spot, level[..., None]], -1)
    middle = layout.focus * scene.uniform(1, low=0.2, high=0.8)
    middle = torch.cat([middle[:, :2], (level.mean(-1)[:, :1] * 0.6)], -1)
    gaze = (
        middle[:, None, None]
        + torch.stack([view.normal(n), view.normal(n), view.normal(n) * 0.3], -1)
        * (0.18 * layout.half.amin(-1))[:, None, None, None]
    )

    # Sweep: a small patch in front of the cluster, nearly parallel views.
    angle = (layout.front + scene.normal(std=0.5))[:, None, None]
    tilt = scene.uniform(1, 1, low=0.15, high=0.8)
    far = layout.radius[:, None, None] * scene.uniform(1, 1, low=0.8, high=1.8) * step
    base = torch.stack(
        [torch.cos(tilt) * torch.cos(angle), torch.cos(tilt) * torch.sin(angle), torch.sin(tilt) + 0 * angle],
        -1,
    )
    side = torch.stack([-torch.sin(angle), torch.cos(angle), torch.zeros_like(angle)], -1)
    rise = torch.linalg.cross(base, side.expand_as(base))
    shift = (
        view.normal(n)[..., None] * side
        + view.normal(n)[..., None] * rise * 0.6
        + view.normal(n)[..., None] * base * 0.2
    )
    patch = (
        layout.focus[:, None, None]
        + base * far[..., None]
        + shift * (far * scene.uniform(1, 1, low=0.08, high=0.3))[..., None]
    )
    point = (
        layout.focus[:, None, None]
        + (aim - layout.focus[:, None, None]) * 0.3
        + shift * (far * scene.uniform(1, 1, high=0.2))[..., None]
    )

    # Roam: along the cluster and past its ends, looking across: far views share nothing, neighbours most.
    reach = layout.radius[:, None] * scene.uniform(1, low=0.9, high=2.2)
    stop = side * (reach * view.uniform(low=-1.0, high=1.0))[:, :, None, None]
    beyond = layout.radius[:, None, None] * scene.uniform(1, 1, low=0.5, high=1.1) * step
    roam = layout.focus[:, None, None] + stop + base * beyond[..., None] + shift * (0.12 * beyond)[..., None]
    across = layout.focus[:, None, None] + stop + (aim - layout.focus[:, None, None]) * 0.8

    pick = mode[:, None, None, None]
    eye = torch.where(pick == 0, capture, torch.where(pick == 1, walk, torch.where(pick == 2, patch, roam)))
    target = torch.where(pick == 0, aim, torch.where(pick == 1, gaze, torch.where(pick == 2, point, across)))
    eye, target = _clear_of_things(eye, target, layout)
    fov = style.field_of_view(scene.uniform(low=math.radians(32), high=math.radians(72)), lens)
    roll = view.normal(std=1.0) * scene.uniform(1, high=0.12)
    # A phone held sideways: the whole capture is turned.
    roll = roll + 0.5 * math.pi * ((2 * scene.randint(2, 1) - 1) * scene.bernoulli(0.06, 1)).float()
    roll = roll + style.roll
    centre = scene.normal(1, 2, std=0.012) * scene.bernoulli(0.3, 1, 1)
    return as_cameras(look_at(eye, target, roll), fov, centre, image_hw)


def tabletop_cameras(
    keys: Int64[Tensor, " s"],
    layout: RoomLayout,
    num_views: int,
    image_hw: tuple[int, int],
    capture: Int64[Tensor, " s"],
) -> Cameras:
    """Hand-held captures of a table: along its front, up and down; arcs around it; arcs close to one part of it.

    Views lie on one smooth path a scene, at random places of it, with the jitter of a hand. capture: numbers in
    ``CAPTURES``.
    """
    scene, view = CounterRNG(keys, "cameras", 96), view_rng(keys, num_views, 96)
    style = sample_capture_styles(keys, num_views, capture, narrow=0.1, wide=0.08)
    step = torch.where(style.lens == NARROW, 1.6, torch.where(style.lens == WIDE, 0.7, 1.0))[:, None, None]
    n, one = CANDIDATES, (1, 1)
    t = view.uniform(n)

    def swing(turns: tuple[float, float]) -> Float[Tensor, "s v n"]:
        """A smooth function of the place on the path, in [-1, 1]."""
        return torch.sin(2 * math.pi * (scene.uniform(*one, low=turns[0], high=turns[1]) * t + scene.uniform(*one)))

    along, up, nod, yaw, sway, lean = (
        swing(b) for b in ((0.3, 0.8), (0.5, 1.6), (0.6, 2.0), (0.4, 1.5), (0.5, 1.5), (0.4, 1.2))
    )
    mode = scene.choice((0.42, 0.33, 0.25))[:, None, None]  # along the front, around, close
    half, jitter = layout.radius[:, None, None], view.normal(n, 3) * scene.uniform(*one, 1, low=0.004, high=0.03)
    spot = scene.uniform(*one, 2, low=-0.7, high=0.7) * torch.stack([half, 0.3 + 0 * half], -1)

    # Along the front, nearly parallel views; everything in the table's frame, whose front lies towards +y.
    away = scene.uniform(*one, low=0.5, high=0.9) * step
    walk = torch.stack([0.9 * half * along, away + 0.1 * sway, scene.uniform(*one, low=0.2, high=0.55) + 0.15 * up], -1)
    gaze = torch.stack(
        [walk[..., 0] + 0.3 * yaw, -0.2 + 0 * yaw, scene.uniform(*one, low=-0.1, high=0.15) + 0.22 * nod], -1
    )
    # Around the whole, or around a part.
    close = mode == 2
    free = layout.free[:, None, None] & scene.bernoulli(0.5, *one)
    arc = torch.where(free, 2 * math.pi, scene.uniform(*one, low=0.7, high=2.5))
    azimuth = 0.5 * math.pi + scene.normal(*one, std=0.3) + arc * (t - 0.5)
    elevation = scene.uniform(*one, low=0.3, high=1.05) + scene.uniform(*one, low=0.05, high=0.3) * up
    reach = torch.where(close, scene.uniform(*one, low=0.28, high=0.55), scene.uniform(*one, low=0.5, high=1.1))
    reach = reach * step * (1.0 + 0.2 * sway)
    aim = torch.stack([0.25 * half * yaw, 0.1 * lean, 0.06 * nod], -1)
    aim = torch.where(close[..., None], 0.4 * aim + torch.nn.functional.pad(spot, (0, 1)), aim)
    flat = torch.cos(elevation)
    ring = torch.stack([flat * torch.cos(azimuth), flat * torch.sin(azimuth), torch.sin(elevation)], -1)
    front = (mode == 0)[..., None]
    eye = torch.where(front, walk, 0.5 * aim + ring * reach[..., None]) + jitter
    target = torch.where(front, gaze, aim) + 1.5 * view.normal(n, 3) * jitter.abs()
    eye[..., 2] = eye[..., 2].clamp_min(0.08)
    eye, target = _clear_of_things(layout.focus[:, None, None] + eye, layout.focus[:, None, None] + target, layout)

    fov = torch.where(scene.bernoulli(0.55), scene.uniform(low=31.0, high=42.0), scene.uniform(low=38.0, high=64.0))
    fov = style.field_of_view(fov * (math.pi / 180.0))
    roll = lean[..., 0] * scene.uniform(1, high=0.15) + view.normal(std=0.02) + scene.normal(1, std=0.05) + style.roll
    centre = scene.normal(1, 2, std=0.008) * scene.bernoulli(0.3, 1, 1)
    return as_cameras(look_at(eye, target, roll), fov, centre, image_hw)
