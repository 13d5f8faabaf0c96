"""From which directions a capture has seen its scene: all around, or an arc.

arc = covered_arc(azimuth)                # of directions from the focus to the cameras, radians
arc.around, arc.middle, arc.half
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SURROUNDED = math.radians(120.0)  # with no larger gap between neighbours, every side is on some photo
LEAST = math.radians(5.0)  # of half an arc: one view, or a few at one spot; a small sway shows depth


@dataclass(frozen=True)
class Arc:
    """Azimuths in radians that photos cover: all, or those within `half` of `middle`."""

    around: bool
    middle: float
    half: float


def covered_arc(azimuth: Float[Tensor, " v"]) -> Arc:
    """The arc that cameras cover, from their azimuths in radians; one camera or more.

    All around where no gap between neighbours reaches SURROUNDED. Else the circle is cut at each such gap, and the
    part with the most cameras counts (the wider one of equals): from its 5th to its 95th percentile, LEAST to either
    side of its middle at least.
    """
    own = torch.remainder(azimuth.double(), 2 * math.pi).sort().values
    gaps = torch.cat([own[1:] - own[:-1], own[:1] + 2 * math.pi - own[-1:]])
    cuts = (gaps >= SURROUNDED).nonzero()[:, 0].tolist()
    if not cuts:
        return Arc(True, float(own[0]), math.pi)
    # Parts between one cut and the next, the last one over 2 pi.
    doubled = torch.cat([own, own + 2 * math.pi])
    ends = [*cuts, cuts[0] + len(own)]
    parts = [doubled[first + 1 : last + 1] for first, last in zip(ends[:-1], ends[1:])]
    part = max(parts, key=lambda part: (len(part), float(part[-1] - part[0])))
    low, high = torch.quantile(part, part.new_tensor([0.05, 0.95])).tolist()
    middle = math.remainder(0.5 * (low + high), 2 * math.pi)
    return Arc(False, middle, max(0.5 * (high - low), LEAST))


def elevations(direction: Float[Tensor, "v 3"]) -> Float[Tensor, " v"]:
    """Above the horizon of the z axis, radians."""
    return torch.atan2(direction[:, 2], direction[:, :2].norm(dim=-1))


def azimuths(direction: Float[Tensor, "v 3"]) -> Float[Tensor, " v"]:
    """About the z axis from x towards y, radians."""
    return torch.atan2(direction[:, 1], direction[:, 0])


def covered_elevations(direction: Float[Tensor, "v 3"]) -> tuple[float, float]:
    """From the 10th to the 90th percentile, radians; never nearer than 10 degrees to a pole."""
    own = elevations(direction)
    low, high = torch.quantile(own, own.new_tensor([0.1, 0.9])).tolist()
    most = math.radians(80)
    return min(max(low, -most), most), max(min(high, most), -most)
