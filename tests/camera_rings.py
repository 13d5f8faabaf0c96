"""Cameras on a circle, for tests of any part."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.geometry.cameras import Cameras, look_at


def ring_c2w(
    count: int,
    radius: float = 3.0,
    height: float = 1.0,
    step: float | None = None,
    start: float = 0.0,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Float[Tensor, "n 4 4"]:
    """c2w of cameras around a vertical axis through ``centre``, at which they look; +z is up.

    Args:
        step: radians from one camera to the next; None: evenly all around.
        start: the first camera's azimuth.
        height: above the centre.
    """
    angle = start + torch.arange(count) * (2 * math.pi / count if step is None else step)
    middle = torch.tensor(centre)
    eye = middle + torch.stack([radius * angle.cos(), radius * angle.sin(), torch.full((count,), height)], -1)
    return look_at(eye, middle, torch.tensor([0.0, 0.0, 1.0]))


def ring_cameras(
    count: int, image_hw: tuple[int, int], fxfycxcy: tuple[float, float, float, float], **ring: Any
) -> Cameras:
    """Cameras [n] of one lens; ``ring`` as in :func:`ring_c2w`."""
    return Cameras(ring_c2w(count, **ring), torch.tensor(fxfycxcy).expand(count, 4), image_hw)
