"""Furniture-like composites of thin boxes and rods with mirror symmetry: chairs, tables, shelves, cabinets.

Everything is in metres on a floor at z = 0, the front towards +y; 21 slots a composite, unused ones dead.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from data_tools.procedural.instances import NO_MESH, MeshInstances, boxes, random_materials
from data_tools.procedural.rng import CounterRNG, constant
from data_tools.procedural.texture_bank import TextureBank

SLOTS = 21
CHAIR, TABLE, STOOL, SOFA, SHELF, CABINET = range(6)


_SIZES = (
    # by kind: half width, half depth, height of the top, its half thickness, height of the back
    ((0.2, 0.3), (0.2, 0.28), (0.38, 0.52), (0.012, 0.06), (0.3, 0.65)),
    ((0.45, 0.95), (0.3, 0.5), (0.6, 0.8), (0.01, 0.04), (0.0, 0.0)),
    ((0.14, 0.25), (0.14, 0.25), (0.35, 0.75), (0.012, 0.05), (0.0, 0.0)),
    ((0.35, 1.0), (0.33, 0.45), (0.3, 0.42), (0.06, 0.14), (0.3, 0.5)),
    ((0.3, 0.7), (0.12, 0.22), (0.8, 2.0), (0.008, 0.02), (0.0, 0.0)),
    ((0.25, 0.7), (0.18, 0.35), (0.4, 1.3), (0.008, 0.025), (0.0, 0.0)),
)


def furniture(
    rng: CounterRNG, bank: TextureBank, kind: Int64[Tensor, "*keys"]
) -> tuple[MeshInstances, Float[Tensor, "*keys 3"]]:
    """Composites of the given kinds.

    Returns:
        instances [*keys, SLOTS] and the half sizes of the whole [*keys, 3] (it spans z from 0 to twice half z).
    """
    device, rank = rng.device, len(rng.batch)
    sizes = constant(_SIZES, device)[kind]  # [*keys, 5, 2]
    low, high = sizes.unbind(-1)
    sx, sy, top, thick, back = (low + (high - low) * rng.uniform(5)).unbind(-1)
    rod, inset, puff, arm, stretcher = rng.ranges((0.01, 0.032), (0.75, 1.0), (0.02, 0.06), (0.14, 0.26), (0.1, 0.4))
    chances = constant((0.12, 0.6, 0.5, 0.35, 0.5, 0.5, 0.5, 0.4, 0.25, 0.45, 0.4, 0.3, 0.35, 0.3, 0.3), device)
    (single, cushion, level, panel, arms, rail_a, rail_b, rail_c, board, common, round_rods, soft_edges, round_top,
     waved, bent) = rng.bernoulli(chances, 15).unbind(rank)  # fmt: skip
    slats, boards, waves = (rng.uniform(3) * constant((5.0, 4.0, 4.0), device)).floor().unbind(-1)
    slats, boards = slats + 1.0, boards + 2.0

    sofa, case = kind == SOFA, kind >= SHELF
    seat = (kind == CHAIR) | sofa
    pedestal = ~(sofa | case) & single
    legs = ~(case | pedestal)
    panel, arms = seat & (panel | sofa), seat & (arms | sofa)
    plan = _Plan(sx)
    leg_x, leg_y, lean, middle = sx * inset - rod, sy * inset - rod, rod * 0.5, top / 2
    under = (top - thick) / 2
    four_x, four_y = constant((1.0, -1.0, 1.0, -1.0), device), constant((1.0, 1.0, -1.0, -1.0), device)
    pair = constant((1.0, -1.0), device)
    plan.put((0, 1, 2, 3), legs, (_column(leg_x) * four_x, _column(leg_y) * four_y, under), (rod, rod, under))
    plan.put((0,), pedestal, (0.0, 0.0, middle), (rod * 1.5, rod * 1.5, middle))
    plan.put((1,), pedestal, (0.0, 0.0, 0.02), (sx * 0.8, sy * 0.8, 0.02))
    plan.put((0, 1), case, (_column(sx) * pair, 0.0, middle), (thick, sy, middle))
    plan.put((2,), case, (0.0, -sy, middle), (sx, 0.006, middle))
    plan.put((4,), sx > 0, (0.0, 0.0, top - thick), (sx, sy, thick))
    plan.put((5,), seat & cushion, (0.0, 0.0, top + puff * 0.8), (sx * 0.95, sy * 0.95, puff))

    # Back: two posts and slats along either direction, or one panel.
    rear, post = lean - sy, top + back / 2
    plan.put((6, 7), seat, (_column(leg_x) * pair, rear, post), (rod, rod, back / 2))
    five = constant((0.0, 1.0, 2.0, 3.0, 4.0), device)
    bars = (8, 9, 10, 11, 12)
    share = (five + 0.5) / _column(slats)
    on = _column(seat & ~panel) & (five < _column(slats))
    rise = _column(top) + _column(back) * (0.15 + 0.8 * share)
    plan.put(bars, on & _column(level), (0.0, rear, rise), (leg_x, 0.01, back * 0.3 / slats))
    plan.put(bars, on & _column(~level), ((2.0 * share - 1.0) * _column(leg_x), rear, post),
             (leg_x * 0.4 / slats, 0.01, back / 2))  # fmt: skip
    plan.put((8,), panel, (0.0, rear, top + back * 0.55), (sx * 0.95, torch.where(sofa, 0.08, 0.02), back * 0.45))
    plan.put((9,), seat & ~level & ~panel & (slats < 2), (0.0, rear, top + back), (sx, rod, rod * 1.5))

    wide, thin = torch.where(sofa, 0.06, rod * 1.2), torch.where(sofa, 0.05, rod)
    plan.put((13, 14), arms, (_column(sx) * pair, 0.0, top + arm), (wide, sy, rod))
    plan.put((15, 16), arms, (_column(sx) * pair, sy * 0.8, top + arm / 2), (thin, rod, arm / 2))

    # Lower boards: stretchers of tables and chairs, boards of shelves, drawer fronts of cabinets.
    low_z, rail = stretcher * top, rod * 0.7
    rails = torch.stack([legs & rail_a, legs & rail_b], -1)
    plan.put((17, 18), rails, (_column(leg_x) * pair, 0.0, low_z), (rail, leg_y, rail))
    plan.put((19,), legs & rail_c, (0.0, 0.0, low_z), (leg_x, rail, rail))
    plan.put((20,), legs & board & (kind == TABLE), (0.0, 0.0, low_z), (leg_x, leg_y, 0.01))
    share = (five + 0.5) / _column(boards)
    on, rise = five < _column(boards), _column(top) * share
    plan.put(bars, on & _column(kind == SHELF), (0.0, 0.0, rise + 0.02), (sx, sy, thick))
    cabinet = on & _column(kind == CABINET)
    plan.put(bars, cabinet, (0.0, sy, rise), (sx * 0.96, 0.012, top * 0.46 / boards))
    knob = rise + _column(0.1 * top / boards)
    plan.put((13, 14, 15, 16, 17), cabinet, (0.0, sy + 0.02, knob), (0.05, 0.012, 0.008))
    centre, half, alive = plan.resolve()

    texture, material = random_materials(rng, bank, 4, ("furniture", "furniture", "fabric", "fabric"))
    look = (0, 0, 0, 0, 1, 2, 0, 0, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0)
    slot_look = constant(look, device, torch.int64)
    texture, material = texture[..., slot_look], material[..., slot_look, :]
    # A look of their own for cushions (the third), one common look for most other sets.
    shared = _column(common) & (slot_look != 2)
    texture = torch.where(shared, texture[..., :1], texture)
    material = torch.where(shared[..., None], material[..., :1, :], material)

    is_rod = constant((1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0), device) > 0
    soft = constant((0, 0, 0, 0, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0), device)
    pillow, slim, wavy, bend = rng.ranges((3.0, 8.0), (0.8, 1.6), (0.0, 0.25), (-1.4, 1.4))
    rounded = torch.where(_column(soft_edges) & (soft == 1), 8.0, 64.0)
    rounded = torch.where(_column(case), 64.0, torch.where(soft == 2, _column(pillow), rounded))
    slot = torch.arange(SLOTS, device=device)
    lathe = (_column(round_rods & ~case) & is_rod) | (
        _column(((kind == STOOL) | (kind == TABLE)) & round_top) & (slot == 4)
    )
    turned = lathe & is_rod
    power = torch.where(lathe, 2.0, rounded)
    instances = boxes(
        centre, half, texture, material, family=lathe, power=power,
        taper=torch.where(turned, _column(slim), 1.0), wave=turned * _column(wavy * waved),
        waves=_column(waves + 1.0).expand_as(power),
        bend_y=_column(bend * (bent & ~sofa & ~case)) * (slot < 4),
    )  # fmt: skip
    instances.mesh = torch.where(alive, (power < 60).to(torch.int64), NO_MESH)
    whole = torch.stack([sx, sy + 0.02, (top + back) / 2], -1)
    return instances, whole


def _column(value: Shaped[Tensor, "*b"]) -> Shaped[Tensor, "*b 1"]:
    return value[..., None]


class _Plan:
    """Boxes put into slots under conditions; of several in one slot the last whose condition holds is taken.

    Each call costs a launch or two, so that what can be is put in for several slots at once.
    """

    def __init__(self, like: Float[Tensor, "*keys"]) -> None:
        self.shape, self.device = like.shape, like.device
        self.slots: list[int] = []
        self.conditions: list[Bool[Tensor, "..."]] = []
        self.numbers: list[Float[Tensor, "... 6"]] = []

    def put(
        self,
        slots: tuple[int, ...],
        where: Bool[Tensor, "..."],
        position: tuple[float | Float[Tensor, "..."], ...],
        size: tuple[float | Float[Tensor, "..."], ...],
    ) -> None:
        """where, and each number of position and size: of every composite [*keys], of its slots too, or a float."""
        full = (*self.shape, len(slots))

        def expanded(value: Shaped[Tensor, "..."] | float) -> Shaped[Tensor, "..."]:
            tensor = value if isinstance(value, Tensor) else constant(value, self.device)
            return (tensor[..., None] if tensor.ndim == len(self.shape) else tensor).expand(full)

        self.slots += slots
        self.conditions.append(expanded(where))
        self.numbers.append(torch.stack([expanded(value) for value in (*position, *size)], -1))

    def resolve(self) -> tuple[Float[Tensor, "*keys n 3"], Float[Tensor, "*keys n 3"], Bool[Tensor, "*keys n"]]:
        """Centres and half sizes [*keys, SLOTS, 3], and which slots are filled [*keys, SLOTS]."""
        table, order = _entries(tuple(self.slots))
        entries = constant(table, self.device, torch.int64)
        on = torch.cat(self.conditions, -1)[..., entries]  # [*keys, SLOTS, most]
        best = (on * constant(order, self.device)).argmax(-1, keepdim=True)
        entry = torch.gather(entries.expand(on.shape), -1, best).expand(*on.shape[:-1], 6)
        numbers = torch.gather(torch.cat(self.numbers, -2), -2, entry)
        return numbers[..., :3], numbers[..., 3:].clamp_min(0.004), on.any(-1)


@lru_cache(maxsize=4)
def _entries(slots: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """For every slot the numbers of its entries, padded with its last; and their ranks, 1 the first."""
    lists = [[entry for entry, slot in enumerate(slots) if slot == number] for number in range(SLOTS)]
    most = max(map(len, lists))
    return tuple((*one, *one[-1:] * (most - len(one))) for one in lists), tuple(range(1, most + 1))
