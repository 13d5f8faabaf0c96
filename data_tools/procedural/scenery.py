"""What stands and lies outdoors: the sky's dome, ground, hills and skyline, houses, trees, cars, lamp posts.

Each function returns instances [s, n] in metres on a ground at z = 0, around the origin.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from data_tools.procedural.instances import (
    MATERIAL_FIELDS,
    NO_MESH,
    Materials,
    MeshInstances,
    boxes,
    colour_matrix,
    rotation_z,
)
from data_tools.procedural.rng import CounterRNG, constant
from data_tools.procedural.shapes import shape_rows
from data_tools.procedural.sky import BULGE, DIP

DOME_RADIUS = 15_000.0
_DIM = 0.01
"""Share of a sky's brightness that lamps may change: the rest glows."""
GROUNDS, HILLS, SKYLINE = 3, 6, 10
HOUSES, FRONTS, WINDOWS = 6, 4, 12
TREES, CROWN, BUSHES = 8, 4, 6
CARS, LAMPS = 2, 3


def xyz(*coordinates: Float[Tensor, "..."] | float) -> Float[Tensor, "*b 3"]:
    """Points [..., 3] of x, y, z, which are broadcast; one of them is a tensor."""
    device = next(value.device for value in coordinates if isinstance(value, Tensor))
    values = [value if isinstance(value, Tensor) else constant(float(value), device) for value in coordinates]
    return torch.stack(torch.broadcast_tensors(*values), -1)


def polar(
    azimuth: Float[Tensor, "*#b"], distance: Float[Tensor, "*#b"], z: Float[Tensor, "*#b"] | float = 0.0
) -> Float[Tensor, "*b 3"]:
    """Points [..., 3] around the z axis."""
    return xyz(distance * torch.cos(azimuth), distance * torch.sin(azimuth), z)


def rotated(instances: MeshInstances, angle: Float[Tensor, "*b"]) -> MeshInstances:
    """The instances, each turned about a vertical axis through its own middle; angle: their batch shape, radians."""
    instances.linear = rotation_z(angle) @ instances.linear
    return instances


def tinted(
    material: Float[Tensor, "*b m"], tint: Float[Tensor, "... 3"], saturation: float, contrast: float = 1.0
) -> Float[Tensor, "*b m"]:
    """Materials whose patterns keep little of their own colour and take ``tint`` [..., 3]."""
    zero = torch.zeros_like(material[..., 0])
    matrix = colour_matrix(zero, zero + saturation, zero + contrast, tint.expand(*zero.shape, 3))
    return torch.cat([matrix, material[..., 12:]], -1)


def tiled(material: Float[Tensor, "*b m"], per_metre: Float[Tensor, "..."]) -> Float[Tensor, "*b m"]:
    """Materials whose textures repeat by length, so many times a metre [...]."""
    repeat = per_metre.expand(material.shape[:-1])[..., None]
    return torch.cat([material[..., :15], torch.zeros_like(repeat), repeat, repeat, material[..., 18:]], -1)


def with_haze(
    material: Float[Tensor, "*b m"], amount: Float[Tensor, "*b"], haze: Float[Tensor, "*#b 3"]
) -> Float[Tensor, "*b m"]:
    """Materials mixed with the colour ``haze`` [..., 3] by ``amount`` [...] in [0, 1], as far things look."""
    keep = 1.0 - amount[..., None]
    offset = material[..., 9:12] * keep + haze * amount[..., None]
    return torch.cat([material[..., :9] * keep, offset, material[..., 12:13] * keep, material[..., 13:]], -1)


