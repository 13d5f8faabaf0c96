"""Google Scanned Objects, rendered on a grid of 16 azimuths and 4 elevations around each object."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.evaluation.protocols.base import Option, Published, Settings, Views, stable_seed
from nvs_app.evaluation.protocols.places import SceneFolders
from nvs_app.scenes.views import ViewSplit, spread_views

AZIMUTHS = 16
ELEVATIONS = (0, 20, 40, 60)
RADIUS = 2.7
TOLERANCE = 3.0  # degrees that a camera may stand off its place on the grid

Slot = tuple[int, int]  # (elevation in degrees, azimuth as a number of 22.5 degree steps)

LRM_ZERO_8: list[Slot] = [(0, 0), (0, 4), (0, 8), (0, 12), (40, 2), (40, 6), (40, 10), (40, 14)]
LRM_ZERO_4: list[Slot] = [(20, 0), (20, 4), (20, 8), (20, 12)]
LVSM_4: list[Slot] = [(20, 2), (20, 6), (20, 10), (20, 14)]
# Two at each elevation, all at odd azimuths, so that no structured context has them.
TARGETS: list[Slot] = [(0, 3), (0, 11), (20, 7), (20, 15), (40, 1), (40, 9), (60, 5), (60, 13)]


class GSO(SceneFolders):
    """LaCT's rendering of GSO, with the view lists of LRM-Zero and LVSM as layouts."""

    name = "gso"
    title = "Google Scanned Objects, object level"
    source = "LaCT (arXiv 2505.23884); LRM-Zero (arXiv 2406.09371); LVSM (arXiv 2410.17242)"
    layout = "a folder an object, each with opencv_cameras.json or transforms.json and 64 renders"
    notes = (
        (
            "The papers fix 8 targets without listing them; ours stand at azimuths 67.5 and 247.5 (elevation 0), 157.5"
            " and 337.5 (20), 22.5 and 202.5 (40), 112.5 and 292.5 (60 degrees)."
        ),
        (
            "Contexts other than LRM-Zero's 4 and 8: its 8 first, then its 4, then views added farthest-first on the"
            " sphere."
        ),
        "LVSM's 10 targets are drawn for each object from the other 60 views, with --seed; its own draw is not known.",
    )
    contexts = (4, 8, 12, 20)
    forms = ("lact", "nerfstudio", "blender")
    depth = 2
    options = (
        Option(
            "layout",
            "which views are read and rendered",
            {
                "lact": "4 to 48 views nested around LRM-Zero's, 8 fixed targets",
                "lrm-zero": "8 views: elevation 0 at 0/90/180/270 and 40 at 45/135/225/315; 4 views: elevation 20 at"
                " 0/90/180/270; the same 8 targets",
                "lvsm": "4 views: elevation 20 at 45/135/225/315; 10 targets drawn from the others",
            },
        ),
    )
    published = (
        *(Published("LaCT", n, v) for n, v in ((4, 32.4), (8, 35.3), (12, 36.3), (20, 37.2))),
        *(Published("LRM-Zero (synthetic training only)", n, v) for n, v in ((4, 27.8), (8, 30.8))),
    )

    def default_contexts(self, settings: Settings) -> tuple[int, ...]:
        return {"lact": self.contexts, "lrm-zero": (4, 8), "lvsm": (4,)}[settings.options["layout"]]

    def split(self, views: Views, count: int, settings: Settings) -> ViewSplit:
        layout = settings.options["layout"]
        targets = TARGETS
        if layout == "lvsm":
            if count != 4:
                raise NVSError(f"--context {count}: the layout lvsm reads 4 views")
            context = LVSM_4
            others = [slot for slot in _all_slots() if slot not in context]
            generator = torch.Generator().manual_seed(stable_seed("gso", settings.seed, views.name))
            targets = [others[row] for row in torch.randperm(len(others), generator=generator)[:10].tolist()]
        elif layout == "lrm-zero":
            if count not in (4, 8):
                raise NVSError(f"--context {count}: the layout lrm-zero reads 4 or 8 views")
            context = LRM_ZERO_4 if count == 4 else LRM_ZERO_8
        else:
            context = lact_context(count)
        grid = grid_of(views)
        for slot in (*context, *targets):
            if slot not in grid:
                raise NVSError(
                    f"scene {views.name}: no view at elevation {slot[0]}, azimuth {22.5 * slot[1]:g} degrees;"
                    f" {len(grid)} of the 64 places of the grid are taken"
                )
        return ViewSplit([grid[slot] for slot in context], sorted(grid[slot] for slot in targets))

    def remarks(self, views: Views, settings: Settings) -> list[str]:
        radius = float(views.c2w[:, :3, 3].norm(dim=-1).mean())
        return [] if abs(radius - RADIUS) < 0.1 else [f"cameras stand {radius:.2f} from the origin, not {RADIUS}"]


