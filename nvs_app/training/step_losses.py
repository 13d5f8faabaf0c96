"""The loss of a training step: LaCT's own image, and, where the network has a detail head, the head's image and its
depths."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from nvs_app.evaluation.metrics import LPIPS
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.detail import Sampling
from nvs_app.model.detail.layers import resize
from nvs_app.model.lact import LaCT
from nvs_app.rendering.plan import LaCTResolution
from nvs_app.training.config import TrainConfig
from nvs_app.training.detail_losses import depth_loss
from nvs_app.training.losses import image_loss
from nvs_app.training.sampling import Examples


def smaller(images: Float[Tensor, "b v 3 h w"], scale: float, patch: int) -> Float[Tensor, "b v 3 h2 w2"]:
    """Images at a share of their resolution, sides whole patches."""
    hw = lact_hw((images.shape[-2], images.shape[-1]), scale, patch)
    return resize(images.flatten(0, 1), hw).unflatten(0, images.shape[:2])


def lact_hw(image_hw: tuple[int, int], scale: float, patch: int) -> tuple[int, int]:
    """The size at which LaCT reads and draws images of `image_hw`."""
    return LaCTResolution.exactly(scale).hw(image_hw, patch)


def step_losses(
    model: LaCT,
    examples: Examples,
    config: TrainConfig,
    step: int,
    autocast: Callable[[], contextlib.AbstractContextManager],
    lpips: LPIPS | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The loss to descend, and detached scalars for the log ("psnr" of what a user would see, "psnr_lact" of LaCT's own
    image at its own size, errors of depth as `depth_loss` names them)."""

    def compared(prediction: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        own = config.loss
        return image_loss(prediction, target, own.perceptual, lpips, own.lpips_weight, own.inverse_mse_power)

    if model.detail_head is None:
        with autocast():
            prediction = model(examples.context_images, examples.context, examples.target)
        return compared(prediction, examples.target_images)
    detail = config.detail
    scale = detail.lact_scales[step % len(detail.lact_scales)]
    patch = model.config.patch
    images, target = (smaller(x, scale, patch) for x in (examples.context_images, examples.target_images))
    hw = (images.shape[-2], images.shape[-1])

    def scaled(cameras: Cameras) -> Cameras:
        return cameras.scaled_to(hw)

    counts = detail.head_views
    with autocast():
        drawn, context, output = model.forward_detail(
            images, scaled(examples.context), scaled(examples.target), examples.context_images, examples.context,
            examples.target, Sampling(views=counts[step % len(counts)] if counts else None),
        )  # fmt: skip
    loss, scalars = compared(output.images, examples.target_images)
    if detail.lact_weight and detail.lact_lr:
        own, own_scalars = compared(drawn, target)
        loss, scalars["psnr_lact"] = loss + detail.lact_weight * own, own_scalars["psnr"]
    if detail.depth_weight and examples.target_depth is not None and examples.context_depth is not None:
        depth, figures = depth_loss(output, context, examples.target_depth, examples.context_depth)
        loss, scalars = loss + detail.depth_weight * depth, scalars | figures
    scalars["from_photos"] = output.from_photos.detach().mean()
    return loss, scalars | {"loss": loss.detach()}
