"""Single objects on white: random solids after Zeroverse, furniture, mirrored composites, textured scans.

Zeroverse: 1-9 textured primitives with displacements, boolean cuts and wireframes (LRM-Zero, arXiv 2406.09371).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from data_tools.procedural.assets import AssetPack
from data_tools.procedural.bank import NUM_TILES, TextureBank
from data_tools.procedural.draws import Draws
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
from data_tools.procedural.shapes import INDEX, plain_shape

SOLIDS = 9
OBJECT_SLOTS = 21
OBJECT_COLUMNS = 2600


def random_solids(draws: Draws, count: int, altered: Tensor) -> tuple[Tensor, Tensor]:
    """Shape rows [*keys, count, fields] and levels of detail of random primitives.

    altered: int64, broadcasts to [*keys, count]: 0 may be displaced, 1 cut by a ball or box, 2 a lattice.
    """
    d = draws.uniform
    shape = plain_shape(*draws.batch, count, device=draws.device)
    kind = draws.pick(
        (0.2, 0.16, 0.14, 0.16, 0.1, 0.12, 0.12), count
    )  # cube sphere round-box cylinder cone torus vase
    zero, one = torch.zeros_like(kind, dtype=torch.float32), torch.ones_like(kind, dtype=torch.float32)

    def put(name: str, value: Tensor) -> None:
        shape[..., INDEX[name]] = value

    put("family", torch.where(kind <= 2, 0.0, torch.where(kind == 5, 2.0, 1.0)))
    lathe_power = torch.where(d(count) < 0.8, 2.0, d(count, low=3.0, high=10.0))
    ball_power = torch.where(
        kind == 0, 64.0, torch.where(kind == 1, 2.0, draws.log_uniform(count, low=1.15, high=10.0))
    )
    put("power", torch.where(kind <= 2, ball_power, lathe_power))
    taper = torch.where(
        kind == 4, d(count, high=0.3), torch.where(d(count) < 0.5, one, d(count, low=0.5, high=1.4))
    )
    put("taper", torch.where(kind >= 3, taper, one))
    put("bulge", torch.where(kind == 6, draws.normal(count, std=0.3), zero))
    put("wave", torch.where(kind == 6, d(count, high=0.3), zero))
    put("waves", 0.5 + (d(count) * 4.0))
    put("tube", d(count, low=0.08, high=0.45))
    put("arc", torch.where(d(count) < 0.6, one, d(count, low=0.3, high=1.0)))
    odd = d(count) < 0.3
    put("twist", torch.where(odd & (kind != 5), draws.normal(count, std=1.2), zero))
    put("bend_x", torch.where(d(count) < 0.2, draws.normal(count, std=0.35), zero))
    put("bend_y", torch.where(d(count) < 0.1, draws.normal(count, std=0.35), zero))
    put("flare", torch.where((d(count) < 0.25) & (kind <= 2), d(count, low=-0.7, high=0.5), zero))
    bumpy = (d(count) < 0.5) & (altered == 0)
    put("bump", torch.where(bumpy, draws.log_uniform(count, low=0.015, high=0.18), zero))
    put("bump_scale", draws.log_uniform(count, low=2.0, high=11.0))
    put("bump_sharp", torch.where(d(count) < 0.3, d(count), zero))
    put("bump_phase", d(count, high=100.0))
    cut = torch.where(d(count) < 0.5, one, 2 * one)
    put("cut", torch.where((altered == 1) & (kind != 5), cut, zero))
    direction = torch.nn.functional.normalize(draws.normal(count, 3), dim=-1)
    reach = d(count, 1, low=0.75, high=1.25)
    shape[..., INDEX["cut_x"] : INDEX["cut_z"] + 1] = direction * reach
    put("cut_size", d(count, low=0.35, high=0.75) * reach[..., 0])
    put(
        "lattice",
        torch.where(altered == 2, 2 + 2 * draws.integer(2, count) + draws.integer(2, count), 0).float(),
    )
    plain_box = (kind == 0) & (altered == 0) & ~bumpy & ~odd & (shape[..., INDEX["bend_x"]] == 0)
    level = torch.where((altered > 0) | bumpy, 2, torch.where(plain_box, 0, 1))
    return shape, level


def _zeroverse(draws: Draws, bank: TextureBank) -> Pieces:
    """1-9 random solids around the origin, [*keys, OBJECT_SLOTS]."""
    n = SOLIDS
    count = draws.integer(SOLIDS) + 1
    change = draws.pick((0.42, 0.38, 0.2))  # nothing, cuts, lattices
    altered = change[..., None] * (draws.uniform(n) < 0.6)
    shape, level = random_solids(draws, n, altered)
    size = draws.uniform(n, 1, low=0.2, high=0.6) * draws.log_uniform(n, 3, low=0.35, high=1.3)
    linear = random_rotation(draws, n)
    upright = turn(draws.uniform(n, high=2 * math.pi))
    linear = torch.where(draws.chance(0.4, n)[..., None, None], upright, linear) * size[..., None, :]
    offset = draws.uniform(n, 3, low=-0.55, high=0.55) * (count[..., None, None] > 1)
    texture, material = materials(draws, bank, n)
    alive = torch.arange(n, device=draws.device) < count[..., None]
    pieces = Pieces(torch.where(alive, level, DEAD), linear, offset, shape, texture, material)
    return pad_slots(pieces, OBJECT_SLOTS)


def _mirrored(draws: Draws, bank: TextureBank) -> Pieces:
    """A body with parts mirrored left to right, [*keys, OBJECT_SLOTS]: vehicles, robots, toys."""
    pairs, middles = 6, 4
    n = pairs + middles
    shape, level = random_solids(draws, n, torch.where(draws.chance(0.15, n), 1, 0))
    size = draws.uniform(n, 1, low=0.1, high=0.45) * draws.log_uniform(n, 3, low=0.3, high=1.4)
    upright = draws.chance(0.6, n)[..., None, None]
    linear = torch.where(
        upright, turn((draws.integer(4, n) * 0.5 * math.pi).float()), random_rotation(draws, n)
    )
    linear = linear * size[..., None, :]
    offset = draws.uniform(n, 3, low=-0.6, high=0.6)
    middle = torch.arange(n, device=draws.device) >= pairs
    offset[..., 0] = torch.where(middle, 0.0, offset[..., 0].abs() + 0.05)
    texture, material = materials(draws, bank, n)
    alive = (torch.arange(n, device=draws.device) % pairs) < (1 + draws.integer(pairs))[..., None]
    pieces = Pieces(torch.where(alive | (torch.arange(n, device=draws.device) == pairs), level, DEAD), linear, offset,
                    shape, texture, material)  # fmt: skip
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0], device=draws.device))
    twin = pieces.map(lambda value: value[:, :pairs]).moved(flip, torch.zeros(3, device=draws.device))
    return pad_slots(Pieces.cat([pieces, twin], 1), OBJECT_SLOTS)


def pad_slots(pieces: Pieces, slots: int) -> Pieces:
    """Add dead pieces behind [*b, n] up to ``slots``."""
    missing = slots - pieces.mesh.shape[-1]
    spare = pieces.map(lambda value: value[:, :1].expand(-1, missing, *value.shape[2:]))
    spare.mesh = torch.full_like(spare.mesh, DEAD)
    return Pieces.cat([pieces, spare], 1) if missing else pieces


def choose(which: Tensor, options: list[Pieces]) -> Pieces:
    """Piece tables of equal shape [s, n]: row s from option which[s]."""
    stacked = Pieces(
        *(torch.stack(values, 1) for values in zip(*(vars(o).values() for o in options), strict=True))
    )
    rows = torch.arange(len(which), device=which.device)
    return stacked.map(lambda value: value[rows, which])


def object_scene(keys: Tensor, bank: TextureBank) -> Pieces:
    """Pieces [s, OBJECT_SLOTS] of primitive objects; their size is normalised later."""
    draws = Draws(keys, "object", OBJECT_COLUMNS)
    which = draws.pick((0.45, 0.35, 0.2))
    kind = draws.pick((0.38, 0.18, 0.1, 0.1, 0.12, 0.12))
    chair, _ = furniture(Draws(keys, "furniture", 600), bank, kind)
    pieces = choose(which, [_zeroverse(draws, bank), chair, _mirrored(draws, bank)])
    tilt = torch.where(
        draws.chance(0.1)[..., None, None], random_rotation(draws), turn(draws.uniform(high=2 * math.pi))
    )
    return pieces.moved(tilt[:, None], torch.zeros(3, device=keys.device))


def asset_material(draws: Draws, *shape: int, strength: float = 1.0) -> Tensor:
    """Slight colour changes of scans; rows of MATERIAL_FIELDS."""
    tint = draws.uniform(*shape, 1, low=0.85, high=1.1) * draws.uniform(
        *shape, 3, low=1 - 0.12 * strength, high=1.0
    )
    wild = draws.chance(0.2 * strength, *shape)
    hue = torch.where(wild, draws.uniform(*shape, high=2 * math.pi), draws.normal(*shape, std=0.05))
    matrix = colour_matrix(
        hue, draws.uniform(*shape, low=0.75, high=1.2), draws.uniform(*shape, low=0.8, high=1.1), tint
    )
    glossy = draws.chance(0.3, *shape)
    specular = torch.where(
        glossy, draws.uniform(*shape, low=0.03, high=0.25), draws.uniform(*shape, high=0.03)
    )
    gloss = draws.log_uniform(*shape, low=8.0, high=100.0)
    zeros = torch.zeros_like(gloss)
    rest = [specular, gloss, zeros, zeros + 2.0, zeros + 1.0, zeros + 1.0, zeros, zeros, zeros, zeros]
    return torch.cat([matrix, torch.stack(rest, -1)], -1)


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
    angle = (
        draws.uniform(1, high=2 * math.pi)
        + 2 * math.pi * torch.arange(n, device=keys.device) / count[..., None]
    )
    apart = draws.uniform(n, low=0.55, high=0.95) * (count > 1)[..., None]
    half = pack.half_size[asset] * size[..., None]
    offset = torch.stack([apart * torch.cos(angle), apart * torch.sin(angle), half[..., 2]], -1)
    alive = torch.arange(n, device=keys.device) < count[..., None]
    linear = rotation @ torch.diag_embed(size[..., None] * stretch)
    shape = plain_shape(*asset.shape, device=keys.device)
    return Pieces(torch.where(alive, ASSET + asset, DEAD), linear, offset, shape,
                  NUM_TILES + bank.num_real + asset, asset_material(draws, n))  # fmt: skip


__all__ = ["asset_material", "asset_scene", "boxes", "choose", "object_scene", "pad_slots", "random_solids"]
