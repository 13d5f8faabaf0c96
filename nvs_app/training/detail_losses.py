"""Losses of the detail head's geometry, from the depth that the generator knows.

Depth is z along the camera's axis in the normalised frame: 0 where there is no surface (a plain background, whose depth
nobody can know), inf for sky (the far end of what the head can say), NaN where it is not known (real photos).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nvs_app.model.detail.features import LOG_DEPTH, Guide
from nvs_app.model.detail.head import ContextViews, DetailOutput
from nvs_app.model.detail.sweep import Swept

WORST = 0.5  # of log depth: what is lost altogether must not outweigh the rest


class Truth(NamedTuple):
    """log_depth and masks [n, h, w]: where it counts, and where there is a surface or not."""

    log_depth: Tensor
    counts: Tensor
    surface: Tensor
    known: Tensor


def truth_at(depth: Float[Tensor, "*b h w"], factor: int) -> Truth:
    """The true depth at the centres of cells of `factor` x `factor` pixels."""
    cells = depth.flatten(0, -3)[:, factor // 2 :: factor, factor // 2 :: factor].float()
    known, far = ~cells.isnan(), cells.isinf()
    surface = known & ~far & (cells > 0)
    clamped = torch.where(surface, cells, 1.0).log().clamp(*LOG_DEPTH)
    return Truth(torch.where(far, LOG_DEPTH[1], clamped), surface | far, surface, known)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)


def laplace_nll(log_depth: Tensor, log_scale: Tensor, truth: Truth) -> Float[Tensor, ""]:
    """Negative log likelihood of a Laplace distribution, up to a constant."""
    return _mean((log_depth - truth.log_depth).abs() * (-log_scale).exp() + log_scale, truth.counts)


def plane_nll(swept: Swept, truth: Truth) -> Float[Tensor, ""]:
    """Negative log of the probability of the two planes around the true depth, where the sweep holds it."""
    first, last = swept.hypotheses[:, 0], swept.hypotheses[:, -1]
    spacing = ((last - first) / (swept.hypotheses.shape[1] - 1)).clamp_min(1e-4)
    share = (1 - (truth.log_depth[:, None] - swept.hypotheses).abs() / spacing[:, None]).clamp_min(0)
    likelihood = (swept.probability * share).sum(1)
    within = truth.counts & (truth.log_depth >= first) & (truth.log_depth <= last)
    return _mean(-(likelihood + 1e-3).log(), within)


def depth_loss(
    output: DetailOutput, context: ContextViews, target_depth: Float[Tensor, "b t h w"],
    context_depth: Float[Tensor, "b v h w"],
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:  # fmt: skip
    """The loss of all depths that the head says, and detached figures.

    target_depth, context_depth: at the sizes of the rendered images and of the photos.
    Figures: depth_prior, depth_first, depth: mean errors of log depth after each stage; depth_context: of the context
    views; depth_2pc: share of pixels within 2 %.
    """
    assert context.guide is not None and context.swept is not None
    eighth, quarter, half, full = (truth_at(target_depth, factor) for factor in (8, 4, 2, 1))
    own_eighth, own_quarter = (truth_at(context_depth, factor) for factor in (8, 4))

    def error(log_depth: Tensor, truth: Truth) -> Tensor:
        return _mean((log_depth - truth.log_depth).abs().clamp_max(WORST), truth.counts)

    def prior(guide: Guide, truth: Truth) -> Tensor:
        surface = F.binary_cross_entropy_with_logits(guide.surface, truth.surface.float(), reduction="none")
        return laplace_nll(guide.log_depth, guide.log_scale, truth) + _mean(surface, truth.known)

    own = context.features[:, :, -2:].flatten(0, 1)
    first, second, whole = (
        error(output.first.log_depth, eighth), error(output.second.log_depth, quarter), error(output.log_depth, full)
    )  # fmt: skip
    of_context = error(context.swept.log_depth, own_eighth)
    loss = (
        0.01 * (prior(output.guide, eighth) + prior(context.guide, own_eighth))
        + 0.01 * laplace_nll(output.second.log_depth, output.log_scale, quarter)
        + 0.01 * laplace_nll(own[:, 0], own[:, 1], own_quarter)
        + 0.01 * (plane_nll(output.first, eighth) + plane_nll(output.second, quarter))
        + 0.01 * plane_nll(context.swept, own_eighth)
        + 0.05 * (first + second + whole + of_context)
    )
    if output.third is not None:
        third = error(output.third.log_depth, half)
        loss = loss + 0.01 * plane_nll(output.third, half) + 0.05 * third
    with torch.no_grad():
        close = ((output.log_depth - full.log_depth).abs() < 0.02).float()
        figures = {
            "depth_prior": error(output.guide.log_depth, eighth),
            "depth_first": first.detach(),
            "depth": whole.detach(),
            "depth_context": of_context.detach(),
            "depth_2pc": _mean(close, full.counts),
        }
    return loss, figures
