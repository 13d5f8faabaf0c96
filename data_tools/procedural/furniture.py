"""Furniture-like composites of thin boxes and rods with mirror symmetry: chairs, tables, shelves, cabinets.

Everything is in metres on a floor at z = 0, the front towards +y; 21 slots a composite, unused ones dead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from data_tools.procedural.bank import TextureBank
from data_tools.procedural.draws import Draws
from data_tools.procedural.pieces import DEAD, Pieces, boxes, materials
from data_tools.procedural.shapes import INDEX

SLOTS = 21
CHAIR, TABLE, STOOL, SOFA, SHELF, CABINET = range(6)


def furniture(
    draws: Draws, bank: TextureBank, kind: Tensor, seat_range: float = 1.0
) -> tuple[Pieces, Tensor]:
    """Composites of the given kinds (int64 [*keys]).

    Returns:
        pieces [*keys, SLOTS] and the half sizes of the whole [*keys, 3] (it spans z from 0 to twice half z).
    """
    device, batch = draws.device, draws.batch
    d = draws.uniform

    def by_kind(*values: tuple[float, float]) -> Tensor:
        low = torch.tensor([v[0] for v in values], device=device)[kind]
        high = torch.tensor([v[1] for v in values], device=device)[kind]
        return low + (high - low) * d()

    sx = by_kind((0.2, 0.3), (0.45, 0.95), (0.14, 0.25), (0.35, 1.0), (0.3, 0.7), (0.25, 0.7))
    sy = by_kind((0.2, 0.28), (0.3, 0.5), (0.14, 0.25), (0.33, 0.45), (0.12, 0.22), (0.18, 0.35))
    top = by_kind((0.38, 0.52), (0.6, 0.8), (0.35, 0.75), (0.3, 0.42), (0.8, 2.0), (0.4, 1.3))
    thick = by_kind((0.012, 0.06), (0.01, 0.04), (0.012, 0.05), (0.06, 0.14), (0.008, 0.02), (0.008, 0.025))
    back = by_kind((0.3, 0.65), (0.0, 0.0), (0.0, 0.0), (0.3, 0.5), (0.0, 0.0), (0.0, 0.0))
    rod = d(low=0.01, high=0.032)
    case = kind >= SHELF
    seat = (kind == CHAIR) | (kind == SOFA)

    centre = torch.zeros(*batch, SLOTS, 3, device=device)
    half = torch.full((*batch, SLOTS, 3), 0.01, device=device)
    alive = torch.zeros(*batch, SLOTS, dtype=torch.bool, device=device)

    def put(slot: int, where: Tensor, position: tuple, size: tuple) -> None:
        spot = torch.stack([p + torch.zeros_like(sx) for p in position], -1)
        extent = torch.stack([e + torch.zeros_like(sx) for e in size], -1).clamp_min(0.004)
        centre[..., slot, :] = torch.where(where[..., None], spot, centre[..., slot, :])
        half[..., slot, :] = torch.where(where[..., None], extent, half[..., slot, :])
        alive[..., slot] |= where

    inset = d(low=0.75, high=1.0)
    leg_x, leg_y = sx * inset - rod, sy * inset - rod
    pedestal = (kind != SOFA) & ~case & (d() < 0.12)
    for slot, (mx, my) in enumerate(((1, 1), (-1, 1), (1, -1), (-1, -1))):
        put(
            slot,
            ~case & ~pedestal,
            (mx * leg_x, my * leg_y, (top - thick) / 2),
            (rod, rod, (top - thick) / 2),
        )
    put(0, pedestal, (0.0, 0.0, top / 2), (rod * 1.5, rod * 1.5, top / 2))
    put(1, pedestal, (0.0, 0.0, 0.02), (sx * 0.8, sy * 0.8, 0.02))
    put(0, case, (sx, 0.0, top / 2), (thick, sy, top / 2))
    put(1, case, (-sx, 0.0, top / 2), (thick, sy, top / 2))
    put(2, case, (0.0, -sy, top / 2), (sx, 0.006, top / 2))
    put(4, sx > 0, (0.0, 0.0, top - thick), (sx, sy, thick))
    puff = d(low=0.02, high=0.06)
    put(5, seat & (d() < 0.6), (0.0, 0.0, top + puff * 0.8), (sx * 0.95, sy * 0.95, puff))

    # Back: two posts and slats along either direction, or one panel.
    lean = rod * 0.5
    put(6, seat, (leg_x, -sy + lean, top + back / 2), (rod, rod, back / 2))
    put(7, seat, (-leg_x, -sy + lean, top + back / 2), (rod, rod, back / 2))
    slats = draws.integer(5) + 1
    level, panel = d() < 0.5, (d() < 0.35) | (kind == SOFA)
    for k in range(5):
        share = (k + 0.5) / slats
        on = seat & (k < slats) & ~panel
        put(
            8 + k,
            on & level,
            (0.0, -sy + lean, top + back * (0.15 + 0.8 * share)),
            (leg_x, 0.01, back * 0.3 / slats),
        )
        put(
            8 + k,
            on & ~level,
            ((2 * share - 1) * leg_x, -sy + lean, top + back / 2),
            (leg_x * 0.4 / slats, 0.01, back / 2),
        )
    put(
        8,
        seat & panel,
        (0.0, -sy + lean, top + back * 0.55),
        (sx * 0.95, torch.where(kind == SOFA, 0.08, 0.02), back * 0.45),
    )
    put(9, seat & ~level & ~panel & (slats < 2), (0.0, -sy + lean, top + back), (sx, rod, rod * 1.5))

    arms = seat & ((d() < 0.5) | (kind == SOFA))
    arm = d(low=0.14, high=0.26)
    wide = torch.where(kind == SOFA, 0.06, rod * 1.2)
    for slot, side in ((13, 1), (14, -1)):
        put(slot, arms, (side * sx, 0.0, top + arm), (wide, sy, rod))
        put(
            slot + 2,
            arms,
            (side * sx, sy * 0.8, top + arm / 2),
            (torch.where(kind == SOFA, 0.05, rod), rod, arm / 2),
        )

    # Lower boards: stretchers of tables and chairs, boards of shelves, drawer fronts of cabinets.
    low = d(low=0.1, high=0.4) * top
    put(17, ~case & ~pedestal & (d() < 0.5), (leg_x, 0.0, low), (rod * 0.7, leg_y, rod * 0.7))
    put(18, ~case & ~pedestal & (d() < 0.5), (-leg_x, 0.0, low), (rod * 0.7, leg_y, rod * 0.7))
    put(19, ~case & ~pedestal & (d() < 0.4), (0.0, 0.0, low), (leg_x, rod * 0.7, rod * 0.7))
    put(20, (kind == TABLE) & ~pedestal & (d() < 0.25), (0.0, 0.0, low), (leg_x, leg_y, 0.01))
    boards = draws.integer(4) + 2
    for k in range(5):
        share = (k + 0.5) / boards
        put(8 + k, (kind == SHELF) & (k < boards), (0.0, 0.0, top * share + 0.02), (sx, sy, thick))
        put(
            8 + k,
            (kind == CABINET) & (k < boards),
            (0.0, sy, top * share),
            (sx * 0.96, 0.012, top * 0.46 / boards),
        )
        put(
            13 + k,
            (kind == CABINET) & (k < boards),
            (0.0, sy + 0.02, top * share + 0.1 * top / boards),
            (0.05, 0.012, 0.008),
        )

    texture, material = materials(draws, bank, 4, style="furniture")
    slot_look = torch.tensor([0] * 4 + [1, 2] + [0, 0] + [3] * 5 + [0] * 8, device=device)
    texture, material = texture[..., slot_look], material[..., slot_look, :]
    # A solid look at cushions (the third) and one common look for most sets.
    common = (d() < 0.45)[..., None] & (slot_look != 2)
    texture = torch.where(common, texture[..., :1], texture)
    material = torch.where(common[..., None], material[..., :1, :], material)

    pieces = boxes(centre, half, texture, material)
    round_rods = (d() < 0.4)[..., None]
    is_rod = torch.tensor([1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0], device=device) > 0
    lathe = round_rods & is_rod & ~case[..., None]
    soft = torch.tensor([0, 0, 0, 0, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0], device=device)
    rounded = torch.where(
        soft == 2,
        d(low=3.0, high=8.0)[..., None],
        torch.where((d() < 0.3)[..., None] & (soft == 1), 8.0, 64.0),
    )
    rounded = torch.where(case[..., None], 64.0, rounded)
    round_top = ((kind == STOOL) | (kind == TABLE)) & (d() < 0.35)
    lathe = lathe | (round_top[..., None] & (torch.arange(SLOTS, device=device) == 4))
    power = torch.where(lathe, 2.0, rounded)
    names = {"family": lathe.float(), "power": power}
    names["taper"] = torch.where(lathe, torch.where(is_rod, d(low=0.8, high=1.6)[..., None], 1.0), 1.0)
    names["wave"] = torch.where(lathe & is_rod, (d(high=0.25) * (d() < 0.3))[..., None], 0.0)
    names["waves"] = (draws.integer(4) + 1).float()[..., None].expand_as(power)
    bends = (draws.normal(std=0.7) * ((d() < 0.3) & (kind != SOFA)))[..., None] * (
        torch.arange(SLOTS, device=device) < 4
    )
    names["bend_y"] = torch.where(case[..., None], 0.0, bends)
    for name, value in names.items():
        pieces.shape[..., INDEX[name]] = value
    detailed = lathe | (power < 60)
    pieces.mesh = torch.where(alive, torch.where(detailed, 1, 0), DEAD)
    height = torch.where(seat, top + back, top)
    whole = torch.stack([sx, sy + 0.02, height / 2], -1)
    return pieces, whole
