"""The plan of a rendering: at which sizes photos are encoded and views rendered, by which passes, how many at once, and
what is done to the images afterwards. The only place that decides it; `Renderer.plan_encode` and `plan_render` make it.

    plan = plan_render((540, 960), patch=8, lact=LaCTResolution())     # with a detail head
    plan.render_hw, plan.lact_hw                                       # (544, 960), (256, 448)
    plan.tokens, plan.views_at_once(None)                              # 1792, 1
    plan.to_dict()                                                     # for whoever is not Python

With a detail head, LaCT reads and renders at a part of the photos' resolution, and the head renders at their own.
Without one, LaCT renders at the size asked for. Sides are then whole patches: of photos up to a patch is cut off,
frames grow at the right and bottom and the excess is cut off again, so that no pixel is resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nvs_app.errors import NVSError

HEAD_MULTIPLE = 8  # sides of what a detail head looks at and renders are multiples of it
# Tokens rendered at once on a CPU. On two cores larger batches gain nothing (they leave the cache: encoding 8 views of
# 256x256 was a tenth slower) and delay the first image.
CPU_TOKENS = 2048
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
    def exactly(cls, scale: float) -> LaCTResolution:
        """`scale` times the photos' resolution, whatever it is."""
        return cls(scale, least=8, most=2**30)

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
    """How photos are encoded, or views rendered; sizes are (height, width) in pixels.

    Attributes:
        image_hw: as given, or asked for.
        render_hw: what photos are cut to, evenly at all sides; or the frame that is rendered, whose right and bottom
            are cut off to `image_hw` afterwards. No pixel is resampled.
        lact_hw: what LaCT reads or renders, `render_hw` where there is no detail head: photos are shrunk to it
            (averages, or antialiased bilinear), and the head takes what LaCT renders up to `render_hw`.
        detail: whether a detail head follows LaCT.
        patch: side of LaCT's patches.
        encodes: whether photos are encoded; else views are rendered.
    """

    image_hw: tuple[int, int]
    render_hw: tuple[int, int]
    lact_hw: tuple[int, int]
    detail: bool
    patch: int
    encodes: bool

    @property
    def passes(self) -> tuple[str, ...]:
        """What runs, in order: "lact", and "detail" with a detail head."""
        return ("lact", "detail") if self.detail else ("lact",)

    @property
    def tokens(self) -> int:
        """LaCT's tokens of one view."""
        return (self.lact_hw[0] // self.patch) * (self.lact_hw[1] // self.patch)

    def views_at_once(self, gpu_tokens: int | None) -> int:
        """Views that pass through the network at once, 1 or more. gpu_tokens: tokens that a GPU takes at once; None on
        a CPU."""
        pixels = CUDA_PIXELS if gpu_tokens else CPU_READ_PIXELS if self.encodes else CPU_RENDER_PIXELS
        views = (gpu_tokens or CPU_TOKENS) // self.tokens
        if self.detail:
            views = min(views, pixels // (self.render_hw[0] * self.render_hw[1]))
        return max(1, views)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: "image_hw", "render_hw" and "lact_hw" as [height, width], "passes" as a list, "cut" as [bottom,
        right], rows and columns that are cut off a rendered frame, "tokens" of a view, and "words"."""
        cut = [own - wanted for own, wanted in zip(self.render_hw, self.image_hw)]
        return {
            "image_hw": list(self.image_hw),
            "render_hw": list(self.render_hw),
            "lact_hw": list(self.lact_hw),
            "passes": list(self.passes),
            "cut": [0, 0] if self.encodes else cut,
            "tokens": self.tokens,
            "words": self.words,
        }

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


def _plan(
    image_hw: tuple[int, int], multiple: int, encodes: bool, patch: int, lact: LaCTResolution | None
) -> RenderPlan:
    height, width = ((side // multiple if encodes else -(-side // multiple)) * multiple for side in image_hw)
    render_hw = (height, width)
    lact_hw = render_hw if lact is None or 0 in render_hw else lact.hw(render_hw, patch)
    return RenderPlan((image_hw[0], image_hw[1]), render_hw, lact_hw, lact is not None, patch, encodes)


def plan_encode(image_hw: tuple[int, int], patch: int, lact: LaCTResolution | None) -> RenderPlan:
    """How photos of `image_hw` are read; `lact` None: there is no detail head. Raises NVSError for photos smaller than
    a patch."""
    plan = _plan(image_hw, patch if lact is None else max(patch, HEAD_MULTIPLE), True, patch, lact)
    if 0 in plan.render_hw:
        raise NVSError(f"encode: images are {image_hw[0]}x{image_hw[1]}, smaller than one patch of {patch}x{patch}")
    return plan


def plan_render(image_hw: tuple[int, int], patch: int, lact: LaCTResolution | None) -> RenderPlan:
    """How a view of `image_hw` is rendered; `lact` None: there is no detail head."""
    return _plan(image_hw, patch if lact is None else HEAD_MULTIPLE, False, patch, lact)
