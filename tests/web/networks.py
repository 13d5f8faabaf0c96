"""Tiny networks for the tests of the page."""

from __future__ import annotations

import torch
from torch import Tensor

from nvs_app.model.config import LaCTConfig
from nvs_app.model.detail.config import DetailHeadConfig
from nvs_app.model.lact import LaCT

WITH_HEAD = LaCTConfig(
    dim=32,
    blocks=2,
    attention_head_dim=16,
    detail_head=DetailHeadConfig(features=8, groups=4, guide=16, volume=4, blend=8, planes=4, fine_planes=3),
)


def weights_with_head() -> dict[str, Tensor]:
    """Random ones whose views have surfaces and sky, seen and unseen parts, and some depth."""
    torch.manual_seed(4)
    model = LaCT(WITH_HEAD)
    head = model.detail_head
    assert head is not None
    with torch.no_grad():
        torch.nn.init.normal_(head.guide.prior.weight, std=4.0)
        torch.nn.init.constant_(head.guide.prior.bias, 0.0)
    return model.state_dict()
