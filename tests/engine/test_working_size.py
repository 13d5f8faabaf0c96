"""The working size: small pictures enlarged with their cameras, drawn enlarged, reduced."""

from __future__ import annotations

import pytest
import torch
from odd_cameras import cameras_of

from nvs_app.engine.framing import context_cameras
from nvs_app.engine.renderer import Renderer
from nvs_app.engine.working_size import enlarge, enlarged_hw, finer_than, reduce, written_focal
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.model.state import SceneState
from nvs_app.scenes.posed import PosedImages


def posed(image_hw: tuple[int, int], views: int = 3) -> PosedImages:
    pictures = torch.rand(views, 3, *image_hw, generator=torch.Generator().manual_seed(0))
    return PosedImages(pictures, cameras_of(image_hw, views))


def slopes(cameras: Cameras) -> torch.Tensor:
    """A picture [v, 3, h, w] of where the rays through the pixels' centres go: x / z, y / z, 0, moved into [0, 1]."""
    height, width = cameras.image_hw
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    fx, fy, cx, cy = cameras.fxfycxcy.unbind(-1)
    right = (x - cx[:, None, None]) / fx[:, None, None]
    down = (y - cy[:, None, None]) / fy[:, None, None]
    return torch.stack((right, down, torch.zeros_like(right)), dim=1) / 4 + 0.5


def renderer_of(asked: int | None, **card: object) -> Renderer:
    torch.manual_seed(1)
    model = LaCT(PRESETS["tiny"])
    model.card = {"name": "tiny", "hash": "abc", **card}
    return Renderer(model, "cpu", "fp32", working_side=asked, grids=1, mend=False)


