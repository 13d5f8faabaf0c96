"""More photos for an encoded scene, exactly and by a further step; streams."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_scenes import circle, plain_renderer, posed

from nvs_app.errors import NVSError
from nvs_app.model.adapted import AdaptedWeights
from nvs_app.model.more import spread_out
from nvs_app.model.state import SceneState, context_cameras
from nvs_app.rendering.adding import add_views, encode_again, encode_stream
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages


@pytest.fixture(scope="module", params=[False, True], ids=["lact", "head"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return plain_renderer(request.param)


def test_all_again_is_encoding_all_at_once(tmp_path) -> None:
    """From the scene file alone, whose photos are bytes."""
    renderer, every = plain_renderer(True), posed(6)
    every = PosedImages((every.images * 255).round() / 255, every.cameras)
    own = AdaptedWeights({"output_norm.weight": torch.zeros(32).half()})
    state = replace(renderer.encode(every[:4]), adapted=own)
    loaded = SceneState.load(state.save(tmp_path / "scene.safetensors"))
    found, expected, cameras = encode_again(renderer, loaded, every[4:]), renderer.encode(every), circle(3, (32, 40))
    assert torch.allclose(renderer.render(replace(found, adapted=None), cameras), renderer.render(expected, cameras))
    assert found.adapted is loaded.adapted and len(context_cameras(found)) == 6


def test_a_further_step_knows_the_new_views(renderer: Renderer) -> None:
    every, cameras = posed(6), circle(3, (32, 40))
    state = renderer.encode(every[:4])
    before = renderer.render(state, cameras)
    found = add_views(renderer, state, every[4:])
    assert torch.equal(renderer.render(state, cameras), before)  # the state itself stays as it was
    assert not torch.allclose(renderer.render(found, cameras), before, atol=1e-4)
    assert torch.equal(context_cameras(found).c2w, every.cameras.c2w)
    assert torch.equal(found.transform.translation, state.transform.translation)
    assert "photos" not in found.meta
    for now, then in zip(found.fast_weights, state.fast_weights, strict=True):
        for a, b in zip(now, then, strict=True):  # columns keep their length, as in every step
            assert torch.allclose(a.norm(dim=-2), b.norm(dim=-2), rtol=1e-3)
    if renderer.detail:
        assert found.context.images.shape[1] == 6
        assert torch.equal(found.context.features[:, :4], state.context.features)
        assert torch.equal(found.context.images[0, 4:], (every.images[4:] * 255).round().byte())


def test_features_of_new_views_are_those_of_encoding_them() -> None:
    """Where nothing else differs (no step at all): what the head keeps of a view that was encoded with all others."""
    renderer, every = plain_renderer(True), posed(5)
    head, state = renderer.model.detail_head, renderer.encode(every)
    kept, tokens = state.context, torch.rand(1, 5, 4, 32)
    cameras, images = kept.cameras, every.images[None]
    with torch.inference_mode():
        expected = head.context_views(tokens, (2, 2), images, cameras)
        before = replace(expected.stored(), images=expected.stored().images[:, :4], cameras=cameras[:, :4])
        prior, _ = head._prior(tokens, (2, 2), images)  # what a view is compared with when all come at once
        before = replace(before, features=prior[:, :4].half())
        found = head.more_views(before, tokens[:, 4:], (2, 2), images[:, 4:], cameras[:, 4:])
    assert torch.allclose(found.features[:, 4:].float(), expected.features[:, 4:], atol=5e-3)


def test_a_stream_keeps_what_it_is_told_to(renderer: Renderer) -> None:
    every = posed(11)
    seen = []
    chunks = (every[list(range(i, min(i + 4, 11)))] for i in range(0, 11, 4))
    state = encode_stream(renderer, chunks, every.cameras, 6, lambda count, state: seen.append(count))
    assert seen == [4, 8, 11] and len(context_cameras(state)) == 6
    if renderer.detail:
        assert state.context.images.shape[1] == 6
    assert renderer.render(state, circle(1, (32, 40))).isfinite().all()
    once = encode_stream(renderer, [every], keep=11)
    assert torch.equal(
        renderer.render(once, every.cameras[:1]), renderer.render(renderer.encode(every), every.cameras[:1])
    )


def test_the_views_kept_are_spread(renderer: Renderer) -> None:
    near = circle(12, (8, 8)).c2w
    twice = torch.cat([near, near + 1e-4])
    assert sorted(row % 12 for row in spread_out(twice, 12)) == list(range(12))
    assert spread_out(near, 20) == list(range(12))


def test_mistakes_are_one_line(renderer: Renderer) -> None:
    state, other = renderer.encode(posed(4)), posed(2, (16, 24))
    for add in (add_views, encode_again):
        with pytest.raises(NVSError, match="16x24, the scene was encoded from 32x40|holds no photos"):
            add(renderer, state, other)
    with pytest.raises(NVSError, match="does not tell its cameras"):
        add_views(renderer, replace(state, meta={}), posed(2))
    with pytest.raises(NVSError, match="holds no view"):
        encode_stream(renderer, iter(()))


STREAM = """
import resource, sys
import torch
from small_scenes import circle, plain_renderer
from nvs_app.rendering.adding import encode_stream
from nvs_app.scenes.posed import PosedImages
torch.set_num_threads(1)
cameras = circle(600, (96, 96))
seen = {}
def progress(count, state):
    seen[count] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
chunks = (PosedImages(torch.rand(24, 3, 96, 96), cameras[list(range(i, i + 24))]) for i in range(0, 600, 24))
encode_stream(plain_renderer(True), chunks, cameras, 8, progress)
print(seen[192], seen[600])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_film(repo: Path) -> None:
    """600 frames of 96x96 from a generator: 63 MiB as they are read, 16 MiB as bytes, and 7 of features."""
    path = f"{repo}:{repo / 'tests'}"
    done = subprocess.run(
        [sys.executable, "-c", STREAM], env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"}, capture_output=True,
        text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    early, late = map(float, done.stdout.split())
    assert late - early < 10, f"{early:.0f} MiB after 192 frames, {late:.0f} MiB after 600"
