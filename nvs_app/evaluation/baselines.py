"""Answers that need no network of ours, to stand beside it: the context's mean colour, the nearest context view, and
whether a Gaussian splatting fit of the same context can be made here (`gaussians`).

    reason = gsplat_missing(device)          # None: `fit_gsplat(context, cameras, steps)` can run
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

DESCRIPTIONS = {
    "nearest_view": "the context image whose camera is nearest",
    "mean_colour": "the mean colour of the context images",
    "gsplat": "3D Gaussian splatting fitted to the same context",
}


def nearest_views(context: Float[Tensor, "n 4 4"], target: Float[Tensor, "t 4 4"]) -> Int[Tensor, " t"]:
    """Row of the context camera nearest to each target camera: distance of positions, in units of the context's
    mean distance from its middle, plus the angle between viewing directions in radians."""
    context, target = context.float(), target.float()
    position = context[:, :3, 3]
    spread = (position - position.mean(0)).norm(dim=-1).mean().clamp_min(1e-6)
    distance = (target[:, None, :3, 3] - position).norm(dim=-1) / spread
    angle = torch.acos((target[:, None, :3, 2] * context[:, :3, 2]).sum(-1).clamp(-1, 1))
    return (distance + angle).argmin(dim=1)


def mean_colour(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "1 3 1 1"]:
    """The mean over images and pixels."""
    return images.float().mean((0, 2, 3)).view(1, 3, 1, 1)


def gsplat_missing(device: torch.device) -> str | None:
    """Why gsplat cannot fit scenes here; None when it can. Compiles its kernels where they are not compiled yet."""
    if device.type != "cuda":
        return "it needs a GPU"
    try:
        from gsplat import rasterization
    except (ImportError, OSError, RuntimeError) as error:
        return f"the package gsplat does not import ({error})"
    try:
        one = torch.ones(1, device=device)
        rasterization(
            torch.tensor([[0.0, 0.0, 2.0]], device=device), torch.tensor([[1.0, 0, 0, 0]], device=device),
            one.view(1, 1).expand(1, 3), one, one.view(1, 1).expand(1, 3), torch.eye(4, device=device)[None],
            torch.tensor([[[8.0, 0, 8], [0, 8, 8], [0, 0, 1]]], device=device), 16, 16,
        )  # fmt: skip
    except (RuntimeError, AttributeError, ImportError, OSError, TypeError) as error:
        return f"gsplat's kernels do not run here ({' '.join(str(error).split())[:120]})"
    return None
