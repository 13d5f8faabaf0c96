"""Single objects on white: random solids after Zeroverse, furniture, mirrored composites, textured scans.

Zeroverse: 1-9 textured primitives with displacements, boolean cuts and wireframes (LRM-Zero, arXiv 2406.09371).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from data_tools.procedural.asset_pack import AssetPack
from data_tools.procedural.furniture import furniture
from data_tools.procedural.instances import (
    ASSET,
    NO_MESH,
    MeshInstances,
    colour_matrix,
    random_materials,
    random_rotation,
    rotation_z,
)  # fmt: skip
from data_tools.procedural.rng import CounterRNG, constant
from data_tools.procedural.shapes import shape_rows
from data_tools.procedural.texture_bank import NUM_PATTERNS, TextureBank

SOLIDS = 9
OBJECT_SLOTS = 21
OBJECT_COLUMNS = 2600


def random_solids(
    rng: CounterRNG, count: int, altered: Int64[Tensor, "*keys n"]
) -> tuple[Float[Tensor, "*keys n k"], Int64[Tensor, "*keys n"]]:
    """Shape rows [*keys, count, fields] and levels of detail of random primitives.

    altered: 0 may be displaced, 1 cut by a ball or box, 2 a lattice.
    """
    n, rank = (count,), len(rng.batch)
    # cube sphere round-box cylinder cone torus vase
    kind = rng.choice((0.2, 0.16, 0.14, 0.16, 0.1, 0.12, 0.12), count)
    chances = constant((0.2, 0.5, 0.4, 0.3, 0.2, 0.1, 0.25, 0.5, 0.3, 0.5), rng.device)[:, None]
    squarish, tapered, part, odd, bent_x, bent_y, flared, bumped, sharp, round_cut = rng.bernoulli(
        chances, 10, count
    ).unbind(rank)
    square, cone, loose, wave, waves, tube, arc, flare, sharpness, phase, reach, cut_size, step = rng.ranges(
        (3.0, 10.0), (0.0, 0.3), (0.5, 1.4), (0.0, 0.3), (0.5, 4.5), (0.08, 0.45), (0.3, 1.0), (-0.7, 0.5),
        (0.0, 1.0), (0.0, 100.0), (0.75, 1.25), (0.35, 0.75), (0.0, 4.0), shape=n,
    )  # fmt: skip
    soft, bump, bump_scale = rng.log_ranges((1.15, 10.0), (0.015, 0.18), (2.0, 11.0), shape=n)
    bulge, twist, bend_x, bend_y = rng.normal(4, count).unbind(rank)
    direction = torch.nn.functional.normalize(rng.normal(count, 3), dim=-1) * reach[..., None]

    ball, torus, vase = kind <= 2, kind == 5, kind == 6
    power = torch.where(kind == 0, 64.0, torch.where(kind == 1, 2.0, soft))
    power = torch.where(ball, power, torch.where(squarish, square, 2.0))
    taper = torch.where(ball | ~tapered, 1.0, loose)
    bumpy = bumped & (altered == 0)
    step = step.floor()  # 0-3: every second to fifth line stays
    shape = shape_rows(
        kind, family=torch.where(ball, 0.0, torch.where(torus, 2.0, 1.0)), power=power,
        taper=torch.where(kind == 4, cone, taper), bulge=vase * bulge * 0.3, wave=vase * wave, waves=waves, tube=tube,
        arc=torch.where(part, arc, 1.0), twist=(odd & ~torus) * twist * 1.2, bend_x=bent_x * bend_x * 0.35,
        bend_y=bent_y * bend_y * 0.35, flare=(flared & ball) * flare, bump=bumpy * bump, bump_scale=bump_scale,
        bump_sharp=sharp * sharpness, bump_phase=phase, cut=((altered == 1) & ~torus) * torch.where(round_cut, 1, 2),
        cut_x=direction[..., 0], cut_y=direction[..., 1], cut_z=direction[..., 2], cut_size=cut_size * reach,
        lattice=(altered == 2) * (2.0 + step),
    )  # fmt: skip
    plain_box = (kind == 0) & (altered == 0) & ~(bumpy | odd | bent_x)
    return shape, torch.where((altered > 0) | bumpy, 2, torch.where(plain_box, 0, 1))


def _composites(rng: CounterRNG, bank: TextureBank) -> tuple[MeshInstances, MeshInstances]:
    """Two objects, [*keys, OBJECT_SLOTS] each.

    The first: 1-9 random solids around the origin. The second: a body with parts mirrored left to right (vehicles,
    robots, toys). Drawn together, for fewer launches.
    """
    pairs, middles = 6, 4
    n, m = SOLIDS, pairs + middles
    slot = torch.arange(n + m, device=rng.device)
    first = slot < n
    # The first as a whole has nothing altered, cuts, or lattices; of the second each part may be cut.
    change, use = rng.choice((0.42, 0.38, 0.2), 1), rng.uniform(n + m)
    altered = torch.where(first, change * (use < 0.6), (use < 0.15).to(torch.int64))
    shape, level = random_solids(rng, n + m, altered)
    size, a, b, c = rng.ranges((0.0, 1.0), *[(math.log(0.35), math.log(1.3))] * 3, shape=(n + m,))
    size = torch.where(first, 0.2 + 0.4 * size, 0.1 + 0.35 * size)
    size = size[..., None] * torch.exp(torch.stack([a, b, c], -1))
    upright, angle = rng.uniform(2, n + m).unbind(len(rng.batch))
    quarter = (angle * 4.0).floor() * 0.25
    stand = rotation_z(torch.where(first, angle, quarter) * (2 * math.pi))
    linear = torch.where((upright < torch.where(first, 0.4, 0.6))[..., None, None], stand, random_rotation(rng, n + m))
    linear = linear * size[..., None, :]
    place = rng.uniform(n + m, 3, low=-1.0, high=1.0)
    counts = rng.uniform(2) * constant((float(SOLIDS), float(pairs)), rng.device)
    counts = counts.floor() + 1.0
    several = counts[..., :1, None] > 1
    texture, material = random_materials(rng, bank, n + m, "object")
    whole = MeshInstances(level, linear, place, shape, texture, material)

    heap = whole.map(lambda value: value[:, :n])
    heap.offset = heap.offset * 0.55 * several
    heap = heap.where(slot[:n] < counts[..., :1])
    toy = whole.map(lambda value: value[:, n:])
    part = slot[:m]
    side = torch.where(part >= pairs, 0.0, toy.offset[..., 0].abs() * 0.6 + 0.05)
    toy.offset = torch.cat([side[..., None], toy.offset[..., 1:] * 0.6], -1)
    toy = toy.where((part % pairs < counts[..., 1:]) | (part == pairs))
    flip = constant(((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), rng.device)
    twin = toy.map(lambda value: value[:, :pairs]).moved(flip, constant((0.0, 0.0, 0.0), rng.device))
    return pad_slots(heap, OBJECT_SLOTS), pad_slots(MeshInstances.cat([toy, twin], 1), OBJECT_SLOTS)


def pad_slots(instances: MeshInstances, slots: int) -> MeshInstances:
    """Add unused slots behind [*b, n] up to ``slots``."""
    missing = slots - instances.mesh.shape[-1]
    spare = instances.map(lambda value: value[:, :1].expand(-1, missing, *value.shape[2:]))
    spare.mesh = torch.full_like(spare.mesh, NO_MESH)
    return MeshInstances.cat([instances, spare], 1) if missing else instances


def choose(which: Int64[Tensor, " s"], options: list[MeshInstances]) -> MeshInstances:
    """Instances [s, n] of several options: those of scene s from option which[s]."""
    rows = torch.arange(len(which), device=which.device)
    return MeshInstances.stack(options, 1).map(lambda value: value[rows, which])


def object_scene(keys: Int64[Tensor, " s"], bank: TextureBank) -> MeshInstances:
    """Instances [s, OBJECT_SLOTS] of primitive objects; their size is normalised later."""
    rng = CounterRNG(keys, "object", OBJECT_COLUMNS)
    which = rng.choice((0.45, 0.35, 0.2))
    kind = rng.choice((0.38, 0.18, 0.1, 0.1, 0.12, 0.12))
    chair, _ = furniture(CounterRNG(keys, "furniture", 600), bank, kind)
    heap, toy = _composites(rng, bank)
    instances = choose(which, [heap, chair, toy])
    tilt = torch.where(
        rng.bernoulli(0.1)[..., None, None], random_rotation(rng), rotation_z(rng.uniform(high=2 * math.pi))
    )
    return instances.moved(tilt[:, None], constant((0.0, 0.0, 0.0), keys.device))


def asset_material(rng: CounterRNG, *shape: int, strength: float = 1.0) -> Float[Tensor, "*b m"]:
    """Slight colour changes of scans; rows of MATERIAL_FIELDS."""
    tint = rng.uniform(*shape, 1, low=0.85, high=1.1) * rng.uniform(*shape, 3, low=1 - 0.12 * strength, high=1.0)
    wild = rng.bernoulli(0.2 * strength, *shape)
    hue = torch.where(wild, rng.uniform(*shape, high=2 * math.pi), rng.normal(*shape, std=0.05))
    saturation, contrast, shiny, dull, gloss = rng.ranges(
        (0.75, 1.2), (0.8, 1.1), (0.03, 0.25), (0.0, 0.03), (math.log(8.0), math.log(100.0)), shape=shape
    )
    matrix = colour_matrix(hue, saturation, contrast, tint)
    specular = torch.where(rng.bernoulli(0.3, *shape), shiny, dull)
    fixed = constant((0.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0), rng.device).expand(*gloss.shape, 9)
    return torch.cat([matrix, specular[..., None], torch.exp(gloss)[..., None], fixed], -1)


def asset_scene(keys: Int64[Tensor, " s"], bank: TextureBank, pack: AssetPack) -> MeshInstances:
    """Instances [s, 3]: one scan, sometimes two or three together."""
    rng = CounterRNG(keys, "asset", 300)
    n = 3
    count = rng.choice((0.72, 0.18, 0.1)) + 1
    asset = rng.randint(len(pack.names), n)
    size = torch.where(torch.arange(n, device=keys.device) == 0, 1.0, rng.uniform(n, low=0.4, high=1.0))
    rotation = torch.where(rng.bernoulli(0.2)[..., None, None, None], random_rotation(rng, n),
                           rotation_z(rng.uniform(n, high=2 * math.pi)))  # fmt: skip
    stretch = 1.0 + rng.normal(n, 3, std=0.12) * rng.bernoulli(0.3, n, 1)
    angle = rng.uniform(1, high=2 * math.pi) + 2 * math.pi * torch.arange(n, device=keys.device) / count[..., None]
    apart = rng.uniform(n, low=0.55, high=0.95) * (count > 1)[..., None]
    half = pack.half_size[asset] * size[..., None]
    offset = torch.stack([apart * torch.cos(angle), apart * torch.sin(angle), half[..., 2]], -1)
    alive = torch.arange(n, device=keys.device) < count[..., None]
    linear = rotation @ torch.diag_embed(size[..., None] * stretch)
    return MeshInstances(torch.where(alive, ASSET + asset, NO_MESH), linear, offset, shape_rows(asset),
                  NUM_PATTERNS + bank.num_real + asset, asset_material(rng, n))  # fmt: skip
