"""The measures of a rendering that reports show, in their order; an older report lacks some.

for measure in shown(figures):      # figures: name -> number, of a view, a scene or all
    print(measure.title, figures[measure.name])
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One measure."""

    name: str
    """In JSON and CSV."""
    title: str
    digits: int
    """Shown behind the point."""
    of_baselines: bool = True
    """Whether the baselines have it too."""
    finite: bool = True
    """Whether every view has it; else it is None where a view does not."""

    def goodness(self, value: float) -> float:
        """Grows as a figure gets better: sharpness is best at 1, LPIPS and depth errors at 0."""
        if self.name == "sharpness":
            return -abs(math.log(max(value, 1e-12)))
        return -value if self.name in ("lpips", "depth_error") else value


PSNR = Measure("psnr", "PSNR", 2)
MEASURES = (
    PSNR,
    Measure("ssim", "SSIM", 4),
    Measure("sharpness", "sharpness", 3),
    Measure("lpips", "LPIPS", 4, of_baselines=False),
    Measure("depth_error", "depth error", 3, of_baselines=False, finite=False),
)
BASELINE_MEASURES = tuple(measure for measure in MEASURES if measure.of_baselines)


def shown(figures: Container[str], beside_psnr: bool = False) -> list[Measure]:
    """The measures that are in `figures`; `beside_psnr`: the others than PSNR."""
    return [m for m in MEASURES if m.name in figures and not (beside_psnr and m is PSNR)]