def grid_of(views: Views) -> dict[Slot, int]:
    """The view at each place of the grid, from the cameras alone, in whatever order the files are.

    Up is the mean of the cameras' up directions. Azimuth 0 is the world's +x (+y where up is near +x), shifted by at
    most half a step to where the views stand. A view farther than 3 degrees from any place is on none.
    """
    position = views.c2w[:, :3, 3].double()
    up = -views.c2w[:, :3, 1].double().mean(0)
    up = up / up.norm().clamp_min(1e-9)
    axis = torch.eye(3, dtype=torch.float64)[0 if abs(float(up[0])) < 0.9 else 1]
    first = axis - (axis @ up) * up
    first = first / first.norm()
    second = torch.linalg.cross(up, first)
    direction = position / position.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    elevation = torch.rad2deg(torch.asin((direction @ up).clamp(-1, 1)))
    azimuth = torch.rad2deg(torch.atan2(direction @ second, direction @ first))
    step = 360.0 / AZIMUTHS
    turns = azimuth / step * 2 * math.pi  # one full turn a step: its mean is the shift of the grid
    shift = math.degrees(math.atan2(float(turns.sin().mean()), float(turns.cos().mean()))) / 360 * step
    grid: dict[Slot, int] = {}
    for index, (up_angle, angle) in enumerate(zip(elevation.tolist(), (azimuth - shift).tolist())):
        level = min(ELEVATIONS, key=lambda value: abs(value - up_angle))
        number = round(angle / step)
        if abs(up_angle - level) < TOLERANCE and abs(angle - number * step) < TOLERANCE:
            grid.setdefault((level, number % AZIMUTHS), index)
    return grid


def lact_context(count: int) -> list[Slot]:
    """Our list of `count` context places; see the notes of the protocol. Raises NVSError above 56."""
    if count == 4:
        return LRM_ZERO_4
    order = LRM_ZERO_8 + LRM_ZERO_4
    others = [slot for slot in _all_slots() if slot not in TARGETS and slot not in order]
    if count > len(order) + len(others):
        raise NVSError(f"--context {count}: 56 of the 64 views are no targets")
    if count < 8:
        return [order[row] for row in spread_views(_poses(order), count)]
    while len(order) < count:
        cosine = (_directions(others) @ _directions(order).T).amax(dim=1)
        order = [*order, others.pop(int(cosine.mul(1e9).round().argmin()))]  # rounded: ties go to the first
    return order[:count]


def _all_slots() -> list[Slot]:
    return [(elevation, number) for elevation in ELEVATIONS for number in range(AZIMUTHS)]


def _directions(slots: list[Slot]) -> Tensor:
    angles = torch.tensor([(math.radians(e), 2 * math.pi * n / AZIMUTHS) for e, n in slots], dtype=torch.float64)
    level, turn = angles.unbind(-1)
    return torch.stack([level.cos() * turn.cos(), level.cos() * turn.sin(), level.sin()], dim=-1)


def _poses(slots: list[Slot]) -> Tensor:
    poses = torch.eye(4).repeat(len(slots), 1, 1)
    poses[:, :3, 3] = _directions(slots).float()
    poses[:, :3, 2] = -_directions(slots).float()
    return poses
