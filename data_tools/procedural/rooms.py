"""Rooms and grounds after MegaSynth: a shell, furniture, and a cluster of things on a table or on the floor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from data_tools.procedural.asset_pack import AssetPack
from data_tools.procedural.furniture import CHAIR, TABLE, furniture
from data_tools.procedural.instances import (
    ASSET,
    NO_MESH,
    Materials,
    MeshInstances,
    boxes,
    random_materials,
    random_rotation,
    rotation_z,
    some,
)
from data_tools.procedural.objects import asset_material, random_solids
from data_tools.procedural.rng import CounterRNG, constant, hash32
from data_tools.procedural.shapes import shape_rows
from data_tools.procedural.texture_bank import NUM_PATTERNS, TextureBank

OTHERS, ON_TABLE, ON_FLOOR, PICTURES = 5, 15, 6, 7
ROOM_COLUMNS = 6000


@dataclass(frozen=True)
class RoomLayout:
    """What the cameras need to know.

    Attributes:
        focus: middle of the cluster that captures look at; radius: of that cluster, metres.
        half: half sides of the room, centred at the origin; height: of the ceiling.
        front: azimuth from which the cluster is seen, radians; free: seen from all around.
        spheres: bounding balls of the things, radius 0 where there is none.
    """

    focus: Float[Tensor, "s 3"]
    radius: Float[Tensor, " s"]
    half: Float[Tensor, "s 2"]
    height: Float[Tensor, " s"]
    front: Float[Tensor, " s"]
    free: Bool[Tensor, " s"]
    spheres: Float[Tensor, "s n 4"]


def small_objects(
    rng: CounterRNG, bank: TextureBank, pack: AssetPack | None, count: int, materials: Materials
) -> MeshInstances:
    """Small objects that stand on z = 0 within the unit half-width: packages, cans, books, solids, scans.

    materials: ``count`` for each scene.

    Returns:
        instances [*keys, count], each centred at x = y = 0; the largest of half-width and height is about 1.
    """
    n, rank = (count,), len(rng.batch)
    texture, material = materials
    # box can flat solid scan
    kind = rng.choice((0.24, 0.15, 0.13, 0.12, 0.36 if pack is not None else 0.0), count)
    chances = constant((0.15, 0.25, 0.5, 0.3, 0.4), rng.device)[:, None]
    cut, rounded, straight, bulged, tumbled = rng.bernoulli(chances, 5, count).unbind(rank)
    solid, level = random_solids(rng, count, cut.to(torch.int64))
    can, is_solid = kind == 1, kind == 3
    (edge, taper, box_x, box_y, box_z, radius, tall, flat_x, flat_y, flat_z, size, stretch_x, stretch_y, stretch_z,
     angle, scan_size) = rng.ranges(
        (6.0, 14.0), (0.4, 1.3), (0.25, 0.8), (0.12, 0.6), (0.15, 1.0), (0.15, 0.45), (0.15, 0.7), (0.4, 0.9),
        (0.3, 0.7), (0.01, 0.1), (0.25, 0.5), *[(math.log(0.6), math.log(1.3))] * 3, (0.0, 2 * math.pi), (0.7, 1.0),
        shape=n,
    )  # fmt: skip
    power = torch.where(can, 2.0, torch.where(rounded, edge, 64.0))
    row = shape_rows(kind, family=can, power=power, taper=torch.where(can & ~straight, taper, 1.0),
                     bulge=(can & bulged) * rng.normal(count, std=0.2))  # fmt: skip
    shape = torch.where(is_solid[..., None], solid, row)
    level = torch.where(is_solid, level, (power <= 60.0).to(torch.int64))
    ball = size[..., None] * torch.exp(torch.stack([stretch_x, stretch_y, stretch_z], -1))
    choices = torch.stack([box_x, box_y, box_z, radius, radius, tall, flat_x, flat_y, flat_z], -1).unflatten(-1, (3, 3))
    choices = torch.cat([choices, ball[..., None, :]], -2)
    half = torch.gather(choices, -2, kind.clamp_max(3)[..., None, None].expand(*kind.shape, 1, 3))[..., 0, :]
    # Solids may lie any way; their height is then that of the turned box, a safe upper bound.
    upright = rotation_z(angle)
    rotation = torch.where((is_solid & tumbled)[..., None, None], random_rotation(rng, count), upright)
    linear = rotation * half[..., None, :]
    rise = torch.where(is_solid, linear.norm(dim=-1)[..., 2], half[..., 2])
    if pack is not None:
        asset = rng.randint(len(pack.names), count)
        scan = kind == 4
        level = torch.where(scan, ASSET + asset, level)
        linear = torch.where(scan[..., None, None], upright * scan_size[..., None, None], linear)
        rise = torch.where(scan, pack.half_size[asset][..., 2] * scan_size, rise)
        texture = torch.where(scan, NUM_PATTERNS + bank.num_real + asset, texture)
        material = torch.where(scan[..., None], asset_material(rng, count, strength=0.5), material)
    zero = torch.zeros_like(rise)
    return MeshInstances(level, linear, torch.stack([zero, zero, rise], -1), shape, texture, material)


_THINGS = ON_TABLE + ON_FLOOR
_LOOKS = (
    *(("package", "any", "package", "package", "any") * _THINGS)[:_THINGS],
    *("picture",) * (2 + PICTURES), "floor", *("wall",) * 5,
)  # fmt: skip
"""Styles of a room's surfaces: things, boards, pictures, floor, ceiling and walls."""


