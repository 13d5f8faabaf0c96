"""Things that lie on tables, of real size in metres: screens, books, drinks, pens, cables, plants.

Each function returns instances [s, count, parts] that stand on z = 0 about x = y = 0, their fronts towards +y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from data_tools.procedural.instances import MIRROR, Materials, MeshInstances, boxes, some
from data_tools.procedural.objects import asset_material
from data_tools.procedural.prints import COVER, EACH, KEYBOARD, PACKAGE, PAGE, SCREEN
from data_tools.procedural.rng import CounterRNG, constant
from data_tools.procedural.scenery import xyz
from data_tools.procedural.shapes import shape_rows
from data_tools.procedural.texture_bank import TextureBank

STACKS, ROW, PAPERS, SCANS, PACKAGES, BAGS, BOTTLES, FILES, PENS, CABLES, ON_SHELF = 3, 8, 10, 9, 7, 4, 5, 2, 10, 4, 3
STACK, STANDING_PENS, LEAVES = 5, 5, 12
_PLAIN = -1


@dataclass(frozen=True)
class _Kit:
    """So many looks: which prints, the most that they mirror and shine; or plain ones, between which greys."""

    count: int
    sort: int
    mirror: float = 0.0
    shiny: float = 0.0
    greys: tuple[float, float] = (0.0, 0.0)


def _plastic(count: int, low: float, high: float) -> _Kit:
    return _Kit(count, _PLAIN, 0.12, 0.15, (low, high))


_KITS = {
    "glass": _Kit(3, SCREEN, 0.8),
    "keys": _Kit(2, KEYBOARD),
    "row": _Kit(ROW, COVER, shiny=0.2),
    "stack": _Kit(STACKS * STACK, COVER, shiny=0.25),
    "page": _Kit(PAPERS, PAGE),
    "package": _Kit(2 * PACKAGES + ON_SHELF, PACKAGE, 0.15, 0.2),
    "bag": _Kit(BAGS, PACKAGE, 0.6, 0.5),
    "label": _Kit(BOTTLES, PACKAGE, shiny=0.4),
    "case": _plastic(2, 0.03, 0.25),
    "metal": _plastic(2, 0.08, 0.75),
    "cap": _plastic(BOTTLES, 0.05, 0.95),
    "pen": _plastic(PENS, 0.03, 0.9),
    "cable": _plastic(CABLES, 0.02, 0.2),
    "file": _plastic(FILES, 0.02, 0.2),
    "shelf": _plastic(1, 0.3, 0.9),
}


Looks = dict[str, Materials]


def draw_looks(rng: CounterRNG, bank: TextureBank) -> Looks:
    """Materials by name, all drawn at once, for fewer launches: prints show whole on each side of a thing."""
    rows = [kit for kit in _KITS.values() for _ in range(kit.count)]
    count = len(rows)
    sort = constant(tuple(kit.sort for kit in rows), rng.device, torch.int64)
    limits = constant(tuple((kit.shiny, kit.mirror) for kit in rows), rng.device)
    low, high = constant(tuple(kit.greys for kit in rows), rng.device).unbind(-1)
    is_plain, screen = sort == _PLAIN, sort == SCREEN
    # Plastic and metal, hardly coloured, on a plain pattern.
    texture = torch.where(is_plain, 0, bank.first_print + EACH * sort + rng.randint(EACH, count))
    material = asset_material(rng, count, strength=0.5)
    grey = (low + (high - low) * rng.uniform(count))[..., None] + 0.02 * rng.normal(count, 3)
    colour = torch.where(is_plain[:, None], torch.nn.functional.pad(grey, (9, 0)), material[..., :12])
    shine, mirror = (limits * rng.uniform(count, 2)).split(1, -1)
    glow = (0.7 * (rng.bernoulli(0.45, count) & screen))[..., None]
    material = torch.cat([colour, material[..., 12:13] + shine, material[..., 13:14], glow, torch.ones_like(glow),
                          material[..., 16:MIRROR], mirror], -1)  # fmt: skip
    counts = [kit.count for kit in _KITS.values()]
    return dict(zip(_KITS, zip(texture.split(counts, 1), material.split(counts, 1), strict=True), strict=True))


def recoloured(materials: Materials, change: Float[Tensor, "s n #3"]) -> Materials:
    """Materials [s, n] of which the plain colours are changed by so much."""
    texture, material = materials
    return texture, torch.cat([material[..., :9], material[..., 9:12] + change, material[..., 12:]], -1)


def rods(
    start: Float[Tensor, "*b 3"],
    end: Float[Tensor, "*b 3"],
    radius: Float[Tensor, "*b"],
    materials: tuple[Int64[Tensor, "*b"], Float[Tensor, "*b m"]],
    flat: float = 1.0,
    **shape: Tensor | float,
) -> MeshInstances:
    """Solids between points, of coarse detail: cylinders, or as ``shape`` says; flat: thickness by width."""
    along = 0.5 * (end - start)
    level = torch.stack([-along[..., 1], along[..., 0] + 1e-6, torch.zeros_like(radius)], -1)
    level = torch.nn.functional.normalize(level, dim=-1) * radius[..., None]
    up = torch.nn.functional.normalize(torch.linalg.cross(along, level), dim=-1) * (flat * radius)[..., None]
    round_ones: dict[str, Tensor | float] = {"family": 1.0, "power": 2.0}
    texture, material = materials
    solids = boxes(0.5 * (start + end), along, texture, material, 0, **(round_ones | shape))
    solids.linear = torch.stack([level, up, along], -1)
    return solids


def tilted(angle: Float[Tensor, "*b"], half: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Linear maps of boxes with half sizes whose tops lean back (towards -y) by radians."""
    c, s, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    rows = torch.stack([zero + 1, zero, zero, zero, c, -s, zero, s, c], -1).unflatten(-1, (3, 3))
    return rows * half[..., None, :]


