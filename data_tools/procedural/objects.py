"""Single objects on white: random solids after Zeroverse, furniture, mirrored composites, textured scans.

Zeroverse: 1-9 textured primitives with displacements, boolean cuts and wireframes (LRM-Zero, arXiv 2406.09371).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from data_tools.procedural.assets import AssetPack
from data_tools.procedural.bank import NUM_TILES, TextureBank
from data_tools.procedural.draws import Draws, constant
from data_tools.procedural.furniture import furniture
from data_tools.procedural.pieces import (
    ASSET,
    DEAD,
    Pieces,
    boxes,
    colour_matrix,
    materials,
    random_rotation,
    turn,
)  # fmt: skip
from data_tools.procedural.shapes import plain_shape, shape_rows

SOLIDS = 9
OBJECT_SLOTS = 21
OBJECT_COLUMNS = 2600


def random_solids(draws: Draws, count: int, altered: Tensor) -> tuple[Tensor, Tensor]:
    """Shape rows [*keys, count, fields] and levels of detail of random primitives.

    altered: int64, broadcasts to [*keys, count]: 0 may be displaced, 1 cut by a ball or box, 2 a lattice.
    """
    n, rank = (count,), len(draws.batch)
    # cube sphere round-box cylinder cone torus vase
    kind = draws.pick((0.2, 0.16, 0.14, 0.16, 0.1, 0.12, 0.12), count)
    chances = constant((0.2, 0.5, 0.4, 0.3, 0.2, 0.1, 0.25, 0.5, 0.3, 0.5), draws.device)[:, None]
    squarish, tapered, part, odd, bent_x, bent_y, flared, bumped, sharp, round_cut = draws.chance(
        chances, 10, count
    ).unbind(rank)
    square, cone, loose, wave, waves, tube, arc, flare, sharpness, phase, reach, cut_size, step = draws.ranges(
        (3.0, 10.0), (0.0, 0.3), (0.5, 1.4), (0.0, 0.3), (0.5, 4.5), (0.08, 0.45), (0.3, 1.0), (-0.7, 0.5),
        (0.0, 1.0), (0.0, 100.0), (0.75, 1.25), (0.35, 0.75), (0.0, 4.0), shape=n,
    )  # fmt: skip
    soft, bump, bump_scale = draws.log_ranges((1.15, 10.0), (0.015, 0.18), (2.0, 11.0), shape=n)
    bulge, twist, bend_x, bend_y = draws.normal(4, count).unbind(rank)
    direction = torch.nn.functional.normalize(draws.normal(count, 3), dim=-1) * reach[..., None]

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


def _composites(draws: Draws, bank: TextureBank) -> tuple[Pieces, Pieces]:
    """Two objects, [*keys, OBJECT_SLOTS] each.

    The first: 1-9 random solids around the origin. The second: a body with parts mirrored left to right (vehicles,
    robots, toys). Drawn together, for fewer launches.
    """
    pairs, middles = 6, 4
    n, m = SOLIDS, pairs + middles
    slot = torch.arange(n + m, device=draws.device)
    first = slot < n
    # The first as a whole has nothing altered, cuts, or lattices; of the second each part may be cut.
    change, use = draws.pick((0.42, 0.38, 0.2), 1), draws.uniform(n + m)
    altered = torch.where(first, change * (use < 0.6), (use < 0.15).to(torch.int64))
    shape, level = random_solids(draws, n + m, altered)
    size, a, b, c = draws.ranges((0.0, 1.0), *[(math.log(0.35), math.log(1.3))] * 3, shape=(n + m,))
    size = torch.where(first, 0.2 + 0.4 * size, 0.1 + 0.35 * size)
    size = size[..., None] * torch.exp(torch.stack([a, b, c], -1))
    upright, angle = draws.uniform(2, n + m).unbind(len(draws.batch))
    quarter = (angle * 4.0).floor() * 0.25
    stand = turn(torch.where(first, angle, quarter) * (2 * math.pi))
    linear = torch.where(
        (upright < torch.where(first, 0.4, 0.6))[..., None, None], stand, random_rotation(draws, n + m)
    )
    linear = linear * size[..., None, :]
    place = draws.uniform(n + m, 3, low=-1.0, high=1.0)
    counts = draws.uniform(2) * constant((float(SOLIDS), float(pairs)), draws.device)
    counts = counts.floor() + 1.0
    several = counts[..., :1, None] > 1
    texture, material = materials(draws, bank, n + m, "object")
    whole = Pieces(level, linear, place, shape, texture, material)

    heap = whole.map(lambda value: value[:, :n])
    heap.offset = heap.offset * 0.55 * several
    heap = heap.where(slot[:n] < counts[..., :1])
    toy = whole.map(lambda value: value[:, n:])
    part = slot[:m]
    side = torch.where(part >= pairs, 0.0, toy.offset[..., 0].abs() * 0.6 + 0.05)
    toy.offset = torch.cat([side[..., None], toy.offset[..., 1:] * 0.6], -1)
    toy = toy.where((part % pairs < counts[..., 1:]) | (part == pairs))
    flip = constant(((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), draws.device)
    twin = toy.map(lambda value: value[:, :pairs]).moved(flip, constant((0.0, 0.0, 0.0), draws.device))
    return pad_slots(heap, OBJECT_SLOTS), pad_slots(Pieces.cat([toy, twin], 1), OBJECT_SLOTS)


def pad_slots(pieces: Pieces, slots: int) -> Pieces:
    """Add dead pieces behind [*b, n] up to ``slots``."""
    missing = slots - pieces.mesh.shape[-1]
    spare = pieces.map(lambda value: value[:, :1].expand(-1, missing, *value.shape[2:]))
    spare.mesh = torch.full_like(spare.mesh, DEAD)
    return Pieces.cat([pieces, spare], 1) if missing else pieces


def choose(which: Tensor, options: list[Pieces]) -> Pieces:
    """Piece tables of equal shape [s, n]: row s from option which[s]."""
    stacked = Pieces(*(torch.stack(values, 1) for values in zip(*(vars(o).values() for o in options), strict=True)))
    rows = torch.arange(len(which), device=which.device)
    return stacked.map(lambda value: value[rows, which])


def object_scene(keys: Tensor, bank: TextureBank) -> Pieces:
    """Pieces [s, OBJECT_SLOTS] of primitive objects; their size is normalised later."""
    draws = Draws(keys, "object", OBJECT_COLUMNS)
    which = draws.pick((0.45, 0.35, 0.2))
    kind = draws.pick((0.38, 0.18, 0.1, 0.1, 0.12, 0.12))
    chair, _ = furniture(Draws(keys, "furniture", 600), bank, kind)
    heap, toy = _composites(draws, bank)
    pieces = choose(which, [heap, chair, toy])
    tilt = torch.where(
        draws.chance(0.1)[..., None, None], random_rotation(draws), turn(draws.uniform(high=2 * math.pi))
    )
    return pieces.moved(tilt[:, None], constant((0.0, 0.0, 0.0), keys.device))


def asset_material(draws: Draws, *shape: int, strength: float = 1.0) -> Tensor:
    """Slight colour changes of scans; rows of MATERIAL_FIELDS."""
    tint = draws.uniform(*shape, 1, low=0.85, high=1.1) * draws.uniform(*shape, 3, low=1 - 0.12 * strength, high=1.0)
    wild = draws.chance(0.2 * strength, *shape)
    hue = torch.where(wild, draws.uniform(*shape, high=2 * math.pi), draws.normal(*shape, std=0.05))
    saturation, contrast, shiny, dull, gloss = draws.ranges(
        (0.75, 1.2), (0.8, 1.1), (0.03, 0.25), (0.0, 0.03), (math.log(8.0), math.log(100.0)), shape=shape
    )
    matrix = colour_matrix(hue, saturation, contrast, tint)
    specular = torch.where(draws.chance(0.3, *shape), shiny, dull)
    fixed = constant((0.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0), draws.device).expand(*gloss.shape, 8)
    return torch.cat([matrix, specular[..., None], torch.exp(gloss)[..., None], fixed], -1)


def asset_scene(keys: Tensor, bank: TextureBank, pack: AssetPack) -> Pieces:
    """Pieces [s, 3]: one scan, sometimes two or three together."""
    draws = Draws(keys, "asset", 300)
    n = 3
    count = draws.pick((0.72, 0.18, 0.1)) + 1
    asset = draws.integer(len(pack.names), n)
    size = torch.where(torch.arange(n, device=keys.device) == 0, 1.0, draws.uniform(n, low=0.4, high=1.0))
    rotation = torch.where(draws.chance(0.2)[..., None, None, None], random_rotation(draws, n),
                           turn(draws.uniform(n, high=2 * math.pi)))  # fmt: skip
    stretch = 1.0 + draws.normal(n, 3, std=0.12) * draws.chance(0.3, n, 1)
    angle = draws.uniform(1, high=2 * math.pi) + 2 * math.pi * torch.arange(n, device=keys.device) / count[..., None]
    apart = draws.uniform(n, low=0.55, high=0.95) * (count > 1)[..., None]
    half = pack.half_size[asset] * size[..., None]
    offset = torch.stack([apart * torch.cos(angle), apart * torch.sin(angle), half[..., 2]], -1)
    alive = torch.arange(n, device=keys.device) < count[..., None]
    linear = rotation @ torch.diag_embed(size[..., None] * stretch)
    shape = plain_shape(*asset.shape, device=keys.device)
    return Pieces(torch.where(alive, ASSET + asset, DEAD), linear, offset, shape,
                  NUM_TILES + bank.num_real + asset, asset_material(draws, n))  # fmt: skip


__all__ = ["asset_material", "asset_scene", "boxes", "choose", "object_scene", "pad_slots", "random_solids"]
