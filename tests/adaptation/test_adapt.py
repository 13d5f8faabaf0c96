"""Adapting to a scene: what is optimised, what decides, and what must stay as it was."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from small_scenes import circle, network

from nvs_app.adaptation import adapt as adaptation
from nvs_app.adaptation.adapt import AdaptConfig, adapt, asked_before, stopping_views
from nvs_app.adaptation.weights import TrainedWeights
from nvs_app.errors import NVSError
from nvs_app.evaluation.metrics import psnr
from nvs_app.model.lact import LaCT
from nvs_app.model.state import SceneState
from nvs_app.rendering.inputs import photos_of
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages

QUICK = AdaptConfig(
    seconds=1e6, steps=9, groups=2, targets=3, measure_share=1.0, warmup=1, average=0.0, lact_lr=1e-2, head_lr=1e-3
)


def plain_photos(views: int) -> PosedImages:
    """Photos that a few steps come closer to: one colour, a little noise."""
    cameras = circle(views, (16, 24))
    return PosedImages(0.8 + 0.1 * torch.rand(views, 3, 16, 24), cameras)


def perfect(renderer: Renderer, context: PosedImages, state: SceneState) -> PosedImages:
    """The same views, but those that stop show what is rendered of them: nothing can be better."""
    stopping, images = stopping_views(len(context)), context.images.clone()
    train = [i for i in range(len(context)) if i not in stopping]
    images[stopping] = renderer.render(renderer.encode(context[train], state.transform), context.cameras[stopping])
    return PosedImages(images, context.cameras)


def snapshot(model: LaCT) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def run(head: bool):
    """A renderer, its network's weights, its scene, and the scene adapted."""
    torch.manual_seed(0)
    renderer = Renderer(network(head), device="cpu", precision="fp32")
    before, context = snapshot(renderer.model), plain_photos(6)
    state = renderer.encode(context)
    return renderer, before, context, state, adapt(renderer, context, state, QUICK)


@pytest.fixture(scope="module")
def adapted():
    """With LaCT alone, which takes a tenth of the time."""
    return run(False)


@pytest.fixture(scope="module")
def with_head():
    return run(True)


@pytest.mark.parametrize("which", ["adapted", "with_head"])
def test_better_on_views_that_train_nothing(which: str, request: pytest.FixtureRequest) -> None:
    renderer, _, context, state, found = request.getfixturevalue(which)
    assert found.after > found.before and found.steps == 9 and found.stopped == "steps"
    assert found.stopping == stopping_views(6) and [step for _, step, _ in found.curve][-1] == 9
    # The figures are those of the renderer, of the stopping views out of the others.
    train = [i for i in range(6) if i not in found.stopping]
    others = renderer.encode(context[train], state.transform)
    for weights, figure in ((None, found.before), (found.state.adapted, found.after)):
        images = renderer.render(replace(others, adapted=weights), context.cameras[found.stopping])
        assert psnr(images, context.images[found.stopping]).mean() == pytest.approx(figure, abs=1e-3)
    assert asked_before(found.state) == QUICK.seconds and asked_before(state) == 0


