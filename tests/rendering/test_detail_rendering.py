"""Rendering through the detail head: depth in the scene's units, any sizes, states, and LaCT alone beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_scenes import HEAD, circle, moved, network, plain_renderer, posed

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.detail import DetailHeadConfig, Sampling
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer
from nvs_app.rendering.views import RenderedViews
from nvs_app.scenes.posed import PosedImages


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return plain_renderer(True)


def test_depth_is_in_the_units_of_the_scene(renderer: Renderer) -> None:
    """In a world that is scaled, turned and moved, images, uncertainty and surfaces stay, and depth is scaled."""
    context, targets = posed(), circle(2, (32, 40))
    views = renderer.render(renderer.encode(context), targets, depth=True)
    assert views.depth.shape == views.uncertainty.shape == views.surface.shape == views.seen.shape == (2, 32, 40)
    assert views.depth.dtype == torch.float32 and views.depth.device.type == "cpu"
    assert torch.equal(views.images, renderer.render(renderer.encode(context), targets))
    for name in ("surface", "seen"):
        assert 0 <= getattr(views, name).min() <= getattr(views, name).max() <= 1
    # The untrained prior lies about where the cameras look: 5 away, give or take a few times.
    assert views.depth.min() > 0.5 and views.depth.max() < 50
    for scale in (7.0, 0.2):
        state = renderer.encode(PosedImages(context.images, moved(context.cameras, scale)))
        again = renderer.render(state, moved(targets, scale), depth=True)
        assert torch.allclose(again.depth / scale, views.depth, rtol=1e-3)
        for name in ("images", "uncertainty", "surface", "seen"):
            assert torch.allclose(getattr(again, name), getattr(views, name), atol=5e-3)


def test_photos_and_views_of_any_sizes(renderer: Renderer) -> None:
    """No multiples of 8, views larger and smaller than the photos and of another shape; frames are cuts of padded
    ones, maps too."""
    state = renderer.encode(posed(3, (37, 45)))
    assert state.context is not None and state.context.cameras.image_hw == (32, 40)
    for image_hw, padded in (((33, 47), (40, 48)), ((70, 50), (72, 56)), ((9, 90), (16, 96)), ((1, 1), (8, 8))):
        cameras = circle(2, image_hw)
        views = renderer.render(state, cameras, depth=True)
        whole = renderer.render(state, Cameras(cameras.c2w, cameras.fxfycxcy, padded), depth=True)
        for name, values in vars(views).items():
            assert values.shape[-2:] == image_hw and values.isfinite().all()
            cut = getattr(whole, name)[..., : image_hw[0], : image_hw[1]]
            assert torch.allclose(values, cut, atol=1e-5, rtol=1e-4)


def test_chunks_and_streams_change_nothing(renderer: Renderer) -> None:
    state, cameras = renderer.encode(posed(4)), circle(5, (24, 24))
    told: list[int] = []
    whole = renderer.render(state, cameras, chunk=5, depth=True)
    parts = renderer.render(state, cameras, chunk=2, progress=told.append, depth=True)
    assert told == [2, 2, 1]
    stream = list(renderer.stream(state, cameras, 3, depth=True))
    assert [len(part) for part in stream] == [3, 2]
    for name, values in vars(whole).items():
        assert torch.allclose(values, getattr(parts, name), atol=1e-4, rtol=1e-4)
        assert torch.allclose(values, getattr(RenderedViews.cat(stream), name), atol=1e-4, rtol=1e-4)
    # Neither does encoding by chunks.
    by_one = renderer.render(renderer.encode(posed_again(4), chunk=1), cameras)
    assert torch.allclose(by_one, renderer.render(renderer.encode(posed_again(4), chunk=4), cameras), atol=5e-3)


def posed_again(views: int) -> PosedImages:
    torch.manual_seed(7)
    return posed(views)


def test_the_order_of_the_context_changes_nothing(renderer: Renderer) -> None:
    context, targets = posed(6), circle(3, (32, 40))
    order = [3, 0, 5, 1, 4, 2]
    views = renderer.render(renderer.encode(context), targets, depth=True)
    again = renderer.render(renderer.encode(context[order]), targets, depth=True)
    for name, values in vars(views).items():
        assert torch.allclose(values, getattr(again, name), atol=5e-3, rtol=5e-3), name


def test_states_on_disk_render_the_same_with_depth(renderer: Renderer, tmp_path) -> None:
    state, cameras = renderer.encode(posed()), circle(2, (24, 24))
    loaded = SceneState.load(state.save(tmp_path / "state.safetensors"))
    assert loaded.context is not None
    assert (loaded.context.images.dtype, loaded.context.features.dtype) == (torch.uint8, torch.float16)
    views, again = (renderer.render(s, cameras, depth=True) for s in (state, loaded))
    assert all(torch.equal(values, getattr(again, name)) for name, values in vars(views).items())


def test_no_detail_is_lact(renderer: Renderer) -> None:
    """Encoded without the head, LaCT reads and renders at the full size, as a network that has none; of a state of the
    head's, it renders the fast weights that are there."""
    alone, none = Renderer(renderer.model, "cpu", "fp32", detail=False), plain_renderer(False)
    none.model.load_state_dict(renderer.model.state_dict(), strict=False)
    assert not alone.detail and alone.settings((32, 40)) == {"detail": False, "plan": "32x40"}
    context, cameras = posed(), circle(2, (32, 40))
    state = alone.encode(context)
    assert state.context is None
    assert torch.allclose(alone.render(state, cameras), none.render(none.encode(context), cameras), atol=1e-6)
    state = renderer.encode(context)
    assert state.transform is not None
    with torch.inference_mode():
        targets = state.transform.normalise(Cameras(cameras.c2w[None], cameras.fxfycxcy[None], cameras.image_hw))
        expected = renderer.model.decode(state, targets)[0]
    assert torch.allclose(alone.render(state, cameras), expected, atol=1e-6)
    assert (alone.render(state, cameras) - renderer.render(state, cameras)).abs().max() > 0.01
    with pytest.raises(NVSError, match="checkpoint tiny has no detail head in use"):
        alone.render(state, cameras, depth=True)


