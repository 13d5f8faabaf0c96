"""Rooms and grounds after MegaSynth: a shell, furniture, and a cluster of things on a table or on the floor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from data_tools.procedural.assets import AssetPack
from data_tools.procedural.bank import NUM_TILES, TextureBank
from data_tools.procedural.draws import Draws, mix
from data_tools.procedural.furniture import CABINET, CHAIR, TABLE, furniture
from data_tools.procedural.objects import asset_material, random_solids
from data_tools.procedural.pieces import ASSET, DEAD, Pieces, boxes, materials, random_rotation, turn
from data_tools.procedural.shapes import INDEX, plain_shape

OTHERS, ON_TABLE, ON_FLOOR, PICTURES = 5, 15, 6, 7
ROOM_COLUMNS = 6000


@dataclass(frozen=True)
class RoomLayout:
    """What the cameras need to know.

    Attributes:
        focus: [s, 3] middle of the cluster that captures look at; radius: [s] of that cluster, metres.
        half: [s, 2] half sides of the room, centred at the origin; height: [s].
        front: [s] azimuth from which the cluster is seen, radians; free: bool [s], seen from all around.
        spheres: [s, n, 4] bounding balls of the things, radius 0 where there is none.
    """

    focus: Tensor
    radius: Tensor
    half: Tensor
    height: Tensor
    front: Tensor
    free: Tensor
    spheres: Tensor


def things(draws: Draws, bank: TextureBank, pack: AssetPack | None, count: int) -> tuple[Pieces, Tensor]:
    """Small objects that stand on z = 0 within the unit half-width: packages, cans, books, solids, scans.

    Returns:
        pieces [*keys, count] (each centred at x = y = 0) and their heights [*keys, count]; the largest of
        half-width and height is about 1.
    """
    d, device = draws.uniform, draws.device
    kind = draws.pick(
        (0.24, 0.15, 0.13, 0.12, 0.36 if pack is not None else 0.0), count
    )  # box can flat solid scan
    solid, level = random_solids(draws, count, torch.where(draws.chance(0.15, count), 1, 0))
    row = plain_shape(*draws.batch, count, device=device)
    can, is_solid = kind == 1, kind == 3
    row[..., INDEX["family"]] = can.float()
    row[..., INDEX["power"]] = torch.where(
        can, 2.0, torch.where(d(count) < 0.25, d(count, low=6.0, high=14.0), 64.0)
    )
    row[..., INDEX["taper"]] = torch.where(
        can, torch.where(d(count) < 0.5, 1.0, d(count, low=0.4, high=1.3)), 1.0
    )
    row[..., INDEX["bulge"]] = torch.where(can & draws.chance(0.3, count), draws.normal(count, std=0.2), 0.0)
    shape = torch.where(is_solid[..., None], solid, row)
    box_level = torch.where(row[..., INDEX["power"]] > 60.0, 0, 1)
    level = torch.where(is_solid, level, torch.where(can, 1, box_level))
    box = torch.stack(
        [d(count, low=0.25, high=0.8), d(count, low=0.12, high=0.6), d(count, low=0.15, high=1.0)], -1
    )
    radius = d(count, low=0.15, high=0.45)
    tube = torch.stack([radius, radius, d(count, low=0.15, high=0.7)], -1)
    flat = torch.stack(
        [d(count, low=0.4, high=0.9), d(count, low=0.3, high=0.7), d(count, low=0.01, high=0.1)], -1
    )
    ball = d(count, 1, low=0.25, high=0.5) * draws.log_uniform(count, 3, low=0.6, high=1.3)
    choices = torch.stack([box, tube, flat, ball], -2)
    half = torch.gather(choices, -2, kind.clamp_max(3)[..., None, None].expand(*kind.shape, 1, 3))[..., 0, :]
    rotation = turn(d(count, high=2 * math.pi))
    # Solids may lie any way; their height is then that of the turned box, a safe upper bound.
    rotation = torch.where(
        (is_solid & draws.chance(0.4, count))[..., None, None], random_rotation(draws, count), rotation
    )
    linear = rotation * half[..., None, :]
    rise = torch.where(is_solid, linear.norm(dim=-1)[..., 2], half[..., 2])
    texture, material = materials(draws, bank, count, style="package")
    plain_texture, plain_material = materials(draws, bank, count, style="any")
    simple = is_solid | draws.chance(0.4, count)
    texture = torch.where(simple, plain_texture, texture)
    material = torch.where(simple[..., None], plain_material, material)
    mesh = level
    if pack is not None:
        asset = draws.integer(len(pack.names), count)
        scan = kind == 4
        mesh = torch.where(scan, ASSET + asset, level)
        size = d(count, low=0.7, high=1.0)
        upright = turn(d(count, high=2 * math.pi)) * size[..., None, None]
        linear = torch.where(scan[..., None, None], upright, linear)
        rise = torch.where(scan, pack.half_size[asset][..., 2] * size, rise)
        texture = torch.where(scan, NUM_TILES + bank.num_real + asset, texture)
        material = torch.where(scan[..., None], asset_material(draws, count, strength=0.5), material)
    offset = torch.stack([torch.zeros_like(rise), torch.zeros_like(rise), rise], -1)
    return Pieces(mesh, linear, offset, shape, texture, material), 2.0 * rise


def room_scene(keys: Tensor, bank: TextureBank, pack: AssetPack | None) -> tuple[Pieces, RoomLayout]:
    """Pieces [s, n] of rooms in metres, floor at z = 0, and the layout for cameras and lights."""
    draws = Draws(keys, "room", ROOM_COLUMNS)
    d, device, s = draws.uniform, draws.device, len(keys)
    outdoor = draws.chance(0.15)
    half = draws.log_uniform(2, low=1.5, high=4.0) * torch.where(outdoor, 2.5, 1.0)[:, None]
    height = torch.where(outdoor, half.amin(-1), d(low=2.2, high=3.5))
    on_floor = draws.chance(0.3)
    against = draws.chance(0.55) & ~outdoor

    # The main table, its front towards +y; everything is laid out in its direction.
    table, whole = furniture(Draws(keys, "table", 600), bank, torch.full((s,), TABLE, device=device))
    sx, sy, top = whole[:, 0], whole[:, 1], 2.0 * whole[:, 2]
    middle = d(2, low=-0.3, high=0.3) * half
    back = -half[:, 1] + sy + d(low=0.02, high=0.15)
    place = torch.stack([middle[:, 0], torch.where(against, back, middle[:, 1]), torch.zeros_like(sx)], -1)
    table = table.where(~on_floor[:, None].expand_as(table.mesh))
    table.offset = table.offset + place[:, None]
    surface = torch.where(on_floor, 0.0, top)
    spread = torch.where(on_floor, d(low=0.8, high=1.8), 1.0)
    area = torch.stack([sx, sy], -1) * spread[:, None]

    # Things in jittered cells of 5 x 3 on the table (or floor), as tall as real ones.
    items, _ = things(Draws(keys, "items", 2400), bank, pack, ON_TABLE)
    cell = torch.arange(ON_TABLE, device=device)
    grid = torch.stack([(cell % 5 - 2.0) / 2.5, (cell // 5 - 1.0) / 1.5], -1)
    at = (grid + draws.normal(ON_TABLE, 2, std=0.09)) * area[:, None]
    cell_size = torch.minimum(area[:, 0] / 5, area[:, 1] / 3)
    size = cell_size[:, None] * draws.log_uniform(ON_TABLE, low=0.8, high=2.4)
    lift = torch.stack([at[..., 0], at[..., 1], torch.zeros_like(size)], -1)
    lift = lift + place[:, None] + torch.nn.functional.pad(surface[:, None, None], (2, 0))
    eye = torch.eye(3, device=device)
    items = items.moved(eye * size[..., None, None], lift)
    items = items.where(draws.chance(d(1, low=0.6, high=1.0), ON_TABLE))

    # Panels at the back of the table: screens, boards, a divider.
    board_half = torch.stack(
        [d(2, low=0.12, high=0.3), d(2, low=0.006, high=0.02), d(2, low=0.09, high=0.25)], -1
    )
    board_at = torch.stack([d(2, low=-0.6, high=0.6) * area[:, :1], -area[:, 1:] * d(2, low=0.3, high=0.85),
                            board_half[..., 2] + surface[:, None]], -1) + place[:, None]  # fmt: skip
    texture, material = materials(draws, bank, 2, style="picture")
    dark = draws.chance(0.5, 2, 1)
    material[..., :12] = torch.where(dark, material[..., :12] * 0.06, material[..., :12])
    boards = boxes(board_at, board_half, texture, material)
    boards.linear = turn(draws.normal(2, std=0.25)) @ boards.linear
    boards = boards.where(draws.chance(0.4, 2))

    # Furniture along the walls and around.
    group_keys = mix(keys[:, None] + 7919 * (1 + torch.arange(OTHERS, device=device)))
    kinds = draws.integer(6, OTHERS)
    other, other_half = furniture(Draws(group_keys, "other", 600), bank, kinds)
    wall = draws.integer(4, OTHERS)
    yaw = wall.float() * (0.5 * math.pi) + draws.normal(OTHERS, std=0.06)
    free = draws.chance(0.35, OTHERS) & (kinds <= CHAIR + 2)
    yaw = torch.where(free, d(OTHERS, high=2 * math.pi), yaw)
    odd_wall = wall % 2 == 1
    reach = torch.where(odd_wall, half[:, None, 0], half[:, None, 1])
    length = torch.where(odd_wall, half[:, None, 1], half[:, None, 0])
    along, out = d(OTHERS, low=-0.85, high=0.85) * length, -(reach - other_half[..., 1] - 0.05)
    # Wall 0 lies at -y; the others follow by quarter turns about z, as the furniture itself does.
    quarter = wall.float() * (0.5 * math.pi)
    spot = torch.stack([torch.cos(quarter) * along - torch.sin(quarter) * out,
                        torch.sin(quarter) * along + torch.cos(quarter) * out], -1)  # fmt: skip
    spot = torch.where(free[..., None], d(OTHERS, 2, low=-0.8, high=0.8) * half[:, None], spot)
    clear = (spot - place[:, None, :2]).norm(dim=-1) > other_half[..., :2].norm(dim=-1) + area.norm(dim=-1)[
        :, None
    ]
    other = other.moved(turn(yaw)[:, :, None], torch.nn.functional.pad(spot, (0, 1))[:, :, None])
    other = other.where((clear & draws.chance(0.75, OTHERS))[..., None].expand_as(other.mesh)).map(
        lambda v: v.flatten(1, 2)
    )

    # Larger things on the floor.
    lumps, _ = things(Draws(keys, "lumps", 1200), bank, pack, ON_FLOOR)
    lump_size = draws.log_uniform(ON_FLOOR, low=0.15, high=0.7)
    lump_spot = d(ON_FLOOR, 2, low=-0.9, high=0.9) * half[:, None]
    clear = (lump_spot - place[:, None, :2]).norm(dim=-1) > lump_size + area.norm(dim=-1)[:, None] * 0.8
    lumps = lumps.moved(eye * lump_size[..., None, None], torch.nn.functional.pad(lump_spot, (0, 1)))
    lumps = lumps.where(clear & draws.chance(0.7, ON_FLOOR))

    shell = _shell(draws, bank, half, height, outdoor)
    pictures = _pictures(draws, bank, half, height, place, outdoor)
    solid = Pieces.cat([table, items, boards, other, lumps], 1)
    spheres = torch.cat([solid.offset, _radius(solid)[..., None]], -1)
    focus = place + torch.stack([torch.zeros_like(sx), torch.zeros_like(sx), surface + 0.08], -1)
    layout = RoomLayout(
        focus, area.norm(dim=-1), half, height, torch.full_like(sx, 0.5 * math.pi), ~against, spheres
    )
    return Pieces.cat([shell, pictures, solid], 1), layout


def _radius(pieces: Pieces) -> Tensor:
    """Radii of balls around the pieces' centres, 0 for dead ones; scans lie within the unit ball."""
    columns = pieces.linear.norm(dim=-2)
    radius = torch.where(pieces.mesh >= ASSET, columns.amax(-1), columns.norm(dim=-1) * 0.9)
    return torch.where(pieces.mesh == DEAD, 0.0, radius)


