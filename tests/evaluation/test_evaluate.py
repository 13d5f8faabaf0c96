"""Evaluation: what is averaged over what, the baselines, the choice of the nearest view."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from camera_rings import ring_c2w
from image_scenes import image_scene

from nvs_app.errors import NVSError
from nvs_app.evaluation.evaluate import EvalConfig, evaluate, nearest_view
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.scene import Scene


@pytest.fixture
def scenes(tmp_path: Path) -> dict[str, Scene]:
    """Scenes of 5 and 7 flat images; image i is gray of value 20 * i."""
    made = {}
    for name, count in (("five", 5), ("seven", 7)):
        images = [np.full((16, 16, 3), 20 * index, np.uint8) for index in range(count)]
        made[name] = image_scene(tmp_path / name, images, ring_c2w(count, step=0.7), (20.0, 20.0, 8.0, 8.0))
    return made


class Gray(Renderer):
    """Answers half gray wherever it looks."""

    def render(self, state, cameras, chunk=None, progress=None):
        return torch.full((len(cameras), 3, *cameras.image_hw), 0.5)


def test_averages_over_views_then_scenes(scenes: dict[str, Scene]) -> None:
    renderer = Gray(LaCT(PRESETS["tiny"]), "cpu")
    config = EvalConfig(image_hw=(16, 16), context=(0, 1))
    seen: list[tuple[str, int, int]] = []
    report = evaluate(renderer, scenes, config, on_progress=lambda *step: seen.append(step))

    def expected(value: float, indices: range) -> float:
        return sum(-20 * math.log10(abs(value - 20 * i / 255)) for i in indices) / len(indices)

    five, seven = report["scenes"]["five"], report["scenes"]["seven"]
    assert five["psnr"] == pytest.approx(expected(0.5, range(2, 5)), abs=1e-4)
    assert seven["psnr"] == pytest.approx(expected(0.5, range(2, 7)), abs=1e-4)
    # Over scenes, not over all views: the larger scene does not count more.
    assert report["overall"]["psnr"] == pytest.approx((five["psnr"] + seven["psnr"]) / 2)
    assert five["baselines"]["white"]["psnr"] == pytest.approx(expected(1.0, range(2, 5)), abs=1e-4)
    assert five["baselines"]["mean_colour"]["psnr"] == pytest.approx(expected(10 / 255, range(2, 5)), abs=1e-4)
    assert five["views"][0] == {
        "index": 2,
        "file": "002.png",
        "psnr": pytest.approx(expected(0.5, range(2, 3)), abs=1e-4),
        "ssim": pytest.approx(five["views"][0]["ssim"]),
        "sharpness": 1.0,  # one grey beside another: neither has gradients
    }
    assert seen == [("five", 3, 3), ("seven", 5, 5)]
    assert report["failed"] == {} and report["lpips"].startswith("not measured")


def test_failed_scenes_are_told_and_left_out(scenes: dict[str, Scene]) -> None:
    renderer = Gray(LaCT(PRESETS["tiny"]), "cpu")
    told: list[tuple[str, str]] = []

    def broken() -> Scene:
        raise NVSError("broken/transforms.json: no frames")

    report = evaluate(
        renderer,
        {"broken": broken, "five": lambda: scenes["five"]},
        EvalConfig(num_context=2, image_hw=(16, 16)),
        on_error=lambda *error: told.append(error),
    )
    assert told == [("broken", "broken/transforms.json: no frames")]
    assert report["failed"] == dict(told) and list(report["scenes"]) == ["five"]
    assert report["overall"]["num_scenes"] == 1
    nothing = evaluate(renderer, {"broken": broken}, EvalConfig(image_hw=(16, 16)))
    assert nothing["overall"]["psnr"] is None  # JSON null, not NaN


def test_nearest_view_looks_at_place_and_direction() -> None:
    c2w = ring_c2w(6, step=0.7)
    context = PosedImages(torch.zeros(6, 3, 4, 4), Cameras(c2w, torch.ones(6, 4), (4, 4)))
    for index in range(6):
        assert nearest_view(context, c2w[index]) == index
    turned = c2w[2].clone()
    turned[:3, :3] = c2w[4, :3, :3]  # in the place of 2, looking as 4 does
    assert nearest_view(context, turned) in (2, 3, 4)


@pytest.mark.parametrize("wrong", [{"num_context": 0}, {"image_hw": (8, 64)}, {"mode": "clever"}])
def test_impossible_configurations(wrong: dict) -> None:
    with pytest.raises(NVSError):
        EvalConfig(**wrong)


def test_real_scene_baselines(repo: Path) -> None:
    """The figures that need no network are known for this scene: a white image 10.6 dB."""
    from data_tools.readers import open_scene

    renderer = Gray(LaCT(PRESETS["tiny"]), "cpu")
    config = EvalConfig(num_context=8, image_hw=(128, 128))
    report = evaluate(renderer, {"chair": open_scene(repo / "examples" / "object_chair")}, config)
    baselines = report["scenes"]["chair"]["baselines"]
    assert baselines["white"]["psnr"] == pytest.approx(10.6, abs=0.15)
    assert 12 < baselines["nearest_view"]["psnr"] < 14
    assert len(report["scenes"]["chair"]["target"]) == 20
    # A plain image has no gradients; another photo of the chair has about as many.
    assert baselines["white"]["sharpness"] < 0.01 and 0.7 < baselines["nearest_view"]["sharpness"] < 1.4
    assert report["overall"]["baselines"]["white"]["sharpness"] == baselines["white"]["sharpness"]
