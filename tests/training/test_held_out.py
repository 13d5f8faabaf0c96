"""Held-out figures of training are those of `evaluate`, of the weights as they are, without a copy of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_fakes import fake_procedural, make_scene

from data_tools.readers import open_scene
from nvs_app.errors import NVSError
from nvs_app.evaluation.evaluate import EvalConfig, evaluate
from nvs_app.model.config import LaCTConfig
from nvs_app.model.detail import DetailHeadConfig
from nvs_app.model.lact import LaCT
from nvs_app.rendering.plan import LaCTResolution
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages
from nvs_app.training.held_out import HeldOut

HEAD = DetailHeadConfig(features=8, groups=4, guide=16, volume=4, blend=8, planes=4, fine_planes=3)
HW = (32, 32)


def network(head: DetailHeadConfig | None = None) -> LaCT:
    torch.manual_seed(1)
    return LaCT(LaCTConfig(dim=32, blocks=2, attention_head_dim=16, detail_head=head))


@pytest.mark.parametrize("head", [None, HEAD], ids=["lact", "detail"])
def test_figures_are_those_of_evaluate(head: DetailHeadConfig | None, tmp_path: Path) -> None:
    folder = make_scene(tmp_path / "a scene", side=40)
    model = network(head)
    renderer = Renderer(model, "cpu", "fp32", lact=LaCTResolution.exactly(0.5))
    held_out = HeldOut([folder], 4)

    def expected() -> dict[str, float]:
        psnr = evaluate(renderer, {"a scene": open_scene(folder)}, EvalConfig(4, HW))["overall"]["psnr"]
        return {"a scene": round(psnr, 3), "mean": round(psnr, 3)}

    first = held_out.evaluate(renderer, HW)
    assert first == expected()
    with torch.no_grad():  # the next step's weights, in place
        model.output_linear.weight.mul_(9)
    changed = held_out.evaluate(renderer, HW)
    assert changed == expected() and changed != first


def test_many_targets_are_thinned_as_eval_does(tmp_path: Path) -> None:
    folder = make_scene(tmp_path / "long", views=80, side=16)
    renderer = Renderer(network(), "cpu", "fp32")
    found = HeldOut([folder], 4).evaluate(renderer, (16, 16))
    report = evaluate(renderer, {"long": open_scene(folder)}, EvalConfig(4, (16, 16), max_targets=64))
    assert found["long"] == round(report["scenes"]["long"]["psnr"], 3)
    assert len(report["scenes"]["long"]["target"]) == 64


def test_procedural_scenes_are_made_in_groups_and_averaged() -> None:
    asked: list[list[int]] = []

    def make(numbers: list[int], views: int, image_hw: tuple[int, int]) -> PosedImages:
        asked.append(numbers)
        return fake_procedural(numbers, views, image_hw)

    renderer = Renderer(network(), "cpu", "fp32")
    together = HeldOut([], 3, make, procedural=3, generate=2, views=12).evaluate(renderer, (16, 16))
    assert asked == [[0, 1], [2, 3]] and set(together) == {"procedural"}
    apart = [
        HeldOut([], 3, lambda _, views, hw, n=n: fake_procedural([n], views, hw), 1, 1, 12).evaluate(renderer, (16, 16))
        for n in range(3)
    ]
    assert together["procedural"] == pytest.approx(sum(figures["procedural"] for figures in apart) / 3, abs=1e-3)


def test_too_few_views_are_told(tmp_path: Path) -> None:
    with pytest.raises(NVSError, match="--evaluation.context: .* has only"):
        HeldOut([make_scene(tmp_path / "short", views=4)], 4)