def room_scene(
    keys: Int64[Tensor, " s"], bank: TextureBank, pack: AssetPack | None
) -> tuple[MeshInstances, RoomLayout]:
    """Instances [s, n] of rooms in metres, floor at z = 0, and the layout for cameras and lights."""
    rng = CounterRNG(keys, "room", ROOM_COLUMNS)
    d, device = rng.uniform, rng.device
    chances = constant((0.15, 0.3, 0.55), device)
    outdoor, on_floor, against = rng.bernoulli(chances, 3).unbind(-1)
    against = against & ~outdoor
    half = rng.log_uniform(2, low=1.5, high=4.0) * torch.where(outdoor, 2.5, 1.0)[:, None]
    ceiling, gap, wide, occupied = rng.ranges((2.2, 3.5), (0.02, 0.15), (0.8, 1.8), (0.6, 1.0))
    height = torch.where(outdoor, half.amin(-1), ceiling)
    materials = random_materials(rng, bank, len(_LOOKS), _LOOKS)

    # The main table, its front towards +y; everything is laid out in its direction. Beside it the other furniture.
    group_keys = hash32(keys[:, None] + 7919 * torch.arange(1, OTHERS + 2, device=device))
    kinds = rng.randint(6, OTHERS)
    all_kinds = torch.nn.functional.pad(kinds, (1, 0), value=TABLE)
    everything, sizes = furniture(CounterRNG(group_keys, "furniture", 600), bank, all_kinds)
    table, whole = everything.map(lambda value: value[:, 0]), sizes[:, 0]
    other, other_half = everything.map(lambda value: value[:, 1:]), sizes[:, 1:]
    sx, sy, top = whole[:, 0], whole[:, 1], 2.0 * whole[:, 2]
    zero = torch.zeros_like(sx)
    middle = d(2, low=-0.3, high=0.3) * half
    place = torch.stack([middle[:, 0], torch.where(against, sy + gap - half[:, 1], middle[:, 1]), zero], -1)
    table = table.where(~on_floor[:, None])
    table.offset = table.offset + place[:, None]
    surface = torch.where(on_floor, 0.0, top)
    area = whole[:, :2] * torch.where(on_floor, wide, 1.0)[:, None]

    # Things in jittered cells of 5 x 3 on the table (or floor), as tall as real ones.
    all_things = small_objects(rng, bank, pack, _THINGS, some(materials, 0, _THINGS))
    items, lumps = all_things.map(lambda v: v[:, :ON_TABLE]), all_things.map(lambda v: v[:, ON_TABLE:])
    at = (constant(_CELLS, device) + rng.normal(ON_TABLE, 2, std=0.09)) * area[:, None]
    cell_size = torch.minimum(area[:, 0] / 5, area[:, 1] / 3)
    size = cell_size[:, None] * rng.log_uniform(ON_TABLE, low=0.8, high=2.4)
    base = place + torch.stack([zero, zero, surface], -1)
    lift = torch.nn.functional.pad(at, (0, 1)) + base[:, None]
    items = items.scaled(size, lift).where(rng.bernoulli(occupied[:, None], ON_TABLE))

    # Panels at the back of the table: screens, boards, a divider.
    wide_x, thin_y, tall_z, along, behind = rng.ranges(
        (0.12, 0.3), (0.006, 0.02), (0.09, 0.25), (-0.6, 0.6), (-0.85, -0.3), shape=(2,)
    )
    board_at = torch.stack([along * area[:, :1], behind * area[:, 1:], tall_z], -1) + base[:, None]
    texture, material = some(materials, _THINGS, 2)
    dark = rng.bernoulli(0.5, 2, 1)
    dim = torch.where(dark, 0.06, 1.0) * (torch.arange(material.shape[-1], device=device) < 12)
    material = torch.where(dark & (dim > 0), material * dim, material)
    boards = boxes(board_at, torch.stack([wide_x, thin_y, tall_z], -1), texture, material)
    boards.linear = rotation_z(rng.normal(2, std=0.25)) @ boards.linear
    boards = boards.where(rng.bernoulli(0.4, 2))

    # Furniture along the walls and around. Wall 0 lies at -y; the others follow by quarter turns about z.
    wall = rng.randint(4, OTHERS)
    straight, spin, free, present = rng.uniform(4, OTHERS).unbind(1)
    free = (free < 0.35) & (kinds <= CHAIR + 2)
    quarter = wall.float() * (0.5 * math.pi)
    yaw = torch.where(free, spin * (2 * math.pi), quarter + rng.normal(OTHERS, std=0.06))
    reach, length = _extents(half, wall)
    at_wall = _at_wall(quarter, (straight * 1.7 - 0.85) * length, other_half[..., 1] + 0.05 - reach)
    spots = d(OTHERS + ON_FLOOR, 2, low=-0.9, high=0.9) * half[:, None]
    spot = torch.where(free[..., None], spots[:, :OTHERS] * 0.9, at_wall)
    apart = area.norm(dim=-1)[:, None]
    clear = (spot - place[:, None, :2]).norm(dim=-1) > other_half[..., :2].norm(dim=-1) + apart
    other = other.moved(rotation_z(yaw)[:, :, None], torch.nn.functional.pad(spot, (0, 1))[:, :, None])
    other = other.where((clear & (present < 0.75))[..., None]).map(lambda v: v.flatten(1, 2))

    # Larger things on the floor.
    lump_size, lump_spot = rng.log_uniform(ON_FLOOR, low=0.15, high=0.7), spots[:, OTHERS:]
    clear = (lump_spot - place[:, None, :2]).norm(dim=-1) > lump_size + apart * 0.8
    lumps = lumps.scaled(lump_size, torch.nn.functional.pad(lump_spot, (0, 1)))
    lumps = lumps.where(clear & rng.bernoulli(0.7, ON_FLOOR))

    shell = room_shell(rng, some(materials, _THINGS + 2 + PICTURES, 6), half, height, outdoor)
    pictures = wall_pictures(rng, some(materials, _THINGS + 2, PICTURES), half, height, place, outdoor)
    solid = MeshInstances.cat([table, items, boards, other, lumps], 1)
    spheres = torch.cat([solid.offset, bounding_radius(solid)[..., None]], -1)
    focus = base + constant((0.0, 0.0, 0.08), device)
    front = torch.full_like(sx, 0.5 * math.pi)
    layout = RoomLayout(focus, area.norm(dim=-1), half, height, front, ~against, spheres)
    return MeshInstances.cat([shell, pictures, solid], 1), layout


