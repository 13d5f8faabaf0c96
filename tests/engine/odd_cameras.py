"""Cameras that show what square pixels and centred pictures hide."""

from __future__ import annotations

import torch

from nvs_app.geometry.cameras import Cameras, look_at


def cameras_of(image_hw: tuple[int, int], views: int = 3) -> Cameras:
    """On a circle; pixels that are no squares, the principal point far off the centre."""
    angle = torch.linspace(0, 4.0, views)
    eye = torch.stack((5 * angle.cos(), 5 * angle.sin(), torch.full_like(angle, 1.5)), -1)
    c2w = look_at(eye, torch.zeros(views, 3), torch.tensor([0.0, 0, 1]).expand(views, 3))
    height, width = image_hw
    return Cameras(c2w, torch.tensor([60.0, 75.0, 0.3 * width, 0.7 * height]).expand(views, 4), image_hw)
