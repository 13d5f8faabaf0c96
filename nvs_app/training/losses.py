"""Training losses: mean squared error, and a perceptual term that needs no downloaded network.

    loss, parts = image_loss(prediction, target, perceptual=0.01)

The perceptual term compares structure at three scales: the L1 distance of horizontal and vertical differences
(edges), and, from half the resolution down, 1 - SSIM over 7x7 windows (Wang et al. 2004; box windows here, they cost a
third of Gaussian ones, and at full resolution most of the term's time would go into them).
At 25 dB the squared error is 0.003 and the term about 0.1, so the default weight 0.01 sharpens edges while the
squared error, and with it PSNR, still leads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nvs_app.evaluation.metrics import LPIPS

SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
WINDOW = 7
SCALES = 3


def dssim(x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """(1 - SSIM) / 2 over box windows, averaged; 0 for equal images."""
    height, width = x.shape[-2:]
    window = min(WINDOW, height, width)
    # One pooling call over all five moments; every second window is enough for a gradient.
    moments = F.avg_pool2d(torch.cat([x, y, x * x, y * y, x * y], dim=1), window, stride=2)
    mean_x, mean_y, xx, yy, xy = moments.chunk(5, dim=1)
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    ssim = ((2 * mean_x * mean_y + SSIM_C1) * (2 * cov + SSIM_C2)) / (
        (mean_x**2 + mean_y**2 + SSIM_C1) * (var_x + var_y + SSIM_C2)
    )
    return (1 - ssim).mean() / 2


def edge_distance(x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """Mean absolute difference of the horizontal and vertical differences of neighbouring pixels."""
    error = x - y
    return (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()) / 2


def perceptual_distance(x: Float[Tensor, "n c h w"], y: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """Structure term averaged over `SCALES` octaves: edges, plus DSSIM from the second octave on."""
    total = x.new_zeros(())
    used = 0
    for scale in range(SCALES):
        if scale:
            if min(x.shape[-2:]) < 16:
                break
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        total = total + edge_distance(x, y)
        if scale:
            total = total + dssim(x, y)
        used += 1
    return total / used


def image_loss(
    prediction: Float[Tensor, "b v 3 h w"],
    target: Float[Tensor, "b v 3 h w"],
    perceptual: float = 0.01,
    lpips: LPIPS | None = None,
    lpips_weight: float = 0.0,
    inverse_mse_power: float = 0.0,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """MSE + perceptual * structure term (+ lpips_weight * LPIPS).

    Args:
        prediction, target: images in [0, 1], any float type; computed in float32.
        perceptual: weight of the structure term, 0 = off.
        lpips: the network, or None.
        lpips_weight: its weight.
        inverse_mse_power: 0 weighs every image's squared error alike, so that dark or plain images hardly count; 1
            weighs it by its inverse, which makes every image's PSNR count alike; between them, in between.
    Returns:
        the loss, and detached scalars {"loss", "mse", "psnr"[, "perceptual", "lpips"]}; "psnr" in dB is averaged
        over images.
    """
    x, y = prediction.float().flatten(0, 1), target.float().flatten(0, 1)
    each = (x - y).square().mean(dim=(1, 2, 3))
    mse = each.mean()
    # 1e-3 (30 dB): an image that is nearly right must not outweigh the rest.
    importance = ((mse + 1e-3) / (each + 1e-3)).detach() ** inverse_mse_power
    loss = (importance * each).mean() if inverse_mse_power else mse
    parts = {"mse": mse.detach(), "psnr": -10 * each.detach().clamp_min(1e-10).log10().mean()}
    if perceptual:
        structure = perceptual_distance(x, y)
        loss = loss + perceptual * structure
        parts["perceptual"] = structure.detach()
    if lpips is not None and lpips_weight:
        distance = lpips(x, y).mean()
        loss = loss + lpips_weight * distance
        parts["lpips"] = distance.detach()
    return loss, {"loss": loss.detach(), **parts}