_CELLS = tuple(((cell % 5 - 2.0) / 2.5, (cell // 5 - 1.0) / 1.5) for cell in range(ON_TABLE))


def _extents(
    half: Float[Tensor, "s 2"], wall: Int64[Tensor, "s n"]
) -> tuple[Float[Tensor, "s n"], Float[Tensor, "s n"]]:
    """Distance from the middle and half length of walls int64 [s, n] of rooms [s, 2]."""
    odd = wall % 2 == 1
    return torch.where(odd, half[:, :1], half[:, 1:]), torch.where(odd, half[:, 1:], half[:, :1])


def _at_wall(
    quarter: Float[Tensor, "*b"], along: Float[Tensor, "*b"], out: Float[Tensor, "*b"]
) -> Float[Tensor, "*b 2"]:
    """Points at walls that face the angle ``quarter``, [..., 2]."""
    c, s = torch.cos(quarter), torch.sin(quarter)
    return torch.stack([c * along - s * out, s * along + c * out], -1)


def bounding_radius(instances: MeshInstances) -> Float[Tensor, "s n"]:
    """Radii of balls around the instances' centres, 0 for unused slots; scans lie within the unit ball."""
    columns = instances.linear.norm(dim=-2)
    radius = torch.where(instances.mesh >= ASSET, columns.amax(-1), columns.norm(dim=-1) * 0.9)
    return torch.where(instances.mesh == NO_MESH, 0.0, radius)


def room_shell(
    rng: CounterRNG,
    materials: Materials,
    half: Float[Tensor, "s 2"],
    height: Float[Tensor, " s"],
    outdoor: Bool[Tensor, " s"],
) -> MeshInstances:
    """Floor, ceiling and four walls as thick slabs, [s, 6]; materials: of the floor, then of the others."""
    device, thick = rng.device, 0.1
    # In units of (half x, half y, height, thickness): the middles and half sizes of the slabs.
    centre = constant(((0, 0, 0, -1), (0, 0, 1, 1), (1, 0, 0.5, 1), (-1, 0, 0.5, -1), (0, 1, 0.5, 1),
                       (0, -1, 0.5, -1)), device)  # fmt: skip
    axis = constant(((0, 0, 1), (0, 0, 1), (1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 1, 0)), device)
    box = torch.cat([half, height[:, None]], -1)[:, None]
    middle = centre[:, :3] * box + axis * (centre[:, 3:] * thick)
    span = box * constant((1.0, 1.0, 0.5), device) + 0.05 * constant((0.0, 0.0, 1.0), device)
    size = torch.where(axis > 0, thick, span)
    texture, material = materials
    wall = torch.arange(6, device=device)
    same = rng.bernoulli(0.6, 1) & (wall > 0)
    texture = torch.where(same, texture[:, 1:2], texture)
    material = torch.where(same[..., None], material[:, 1:2], material)
    # By length: nobody prints one picture on a wall. Open skies glow by themselves.
    repeat = rng.uniform(6, 1, low=0.35, high=1.6)
    sky = 0.8 * (outdoor[:, None] & (wall > 0))[..., None]
    material = torch.cat([material[..., :14], sky, torch.zeros_like(sky), repeat, repeat, material[..., 18:]], -1)
    return boxes(middle, size, texture, material, 1)


def wall_pictures(
    rng: CounterRNG,
    materials: Materials,
    half: Float[Tensor, "s 2"],
    height: Float[Tensor, " s"],
    place: Float[Tensor, "s 3"],
    outdoor: Bool[Tensor, " s"],
) -> MeshInstances:
    """Paintings, posters, windows and a rug: thin slabs, [s, PICTURES]."""
    n = PICTURES - 1
    texture, material = materials
    front, side, near, along, lift, glow, bright = rng.uniform(7, n).unbind(1)
    wall = torch.where(front < 0.4, 0, (side * 4.0).to(torch.int64))
    quarter = wall.float() * (0.5 * math.pi)
    size = rng.uniform(n, 2, low=0.15, high=0.6)
    reach, length = _extents(half, wall)
    beside = (wall == 0) & (near < 0.7)
    along = 1.6 * along - 0.8
    along = torch.where(beside, place[:, :1] / half[:, :1] + along * 0.3, along).clamp(-0.85, 0.85) * length
    z = height[:, None] * (0.4 + 0.25 * lift)
    centre = torch.cat([_at_wall(quarter, along, 0.012 - reach), z[..., None]], -1)
    slab = torch.stack([size[..., 0], torch.full_like(z, 0.012), size[..., 1]], -1)
    glow = torch.nn.functional.pad((glow < 0.2) * (0.3 + 0.7 * bright), (0, 1))
    material = torch.cat([material[..., :14], glow[..., None], material[..., 15:]], -1)
    rug_x, rug_y = rng.ranges((0.5, 1.5), (0.5, 1.2), shape=(1,))
    rug = torch.stack([rug_x, rug_y, torch.full_like(rug_x, 0.006)], -1)
    spot = place[:, None] + torch.nn.functional.pad(rng.normal(1, 2, std=0.4), (0, 1))
    instances = boxes(torch.cat([centre, spot], 1), torch.cat([slab, rug], 1), texture, material)
    instances.linear = rotation_z(torch.nn.functional.pad(quarter, (0, 1))) @ instances.linear
    indoors = ~outdoor[:, None] | (torch.arange(PICTURES, device=rng.device) == n)
    return instances.where(rng.bernoulli(0.6, PICTURES) & indoors)
