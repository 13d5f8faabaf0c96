"""Which frames the viewer asks for: sizes, quality, how closely rendered. Decided here and sent to the page.

    plan = plan_frames(opened, Viewport((900, 1200)), limits, FrameCost())
    plan.rest[-1].hw          # at rest, the sharp one
    plan.drag.hw, plan.turn   # while the hand moves the view, and while it turns by itself

Sides are multiples of what `Renderer.plan_render` renders, so that nothing is rendered and then cut off.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nvs_app.errors import NVSError
from nvs_app.rendering.renderer import Renderer
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.sessions import SessionLimits

SIDES = (96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024)  # shorter sides of frames
OFFERED = (128, 256, 512, 1024)  # of them, at rest
DEFAULT_SIDES = (128, 512)  # at rest the photos' own, within these
DRAG_MS, TURN_MS = 130.0, 340.0  # a frame while the hand moves, or while the view turns by itself, takes no longer
LEAST, MOST_LEAST, SLOW_MS = 128, 192, 400  # frames get no smaller, but on a machine where even these are slow
COARSER = 1.62  # times coarser than the photos that were read, frames look coarse
LADDER_MS = 350  # a sharp frame that takes longer is preceded by a smaller one
POINT_SIDE = 160  # of the view in which the point under the cursor is looked up
ASPECTS = (0.4, 2.5)
QUALITY, QUICK_QUALITY = 92, 80


@dataclass(frozen=True)
class Viewport:
    """Where frames are shown: its size (height, width) in the screen's pixels, and the shorter side of frames at rest
    that was chosen; None: not chosen. Raises NVSError for what cannot be."""

    hw: tuple[int, int] = (512, 512)
    side: int | None = None

    def __post_init__(self) -> None:
        if not all(1 <= side <= 16384 for side in self.hw):
            raise NVSError("stage: hw is not [height, width] of 1 to 16384 pixels")
        if self.side is not None and self.side not in OFFERED:
            raise NVSError(f"stage: side {str(self.side)[:20]}, expected one of {', '.join(map(str, OFFERED))}")

    @property
    def aspect(self) -> float:
        """Width over height, within what frames can have."""
        return min(max(self.hw[1] / self.hw[0], ASPECTS[0]), ASPECTS[1])


class FrameCost:
    """Milliseconds that a pixel takes, as measured: of quick frames and of others; None until one was rendered."""

    def __init__(self) -> None:
        self._known: dict[bool, float] = {}

    def add(self, hw: tuple[int, int], milliseconds: float, quick: bool) -> None:
        """A frame of this size took so long."""
        cost = milliseconds / (hw[0] * hw[1])
        before = self._known.get(quick, cost)
        self._known[quick] = 0.7 * before + 0.3 * cost

    def expected(self, hw: tuple[int, int], quick: bool) -> float | None:
        """Milliseconds that a frame will take."""
        cost = self._known.get(quick, self._known.get(not quick))
        return None if cost is None else cost * hw[0] * hw[1]


@dataclass(frozen=True)
class FrameStep:
    """One frame to ask for: size (height, width), JPEG quality, and whether it is rendered less closely."""

    hw: tuple[int, int]
    quality: int
    quick: bool


@dataclass(frozen=True)
class FramePlan:
    """What the viewer asks for.

    Attributes:
        stage: size (height, width) that it was made for. side: shorter side at rest; sides: those to choose from.
        most: the largest frame (height, width).
        drag, turn: while the hand moves the view; while it turns by itself.
        rest: one after the other once it stands still; the last one is the sharp one.
        point: size of the view in which the point under the cursor is looked up.
    """

    stage: tuple[int, int]
    side: int
    sides: tuple[int, ...]
    most: tuple[int, int]
    drag: FrameStep
    turn: FrameStep
    rest: tuple[FrameStep, ...]
    point: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """For the page; of numbers, texts and lists."""
        return asdict(self)


def plan_frames(opened: LoadedScene, stage: Viewport, limits: SessionLimits, cost: FrameCost) -> FramePlan:
    """The plan for a scene on a stage."""
    renderer = opened.renderer
    pixels = limits.frame_pixels(renderer.device)
    sides = [side for side in SIDES if side <= limits.frame_side and side**2 <= pixels]
    offered = [side for side in OFFERED if side in sides]

    def hw(side: int) -> tuple[int, int]:
        return _frame_hw(renderer, side, stage.aspect, limits.frame_side)

    def fits(side: int) -> bool:
        return hw(side)[0] * hw(side)[1] <= pixels

    offered = [side for side in offered if fits(side)] or offered[:1]
    scene_side = min(opened.image_hw)
    if stage.side is None:  # no finer than the photos, nor than the screen
        shown = next((side for side in offered if side >= min(stage.hw)), offered[-1])
        wanted = min(max(scene_side, DEFAULT_SIDES[0]), DEFAULT_SIDES[1], shown)
    else:
        wanted = stage.side
    rest = max((side for side in offered if side <= wanted), default=offered[0])

    def step(side: int) -> FrameStep:
        return FrameStep(hw(side), QUALITY if side == rest else QUICK_QUALITY, side < rest)

    def expected(side: int) -> float | None:
        return cost.expected(hw(side), side < rest)

    fine = next((side for side in sides if side >= LEAST and side * COARSER >= scene_side), MOST_LEAST)
    least = min(fine, MOST_LEAST, rest)

    def moving(most_ms: float) -> int:
        slow = expected(least)
        if slow is None:
            return least
        fitting = [side for side in sides if side <= rest and (expected(side) or 0.0) <= most_ms]
        if fitting and fitting[-1] > least:
            return fitting[-1]
        return min(sides[0], least) if slow > SLOW_MS else least

    drag, ladder = moving(DRAG_MS), [step(rest)]
    middle = max((side for side in sides if side <= 0.7 * rest), default=0)
    if (expected(rest) or 0.0) > LADDER_MS and middle > 1.3 * drag:
        ladder.insert(0, FrameStep(hw(middle), QUALITY, True))
    return FramePlan(
        stage=stage.hw,
        side=rest,
        sides=tuple(offered),
        most=hw(offered[-1]),
        drag=step(drag),
        turn=step(moving(TURN_MS)),
        rest=tuple(ladder),
        point=hw(POINT_SIDE),
    )


def _frame_hw(renderer: Renderer, side: int, aspect: float, longest: int) -> tuple[int, int]:
    """A frame (height, width) with this shorter side, each side the nearest that is rendered whole."""
    units = renderer.plan_render((1, 1)).render_hw  # frames grow to multiples of the smallest one
    wanted = (side, side * aspect) if aspect >= 1 else (side / aspect, side)
    height, width = (
        max(-(-16 // unit), min(longest // unit, round(length / unit))) * unit for length, unit in zip(wanted, units)
    )
    return height, width
