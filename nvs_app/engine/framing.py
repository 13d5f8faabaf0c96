"""Cameras for rendering: those of a scene or of a state, brought to the frame that is to be drawn."""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from torch import Tensor

from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import SimilarityTransform
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


def in_frame(state: SceneState, frame: SimilarityTransform) -> SceneState:
    """The same encoded scene for cameras of another world frame.

    frame: maps the frame that `state` takes cameras in to the new one, batch shape (). The fast weights stay; the
    cameras that the state remembers are moved too.
    """
    frame = frame.to("cpu", torch.float64)
    whole = state.transform or SimilarityTransform.identity((1,))
    back = frame.inverse()
    batched = SimilarityTransform(back.scale[None], back.rotation[None], back.translation[None])
    transform = whole.to("cpu", torch.float64).compose(batched).to(whole.scale.device, torch.float32)
    meta = dict(state.meta)
    cameras = context_cameras(state)
    if cameras is not None:
        moved = frame.apply_c2w(cameras.c2w.double()).float()
        meta["context_cameras"] = json.dumps({**json.loads(meta["context_cameras"]), "c2w": moved.tolist()})
    return replace(state, transform=transform, meta=meta)


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