def monitors(rng: CounterRNG, looks: Looks) -> MeshInstances:
    """Screens on stands, [s, 2, 4]; two in three are off and mirror the room."""
    count, case, glass = 2, looks["case"], some(looks["glass"], 0, 2)
    size, lean = rng.uniform(count, low=0.75, high=1.1), rng.uniform(count, high=0.2)
    high = 0.33 * size
    body = boxes(xyz(0.0, 0.0, high), xyz(0.27 * size, 0.012, 0.16 * size), *case)
    pane = boxes(xyz(0.0, 0.0145, high), xyz(0.263 * size, 0.0015, 0.153 * size), *glass)
    body.linear, pane.linear = (tilted(lean, part.linear.diagonal(dim1=-2, dim2=-1)) for part in (body, pane))
    stand = boxes(xyz(0.0, -0.03, high * 0.5), xyz(0.03 * size, 0.01, high * 0.5), *case)
    foot = boxes(xyz(0.0, -0.02, 0.006 * size), xyz(0.12 * size, 0.09, 0.006), *case)
    return MeshInstances.stack([body, pane, stand, foot], 2)


def laptop(rng: CounterRNG, looks: Looks) -> MeshInstances:
    """An open laptop, [s, 1, 4]."""
    count, case, keys, glass = 1, some(looks["metal"], 0, 1), some(looks["keys"], 0, 1), some(looks["glass"], 2, 1)
    wide, lean = rng.uniform(count, low=0.14, high=0.18), rng.uniform(count, low=0.1, high=0.7)
    deep = wide * 0.68
    base = boxes(xyz(0.0, 0.0, 0.008 + 0 * wide), xyz(wide, deep, 0.008), *case)
    board = boxes(xyz(0.0, -0.25 * deep, 0.0165), xyz(wide * 0.9, deep * 0.48, 0.0006), *keys)
    board.linear = board.linear * constant((-1.0, -1.0, 1.0), rng.device)  # read from the front
    c, s = torch.cos(lean), torch.sin(lean)
    lid = boxes(xyz(0.0, -deep - s * deep, 0.016 + c * deep), xyz(wide, 0.004, deep), *case)
    pane = boxes(lid.offset + xyz(0.0, 0.0045 * c, 0.0045 * s), xyz(wide * 0.97, 0.0008, deep * 0.95), *glass)
    lid.linear, pane.linear = (tilted(lean, part.linear.diagonal(dim1=-2, dim2=-1)) for part in (lid, pane))
    return MeshInstances.stack([base, board, lid, pane], 2)


