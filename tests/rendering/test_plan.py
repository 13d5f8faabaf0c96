"""At which sizes photos are read and views rendered."""

from __future__ import annotations

import itertools
import json

import pytest

from nvs_app.errors import NVSError
from nvs_app.rendering.plan import LaCTResolution, photos_hw, plan_encode, plan_render

HALF = LaCTResolution()


@pytest.mark.parametrize(
    ("image_hw", "render_hw", "lact_hw"),
    [
        ((540, 960), (544, 960), (256, 448)),  # LaCT's shorter side is bounded, its sides whole patches
        ((256, 256), (256, 256), (128, 128)),
        ((128, 128), (128, 128), (64, 64)),
        ((96, 72), (96, 72), (88, 64)),  # not below 64
        ((33, 47), (40, 48), (40, 48)),  # not above the photos' own
        ((1, 1), (8, 8), (8, 8)),
        ((2160, 3840), (2160, 3840), (256, 456)),
    ],
)
def test_render_with_a_head(image_hw, render_hw, lact_hw) -> None:
    plan = plan_render(image_hw, 8, HALF)
    assert (plan.image_hw, plan.render_hw, plan.lact_hw, plan.detail) == (image_hw, render_hw, lact_hw, True)
    assert plan.words == f"{image_hw[0]}x{image_hw[1]}, LaCT at {lact_hw[0]}x{lact_hw[1]}"


def test_without_a_head_lact_renders_all() -> None:
    plan = plan_render((33, 47), 16, None)
    assert (plan.render_hw, plan.lact_hw, plan.detail, plan.words) == ((48, 48), (48, 48), False, "33x47")
    plan = plan_encode((33, 47), 16, None)
    assert (plan.render_hw, plan.lact_hw, plan.detail) == ((32, 32), (32, 32), False)


def test_photos_are_cut_and_frames_grow() -> None:
    """By less than a patch, for any size; LaCT's sides are whole patches and keep the shape about."""
    for height, width in itertools.product(range(16, 300, 7), range(16, 300, 11)):
        cut, grown = plan_encode((height, width), 8, HALF), plan_render((height, width), 8, HALF)
        for side, less, more in zip((height, width), cut.render_hw, grown.render_hw):
            assert side - 8 < less <= side <= more < side + 8 and less % 8 == more % 8 == 0
        for plan in (cut, grown):
            assert all(side % 8 == 0 and 8 <= side for side in plan.lact_hw)
            assert all(side <= own for side, own in zip(plan.lact_hw, plan.render_hw))
            factors = [side / own for side, own in zip(plan.lact_hw, plan.render_hw)]
            assert max(factors) - min(factors) < 8 / min(plan.render_hw)


def test_photos_smaller_than_a_patch_are_refused() -> None:
    for lact in (None, HALF):
        with pytest.raises(NVSError, match="images are 7x40, smaller than one patch of 8x8"):
            plan_encode((7, 40), 8, lact)


def test_the_card_says_lacts_resolution() -> None:
    assert LaCTResolution.of_card({}) == LaCTResolution(0.5, 64, 256)
    card = {"lact_resolution": {"scale": 0.25, "least": 32, "most": 128}}
    assert LaCTResolution.of_card(card).hw((512, 1024), 8) == (128, 256)
    assert LaCTResolution.of_card(card).hw((64, 64), 8) == (32, 32)
    for wrong in ({"scale": 0.0}, {"scale": 1.5}, {"least": 4}, {"least": 300}):
        with pytest.raises(NVSError, match="LaCT's resolution"):
            LaCTResolution(**wrong)


@pytest.mark.parametrize(
    ("stored", "asked", "expected"),
    [
        ([(1080, 1920)], (720, 1280), (720, 1280)),  # as fine as the views
        ([(540, 960)], (720, 1280), (544, 960)),  # no finer than they are, whole eighths
        ([(4000, 3000)], (720, 1280), (960, 720)),  # in their own shape
        ([(256, 256), (300, 200), (300, 200)], (128, 128), (192, 128)),  # in that of most
        ([(5, 7)], (64, 64), (8, 8)),
    ],
)
def test_photos_are_read_as_finely_as_views_are_rendered(stored, asked, expected) -> None:
    assert photos_hw(stored, asked) == expected


def test_views_at_once_and_json() -> None:
    render, encode = plan_render((250, 256), 8, HALF), plan_encode((250, 256), 8, HALF)
    assert (render.tokens, render.passes, render.views_at_once(None)) == (256, ("lact", "detail"), 1)
    assert encode.views_at_once(None) == 8  # the head reads more pixels at once than it renders
    assert render.views_at_once(32768) == 32 and render.views_at_once(1) == 1
    alone = plan_render((256, 256), 8, None)
    assert (alone.tokens, alone.passes) == (1024, ("lact",))
    assert (alone.views_at_once(None), alone.views_at_once(65536)) == (2, 64)
    assert json.loads(json.dumps(render.to_dict())) == {
        "image_hw": [250, 256],
        "render_hw": [256, 256],
        "lact_hw": [128, 128],
        "passes": ["lact", "detail"],
        "cut": [6, 0],
        "tokens": 256,
        "words": "250x256, LaCT at 128x128",
    }
    assert encode.to_dict()["cut"] == [0, 0]
    assert LaCTResolution.exactly(0.5).hw((32, 1008), 8) == (16, 504)
