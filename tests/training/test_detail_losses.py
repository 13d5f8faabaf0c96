"""Losses of depth."""

from __future__ import annotations

import math

import torch

from nvs_app.model.detail.features import LOG_DEPTH
from nvs_app.model.detail.sweep import Swept
from nvs_app.training.detail_losses import laplace_nll, plane_nll, truth_at


def test_truth_tells_surfaces_sky_background_and_the_unknown_apart() -> None:
    depth = torch.tensor([[2.0, math.inf], [0.0, math.nan]]).repeat_interleave(8, 0).repeat_interleave(8, 1)[None, None]
    truth = truth_at(depth, 8)
    assert truth.counts.tolist() == [[[True, True], [False, False]]]
    assert truth.surface.tolist() == [[[True, False], [False, False]]]
    assert truth.known.tolist() == [[[True, True], [True, False]]]
    torch.testing.assert_close(truth.log_depth[0, 0], torch.tensor([math.log(2), LOG_DEPTH[1]]))


def test_laplace_is_least_where_the_scale_is_the_error() -> None:
    truth = truth_at(torch.ones(1, 1, 8, 8), 8)
    losses = [float(laplace_nll(torch.full((1, 1, 1), 0.1), torch.full((1, 1, 1), math.log(s)), truth))
              for s in (0.05, 0.1, 0.2)]  # fmt: skip
    assert losses[1] < min(losses[0], losses[2])
    torch.testing.assert_close(losses[1], 1 + math.log(0.1), atol=1e-5, rtol=0)


def test_planes_count_where_the_sweep_holds_the_truth() -> None:
    planes = torch.tensor([-0.2, 0.0, 0.2]).view(1, 3, 1, 1)
    nothing = torch.zeros(1, 1, 1, 1)

    def loss(probability: list[float], depth: float) -> float:
        p = torch.tensor(probability).view(1, 3, 1, 1)
        swept = Swept(planes, p, nothing[0], nothing[0], nothing, nothing, nothing[0])
        return float(plane_nll(swept, truth_at(torch.full((1, 1, 8, 8), depth), 8)))

    assert loss([0, 1, 0], 1.0) < 1e-2  # log 1 = 0 is the plane in the middle
    assert abs(loss([0.5, 0.5, 0], math.exp(-0.1)) + math.log(0.5 + 1e-3)) < 1e-4  # half way between two
    assert loss([0, 0, 1], 1.0) > 5
    assert loss([0, 0, 1], 3.0) == 0  # beyond the sweep nothing can be learned from it