def keyboard_and_mouse(rng: CounterRNG, looks: Looks) -> MeshInstances:
    """A keyboard and a mouse beside it, [s, 1, 2]."""
    count, keys, case = 1, some(looks["keys"], 1, 1), some(looks["metal"], 1, 1)
    wide, beside = rng.uniform(count, low=0.14, high=0.22), rng.uniform(count, low=0.04, high=0.12)
    board = boxes(xyz(0.0, 0.0, 0.01 + 0 * wide), xyz(-wide, -0.065, 0.01), *keys)
    mouse = boxes(xyz(-wide - beside, 0.0, 0.016), xyz(0.03 + 0 * wide, 0.055, 0.018), *case, 1, power=2.6)
    return MeshInstances.stack([board, mouse], 2)


def stacks(rng: CounterRNG, looks: Looks) -> MeshInstances:
    """Books on each other, [s, STACKS, STACK], askew; any number of them."""
    n = (STACKS, STACK)
    covers = [value.unflatten(1, n) for value in looks["stack"]]
    wide, long, thick, turn = rng.ranges((0.06, 0.11), (0.085, 0.15), (0.003, 0.024), (-1.0, 1.0), shape=n)
    z = 2.0 * thick.cumsum(-1) - thick
    askew = turn**3 * 0.8 + rng.uniform(STACKS, 1, high=2 * math.pi)
    shift = rng.normal(*n, 2, std=0.008)
    pile = boxes(torch.cat([shift, z[..., None]], -1), xyz(wide, long, thick), *covers)
    c, s = torch.cos(askew)[..., None], torch.sin(askew)[..., None]
    x, y, up = pile.linear.unbind(-2)
    pile.linear = torch.stack([c * x - s * y, s * x + c * y, up], -2)
    return pile.where(torch.arange(STACK, device=rng.device) < 1 + rng.randint(STACK, STACKS, 1))


def row_of_books(rng: CounterRNG, looks: Looks) -> MeshInstances:
    """Books that stand side by side, their backs towards +y, [s, 1, ROW]."""
    texture, material = looks["row"]
    thick, deep, tall = rng.ranges((0.005, 0.024), (0.07, 0.11), (0.09, 0.15), shape=(1, ROW))
    x = 2.0 * thick.cumsum(-1) - thick
    x = x - 0.5 * x[..., -1:]
    return boxes(xyz(x, -deep, tall), xyz(thick * 0.96, deep, tall), texture[:, None], material[:, None])


def mugs(rng: CounterRNG, materials: Materials) -> MeshInstances:
    """Cups with a handle, [s, n, 2]."""
    n = materials[0].shape[1]
    wide, tall, grip, taper = rng.ranges((0.033, 0.046), (0.038, 0.062), (0.02, 0.03), (0.95, 1.2), shape=(n,))
    zero = torch.zeros_like(wide)
    body = boxes(xyz(zero, 0.0, tall), xyz(wide, wide, tall), *materials, 1, family=1.0, power=2.0, taper=taper)
    ring = boxes(xyz(wide + 0.2 * grip, 0.0, tall), xyz(grip, grip, grip), *materials, 1, family=2.0, tube=0.2)
    ring.linear = ring.linear[..., (0, 2, 1), :]  # upright
    return MeshInstances.stack([body, ring], 2)


def bottles(rng: CounterRNG, looks: Looks) -> MeshInstances:
    """Bottles, jars and cans, [s, BOTTLES, 3]: body, neck and cap."""
    count, label, cap = BOTTLES, looks["label"], looks["cap"]
    wide, tall, neck, shut, bulge = rng.ranges(
        (0.02, 0.045), (0.04, 0.11), (0.35, 0.9), (0.006, 0.02), (-0.1, 0.1), shape=(count,)
    )
    is_can = rng.bernoulli(0.4, count)
    body = boxes(xyz(0.0, 0.0, tall), xyz(wide, wide, tall), *label, 1, family=1.0, power=2.0, bulge=bulge * ~is_can)
    rise = torch.where(is_can, 0.002, wide * 0.5)
    throat = boxes(xyz(0.0, 0.0, 2 * tall + rise), xyz(wide, wide, rise), *cap, family=1.0, power=2.0, taper=neck)
    narrow = torch.where(is_can, 0.3, neck) * wide
    lid = boxes(xyz(0.0, 0.0, 2 * tall + 2 * rise + shut), xyz(narrow, narrow, shut), *cap, family=1.0, power=2.0)
    return MeshInstances.stack([body, throat, lid], 2)


