"""Tiny networks for the tests of the page."""

from nvs_app.model.config import LaCTConfig
from nvs_app.model.detail.config import DetailHeadConfig

WITH_HEAD = LaCTConfig(
    dim=32,
    blocks=2,
    attention_head_dim=16,
    detail_head=DetailHeadConfig(features=8, groups=4, guide=16, volume=4, blend=8, planes=4, fine_planes=3),
)
