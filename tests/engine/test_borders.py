"""Mending the borders of patches: against a plain reference, on pictures with and without such borders."""

from __future__ import annotations

import pytest
import torch

from nvs_app.engine.borders import REACH, mended
from nvs_app.engine.renderer import Renderer
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.scenes.posed import PosedImages


def plain(line: list[float], patch: int, excess: float) -> list[float]:
    """One row of one channel, pixel by pixel; excess: the share of a border's step that is taken away."""
    out = list(line)
    for border in range(patch, len(line), patch):
        before, after = line[border - 1] - line[border - 2], line[border + 1] - line[border]
        step = line[border] - line[border - 1] - (before + after) / 2
        for away in range(patch):
            share = max(0.0, 1 - (away + 0.5) / (REACH * patch)) / 2
            out[border + away] -= excess * step * share
            out[border - 1 - away] += excess * step * share
    return out


def shares(lines: torch.Tensor, patch: int) -> float:
    """The share of rows [3, h, w], all of one picture."""
    inside, border = [], []
    for line in lines.flatten(0, 1).tolist():
        for at in range(1, len(line) - 2):
            step = line[at + 1] - line[at] - (line[at] - line[at - 1] + line[at + 2] - line[at + 1]) / 2
            place = (at + 1) % patch  # of the pixel behind the step
            if place == 0:
                border.append(step**2)
            elif place not in (1, patch - 1):
                inside.append(step**2)
    return max(0.0, 1 - (sum(inside) / len(inside)) / (sum(border) / len(border)))


@pytest.mark.parametrize("patch", [4, 8])
def test_as_the_plain_reference(patch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = 0.3 + 0.1 * torch.rand(2, 3, 3 * patch, 5 * patch, generator=generator)
    blocks = 0.3 * torch.rand(2, 3, 3, 5, generator=generator)
    pictures += blocks.repeat_interleave(patch, -1).repeat_interleave(patch, -2)
    expected = []
    for picture in pictures:
        for _ in range(2):  # rows, then columns
            share = shares(picture, patch)
            assert 0.3 < share < 1
            rows = [plain(line, patch, share) for line in picture.flatten(0, 1).tolist()]
            picture = torch.tensor(rows).reshape(picture.shape).transpose(-1, -2)
        expected.append(picture.clamp(0, 1))
    torch.testing.assert_close(mended(pictures, patch), torch.stack(expected), rtol=0, atol=1e-5)
    torch.testing.assert_close(mended(pictures[:1], patch), mended(pictures, patch)[:1])  # each picture by itself


def test_blocks_come_nearer_to_the_truth_and_what_has_none_stays() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 3, 64), torch.linspace(0, 4, 96), indexing="ij")
    smooth = torch.stack((x.sin(), y.cos(), (x + y).sin())) / 4 + 0.5
    blocky = torch.nn.functional.avg_pool2d(smooth, 8).repeat_interleave(8, -1).repeat_interleave(8, -2)
    error, before = ((p - smooth).square().mean() for p in (mended(blocky, 8), blocky))
    assert error < 0.75 * before
    assert (mended(smooth, 8) - smooth).abs().max() < 1e-3
    photo = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))
    assert (mended(photo, 8) - photo).square().mean() < 2e-3 * photo.var()
    flat = torch.full((3, 16, 16), 0.25)
    assert torch.equal(mended(flat, 8), flat)


@pytest.mark.parametrize("image_hw", [(8, 24), (24, 8), (8, 8)])
def test_single_patches_have_no_border(image_hw: tuple[int, int]) -> None:
    picture = torch.rand(3, *image_hw)
    found = mended(picture, 8)
    if image_hw == (8, 8):
        assert torch.equal(found, picture)
    assert found.shape == picture.shape and torch.isfinite(found).all()


def test_the_renderer_mends_what_it_draws_once() -> None:
    torch.manual_seed(1)
    model = LaCT(PRESETS["tiny"])
    once, raw, twice, twice_raw = (
        Renderer(model, "cpu", "fp32", grids=grids, mend=mend) for grids in (1, 2) for mend in (True, False)
    )
    eye = torch.tensor([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5], [-2.0, 0.0, 0.5]])
    c2w = look_at(eye, torch.zeros(3, 3), torch.tensor([0.0, 0.0, 1.0]).expand(3, 3))
    cameras = Cameras(c2w, torch.tensor([[40.0, 40.0, 20.0, 12.0]]).expand(3, 4), (24, 40))
    state = once.encode(PosedImages(torch.rand(3, 3, 24, 40), cameras))
    drawn = raw.render(state, cameras)
    assert torch.equal(once.render(state, cameras), mended(drawn, 8)) and not torch.equal(mended(drawn, 8), drawn)
    assert torch.equal(once.render(state, cameras, quick=True), mended(drawn, 8))
    assert torch.equal(twice.render(state, cameras), twice_raw.render(state, cameras))
    # A size that is no multiple of the patch: mended before the excess is cut off.
    smaller = Cameras(cameras.c2w, cameras.fxfycxcy, (21, 35))
    assert torch.equal(once.render(state, smaller), mended(drawn, 8)[..., :21, :35])