def pens(rng: CounterRNG, looks: Looks) -> MeshInstances:
    """The standing ones lean in a cup at the origin, the others lie anywhere on a square of 2 m, [s, PENS]."""
    n = PENS
    look = recoloured(looks["pen"], -0.7 * rng.uniform(n, 3) * rng.bernoulli(0.6, n, 1))
    angle, size, width = rng.ranges((0.0, 2 * math.pi), (0.05, 0.085), (0.0025, 0.006), shape=(n,))
    upright = torch.arange(n, device=rng.device) < STANDING_PENS
    direction = xyz(torch.cos(angle), torch.sin(angle), torch.where(upright, 3.0, 0.0))
    direction = torch.nn.functional.normalize(direction, dim=-1) * size[..., None]
    place = rng.uniform(n, 2, low=-1.0, high=1.0)
    middle = torch.where(upright[:, None], 0.3 * direction[..., :2], place)
    middle = torch.cat([middle, torch.where(upright, 0.02 + size, width)[..., None]], -1)
    return rods(middle - direction, middle + direction, width, look)


def cables(rng: CounterRNG, looks: Looks) -> MeshInstances:
    """Cables on the table, each two arcs that curve to either side, [s, CABLES, 2]; their middles are at the origin."""
    count = CABLES
    look = recoloured(looks["cable"], rng.bernoulli(0.4, count, 1) * 0.75)
    first, second, share, other, turn = rng.ranges(
        (0.05, 0.3), (0.05, 0.3), (0.12, 0.5), (0.12, 0.5), (0.0, 2 * math.pi), shape=(count,)
    )
    wire = rng.uniform(count, low=0.0016, high=0.0035)
    x, y = torch.cos(turn), torch.sin(turn)
    arcs = []
    # From the joint at the origin both ways: the centres lie on either side, so the directions there agree.
    for radius, arc, sign in ((first, share, 1.0), (second, other, -1.0)):
        middle, size = xyz(sign * radius * x, sign * radius * y, wire), xyz(radius, radius, radius)
        ring = boxes(middle, size, *look, 1, family=2.0, tube=wire / radius, arc=arc)
        # The ring's own x points from its centre to the joint.
        axes = [xyz(-sign * x, -sign * y, 0.0), xyz(sign * y, -sign * x, 0.0), xyz(0 * x, 0.0, 1.0)]
        ring.linear = torch.stack(axes, -1) * radius[..., None, None]
        arcs.append(ring)
    return MeshInstances.stack(arcs, 2)


def plant(rng: CounterRNG, materials: Materials) -> MeshInstances:
    """A plant in a pot, [s, 1, 1 + LEAVES]; materials: of the pot [s, 1]."""
    leaves = LEAVES
    wide, tall, length, green = rng.ranges((0.04, 0.08), (0.035, 0.07), (0.06, 0.16), (0.0, 1.0), shape=(1,))
    pot = boxes(xyz(0.0, 0.0, tall), xyz(wide, wide, tall), *materials, 1, family=1.0, power=2.0, taper=1.25)
    angle, rise, share, shade = rng.ranges((0.0, 2 * math.pi), (0.2, 1.4), (0.5, 1.1), (0.5, 1.2), shape=(1, leaves))
    way = xyz(torch.cos(angle) * torch.cos(rise), torch.sin(angle) * torch.cos(rise), torch.sin(rise))
    root = xyz(0 * tall, 0.0, 2 * tall)[..., None, :] + way * 0.02
    tip = root + way * (2.0 * share * length[..., None])[..., None]
    colour = constant((0.25, 0.5, 0.2), rng.device) * shade[..., None] + green[..., None, None] * 0.15
    texture, material = (value[:, :, None].expand(-1, -1, leaves, *value.shape[2:]) for value in materials)
    look = torch.cat([material[..., :9] * 0.0, colour, material[..., 12:]], -1)
    width, droop = 0.16 * share * length[..., None], -16.0 * (1.4 - rise)
    leaf = rods(root, tip, width, (texture, look), flat=0.08, family=0.0, bend_y=droop)
    return MeshInstances.cat([pot.map(lambda value: value[:, :, None]), leaf], 2)


def soft_shapes(rng: CounterRNG, like: Tensor, bump: tuple[float, float]) -> Tensor:
    """Shape rows of crumpled balls; bump: least and most height of the folds."""
    power, height, scale, sharp, phase = rng.ranges(
        (2.2, 4.5), bump, (3.0, 9.0), (0.0, 0.8), (0.0, 100.0), shape=like.shape[1:]
    )
    return shape_rows(like, power=power, bump=height, bump_scale=scale, bump_sharp=sharp, bump_phase=phase)