def test_a_state_without_photos_is_rendered_by_lact(renderer: Renderer) -> None:
    """As states of before the head are; and there is no depth in them."""
    alone = Renderer(renderer.model, "cpu", "fp32", detail=False)
    state, cameras = alone.encode(posed()), circle(2, (33, 40))
    assert torch.equal(renderer.render(state, cameras), alone.render(state, cameras))
    with pytest.raises(NVSError, match="the state holds no photos"):
        renderer.render(state, cameras, depth=True)
    full = renderer.encode(posed())
    bare = replace(full, context=None)
    assert torch.equal(renderer.render(bare, cameras), alone.render(full, cameras))


def test_views_that_are_looked_at(renderer: Renderer) -> None:
    """More or fewer than configured; more than there are is all."""
    assert renderer.settings((32, 40)) == {"detail": True, "views": HEAD.views, "plan": "32x40, LaCT at 16x16"}
    state, cameras = renderer.encode(posed(6)), circle(2, (32, 40))

    def looking(views: int | None) -> torch.Tensor:
        other = Renderer(renderer.model, "cpu", "fp32", views=views)
        assert other.settings()["views"] == (views or HEAD.views)
        return other.render(state, cameras)

    assert torch.equal(looking(None), looking(HEAD.views))
    assert (looking(1) - looking(None)).abs().max() > 1e-3
    assert torch.equal(looking(6), looking(60))
    assert looking(2).isfinite().all()
    with pytest.raises(NVSError, match="detail head looks at: 0, expected 1 or more"):
        Renderer(network(True), "cpu", views=0)


def test_one_photo_is_enough(renderer: Renderer) -> None:
    views = renderer.render(renderer.encode(posed(1)), circle(2, (32, 40)), depth=True)
    assert all(values.isfinite().all() for values in vars(views).values())


def test_views_coarser_than_the_photos_see_averaged_ones(renderer: Renderer) -> None:
    """A quarter of the photos' resolution: photos are halved twice, so that fine noise does not flicker."""
    torch.manual_seed(3)
    context = posed(3, (128, 160))
    wide = circle(3, (128, 160))
    context = PosedImages(context.images, Cameras(wide.c2w, wide.fxfycxcy * 4, (128, 160)))
    seen: list[int] = []
    decode = renderer.model.decode_detail

    def noted(state, cameras, hw, sampling, prepared):
        seen.append(sampling.photo_level)
        return decode(state, cameras, hw, sampling, prepared)

    state = renderer.encode(context)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer.model, "decode_detail", noted)
        renderer.render(state, circle(1, (32, 40)))
        renderer.render(state, Cameras(wide.c2w, wide.fxfycxcy * 4, (128, 160)))
    assert seen == [2, 0, 0, 0] or seen == [2, 0]


def test_a_quick_frame_looks_less_closely(renderer: Renderer) -> None:
    state, cameras = renderer.encode(posed(5)), circle(1, (32, 40))
    seen = []
    decode = renderer.model.decode_detail

    def noted(state, cameras, hw, sampling, prepared):
        seen.append(sampling)
        return decode(state, cameras, hw, sampling, prepared)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer.model, "decode_detail", noted)
        quick = next(renderer.stream(state, cameras, quick=True))
        full = renderer.render(state, cameras)
    head = renderer.model.config.detail_head
    assert head is not None and seen[0].views <= 2 and seen[0].planes < head.planes
    assert seen[1].views is None and seen[1].planes is None
    assert DetailHeadConfig.usual().quick(3, photo_level=2) == Sampling(
        views=2, planes=8, fine_planes=4, finest_planes=4, photo_level=2
    )
    assert quick.shape == full.shape and not torch.equal(quick, full)
