"""How photos and cameras are brought to what a plan asks for, before the network sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import SimilarityTransform, normalize_context
from nvs_app.model.detail.layers import resize
from nvs_app.model.state import SceneState, context_cameras
from nvs_app.rendering.device import within_memory
from nvs_app.rendering.photos import cut
from nvs_app.rendering.plan import RenderPlan
from nvs_app.scenes.posed import PosedImages


@dataclass(frozen=True)
class ContextInputs:
    """Context views as the network reads them, v of them.

    photos: [v, 3, H, W] of `plan.render_hw`, in [0, 1] on the device with a detail head, else as they were given.
    small: the same at `plan.lact_hw`. cameras: [v] of the photos, in the scene's own frame. normalised: [1, v], the
    same behind `transform`, on the device.
    """

    plan: RenderPlan
    photos: Tensor
    small: Tensor
    cameras: Cameras
    normalised: Cameras
    transform: SimilarityTransform


def context_inputs(
    posed: PosedImages,
    plan_encode: Callable[[tuple[int, int]], RenderPlan],
    device: torch.device,
    preset: str,
    transform: SimilarityTransform | None = None,
) -> ContextInputs:
    """Context views [v] cut to what their plan says, on `device`, their cameras normalised by `preset` from themselves
    alone where no `transform` is given. Raises NVSError."""
    images, cameras = posed.images, posed.cameras
    if images.ndim != 4 or len(images) == 0:
        raise NVSError(f"encode: images are {tuple(images.shape)}, expected [views, 3, H, W] with a view or more")
    plan = plan_encode((images.shape[-2], images.shape[-1]))
    images, cameras = cut(images, cameras, plan.render_hw)
    what = f"encode: {len(images)} context views of {plan.render_hw[0]}x{plan.render_hw[1]}"
    small = images  # copied group by group
    if plan.detail:
        with within_memory(device, what, "give fewer or smaller views"), torch.inference_mode():
            images = images.to(device)
            images = images.float() / 255.0 if images.dtype == torch.uint8 else images.float()
            small = resize(images, plan.lact_hw)
    if transform is None:
        # On the CPU, where cameras come from: 600 tiny operations, a third of what a GPU would have to launch.
        transform = normalize_context(cameras.c2w.cpu()[None], preset)
    transform = transform.to(device)
    normalised = transform.normalise(batched(cameras.to(device)))
    return ContextInputs(plan, images, small, cameras, normalised, transform)


def photos_of(state: SceneState) -> PosedImages | None:
    """The context views that a state was encoded from, uint8, where it holds them; None otherwise."""
    cameras = context_cameras(state)
    if state.context is None or cameras is None or len(cameras) != state.context.images.shape[1]:
        return None
    images = state.context.images[0]
    return PosedImages(images, cameras) if tuple(images.shape[-2:]) == tuple(cameras.image_hw) else None


def cameras_text(cameras: Cameras) -> str:
    """Cameras [v] as a state's notes hold them, see `context_cameras`."""
    c2w, lens = cameras.c2w.tolist(), cameras.fxfycxcy.tolist()
    return json.dumps({"image_hw": list(cameras.image_hw), "c2w": c2w, "fxfycxcy": lens})


def floats(images: Tensor, device: torch.device) -> Tensor:
    """Images on a device, in [0, 1]; a copy that gradients may pass through."""
    images = images.to(device)
    return images.float() / 255.0 if images.dtype == torch.uint8 else images.float().clone()


def batched(cameras: Cameras) -> Cameras:
    """Cameras [v] -> [1, v]."""
    return Cameras(cameras.c2w[None], cameras.fxfycxcy[None], cameras.image_hw)
