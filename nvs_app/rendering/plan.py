"""The plan of a rendering: at which sizes photos are read and views rendered. The only place that decides it.

    plan = plan_render((540, 960), patch=8, lact=LaCTResolution())     # with a detail head
    plan.render_hw, plan.lact_hw                                       # (544, 960), (256, 448)

With a detail head, LaCT reads and draws at a part of the photos' resolution, and the head renders at their own.
Without one, LaCT renders at the size asked for. Sides are then whole patches: of photos up to a patch is cut off,
frames grow at the right and bottom and the excess is cut off again, so that no pixel is resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nvs_app.errors import NVSError

HEAD_MULTIPLE = 8  # sides of what a detail head looks at and renders are multiples of it
# Pixels that a detail head renders, or reads of the context, at once: on a CPU more would leave the cache and delay the
# first image; a GPU is busy with so many.
CPU_RENDER_PIXELS, CPU_READ_PIXELS = 2**16, 2**19
CUDA_PIXELS = 2**21


@dataclass(frozen=True)
class LaCTResolution:
    """LaCT's shorter side under a detail head: `scale` times that of the photos, within [least, most] pixels and not
    above the photos' own. Raises NVSError for impossible values."""

    scale: float = 0.5
    least: int = 64
    most: int = 256

    def __post_init__(self) -> None:
        if not (0 < self.scale <= 1 and 8 <= self.least <= self.most):
            raise NVSError(
                f"LaCT's resolution: scale {self.scale}, {self.least} to {self.most} pixels; expected a scale in (0, 1]"
                " and at least 8 pixels"
            )

    @classmethod
    def of_card(cls, card: dict[str, Any]) -> LaCTResolution:
        """What a checkpoint's card says under "lact_resolution", else the defaults."""
        values = card.get("lact_resolution")
        return cls(**values) if isinstance(values, dict) else cls()

    def hw(self, image_hw: tuple[int, int], patch: int) -> tuple[int, int]:
        """The size (height, width) for photos of `image_hw`, each side rounded to whole patches."""
        shorter = min(image_hw)
        side = min(shorter, max(self.least, min(self.most, self.scale * shorter)))
        height, width = (max(patch, round(edge * side / shorter / patch) * patch) for edge in image_hw)
        return height, width


@dataclass(frozen=True)
class RenderPlan:
    """Sizes (height, width) in pixels of reading photos, or of rendering a view.

    image_hw: as given, or asked for. render_hw: what the photos are cut to, or the frame that is rendered and then cut.
    lact_hw: what LaCT reads or draws; equal to `render_hw` where there is no detail head. detail: whether there is one.
    """

    image_hw: tuple[int, int]
    render_hw: tuple[int, int]
    lact_hw: tuple[int, int]
    detail: bool

    @property
    def words(self) -> str:
        """For reports: "256x256, LaCT at 128x128"."""
        height, width = self.image_hw
        at = f", LaCT at {self.lact_hw[0]}x{self.lact_hw[1]}" if self.detail else ""
        return f"{height}x{width}{at}"


def photos_hw(stored_hws: list[tuple[int, int]], image_hw: tuple[int, int]) -> tuple[int, int]:
    """The size (height, width) at which photos are best read for views of `image_hw` through a detail head, which takes
    detail from them: as fine as the views, in the photos' own shape (that of most of them), no finer than they are.

    stored_hws: sizes of the photos. Sides are multiples of `HEAD_MULTIPLE`.
    """
    height, width = max(set(stored_hws), key=lambda hw: (stored_hws.count(hw), hw))
    # The smaller of the two ratios of sides: an upright photo need not be as wide as a lying view.
    scale = min(1.0, min(image_hw) / min(height, width))
    rows, columns = (max(1, round(side * scale / HEAD_MULTIPLE)) * HEAD_MULTIPLE for side in (height, width))
    return rows, columns


def _plan(image_hw: tuple[int, int], multiple: int, up: bool, patch: int, lact: LaCTResolution | None) -> RenderPlan:
    height, width = ((-(-side // multiple) if up else side // multiple) * multiple for side in image_hw)
    render_hw = (height, width)
    lact_hw = render_hw if lact is None or 0 in render_hw else lact.hw(render_hw, patch)
    return RenderPlan((image_hw[0], image_hw[1]), render_hw, lact_hw, lact is not None)


def plan_encode(image_hw: tuple[int, int], patch: int, lact: LaCTResolution | None) -> RenderPlan:
    """How photos of `image_hw` are read; `lact` None: there is no detail head. Raises NVSError for photos smaller than
    a patch."""
    plan = _plan(image_hw, patch if lact is None else max(patch, HEAD_MULTIPLE), False, patch, lact)
    if 0 in plan.render_hw:
        raise NVSError(f"encode: images are {image_hw[0]}x{image_hw[1]}, smaller than one patch of {patch}x{patch}")
    return plan


def plan_render(image_hw: tuple[int, int], patch: int, lact: LaCTResolution | None) -> RenderPlan:
    """How a view of `image_hw` is rendered; `lact` None: there is no detail head."""
    return _plan(image_hw, patch if lact is None else HEAD_MULTIPLE, True, patch, lact)