def _shell(draws: Draws, bank: TextureBank, half: Tensor, height: Tensor, outdoor: Tensor) -> Pieces:
    """Floor, ceiling and four walls as thick slabs, [s, 6]."""
    thick = 0.1
    x, y, z, o = half[:, 0], half[:, 1], 0.5 * height, torch.zeros_like(height)
    t = o + thick
    rows = [((o, o, o - thick), (x, y, t)), ((o, o, height + thick), (x, y, t)), ((x + thick, o, z), (t, y, z)),
            ((-x - thick, o, z), (t, y, z)), ((o, y + thick, z), (x, t, z)),
            ((o, -y - thick, z), (x, t, z))]  # fmt: skip
    centre = torch.stack([torch.stack(c, -1) for c, _ in rows], 1)
    size = torch.stack([torch.stack(h, -1) for _, h in rows], 1)
    floor_texture, floor_material = materials(draws, bank, 1, style="floor")
    wall_texture, wall_material = materials(draws, bank, 5, style="wall")
    same = draws.chance(0.6, 1)
    wall_texture = torch.where(same, wall_texture[:, :1], wall_texture)
    wall_material = torch.where(same[..., None], wall_material[:, :1], wall_material)
    texture = torch.cat([floor_texture, wall_texture], 1)
    material = torch.cat([floor_material, wall_material], 1)
    material[..., 15] = 0.0  # by length: nobody prints one picture on a wall
    repeat = draws.uniform(6, low=0.35, high=1.6)
    material[..., 16] = material[..., 17] = repeat
    # Open skies glow by themselves.
    sky = outdoor[:, None] & (torch.arange(6, device=draws.device) > 0)
    material[..., 14] = torch.where(sky, 0.8, 0.0)
    pieces = boxes(
        centre,
        size + 0.05 * torch.tensor([0, 0, 1.0], device=draws.device) * (size[..., 2:] > thick),
        texture,
        material,
    )
    pieces.mesh = torch.ones_like(pieces.mesh)
    return pieces


