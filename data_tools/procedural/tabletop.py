"""A cluttered table as people photograph it: a desk or counter in a room, with dozens of things of real size.

All in metres. Things are laid out in the table's frame: the middle of its top is the origin, x runs along it, y towards
the person in front, z up.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from data_tools.procedural import tabletop_things as things
from data_tools.procedural.asset_pack import AssetPack
from data_tools.procedural.furniture import furniture
from data_tools.procedural.instances import (
    ASSET,
    MIRROR,
    Materials,
    MeshInstances,
    boxes,
    random_materials,
    rotation_z,
    some,
)
from data_tools.procedural.objects import asset_material
from data_tools.procedural.rng import CounterRNG, constant, hash32
from data_tools.procedural.rooms import PICTURES, RoomLayout, bounding_radius, room_shell, wall_pictures
from data_tools.procedural.scenery import xyz
from data_tools.procedural.shapes import shape_rows
from data_tools.procedural.tabletop_things import (
    BAGS,
    FILES,
    ON_SHELF,
    PACKAGES,
    PAPERS,
    SCANS,
    Looks,
    draw_looks,
)
from data_tools.procedural.texture_bank import NUM_PATTERNS, TextureBank

TILES_X, TILES_Y, CLOTHS, MUGS, OTHERS = 3, 2, 2, 2, 2
CELLS_X, CELLS_Y = 9, 4
"""Places on the table, for as many things at most: those counted above, and a plant."""
COLUMNS = 6000
SMALL = re.compile("ycb_|marker|glue|shampoo|conditioner|repellent|stapler|sug|tooth|can(_alt)?$|bottle|Book[A-F]|beer|"
                   "remote|orion|apple|orange|sponge|bowl|ramekin|Speaker|Tablet|MagicCube|Vase|potion|medkit|cat$|"
                   "[dD]uck|BoomBox|Avocado|tea_set|pepper|drill|Portrait|Seasoning|Bottle")  # fmt: skip
"""Names of scans that lie on tables: the pack has houses and cars, too."""
_LOOKS = ("tabletop", "tabletop", "wall", *("fabric",) * CLOTHS, *("paint",) * (MUGS + 1), *("picture",) * PICTURES,
          "floor", *("wall",) * 5)  # fmt: skip


def tabletop_scene(
    keys: Int64[Tensor, " s"], bank: TextureBank, pack: AssetPack | None
) -> tuple[MeshInstances, RoomLayout]:
    """Instances [s, n] of rooms with a table, floor at z = 0, and the layout for cameras and lights.

    The layout's radius is half the table's length, its focus lies a hand above the middle of the top.
    """
    rng, device = CounterRNG(keys, "tabletop", COLUMNS), keys.device
    texture, material = random_materials(rng, bank, len(_LOOKS), _LOOKS)

    looks, made = functools.partial(some, (texture, material)), draw_looks(rng, bank)

    half = rng.log_uniform(2, low=1.6, high=4.0)
    wide, deep, top, ceiling, gap = rng.ranges((0.5, 0.95), (0.28, 0.42), (0.68, 0.95), (2.3, 3.2), (0.05, 0.12))
    against, open_plan = rng.bernoulli(0.7), rng.bernoulli(0.5)
    spot = rng.uniform(2, low=-0.3, high=0.3) * half
    # By a wall, or behind a divider with the room beyond it.
    back = torch.where(open_plan, spot[:, 1], deep + gap - half[:, 1])
    place = torch.stack([spot[:, 0], torch.where(against, back, spot[:, 1]), torch.zeros_like(top)], -1)

    stands, lies = _behind(rng, made, wide, deep, against), _clutter(rng, bank, pack, made, wide, deep, looks)
    frame = _table(rng, wide, deep, top, looks(0, 2))
    divider = _dividers(rng, wide, deep, against & open_plan, looks(2, 1))
    stands = MeshInstances.cat([stands, lies], 1)
    # A ball around a shelf would keep cameras from what lies in front of it.
    ball = bounding_radius(stands)
    spheres = torch.cat([stands.offset, torch.where(ball < 0.35, ball, 0.0)[..., None]], -1)
    base = place + xyz(0.0, 0.0, top)
    whole = MeshInstances.cat([frame, divider, stands], 1)
    whole.offset = whole.offset + base[:, None]
    spheres = torch.cat([spheres[..., :3] + base[:, None], spheres[..., 3:]], -1)

    # Other furniture stands about, a chair often in front.
    group = hash32(keys[:, None] + 7919 * torch.arange(1, OTHERS + 1, device=device))
    kinds = torch.where(rng.bernoulli(0.5, OTHERS), 0, rng.randint(6, OTHERS))
    other, other_half = furniture(CounterRNG(group, "furniture", 600), bank, kinds)
    yaw, along, away = rng.uniform(3, OTHERS).unbind(1)
    front = torch.arange(OTHERS, device=device) == 0
    at_y = torch.where(front, deep[:, None] + 0.25 + 0.3 * away, (2 * away - 1) * half[:, 1:])
    at = torch.stack([(2 * along - 1) * torch.where(front, wide[:, None], half[:, :1]), at_y], -1)
    at = torch.where(front[:, None], at + place[:, None, :2], at)
    apart = (at - place[:, None, :2]).abs() - other_half[..., :2].amax(-1, keepdim=True)
    clear = (apart > torch.stack([wide, deep], -1)[:, None]).any(-1) & ((at.abs() + 0.3) < half[:, None]).all(-1)
    turn = torch.where(front, math.pi + 0.8 * (yaw - 0.5), 2 * math.pi * yaw)
    other = other.moved(rotation_z(turn)[:, :, None], torch.nn.functional.pad(at, (0, 1))[:, :, None])
    other = other.where((clear & rng.bernoulli(0.6, OTHERS))[..., None]).map(lambda value: value.flatten(1, 2))

    indoors = torch.zeros_like(against)
    room = room_shell(rng, looks(len(_LOOKS) - 6, 6), half, ceiling, indoors)
    hung = wall_pictures(rng, looks(len(_LOOKS) - 6 - PICTURES, PICTURES), half, ceiling, place, indoors)
    layout = RoomLayout(base + constant((0.0, 0.0, 0.08), device), wide, half, ceiling,
                        torch.full_like(wide, 0.5 * math.pi), ~against, spheres)  # fmt: skip
    return MeshInstances.cat([room, hung, whole, other], 1), layout


def _table(
    rng: CounterRNG, wide: Float[Tensor, " s"], deep: Float[Tensor, " s"], top: Float[Tensor, " s"], looks: Materials
) -> MeshInstances:
    """The top, of tiles fine enough for the shade around things; two sides, a back and drawers below."""
    (texture, material), device, n = looks, rng.device, TILES_X * TILES_Y
    tile = torch.arange(n, device=device)
    column, row = (tile % TILES_X).float(), (tile // TILES_X).float()
    size = xyz(wide[:, None] / TILES_X, deep[:, None] / TILES_Y, 0.0 * tile + 0.012)
    centre = xyz((2 * column + 1) * size[..., 0] - wide[:, None], (2 * row + 1) * size[..., 1] - deep[:, None], -0.0125)
    look = material[:, :1].expand(-1, n, -1)
    # By length and on from tile to tile; varnished ones mirror.
    zoom = rng.uniform(1, low=0.7, high=1.6).expand(-1, n)
    shift = torch.stack([2 * size[..., 0] * column * zoom, -2 * size[..., 1] * row * zoom], -1)
    mirror = (rng.uniform(1, high=0.5) * rng.bernoulli(0.6, 1)).expand(-1, n)[..., None]
    gloss = rng.log_uniform(1, 1, low=8.0, high=150.0).expand(-1, n, 1)
    look = torch.cat([look[..., :13], gloss, look[..., 14:15], 0 * gloss, zoom[..., None], zoom[..., None], shift,
                      look[..., 20:MIRROR], mirror], -1)  # fmt: skip
    tiles = boxes(centre, size, texture[:, :1].expand(-1, n), look, 2)
    low, zero = -0.5 * top, torch.zeros_like(top)
    middle = torch.stack([xyz(wide - 0.02, zero, low), xyz(0.02 - wide, zero, low), xyz(zero, 0.05 - deep, 0.7 * low),
                          xyz(0.6 * wide, zero, low)], 1)  # fmt: skip
    sides = torch.stack([xyz(zero + 0.012, deep, top / 2), xyz(zero + 0.012, deep, top / 2),
                         xyz(wide - 0.03, 0.01, top * 0.28), xyz(0.28 * wide, deep - 0.02, top / 2)], 1)  # fmt: skip
    middle[..., 2] -= 0.026
    below = boxes(middle, sides, texture[:, 1:].expand(-1, 4), material[:, 1:].expand(-1, 4, -1))
    return MeshInstances.cat([tiles, below.where(rng.bernoulli(0.8, 4))], 1)


def _dividers(
    rng: CounterRNG, wide: Float[Tensor, " s"], deep: Float[Tensor, " s"], there: Bool[Tensor, " s"], looks: Materials
) -> MeshInstances:
    """Panels behind the table and at its ends."""
    tall = rng.uniform(low=0.15, high=0.32)
    zero = torch.zeros_like(tall)
    middle = torch.stack(
        [xyz(zero, -deep - 0.03, tall), xyz(wide + 0.03, zero, tall), xyz(-wide - 0.03, zero, tall)], 1
    )
    size = torch.stack([xyz(wide + 0.05, 0.02, tall), xyz(0.02, deep, tall), xyz(0.02, deep, tall)], 1)
    panels = boxes(middle, size, looks[0].expand(-1, 3), looks[1].expand(-1, 3, -1))
    return panels.where(there[:, None] & rng.bernoulli(constant((1.0, 0.35, 0.35), rng.device), 3))


def _behind(
    rng: CounterRNG,
    looks: Looks,
    wide: Float[Tensor, " s"],
    deep: Float[Tensor, " s"],
    against: Bool[Tensor, " s"],
) -> MeshInstances:
    """What has its place: two screens, a laptop, a keyboard and mouse, a row of books, a shelf above; [s, n]."""
    groups = [things.monitors(rng, looks), things.laptop(rng, looks), things.keyboard_and_mouse(rng, looks),
              things.row_of_books(rng, looks)]  # fmt: skip
    x, y, yaw = rng.normal(5), rng.normal(5), rng.normal(5)
    side = torch.where(rng.bernoulli(0.5, 1), 1.0, -1.0)
    at_x = constant((0.1, -0.75, 0.35, 0.05, 0.75), rng.device) * side + 0.12 * x
    at_y = constant((-0.6, -0.55, 0.1, 0.35, -0.7), rng.device) + 0.12 * y
    spot = xyz(at_x * wide[:, None], at_y * deep[:, None], 0.0)
    turn = constant((0.15, 0.3, 0.35, 0.15, 0.4), rng.device) * yaw
    there = rng.bernoulli(constant((0.6, 0.3, 0.45, 0.55, 0.4), rng.device), 5)
    done, first = [], 0
    for group in groups:
        n = group.mesh.shape[1]
        part = slice(first, first + n)
        moved = group.moved(rotation_z(turn[:, part])[:, :, None], spot[:, part, None])
        done.append(moved.where(there[:, part, None]).map(lambda value: value.flatten(1, 2)))
        first += n
    # A shelf on two supports, with packages on it.
    tall, far, length = rng.ranges((0.28, 0.45), (0.1, 0.16), (0.4, 0.95))
    zero = torch.zeros_like(tall)
    rear = far - deep
    length = length * wide
    middle = torch.stack([xyz(zero, rear, tall), xyz(length, rear, tall / 2), xyz(-length, rear, tall / 2)], 1)
    size = torch.stack([xyz(length, far, 0.01), xyz(zero + 0.01, far, tall / 2), xyz(zero + 0.01, far, tall / 2)], 1)
    wood, look = looks["shelf"]
    shelf = boxes(middle, size, wood.expand(-1, 3), look.expand(-1, 3, -1))
    n = ON_SHELF
    sizes = rng.log_uniform(n, 3, low=0.03, high=0.09)
    on = xyz(rng.uniform(n, low=-0.9, high=0.9) * length[:, None], rear[:, None], tall[:, None] + 0.01 + sizes[..., 2])
    upper = boxes(on, sizes, *some(looks["package"], 2 * PACKAGES, n))
    upper.linear = rotation_z(rng.normal(n, std=0.4)) @ upper.linear
    upper = upper.where(rng.bernoulli(0.8, n))
    shelf = MeshInstances.cat([shelf, upper], 1).where((against & rng.bernoulli(0.4))[:, None])
    return MeshInstances.cat([*done, shelf], 1)


def _clutter(
    rng: CounterRNG,
    bank: TextureBank,
    pack: AssetPack | None,
    made: Looks,
    wide: Float[Tensor, " s"],
    deep: Float[Tensor, " s"],
    looks: Callable[[int, int], Materials],
) -> MeshInstances:
    """Everything else, [s, n]: papers and cables anywhere, other things in jittered cells."""
    device = rng.device
    area = torch.stack([wide, deep], -1)
    # Papers lie on each other in the order of their numbers, each a little higher.
    n = PAPERS
    spot = rng.uniform(n, 2, low=-0.85, high=0.85) * area[:, None]
    small = rng.bernoulli(0.3, n)
    size = torch.where(small, 0.5, 1.0)
    lift = 0.0012 * (1 + torch.arange(n, device=device))
    sheets = boxes(xyz(spot[..., 0], spot[..., 1], lift.expand_as(size)), xyz(0.105 * size, 0.148 * size, 0.0006),
                   *made["page"])  # fmt: skip
    sheets.linear = rotation_z(math.pi + rng.normal(n, std=0.7)) @ sheets.linear
    sheets = sheets.where(rng.bernoulli(rng.uniform(1, high=0.9), n))
    wires = things.cables(rng, made)
    spot = torch.nn.functional.pad(rng.uniform(4, 2, low=-0.8, high=0.8) * area[:, None], (0, 1))
    wires = wires.moved(constant(((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)), device), spot[:, :, None])
    wires = wires.where(rng.bernoulli(0.6, 4, 1)).map(lambda value: value.flatten(1, 2))

    groups = [_scans(rng, bank, pack, made), things.stacks(rng, made), _packages(rng, made), _bags(rng, made),
              _cloths(rng, looks(3, CLOTHS)), _files(rng, made), things.bottles(rng, made),
              things.mugs(rng, looks(3 + CLOTHS, MUGS)), things.plant(rng, looks(3 + CLOTHS + MUGS, 1))]  # fmt: skip
    count = sum(group.mesh.shape[1] for group in groups)
    cell = rng.uniform(CELLS_X * CELLS_Y).argsort(-1)[:, :count]
    corner = torch.stack([(cell % CELLS_X) / (CELLS_X - 1.0), (cell // CELLS_X) / (CELLS_Y - 1.0)], -1) * 2.0 - 1.0
    jitter = rng.normal(count, 2) * constant((0.35 / CELLS_X, 0.35 / CELLS_Y), device)
    at = (corner * 0.93 + jitter).clamp(-0.96, 0.96) * area[:, None]
    yaw = rng.uniform(count, high=2 * math.pi)
    # Tables are full or half empty; the middle of the front stays free more often.
    density = rng.uniform(1, low=0.5, high=1.0)
    middle = ((corner[..., 0].abs() < 0.4) & (corner[..., 1] > 0.2)).float()
    there = rng.uniform(count) < density * (1.0 - 0.5 * middle)
    done, first = [sheets, wires], 0
    for group in groups:
        part = slice(first, first + group.mesh.shape[1])
        moved = group.moved(
            rotation_z(yaw[:, part])[:, :, None], torch.nn.functional.pad(at[:, part], (0, 1))[:, :, None]
        )
        done.append(moved.where(there[:, part, None]).map(lambda value: value.flatten(1, 2)))
        first += group.mesh.shape[1]
    # Pens: five in the first mug, five anywhere.
    pen = things.pens(rng, made)
    mug = sum(group.mesh.shape[1] for group in groups[:-2])
    stands = torch.arange(10, device=device) < 5
    near = torch.where(
        stands[:, None], pen.offset[..., :2] + at[:, mug : mug + 1], pen.offset[..., :2] * area[:, None] * 0.9
    )
    pen.offset = torch.cat([near, pen.offset[..., 2:] + 0.05 * stands[:, None]], -1)
    return MeshInstances.cat(
        [*done, pen.where(torch.where(stands, there[:, mug : mug + 1], True) & rng.bernoulli(0.8, 10))], 1
    )


def _scans(rng: CounterRNG, bank: TextureBank, pack: AssetPack | None, looks: Looks) -> MeshInstances:
    """Scanned things of 4 to 14 cm radius, [s, SCANS, 1]; packages where there is no pack."""
    radius = rng.log_uniform(SCANS, low=0.035, high=0.13)
    if pack is None:
        size = radius[..., None] * rng.uniform(SCANS, 3, low=0.4, high=0.8)
        return boxes(xyz(0.0, 0.0, size[..., 2]), size, *some(looks["package"], 0, SCANS)).map(lambda v: v[:, :, None])
    small = tuple(k for k, name in enumerate(pack.names) if SMALL.search(name)) or tuple(range(len(pack.names)))
    asset = constant(small, rng.device, torch.int64)[rng.randint(len(small), SCANS)]
    linear = torch.eye(3, device=rng.device) * radius[..., None, None]
    rise = xyz(0.0, 0.0, pack.half_size[asset][..., 2] * radius)
    shape = shape_rows(radius)
    texture = NUM_PATTERNS + bank.num_real + asset
    scans = MeshInstances(ASSET + asset, linear, rise, shape, texture, asset_material(rng, SCANS, strength=0.5))
    return scans.map(lambda value: value[:, :, None])


def _packages(rng: CounterRNG, looks: Looks) -> MeshInstances:
    """Boxes, [s, PACKAGES, 2], some with a smaller one on top."""
    n = PACKAGES
    low = xyz(*rng.ranges((0.03, 0.11), (0.02, 0.08), (0.025, 0.12), shape=(n,)))
    high = low * rng.uniform(n, 3, low=0.4, high=0.9)
    shift = rng.normal(n, 2, std=0.008)
    over = torch.cat([shift, 2 * low[..., 2:] + high[..., 2:]], -1)
    lower = boxes(xyz(0.0, 0.0, low[..., 2]), low, *some(looks["package"], 0, n))
    upper = boxes(over, high, *some(looks["package"], n, n))
    upper.linear = rotation_z(rng.normal(n, std=0.4)) @ upper.linear
    return MeshInstances.stack([lower, upper.where(rng.bernoulli(0.3, n))], 2)


def _bags(rng: CounterRNG, looks: Looks) -> MeshInstances:
    """Crumpled bags of foil and plastic that stand or lie, [s, BAGS, 1]."""
    size = xyz(*rng.ranges((0.05, 0.1), (0.02, 0.045), (0.06, 0.13), shape=(BAGS,)))
    size = torch.where(rng.bernoulli(0.45, BAGS, 1), size[..., (0, 2, 1)], size)
    bags = boxes(xyz(0.0, 0.0, size[..., 2] * 0.93), size, *looks["bag"], 1)
    bags.shape = things.soft_shapes(rng, bags.mesh, (0.06, 0.22))
    return bags.map(lambda value: value[:, :, None])


def _cloths(rng: CounterRNG, materials: Materials) -> MeshInstances:
    """Heaps of cloth, [s, CLOTHS, 1]."""
    size = xyz(*rng.ranges((0.06, 0.15), (0.05, 0.11), (0.012, 0.05), shape=(CLOTHS,)))
    cloths = boxes(xyz(0.0, 0.0, size[..., 2] * 0.9), size, *materials, 1)
    cloths.shape = things.soft_shapes(rng, cloths.mesh, (0.1, 0.3))
    return cloths.map(lambda value: value[:, :, None])


def _files(rng: CounterRNG, looks: Looks) -> MeshInstances:
    """Black boxes for files, some of wire mesh, [s, FILES, 1]."""
    size = xyz(*rng.ranges((0.035, 0.06), (0.09, 0.13), (0.1, 0.16), shape=(FILES,)))
    mesh = rng.bernoulli(0.5, FILES)
    files = boxes(xyz(0.0, 0.0, size[..., 2]), size, *looks["file"], lattice=2.0 * mesh)
    files.mesh = mesh * 2
    return files.map(lambda value: value[:, :, None])