def dome(texture: Int64[Tensor, " s"], sun: Float[Tensor, " s"]) -> MeshInstances:
    """The sky [s, 1], unlit, its sun at the azimuth ``sun`` [s] radians; texture: int64 [s]."""
    device = texture.device
    shape = shape_rows(texture, family=1.0, power=2.0, taper=0.0, bulge=BULGE)
    linear = rotation_z(sun) * (constant((1.0, 1.0, 0.5), device) * DOME_RADIUS)
    offset = (constant((0.0, 0.0, 0.5 - DIP), device) * DOME_RADIUS).expand(len(texture), 3)
    # Dark under any lamp, and glowing by as much as it is darker.
    grey = math.sqrt(_DIM)
    row = (grey, 0, 0, 0, grey, 0, 0, 0, grey, 0, 0, 0, 0, 1, 1.0 / (0.8 * _DIM), 1, 0.25, 0.98, 0, 0.01, 0, 1, 0)
    material = constant(tuple(map(float, row)), device).expand(len(texture), MATERIAL_FIELDS)
    whole = MeshInstances(torch.full_like(texture, 2), linear, offset, shape, texture, material)
    return whole.map(lambda value: value[:, None])


def grounds(
    rng: CounterRNG,
    materials: Materials,
    reach: Float[Tensor, " s"],
    tints: Float[Tensor, "s 3 3"],
    haze: Float[Tensor, "s 3"],
) -> MeshInstances:
    """The place of half side ``reach`` [s], what lies around it, and land up to the horizon; tints: [s, 3, 3]."""
    device, (texture, material) = reach.device, materials
    half = torch.stack([reach, reach * 4.0 + 60.0, torch.full_like(reach, 6000.0)], -1)
    depth = constant((0.1, 0.1, 0.1), device).expand_as(half)
    low = constant((0.0, -0.03, -0.1), device)
    material = tinted(material, tints, 0.45, 0.9)
    fine = rng.log_uniform(1, low=0.35, high=1.2)
    material = tiled(material, fine * constant((1.0, 0.3, 0.02), device))
    material = with_haze(material, constant((0.0, 0.08, 0.5), device).expand_as(half), haze[:, None])
    # Hardly any gloss: on so large a plane the sun's reflection would be all that is seen.
    material = torch.cat([material[..., :12], 0.1 * material[..., 12:13], material[..., 13:]], -1)
    return boxes(xyz(0.0, 0.0, low - depth), xyz(half, half, depth), texture, material, 1)


def far_away(
    rng: CounterRNG,
    materials: Materials,
    reach: Float[Tensor, " s"],
    haze: Float[Tensor, "s 3"],
    hilly: Float[Tensor, " s"],
    urban: Float[Tensor, " s"],
) -> MeshInstances:
    """Hills and the houses of a skyline, hazed by their distance; hilly, urban: shares that exist, [s]."""
    n, device = HILLS, rng.device
    texture, material = materials
    azimuth, apart, wide, tall, spin, phase, there = rng.uniform(7, n).unbind(1)
    distance = (reach[:, None] * 4.0 + 150.0) * torch.exp(2.0 * apart)
    size = xyz(distance * (0.25 + 0.4 * wide), distance * (0.15 + 0.2 * apart), distance * (0.02 + 0.13 * tall))
    shape = shape_rows(azimuth, power=2.0, bump=0.12, bump_scale=3.5, bump_phase=phase * 100.0)
    middle = polar(2 * math.pi * azimuth, distance)
    green = constant((0.42, 0.5, 0.3), device) + 0.15 * rng.normal(n, 3)
    look = with_haze(tinted(tiled(material[:, :n], wide * 0.02 + 0.01), green.clamp(0.1, 0.9), 0.4),
                 (distance / (distance + 900.0)), haze[:, None])  # fmt: skip
    linear = rotation_z(2 * math.pi * (azimuth + 0.25 + 0.1 * spin)) @ torch.diag_embed(size)
    mesh = torch.where(there < hilly[:, None], 1, NO_MESH)
    hills = MeshInstances(mesh, linear, middle, shape, texture[:, :n], look)

    m = SKYLINE
    azimuth, apart, wide, deep, tall, spin, there = rng.uniform(7, m).unbind(1)
    distance = (reach[:, None] * 2.5 + 40.0) * torch.exp(1.8 * apart)
    height = 0.5 * (5.0 + 55.0 * tall * tall * tall)
    look = with_haze(tiled(material[:, n:], 0.04 + 0.08 * wide), distance / (distance + 500.0), haze[:, None])
    houses = boxes(polar(2 * math.pi * azimuth, distance, height), xyz(4 + 16 * wide, 4 + 10 * deep, height),
                   texture[:, n:], look)  # fmt: skip
    houses = rotated(houses, spin * math.pi).where(there < urban[:, None])
    return MeshInstances.cat([hills, houses], 1)


