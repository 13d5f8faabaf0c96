"""Cameras for rendering: those of a scene or of a state, brought to the frame that is to be drawn."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from nvs_app.geometry.cameras import Cameras
from nvs_app.model.state import SceneState


def context_cameras(state: SceneState) -> Cameras | None:
    """The context cameras [v] that a state was encoded from, in the scene's own frame; None when it has none."""
    text = state.meta.get("context_cameras")
    if not text:
        return None
    values = json.loads(text)
    height, width = values["image_hw"]
    return Cameras(
        torch.tensor(values["c2w"], dtype=torch.float32),
        torch.tensor(values["fxfycxcy"], dtype=torch.float32),
        (int(height), int(width)),
    )


def with_vertical_fov(cameras: Cameras, degrees: float | Tensor, image_hw: tuple[int, int] | None = None) -> Cameras:
    """Cameras [v] of the same poses with square pixels, a centred principal point, and this vertical field of view
    (one, or [v]) in a frame of `image_hw` (None: the one they have)."""
    height, width = image_hw or cameras.image_hw
    angle = torch.as_tensor(degrees, dtype=cameras.fxfycxcy.dtype, device=cameras.device).expand(cameras.shape)
    focal = 0.5 * height / torch.tan(torch.deg2rad(angle) / 2)
    centre = focal.new_tensor([width / 2, height / 2]).expand(*cameras.shape, 2)
    return Cameras(cameras.c2w, torch.cat((focal[..., None], focal[..., None], centre), dim=-1), (height, width))


def vertical_fov(cameras: Cameras) -> Tensor:
    """Vertical field of view of each camera in degrees, as if its principal point were centred."""
    return torch.rad2deg(2 * torch.atan(0.5 * cameras.image_hw[0] / cameras.fxfycxcy[..., 1]))
