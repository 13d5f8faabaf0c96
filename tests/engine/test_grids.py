"""Drawing on two grids of patches: the same rays, weights that favour the middle of a patch, one inference path."""

from __future__ import annotations

import pytest
import torch
from odd_cameras import cameras_of

from nvs_app.engine.grids import RIM, blended, inside, shifted
from nvs_app.engine.renderer import Renderer
from nvs_app.engine.working_size import reduce
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.rays import pixel_rays
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.scenes.posed import PosedImages


def renderer_of(grids: int | None, working_side: int = 0) -> Renderer:
    torch.manual_seed(1)
    return Renderer(LaCT(PRESETS["tiny"]), "cpu", "fp32", working_side=working_side, grids=grids, mend=False)


def test_every_ray_stays_where_it_is() -> None:
    cameras = cameras_of((24, 40))
    larger = shifted(cameras, 8)
    assert larger.image_hw == (32, 48)
    for a, b in zip(pixel_rays(larger), pixel_rays(cameras), strict=True):
        torch.testing.assert_close(inside(a, (24, 40), 8), b)


def test_weights() -> None:
    """1 and 0: how much of the first drawing each pixel takes."""
    share = blended(torch.ones(1, 3, 16, 24), torch.zeros(1, 3, 16, 24), 8)[0, 0]
    assert torch.equal(share, share.roll((8, 8), (0, 1)))  # the same in every patch
    assert share[3, 3] == share[4, 4] > 0.95 and share[0, 0] == share[7, 7] < 0.05
    # Half way between two middles both count the same.
    torch.testing.assert_close(share + share.roll((4, 4), (0, 1)), torch.ones_like(share))
    assert share.min() > 0 and RIM < 0.125  # the rim's own weight, half a pixel inside, is larger
    picture = torch.rand(2, 3, 20, 28)
    torch.testing.assert_close(blended(picture, picture, 8), picture)


@pytest.mark.parametrize("image_hw", [(32, 40), (33, 47)])
@pytest.mark.parametrize("working_side", [0, 48])
def test_render_is_the_blend_of_two_drawings(image_hw: tuple[int, int], working_side: int) -> None:
    one, two = renderer_of(1, working_side), renderer_of(2, working_side)
    context = PosedImages(torch.rand(3, 3, *image_hw), cameras_of(image_hw))
    state, asked = two.encode(context), cameras_of(image_hw, 2)
    hw = two.drawn_hw(image_hw)
    large = asked.scaled_to(hw) if working_side else Cameras(asked.c2w, asked.fxfycxcy, hw)
    plain = one.render(state, large, quick=True)
    other = inside(one.render(state, shifted(large, 8), quick=True), hw, 8)
    expected = blended(plain, other, 8)
    expected = reduce(expected, image_hw) if working_side else expected[..., : image_hw[0], : image_hw[1]]
    found = two.render(state, asked)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(found, one.render(state, asked), atol=1e-3)
    assert torch.equal(two.render(state, asked, quick=True), one.render(state, asked, quick=True))
    assert torch.equal(torch.cat(list(two.stream(state, asked, 1))), two.render(state, asked, chunk=1))


@pytest.mark.parametrize(("side", "asked_hw", "same_as"), [(0, (32, 40), 2), (48, (32, 40), 1), (48, (48, 56), 2)])
def test_unasked_two_grids_where_nothing_is_enlarged(side: int, asked_hw: tuple[int, int], same_as: int) -> None:
    """Also where the pictures are enlarged because the context was finer, in the last lines."""
    unasked, asked = renderer_of(None, side), renderer_of(same_as, side)
    context, cameras = PosedImages(torch.rand(3, 3, *asked_hw), cameras_of(asked_hw)), cameras_of(asked_hw, 2)
    state = unasked.encode(context)
    assert unasked.grids_of(asked_hw) == same_as and unasked.grids_of(asked_hw, quick=True) == 1
    assert torch.equal(unasked.render(state, cameras), asked.render(state, cameras))
    assert torch.equal(unasked.render(state, cameras, quick=True), asked.render(state, cameras, quick=True))
    small_hw = (asked_hw[0] // 2, asked_hw[1] // 2)
    small, one = cameras.scaled_to(small_hw), renderer_of(1, side)
    assert unasked.grids_of(small_hw, finer=2.0) == 1
    assert torch.equal(unasked.render(state, small), one.render(state, small))


def test_only_one_or_two() -> None:
    for wrong in (0, 3, True):
        with pytest.raises(NVSError, match="grids"):
            renderer_of(wrong)
