"""Held-out views: the page's figures are those of `nvs_app eval`, and error maps mean what they say."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.readers import open_scene
from nvs_app.errors import NVSError
from nvs_app.evaluation.evaluate import EvalConfig, evaluate_scene
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.views import ViewSplit
from nvs_app.web.services.truth import compare_views, error_map, error_top, held_out, image_uri, legend_uri


def test_figures_are_those_of_eval(small_scene: Path) -> None:
    renderer, scene = Renderer(LaCT(PRESETS["tiny"]), "cpu"), open_scene(small_scene)
    config = EvalConfig(num_context=3, image_hw=(32, 32))
    split = config.choose(scene)
    expected = evaluate_scene(renderer, scene, config)
    state = renderer.encode(scene.load(split.context, (32, 32)))
    calls: list[int] = []

    def draw(cameras):
        calls.append(len(cameras))
        return renderer.render(state, cameras)

    truth = compare_views(draw, scene, split.target, (32, 32), chunk=2)
    assert calls == [2, 1]
    assert truth.psnr == pytest.approx(expected["psnr"], abs=1e-4)
    assert truth.ssim == pytest.approx(expected["ssim"], abs=1e-5)
    for mine, theirs in zip(truth.views, expected["views"]):
        assert mine.index == theirs["index"] and theirs["file"].endswith(mine.name)
        assert mine.psnr == pytest.approx(theirs["psnr"], abs=1e-4)
        assert mine.ssim == pytest.approx(theirs["ssim"], abs=1e-5)
        photo = np.asarray(Image.open(scene.image_paths[mine.index]).convert("RGB"))
        assert mine.photo.shape == mine.rendered.shape == mine.error.shape == (32, 32, 3)
        assert abs(float(mine.photo.mean()) - float(photo.mean())) < 8
    assert truth.rows[-1] == ("mean of 3", f"{truth.psnr:.2f}", f"{truth.ssim:.3f}")
    assert truth.rows[0][0] == f"{split.target[0]} · {scene.image_paths[split.target[0]].name}"


def test_error_map_is_ordered_and_ranged() -> None:
    photo = torch.zeros(3, 4, 5)
    rendered = torch.linspace(0, 0.4, 5).expand(3, 4, 5)
    colours = error_map(rendered, photo, 0.2).astype(int)
    light = colours[0] @ [2, 7, 1]
    assert list(light[:3]) == sorted(light[:3]) and light[0] < 40 and len(set(light[:3])) == 3
    assert (colours[0, 2] == colours[0, 4]).all()  # 0.2 and beyond look alike
    bar = np.asarray(Image.open(io.BytesIO(base64.b64decode(legend_uri().partition(",")[2]))))
    assert (colours[0, 4] == bar[0, -1]).all() and (colours[0, 0] == bar[0, 0]).all()
    assert error_top([torch.full((9, 9), 0.15)]) == 0.2
    assert error_top([torch.zeros(9, 9), torch.zeros(5, 2)]) == 0.1
    assert error_top([torch.full((9, 9), 0.9)]) == 1.0
    uri = image_uri(colours.astype(np.uint8))
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert (decoded == colours).all()


def test_views_are_chosen_evenly() -> None:
    split = ViewSplit([0, 5], [*range(1, 5), *range(6, 26)])
    assert held_out(split, 4) == [4, 11, 17, 23]
    assert held_out(split, 100) == split.target
    assert held_out(ViewSplit([0, 1], [1, 2])) == [2]  # what was read is no truth
    assert held_out(ViewSplit([0], [])) == []


def test_mistakes_and_cancel(small_scene: Path) -> None:
    scene = open_scene(small_scene)

    def white(cameras):
        return torch.ones(len(cameras), 3, *cameras.image_hw)

    for indices, image_hw, said in (
        ([], (32, 32), "no view is held out"),
        ([1, 1], (32, 32), "listed twice"),
        ([99], (32, 32), "view 99 does not exist"),
        ([1], (8, 8), "at least 11x11"),
    ):
        with pytest.raises(NVSError, match=said):
            compare_views(white, scene, indices, image_hw)
