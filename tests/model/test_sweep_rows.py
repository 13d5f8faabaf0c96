"""On a CPU without gradients a sweep works row by row, with the channels in front: the values are the plain one's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nvs_app.geometry.cameras import look_at
from nvs_app.geometry.warp import plane_rays, relative_pose
from nvs_app.model.detail import sweep
from nvs_app.model.detail.sweep import DepthSweep, Sources

VIEWS, DEPTHS, HW = 3, 5, (16, 24)


def arguments(targets: int) -> tuple[Tensor, Tensor, Tensor, Sources]:
    """Of a sweep: targets and context views around a point, some of whose cells are seen by none."""
    eyes = torch.tensor([0.0, 0.0, -2.0]) + 0.3 * torch.randn(targets + VIEWS, 3)
    c2w = look_at(eyes, torch.zeros_like(eyes), torch.tensor([0.0, 1.0, 0.0]).expand_as(eyes))
    lens, image_hw = torch.tensor([30.0, 30.0, 24.0, 16.0]), (32, 48)
    context = c2w[targets:].expand(targets, -1, -1, -1)
    features = torch.randn(targets, VIEWS, 18, *HW)
    sources = Sources(
        features, relative_pose(c2w[:targets], context), lens.expand(targets, VIEWS, 4).contiguous(), image_hw
    )
    rays = plane_rays(lens.expand(targets, 4).contiguous(), image_hw, HW)
    return torch.randn(targets, 16, *HW), torch.rand(targets, DEPTHS, *HW), rays, sources


@pytest.mark.parametrize("apart", [False, True], ids=["the sources' features", "finer features"])
@pytest.mark.parametrize("cells", [1, 1200, 10**6])
def test_rows_are_the_plain_sweep(monkeypatch: pytest.MonkeyPatch, cells: int, apart: bool) -> None:
    monkeypatch.setattr(sweep, "CPU_CELLS", cells)
    layer, (query, depths, rays, sources) = DepthSweep(4, 8, 8, 2), arguments(2)
    features = torch.randn(2, VIEWS, 16, 32, 48) if apart else None
    plain = layer(query, depths, rays, sources, features)
    with torch.inference_mode():
        fast = layer(query, depths, rays, sources, features)
    assert 0.05 < float(plain.seen.mean()) < 0.95
    for name in plain._fields:
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name).detach())


def test_bfloat16_is_as_close_to_float32_as_the_plain_sweep() -> None:
    layer, (query, depths, rays, sources) = DepthSweep(4, 8, 8, 2), arguments(1)
    true = layer(query, depths, rays, sources)
    with torch.autocast("cpu", torch.bfloat16):
        plain = layer(query.bfloat16(), depths, rays, sources)
        with torch.inference_mode():
            fast = layer(query.bfloat16(), depths, rays, sources)
    for name in ("log_depth", "maps", "views", "seen"):
        ours, theirs = (float((getattr(x, name).float() - getattr(true, name)).norm().detach()) for x in (fast, plain))
        assert ours <= 1.1 * theirs, name
        assert getattr(fast, name).dtype == getattr(plain, name).dtype
