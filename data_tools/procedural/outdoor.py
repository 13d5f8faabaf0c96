"""Open places under a sky: a cluster of things on a ground between houses and trees, hills or a skyline far away."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from data_tools.procedural.asset_pack import AssetPack
from data_tools.procedural.furniture import furniture
from data_tools.procedural.instances import NO_MESH, Materials, MeshInstances, boxes, random_materials, rotation_z
from data_tools.procedural.rng import CounterRNG, constant, hash32
from data_tools.procedural.rooms import small_objects
from data_tools.procedural.scenery import (
    BUSHES,
    CARS,
    FRONTS,
    GROUNDS,
    HILLS,
    HOUSES,
    LAMPS,
    SKYLINE,
    TREES,
    dome,
    far_away,
    grounds,
    houses,
    polar,
    rotated,
    tiled,
    tinted,
    trees,
    xyz,
)  # fmt: skip
from data_tools.procedural.sky import OVERCAST, SKIES
from data_tools.procedural.texture_bank import TextureBank

FAR_SLOTS = 1 + GROUNDS + HILLS + SKYLINE
"""The first instances: sky, ground and what is far away cast no shadows."""
FURNITURE, THINGS, SCATTERED, WALLS = 4, 12, 8, 3
OUTDOOR_COLUMNS = 6000


@dataclass(frozen=True)
class OutdoorLayout:
    """What cameras and lights need to know.

    Attributes:
        focus: middle of the cluster that captures look at; radius: of that cluster, metres.
        reach: half side of the place around it.
        front: azimuth of the house that stands nearest; facade: middle of its front; broad: its half
            width and half height.
        sun: its azimuth; overcast: no sun is seen.
        blocks: what cameras keep clear of: middles and half axes (columns) of boxes, [s, n, 3] and [s, n, 3, 3]; those
            that do not exist lie far away.
    """

    focus: Float[Tensor, "s 3"]
    radius: Float[Tensor, " s"]
    reach: Float[Tensor, " s"]
    front: Float[Tensor, " s"]
    facade: Float[Tensor, "s 3"]
    broad: Float[Tensor, "s 2"]
    sun: Float[Tensor, " s"]
    overcast: Bool[Tensor, " s"]
    blocks: tuple[Float[Tensor, "s n 3"], Float[Tensor, "s n 3 3"]]


_STYLES = (
    *("ground",) * GROUNDS, *("foliage",) * HILLS, *("facade",) * (SKYLINE + HOUSES), *("roof",) * HOUSES,
    *("window",) * FRONTS, *("foliage",) * (2 * TREES + BUSHES), *("facade",) * WALLS,
    *("package",) * (THINGS + SCATTERED), "ground", "object", *("paint",) * CARS, "window", "furniture",
)  # fmt: skip


def outdoor_scene(
    keys: Int64[Tensor, " s"], bank: TextureBank, pack: AssetPack | None
) -> tuple[MeshInstances, OutdoorLayout]:
    """Instances [s, n] of open places in metres, ground at z = 0, the cluster around the origin; and their layout."""
    rng, device = CounterRNG(keys, "outdoor", OUTDOOR_COLUMNS), keys.device
    reach, radius = rng.log_ranges((7.0, 40.0), (0.7, 3.5))
    radius = torch.minimum(radius, 0.3 * reach)
    front, sun = (2 * math.pi * rng.uniform(2)).unbind(-1)
    town = rng.uniform()  # from a park to a town
    urban, green = 0.15 + 0.8 * town, 0.9 - 0.7 * town
    hilly = torch.where(rng.bernoulli(0.6), 0.9, 0.2)
    overcast = rng.bernoulli(0.3)
    sky = rng.uniform()
    sky = torch.where(overcast, SKIES - OVERCAST + sky * OVERCAST, sky * (SKIES - OVERCAST)).to(torch.int64)
    haze = torch.where(overcast[:, None], constant((0.8, 0.82, 0.84), device), constant((0.74, 0.82, 0.9), device))
    haze = haze * rng.uniform(1, low=0.85, high=1.0)

    texture, material = random_materials(rng, bank, len(_STYLES), _STYLES)
    taken = 0

    def some(count: int) -> Materials:
        nonlocal taken
        part = slice(taken, taken + count)
        taken += count
        return texture[:, part], material[:, part]

    tints = _ground_colours(rng, GROUNDS + 1, town)
    ground = grounds(rng, some(GROUNDS), reach, tints[:, :GROUNDS], haze)
    far = far_away(rng, some(HILLS + SKYLINE), reach, haze, hilly, urban)
    walls, fittings = houses(rng, some(2 * HOUSES + FRONTS), reach, front, urban)
    plants = trees(rng, some(2 * TREES + BUSHES), reach, radius * 1.8 + 1.0, green)
    low = _low_walls(rng, some(WALLS), reach, radius)
    materials = some(THINGS + SCATTERED)
    items = small_objects(rng, bank, pack, THINGS + SCATTERED, materials)
    cluster = _cluster(rng, items, some(1), some(1), reach, radius, tints[:, GROUNDS:])
    street = _street(rng, some(CARS), some(1), some(1), reach, radius, urban)
    seats = _seats(rng, keys, bank, radius)
    solid = MeshInstances.cat([walls, low, plants, cluster, street, seats], 1)
    blocks = (torch.where((solid.mesh == NO_MESH)[..., None], 1e4, solid.offset), solid.linear)
    height = rng.uniform(low=0.15, high=0.6)
    focus = xyz(0.0, 0.0, radius * height)
    # In the order of the columns of an instance's frame: across, towards the middle, up.
    axes = walls.linear[:, 0]
    layout = OutdoorLayout(
        focus, radius, reach, front, walls.offset[:, 0] + axes[..., 1],
        torch.stack([axes[..., 0].norm(dim=-1), axes[..., 2].norm(dim=-1)], -1), sun, overcast, blocks,
    )  # fmt: skip
    instances = MeshInstances.cat([dome(bank.first_sky + sky, sun), ground, far, fittings, solid], 1)
    return instances, layout


def _ground_colours(rng: CounterRNG, count: int, town: Float[Tensor, " s"]) -> Float[Tensor, "s n 3"]:
    """Grass, earth, sand, paving and asphalt, [s, count, 3]; more of the latter in towns."""
    kinds = ((0.44, 0.56, 0.28), (0.58, 0.54, 0.34), (0.56, 0.44, 0.34), (0.8, 0.74, 0.62), (0.7, 0.68, 0.66),
             (0.4, 0.4, 0.42))  # fmt: skip
    colours = constant(kinds, rng.device)
    share = rng.uniform(count)
    share = torch.where(town[:, None] > 0.5, 0.3 + 0.7 * share, share * 0.85)
    colour = colours[(share * len(colours)).to(torch.int64)]
    return colour * rng.uniform(count, 3, low=0.88, high=1.12) * rng.uniform(count, 1, low=1.1, high=1.7)


def _low_walls(
    rng: CounterRNG, materials: Materials, reach: Float[Tensor, " s"], radius: Float[Tensor, " s"]
) -> MeshInstances:
    """Garden walls, hedges and fences, [s, WALLS]."""
    n, (texture, material) = WALLS, materials
    angle, apart, long, tall, skew, scale = rng.uniform(6, n).unbind(1)
    half = xyz(1.5 + 6.0 * long, 0.06 + 0.14 * skew, 0.2 + 0.7 * tall * tall)
    distance = radius[:, None] * 1.8 + 1.0 + (reach[:, None] * 0.9 - radius[:, None]) * apart
    spot = polar(2 * math.pi * angle, distance, half[..., 2])
    walls = boxes(spot, half, texture, tiled(material, 0.4 + 0.8 * scale))
    return rotated(walls, 2 * math.pi * angle + 0.5 * math.pi + 0.5 * (skew - 0.5)).where(rng.bernoulli(0.45, n))


def _cluster(
    rng: CounterRNG,
    items: MeshInstances,
    paving: Materials,
    plinth: Materials,
    reach: Float[Tensor, " s"],
    radius: Float[Tensor, " s"],
    tint: Float[Tensor, "s 1 3"],
) -> MeshInstances:
    """The things that captures look at: a large one in the middle, often on a plinth, others around, on paving; and
    a few that lie about the place. items: [s, THINGS + SCATTERED] of size 1."""
    n, device = THINGS + SCATTERED, rng.device
    slot = torch.arange(n, device=device)
    first, far = slot == 0, slot >= THINGS
    angle, apart, size = rng.uniform(3, n).unbind(1)
    raised, paved, square, high = rng.uniform(4).unbind(1)
    raised = raised < 0.45
    foot = torch.where(raised, radius * (0.1 + 0.25 * high), 0.0)
    scale = radius[:, None] * torch.where(first, 0.5 + 0.25 * size, 0.13 + 0.25 * size * size)
    scale = torch.where(far, 0.2 + 1.3 * size * size, scale)
    away = radius[:, None] * torch.where(first, 0.0, 0.6 + 0.45 * apart)
    away = torch.where(far, radius[:, None] * 1.7 + 1.0 + 0.9 * reach[:, None] * apart, away)
    items = items.scaled(scale, polar(2 * math.pi * angle, away, first * foot[:, None]))
    items = items.where(rng.bernoulli(torch.where(first, 0.97, 0.75), n))

    side = scale[:, 0] * 1.05
    base = boxes(xyz(0.0, 0.0, 0.5 * foot)[:, None], xyz(side, side, 0.5 * foot.clamp_min(0.01))[:, None], plinth[0],
                 tiled(plinth[1], 0.7 / radius[:, None]), 1, family=1.0,
                 power=torch.where(square < 0.5, 2.0, 64.0)[:, None])  # fmt: skip
    disc = 1.25 * radius * (1.0 + square)
    flat = boxes(xyz(0.0, 0.0, 0.01 + 0.0 * disc)[:, None], xyz(disc, disc, 0.012)[:, None], paving[0],
                 tiled(tinted(paving[1], tint, 0.5), (0.4 + 0.5 * high)[:, None]), 2, family=1.0,
                 power=torch.where(high < 0.5, 2.0, 64.0)[:, None])  # fmt: skip
    return MeshInstances.cat([items, base.where(raised[:, None]), flat.where((paved < 0.6)[:, None])], 1)


def _street(
    rng: CounterRNG,
    paint: Materials,
    glass: Materials,
    metal: Materials,
    reach: Float[Tensor, " s"],
    radius: Float[Tensor, " s"],
    urban: Float[Tensor, " s"],
) -> MeshInstances:
    """Parked cars and lamp posts."""
    n, device = CARS, rng.device
    angle, apart, yaw, long, tall, there = rng.uniform(6, n).unbind(1)
    spot = polar(2 * math.pi * angle, radius[:, None] * 1.5 + 3.0 + reach[:, None] * 0.6 * apart)
    centre = constant(((0, 0, 0.62), (-0.25, 0, 1.15), (1.3, 0.78, 0.32), (1.3, -0.78, 0.32), (-1.3, 0.78, 0.32),
                       (-1.3, -0.78, 0.32)), device)  # fmt: skip
    half = constant(((2.1, 0.85, 0.34), (1.15, 0.74, 0.32), *((0.32, 0.32, 0.11),) * 4), device)
    stretch = xyz(0.85 + 0.3 * long, 1.0, 0.9 + 0.5 * tall)[..., None, :]
    parts = (n, len(half))
    wheel = constant((0.0, 0.0, 1.0, 1.0, 1.0, 1.0), device)

    def dressed(
        body: Shaped[Tensor, "s n *m"], window: Shaped[Tensor, "s 1 *m"], tyre: Shaped[Tensor, "s 1 *m"]
    ) -> Shaped[Tensor, "s n k *m"]:
        window, tyre = (value.expand_as(body) for value in (window, tyre))
        return torch.stack([body, window, *[tyre] * (len(half) - 2)], 2)

    texture, material = (dressed(*values) for values in zip(paint, glass, metal, strict=True))
    dark = torch.where(wheel > 0, 0.3, 1.0)[:, None]
    material = torch.cat([material[..., :12] * dark, material[..., 12:]], -1)
    full = torch.zeros(len(long), *parts, 1, device=device)
    cars = boxes(full + centre, full + half, texture, material, family=wheel,
                 power=torch.where(wheel > 0, 2.0, 9.0),
                 flare=constant((-0.1, -0.4, 0.0, 0.0, 0.0, 0.0), device))  # fmt: skip
    cars.mesh = torch.where(wheel > 0, 0, 1).expand_as(cars.mesh)
    # Wheels are lathes: laid on their sides.
    lay = constant(((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)), device)
    cars.linear = torch.where(wheel[:, None, None] > 0, lay @ cars.linear, cars.linear) * stretch[..., None]
    cars.offset = cars.offset * stretch
    cars = cars.moved(rotation_z(2 * math.pi * yaw)[:, :, None], spot[:, :, None])
    cars = cars.where((there < 0.7 * urban[:, None])[..., None].expand(-1, *parts)).map(lambda v: v.flatten(1, 2))

    m = LAMPS
    angle, apart, tall = rng.uniform(3, m).unbind(1)
    height, thin = 1.4 + 1.3 * tall, torch.full_like(tall, 0.06)
    spot = polar(2 * math.pi * angle, radius[:, None] * 1.4 + 1.0 + reach[:, None] * 0.7 * apart)
    look = metal[0].expand(-1, m), metal[1].expand(-1, m, -1)
    posts = boxes(spot + xyz(0.0, 0.0, height), xyz(thin, thin, height), *look, family=1.0, power=2.0, taper=0.6)
    heads = boxes(spot + xyz(0.0, 0.0, 2.0 * height), xyz(*[3.5 * thin] * 3), *look, 1, power=2.0 + 4.0 * apart)
    there = rng.uniform(m) < 0.8 * urban[:, None]
    return MeshInstances.cat([cars, posts.where(there), heads.where(there)], 1)


def _seats(rng: CounterRNG, keys: Int64[Tensor, " s"], bank: TextureBank, radius: Float[Tensor, " s"]) -> MeshInstances:
    """Benches, tables and stalls around the cluster."""
    n = FURNITURE
    group = hash32(keys[:, None] + 6101 * torch.arange(1, n + 1, device=keys.device))
    kind = rng.choice((0.2, 0.25, 0.1, 0.3, 0.05, 0.1), n)
    parts, _ = furniture(CounterRNG(group, "furniture", 600), bank, kind)
    angle, apart, skew = rng.uniform(3, n).unbind(1)
    angle = 2 * math.pi * angle
    spot = polar(angle, radius[:, None] * 1.25 + 0.8 + 3.0 * apart)
    # The front is local +y; people sit so that they see the middle.
    yaw = angle + 0.5 * math.pi + 1.2 * (skew - 0.5)
    parts = parts.moved(rotation_z(yaw)[:, :, None], spot[:, :, None])
    return parts.where(rng.bernoulli(0.55, n)[..., None].expand_as(parts.mesh)).map(lambda value: value.flatten(1, 2))
