"""A slow turn that stays where a capture has seen its scene: it runs beside the cameras, at their heights.

    path = sway(scene.cameras(image_hw=(256, 256)), start=3, n=90)     # Cameras [n]; camera n would be camera 0 again

Around the scene where cameras surround it, to and fro within the covered arc elsewhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.coverage import azimuths, elevations
from nvs_app.geometry.layout import OUTWARD, Layout

WIDTH = math.radians(22.0)  # of azimuth, within which cameras have a say in the height and the distance of the path
INSIDE = 0.9  # of the arc; its very ends have cameras to one side only
HIGHEST = math.radians(80.0)


def sway(cameras: Cameras, start: int, n: int) -> Cameras:
    """The turn as n cameras that close.

    Args:
        cameras: the capture's, or its input views', [v], in the scene's frame.
        start: number of the camera that it begins at: there it stands, looking at what the capture looks at.
        n: number of cameras.

    Raises:
        NVSError: no such camera, or n below 1.
    """
    cameras = cameras.flatten()
    if n < 1 or not 0 <= start < len(cameras):
        raise NVSError(f"sway: {n} cameras from camera {start}, expected 1 or more and one of {len(cameras)}")
    layout = Layout.of(cameras.c2w)
    own = layout.transform.apply_c2w(cameras.c2w.double())
    sight = -own[:, :3, 2] if layout.kind == OUTWARD else own[:, :3, 3] - layout.target
    around, heights, reaches = azimuths(sight), elevations(sight), sight.norm(dim=-1).clamp_min(1e-6).log()
    arc = layout.arc
    phase = torch.arange(n, dtype=torch.float64, device=own.device) * (2 * math.pi / n)
    if arc.around:
        azimuth = around[start] + phase
    else:
        half = INSIDE * arc.half
        off = math.remainder(float(around[start]) - arc.middle, 2 * math.pi)
        begin = math.asin(min(max(off / half, -1.0), 1.0))
        azimuth = arc.middle + half * torch.sin(begin + phase)
    # Beside the cameras near each azimuth, and exactly at the first one where it begins.
    known = torch.stack([heights, reaches], dim=-1)
    path = _near(azimuth, around, known)
    begun = known[start] - path[0]
    path = path + begun * torch.exp(-0.5 * (_turned(azimuth - azimuth[0]) / WIDTH) ** 2)[:, None]
    elevation = path[:, 0].clamp(-HIGHEST, HIGHEST)
    reach = layout.radius.expand(n) if layout.kind == OUTWARD else path[:, 1].exp()
    return layout.look(cameras, azimuth, elevation, reach[:, None])


def _near(azimuth: Tensor, around: Tensor, values: Tensor) -> Tensor:
    """Averages of values [v, k] of cameras at `around` [v] for azimuths [n], the near ones first of all, [n, k]."""
    off = _turned(azimuth[:, None] - around[None])
    weight = torch.exp(-0.5 * (off / WIDTH) ** 2) + 1e-3 / (1.0 + (off / WIDTH) ** 2)  # in a gap, both its ends
    return (weight / weight.sum(-1, keepdim=True)) @ values


def _turned(angle: Tensor) -> Tensor:
    """An angle from -pi to pi."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