def _pictures(
    draws: Draws, bank: TextureBank, half: Tensor, height: Tensor, place: Tensor, outdoor: Tensor
) -> Pieces:
    """Paintings, posters, windows and a rug: thin slabs, [s, PICTURES]."""
    n = PICTURES - 1
    texture, material = materials(draws, bank, PICTURES, style="picture")
    wall = torch.where(draws.chance(0.4, n), 0, draws.integer(4, n))
    size = draws.uniform(n, 2, low=0.15, high=0.6)
    odd = wall % 2 == 1
    reach = torch.where(odd, half[:, None, 0], half[:, None, 1])
    length = torch.where(odd, half[:, None, 1], half[:, None, 0])
    near = torch.where((wall == 0) & draws.chance(0.7, n), place[:, None, 0] / half[:, None, 0], 0.0)
    along = (near + draws.uniform(n, low=-0.8, high=0.8) * torch.where(near == 0, 1.0, 0.3)).clamp(
        -0.85, 0.85
    ) * length
    z = height[:, None] * draws.uniform(n, low=0.4, high=0.65)
    quarter = wall.float() * (0.5 * math.pi)
    c, s, out = torch.cos(quarter), torch.sin(quarter), -(reach - 0.012)
    centre = torch.stack([c * along - s * out, s * along + c * out, z], -1)
    slab = torch.stack([size[..., 0], torch.full_like(z, 0.012), size[..., 1]], -1)
    glow = draws.chance(0.2, n)
    material[:, :n, 14] = torch.where(glow, draws.uniform(n, low=0.3, high=1.0), 0.0)
    rug = torch.stack(
        [
            draws.uniform(1, low=0.5, high=1.5),
            draws.uniform(1, low=0.5, high=1.2),
            torch.full_like(z[:, :1], 0.006),
        ],
        -1,
    )
    spot = place[:, None] + torch.nn.functional.pad(draws.normal(1, 2, std=0.4), (0, 1))
    pieces = boxes(torch.cat([centre, spot], 1), torch.cat([slab, rug], 1), texture, material)
    pieces.linear[:, :n] = turn(quarter) @ pieces.linear[:, :n]
    indoors = torch.nn.functional.pad(~outdoor[:, None].expand(-1, n), (0, 1), value=True)
    return pieces.where(draws.chance(0.6, PICTURES) & indoors)


__all__ = ["CABINET", "RoomLayout", "room_scene", "things"]