@pytest.mark.parametrize(
    ("image_hw", "side", "expected"),
    [
        ((128, 128), 192, (192, 192)),  # and not a patch more for rounding
        ((96, 100), 192, (192, 200)),
        ((64, 64), 192, (128, 128)),  # twice at most
        ((128, 171), 192, (192, 264)),  # 256.5: no pixel is lost
        ((171, 128), 192, (264, 192)),
        ((33, 47), 10**9, (72, 96)),
        ((7, 7), 64, (16, 16)),
        ((120, 90), 91, (128, 96)),
        ((192, 300), 192, (192, 300)),
        ((193, 301), 192, (193, 301)),
        ((33, 47), 0, (33, 47)),
    ],
)
def test_sizes(image_hw: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert enlarged_hw(image_hw, side, 8) == expected


@pytest.mark.parametrize("image_hw", [(40, 40), (33, 47), (50, 31)])
def test_every_ray_stays_where_it_is(image_hw: tuple[int, int]) -> None:
    """Pictures of ray directions are, enlarged, those of the enlarged cameras; drawn and reduced, those asked for."""
    cameras = cameras_of(image_hw)
    given = slopes(cameras)
    larger, theirs = enlarge(given, cameras, enlarged_hw(image_hw, 59, 8))
    assert theirs.image_hw == tuple(larger.shape[-2:]) and min(theirs.image_hw) >= 59
    assert torch.equal(theirs.c2w, cameras.c2w)
    # At the border the filter has one side only.
    inside = (..., slice(6, -6), slice(6, -6))
    drawn = slopes(theirs)
    assert torch.allclose(larger[inside], drawn[inside], atol=1e-5)
    pixel = 0.25 / float(cameras.fxfycxcy[0, :2].max())  # what a shift by one pixel would change
    assert (reduce(drawn, image_hw)[inside] - given[inside]).abs().max() < 0.03 * pixel


def test_values_stay_colours() -> None:
    """A cubic filter overshoots at edges."""
    board = torch.zeros(1, 3, 32, 32)
    board[:, :, ::4] = 1
    larger, _ = enlarge(board, cameras_of((32, 32), 1), (48, 48))
    smaller = reduce(larger, (32, 32))
    assert larger.min() >= 0 and larger.max() <= 1 and smaller.min() >= 0 and smaller.max() <= 1


@pytest.mark.parametrize("image_hw", [(32, 40), (33, 47)])
def test_off_or_large_enough_is_what_it_was(image_hw: tuple[int, int]) -> None:
    """The very pixels and weights of a renderer without a working size."""
    plain, off, small = renderer_of(None), renderer_of(0), renderer_of(min(image_hw))
    state = plain.encode(posed(image_hw))
    expected = plain.render(state, cameras_of(image_hw, 2))
    for other in (off, small):
        assert other.written_hw(image_hw) == (32, 40)
        own = other.encode(posed(image_hw))
        assert own.meta["context_cameras"] == state.meta["context_cameras"]
        assert torch.equal(other.render(own, cameras_of(image_hw, 2)), expected)


@pytest.mark.parametrize("image_hw", [(32, 40), (33, 47)])
def test_encode_and_render_are_those_of_enlarged_pictures(image_hw: tuple[int, int]) -> None:
    """Written and drawn as if somebody had enlarged by hand; the cameras that are remembered are those given."""
    plain, working = renderer_of(0), renderer_of(48)
    context, asked = posed(image_hw), cameras_of(image_hw, 2)
    larger_hw = enlarged_hw(image_hw, 48, 8)
    assert working.written_hw(image_hw) == working.drawn_hw(image_hw) == larger_hw
    assert working.drawn_hw(image_hw, quick=True) == plain.drawn_hw(image_hw)
    by_hand = plain.encode(PosedImages(*enlarge(context.images, context.cameras, larger_hw)))
    state = working.encode(context)
    for a, b in zip(state.fast_weights, by_hand.fast_weights):
        assert all(torch.equal(x, y) for x, y in zip(a, b))
    remembered = context_cameras(state)
    assert remembered.image_hw == image_hw and torch.equal(remembered.fxfycxcy, context.cameras.fxfycxcy)
    assert state.meta["working_side"] == "48"

    drawn = reduce(plain.render(by_hand, asked.scaled_to(larger_hw)), image_hw)
    full, quick = working.render(state, asked), working.render(state, asked, quick=True)
    assert full.shape == quick.shape == (2, 3, *image_hw)
    assert torch.allclose(full, drawn, atol=1e-6) and torch.equal(quick, plain.render(by_hand, asked, quick=True))
    assert not torch.allclose(full, quick, atol=1e-3)
    assert torch.equal(torch.cat(list(working.stream(state, asked, 1))), working.render(state, asked, chunk=1))

    bytes_ = (context.images * 255).round().to(torch.uint8)
    a, b = (working.encode(PosedImages(x, context.cameras)) for x in (bytes_, bytes_.float() / 255))
    assert torch.equal(a.fast_weights[0].w0, b.fast_weights[0].w0)


def test_no_drawing_is_coarser_than_what_was_written() -> None:
    renderer = renderer_of(0)
    context = posed((64, 80))
    state = renderer.encode(context)
    asked = cameras_of((64, 80), 2).scaled_to((32, 40))  # the same angles, half the pixels
    assert finer_than(state, asked) == pytest.approx(2) and finer_than(state, context.cameras) == pytest.approx(1)
    assert renderer.drawn_hw((32, 40), finer=2.0) == (64, 80) and renderer.drawn_hw((32, 40), True, 2.0) == (32, 40)
    assert renderer.drawn_hw((32, 40), finer=9.0) == (64, 80)  # twice at most
    assert renderer.drawn_hw((32, 40), finer=1.2) == (32, 40)
    fine = renderer.render(state, asked.scaled_to((64, 80)))
    assert torch.equal(renderer.render(state, asked), reduce(fine, (32, 40)))
    coarse = renderer.render(state, asked, quick=True)
    assert not torch.allclose(renderer.render(state, asked), coarse, atol=1e-3)
    for meta in ({}, {"written_focal": "far"}, {"written_focal": "nan"}, {"written_focal": "-3"}):
        assert torch.equal(renderer.render(SceneState(state.fast_weights, state.transform, meta), asked), coarse)

    enlarging = renderer_of(96)
    assert written_focal(enlarging.encode(context)) == pytest.approx(1.5 * float(context.cameras.fxfycxcy[0, 1]))


def test_who_decides() -> None:
    assert renderer_of(None).working_side == 0
    assert renderer_of(None, working_side=192).working_side == 192
    assert renderer_of(0, working_side=192).working_side == 0
    assert renderer_of(64, working_side=192).working_side == 64
    for strange in (-1, True, 19.5, "192", None, [192]):
        assert renderer_of(None, working_side=strange).working_side == 0
    for wrong in (-1, True):
        with pytest.raises(NVSError, match="working side"):
            renderer_of(wrong)