def test_stopping_views_train_nothing(adapted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other pixels in them: the same weights after the same steps."""
    renderer, _, context, state, _ = adapted
    figures = itertools.count(10.0)  # the last weights are kept
    monkeypatch.setattr(adaptation._Run, "measure", lambda run, adapted: (next(figures), 0.0))
    images, weights = context.images.clone(), []
    for value in (0.0, 1.0):
        images[stopping_views(6)] = value
        found = adapt(renderer, PosedImages(images, context.cameras), state, replace(QUICK, steps=3))
        weights.append(found.state.adapted.tensors())
    assert weights[0] and all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("which", ["adapted", "with_head"])
def test_the_network_and_other_scenes_stay_as_they_are(which: str, request: pytest.FixtureRequest) -> None:
    renderer, before, context, state, found = request.getfixturevalue(which)
    assert all(torch.equal(before[name], value) for name, value in renderer.model.state_dict().items())
    assert not any(value.requires_grad for value in renderer.model.parameters())
    plain = Renderer(renderer.model, device="cpu", precision="fp32").render(state, context.cameras)
    changed = renderer.render(found.state, context.cameras)
    assert torch.equal(renderer.render(state, context.cameras), plain)  # also after the adapted one
    assert (changed - plain).abs().max() > 1e-3


def test_nothing_better_keeps_the_weights(adapted) -> None:
    """Stopping views that are rendered as they are: the scene stays as it was, and says that it was tried."""
    renderer, _, context, state, _ = adapted
    found = adapt(renderer, perfect(renderer, context, state), state, QUICK)
    assert found.state.adapted is None and found.after == found.before and asked_before(found.state) > 0
    assert min(figure for _, _, figure in found.curve) < found.before
    assert "not adapted" in found.words and not found.facts["changed"]


def test_stops_when_it_no_longer_helps_or_is_asked_to(adapted) -> None:
    renderer, _, context, state, _ = adapted
    found = adapt(
        renderer, perfect(renderer, context, state), state, replace(QUICK, steps=0, patience=2, steps_patience=6)
    )
    assert found.stopped == "no gain" and 6 <= found.steps < 50
    seen = []
    found = adapt(renderer, context, state, replace(QUICK, steps=0), seen.append, lambda: len(seen) == 8)
    assert found.stopped == "asked" and found.steps == 7 and found.after > found.before  # the best so far
    assert [step.step for step in seen] == [0, 0, 1, 2, 3, 4, 5, 6, 7] and seen[-1].best == found.after

    def cancel(step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(renderer, context, state, QUICK, cancel)


def test_few_views_must_gain_clearly(adapted, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gain that is enough of sixteen views is not of six; what comes close keeps it going."""
    renderer, _, context, state, _ = adapted
    gain = adaptation.CLEAR_GAIN
    assert adaptation.least_gain(6) == adaptation.least_gain(15) == gain > 10 * adaptation.least_gain(16)
    rising = replace(QUICK, patience=1, steps_patience=0)
    for last, changed in ((0.9 * gain, False), (1.1 * gain, True)):
        figures = iter([20.0, *(20.0 + last * step / 9 for step in range(1, 10))])
        monkeypatch.setattr(adaptation._Run, "measure", lambda run, adapted, figures=figures: (next(figures), 0.0))
        found = adapt(renderer, context, state, rising)
        assert found.steps == 9 and (found.state.adapted is not None) == changed
        assert found.after == pytest.approx(20.0 + (last if changed else 0.0))


def test_goes_on_from_what_it_has(adapted) -> None:
    renderer, _, context, _, found = adapted
    further = adapt(renderer, context, found.state, QUICK)
    assert further.before == pytest.approx(found.after, abs=1e-3) and further.after >= further.before


@pytest.mark.parametrize("which", ["adapted", "with_head"])
def test_a_scene_file_brings_weights_and_photos(which: str, request: pytest.FixtureRequest, tmp_path) -> None:
    renderer, _, context, state, found = request.getfixturevalue(which)
    loaded = SceneState.load(found.state.save(tmp_path / "scene.safetensors"))
    cameras = circle(3, (16, 24))
    assert torch.equal(renderer.render(loaded, cameras), renderer.render(found.state, cameras))
    photos = photos_of(loaded)
    if renderer.detail:
        assert photos is not None and (photos.float().images - context.images).abs().max() <= 0.51 / 255
        assert torch.equal(photos.cameras.c2w, context.cameras.c2w)
    else:
        assert photos is None


def test_too_few_views_and_too_little_memory(adapted, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer, _, context, state, _ = adapted
    with pytest.raises(NVSError, match="3 input views, expected 4 or more"):
        adapt(renderer, context[:3], state, QUICK)
    with pytest.raises(NVSError, match="-1.0 seconds"):
        AdaptConfig(seconds=-1.0)
    monkeypatch.setattr(adaptation, "free_memory", lambda device: 1000)
    with pytest.raises(NVSError, match=r"6 input views of 16x24 need about .* of memory and 1 kB are free"):
        adapt(renderer, context, state, QUICK)


def test_differences_begin_at_nothing_and_add_up() -> None:
    """Against adding by hand; matrices that only write are left alone."""
    model = network(True).requires_grad_(False)
    weights = TrainedWeights(model, rank=4, seed=0)
    first = weights.parameters()
    assert all(torch.equal(value, model.get_parameter(name)) for name, value in first.items())
    assert not any(name.endswith(("fast.w0", "to_lr.weight")) for name in first)
    for value in (*weights.head, *weights.lact):
        value.data.normal_(std=0.1)
    kept = weights.adapted([*weights.head, *weights.lact])
    applied, name = kept.applied_to(model), "blocks.1.mlp.up.weight"
    up, down = (value.half().float() for value in weights.low_rank[name])
    assert torch.allclose(applied.get_parameter(name), model.get_parameter(name) + up @ down)
    name = "detail_head.query.bias"
    assert torch.allclose(applied.get_parameter(name), model.get_parameter(name) + weights.full[name].half().float())
    assert applied.blocks[0].fast.w0 is model.blocks[0].fast.w0  # shared, not copied
    again = TrainedWeights(model, rank=4, seed=1, start=kept).adapted([*weights.head, *weights.lact])
    assert again.tensors().keys() == kept.tensors().keys()
