"""Choosing context and target views."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from camera_rings import ring_c2w

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import look_at
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import choose_views, spread_views


def scene_of(c2w: torch.Tensor) -> Scene:
    n = len(c2w)
    hws = torch.full((n, 2), 8)
    return Scene("ring", Path("."), [Path(f"{i}.png") for i in range(n)], c2w, torch.ones(n, 4), hws, [None] * n)


def test_spread_on_a_ring_is_even() -> None:
    chosen = spread_views(ring_c2w(24), 4)
    gaps = [(b - a) % 24 for a, b in zip(chosen, chosen[1:] + chosen[:1])]
    assert chosen == sorted(set(chosen)) and max(gaps) - min(gaps) <= 2


def test_spread_covers_better_than_chance_and_is_deterministic() -> None:
    eye = torch.nn.functional.normalize(torch.randn(60, 3), dim=-1)
    c2w = look_at(eye, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))

    def coverage(chosen: list[int]) -> float:
        return float(torch.cdist(eye, eye[chosen]).amin(1).square().mean())

    chosen = spread_views(c2w, 8)
    assert chosen == spread_views(c2w.clone(), 8)
    by_chance = [coverage(torch.randperm(60)[:8].tolist()) for _ in range(50)]
    assert coverage(chosen) < min(by_chance)
    # Any similarity of the world leaves the choice.
    moved = c2w.clone()
    moved[:, :3, 3] = 7 * moved[:, :3, 3] + 2
    assert spread_views(moved, 8) == chosen


def test_spread_uses_direction_where_cameras_stand_together() -> None:
    angle = torch.arange(12) * (2 * torch.pi / 12)
    ahead = torch.stack([angle.cos(), angle.sin(), 0 * angle], -1)
    c2w = look_at(torch.zeros(12, 3), ahead, torch.tensor([0.0, 0.0, 1.0]))
    chosen = spread_views(c2w, 3)
    gaps = [(b - a) % 12 for a, b in zip(chosen, chosen[1:] + chosen[:1])]
    assert min(gaps) >= 3 and max(gaps) <= 5


def test_spread_limits_and_duplicates() -> None:
    same = torch.eye(4).expand(5, 4, 4)
    assert spread_views(same, 5) == [0, 1, 2, 3, 4]
    assert len(set(spread_views(same, 3))) == 3
    assert spread_views(ring_c2w(7), 7, seed=5) == list(range(7))
    for k in (0, 8):
        with pytest.raises(NVSError, match=f"{k} views asked for, expected 1 to 7"):
            spread_views(ring_c2w(7), k)


def test_choose_views_modes() -> None:
    scene = scene_of(ring_c2w(20))
    spread = choose_views(scene, 5)
    assert len(spread.context) == 5 and sorted(spread.context + spread.target) == list(range(20))
    random = choose_views(scene, 5, mode="random", seed=1)
    assert random == choose_views(scene, 5, mode="random", seed=1)
    assert random != choose_views(scene, 5, mode="random", seed=2)
    listed = choose_views(scene, 0, mode="listed", context=[7, 3], target=[3, 9])
    assert listed.context == [7, 3] and listed.target == [3, 9]
    held_out = choose_views(scene, 19, target=[4])
    assert held_out.context == [i for i in range(20) if i != 4] and held_out.target == [4]
    few = choose_views(scene, 2, max_targets=6)
    assert len(few.target) == 6 == len(set(few.target)) and not set(few.target) & set(few.context)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_context": 20}, "20 context views asked for, expected 1 to 19"),
        ({"num_context": 0}, "expected 1 to 19"),
        ({"num_context": 20, "target": [1]}, "expected 1 to 19"),
        ({"num_context": 3, "mode": "best"}, "'best': unknown, expected one of spread, random, listed"),
        ({"num_context": 3, "mode": "listed"}, "needs a list of context views"),
        ({"num_context": 3, "context": [1, 20]}, "context view 20 does not exist, expected 0 to 19"),
        ({"num_context": 3, "context": [1, -1]}, "context view -1 does not exist"),
        ({"num_context": 3, "context": [1, 2, 1]}, "context view 1 is listed twice"),
        ({"num_context": 3, "target": []}, "list of target views is empty"),
        ({"num_context": 3, "context": list(range(20))}, "none is left to render"),
        ({"num_context": 3, "max_targets": 0}, "max_targets is 0"),
    ],
)
def test_choose_views_refuses(options, message) -> None:
    with pytest.raises(NVSError, match=message):
        choose_views(scene_of(ring_c2w(20)), **options)