def houses(
    rng: CounterRNG,
    materials: Materials,
    reach: Float[Tensor, " s"],
    front: Float[Tensor, " s"],
    urban: Float[Tensor, " s"],
) -> tuple[MeshInstances, MeshInstances]:
    """Houses around the place, the first always there, at the azimuth ``front`` [s] and turned to the middle.

    materials: of ``HOUSES`` walls, ``HOUSES`` roofs and ``FRONTS`` sets of windows.

    Returns:
        walls [s, HOUSES] (local +y is the front), and roofs and windows [s, HOUSES + FRONTS * WINDOWS].
    """
    n, device = HOUSES, rng.device
    texture, material = materials
    beside, apart, wide, deep, tall, skew, there = rng.uniform(7, n).unbind(1)
    slot = torch.arange(n, device=device)
    azimuth = front[:, None] + (2 * math.pi / n) * (slot + (slot > 0) * 0.7 * (beside - 0.5))
    half = xyz(3.0 + 9.0 * wide, 2.5 + 5.0 * deep, 1.5 + 6.5 * tall * tall)
    half = half * (reach / 14.0).clamp(0.55, 1.3)[:, None, None]
    distance = reach[:, None] * torch.where(slot == 0, 0.8, 0.95 + 0.8 * apart) + half[..., 1]
    walls = boxes(polar(azimuth, distance, half[..., 2]), half, texture[:, :n],
                  tiled(material[:, :n], 0.12 + 0.3 * apart))  # fmt: skip
    yaw = azimuth + 0.5 * math.pi + (slot > 0) * 0.6 * (skew - 0.5) * (skew > 0.3)
    alive = (there < urban[:, None]) | (slot == 0)
    walls = rotated(walls, yaw).where(alive)

    # Roofs: pyramids with more or less of a flat top, or none.
    pitch, flat, eaves, roofed = rng.uniform(4, n).unbind(1)
    rise = half.amin(-1) * (0.2 + 0.6 * pitch)
    roof = boxes(walls.offset + xyz(0.0, 0.0, half[..., 2] + 0.5 * rise),
                 xyz(half[..., 0] + 0.5 * eaves, half[..., 1] + 0.5 * eaves, 0.5 * rise),
                 texture[:, n : 2 * n], tiled(material[:, n : 2 * n], 0.3 + 0.4 * flat),
                 family=1.0, taper=0.6 * flat * (flat > 0.4))  # fmt: skip
    roof = rotated(roof, yaw).where(alive & (roofed < 0.7))

    # Windows, doors and balconies: a grid of slabs on the fronts, one look a house.
    k = FRONTS
    across, up, out, share, missing = rng.uniform(5, k, 1).unbind(1)
    gone = rng.uniform(k, WINDOWS) < 0.35 * missing
    cell = torch.arange(WINDOWS, device=device)
    column, row = (cell % 4 - 1.5) * 0.45, (cell // 4 - 1.0) * 0.62
    body = half[:, :k, None]
    size = xyz(0.08 + 0.12 * across, 0.0, 0.12 + 0.16 * up) * body + xyz(0.0, 0.04 + 0.3 * out * (share < 0.25), 0.0)
    size = size.expand(*gone.shape, 3)
    spot = xyz(column, 1.0, row) * body
    spot = (rotation_z(yaw)[:, :k, None] * spot[..., None, :]).sum(-1) + walls.offset[:, :k, None]
    number = torch.arange(2 * n, 2 * n + k, device=device).repeat_interleave(WINDOWS)
    panes = boxes(spot.flatten(1, 2), size.flatten(1, 2), texture[:, number],
                  material[:, number])  # fmt: skip
    panes = rotated(panes, yaw[:, :k].repeat_interleave(WINDOWS, 1))
    panes = panes.where((alive[:, :k, None] & ~gone).flatten(1, 2))
    return walls, MeshInstances.cat([roof, panes], 1)


def trees(
    rng: CounterRNG,
    materials: Materials,
    reach: Float[Tensor, " s"],
    clear: Float[Tensor, " s"],
    green: Float[Tensor, " s"],
) -> MeshInstances:
    """Trees of a trunk and a crown of ``CROWN`` bumpy balls or cones, then bushes; green: share that exists, [s].

    materials: of trunks, crowns (one a tree) and bushes. Nothing stands within ``clear`` [s] of the middle.
    """
    n, c, device = TREES, CROWN, rng.device
    texture, material = materials
    angle, apart, tall, thick, conifer, there = rng.uniform(6, n).unbind(1)
    height = 2.5 + 8.5 * tall
    spot = polar(2 * math.pi * angle, clear[:, None] + (reach * 1.3 - clear).clamp_min(1.0)[:, None] * apart)
    girth = height * (0.012 + 0.02 * thick)
    stem = boxes(spot + xyz(0.0, 0.0, height * 0.4), xyz(girth, girth, height * 0.4), texture[:, :n],
                 tinted(tiled(material[:, :n], 0.5 + thick), constant((0.45, 0.36, 0.28), device), 0.3),
                 family=1.0, power=2.0, taper=0.5, bend_x=(thick - 0.5) * 1.5)  # fmt: skip
    alive = there < green[:, None]
    cone = (conifer < 0.3)[..., None]
    step = torch.arange(c, device=device)
    shift, sizes, phase = rng.normal(n, c, 3), rng.uniform(n, c), rng.uniform(n, c)
    spread = height[..., None] * (0.13 + 0.14 * sizes)
    level = torch.where(cone, 0.35 + 0.18 * step, 0.72 + 0.12 * shift[..., 2].clamp(-1.5, 1.5))
    broad = torch.where(cone, height[..., None] * (0.24 - 0.045 * step), spread)
    long = torch.where(cone, height[..., None] * 0.17, spread * 0.85)
    sideways = shift[..., :2] * torch.where(cone, 0.0, 0.13 * height[..., None])[..., None]
    middle = spot[..., None, :] + xyz(sideways[..., 0], sideways[..., 1], level * height[..., None])
    shape = shape_rows(sizes, family=cone * 1.0, power=2.0, taper=0.05, bump=torch.where(cone, 0.1, 0.22),
                       bump_scale=6.0 + 6.0 * sizes, bump_sharp=0.3, bump_phase=phase * 100.0)  # fmt: skip
    leaf = (constant((0.42, 0.55, 0.22), device) + rng.normal(n, 3) * constant((0.2, 0.1, 0.07), device)).clamp(0.08, 1)
    look = tinted(tiled(material[:, n : 2 * n], 0.7 + 1.5 * thick), leaf * 1.5, 0.25, 1.3)
    crown = MeshInstances((shape[..., 0] >= 0).long(), torch.diag_embed(xyz(broad, broad, long)), middle, shape,
                   texture[:, n : 2 * n, None].expand(-1, -1, c), look[:, :, None].expand(-1, -1, c, -1))  # fmt: skip
    crown = crown.where(alive[..., None].expand(-1, -1, c)).map(lambda value: value.flatten(1, 2))

    m = BUSHES
    angle, apart, broad, tall, phase, there = rng.uniform(6, m).unbind(1)
    size = 0.25 + 0.7 * broad
    spot = polar(2 * math.pi * angle, clear[:, None] * 0.9 + reach[:, None] * apart, size * 0.4)
    leaf = (constant((0.42, 0.52, 0.25), device) + rng.normal(m, 3) * 0.15).clamp(0.08, 1)
    bush = boxes(spot, xyz(size, size, size * (0.5 + 0.5 * tall)), texture[:, 2 * n :],
                 tinted(tiled(material[:, 2 * n :], 0.8 + 1.5 * broad), leaf * 1.5, 0.3, 1.3), 2, power=2.0, bump=0.2,
                 bump_scale=7.0 + 4.0 * tall, bump_sharp=0.4, bump_phase=phase * 100.0)  # fmt: skip
    bush = bush.where(there < green[:, None])
    return MeshInstances.cat([stem.where(alive), crown, bush], 1)
