"""The detail head: its parts against plain references, values and gradients, and what must hold of the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from camera_rings import ring_cameras

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.warp import plane_rays, project, relative_pose
from nvs_app.model.checkpoint import load_checkpoint, save_checkpoint
from nvs_app.model.config import LaCTConfig
from nvs_app.model.config_override import with_changes
from nvs_app.model.detail import DetailHeadConfig, Sampling
from nvs_app.model.detail.blending import ConvexUpsampling, Refinement
from nvs_app.model.detail.layers import sample
from nvs_app.model.detail.selection import select_views
from nvs_app.model.detail.sweep import (
    SAME_SURFACE,
    Swept,
    finest_hypotheses,
    first_hypotheses,
    matching_costs,
    narrowed_hypotheses,
    other_surface,
)
from nvs_app.model.lact import LaCT
from nvs_app.model.state import SceneState

HEAD = DetailHeadConfig(features=8, groups=4, guide=16, volume=4, blend=8, views=3, planes=5, fine_planes=3)
CONFIG = LaCTConfig(dim=32, blocks=2, attention_head_dim=16, rotary="fast", detail_head=HEAD)
WHOLE = replace(HEAD, finest_planes=3, finest_features=8, layers=2, refine=8)  # with every part that a head can have


def ring(n: int, image_hw: tuple[int, int] = (32, 48), turn: float = 0.0) -> Cameras:
    height, width = image_hw
    lens = (float(width), float(width), width / 2, height / 2)
    return ring_cameras(n, image_hw, lens, radius=1.0, height=0.4, start=turn)[None]


@pytest.fixture(scope="module", params=[HEAD, WHOLE], ids=["two sweeps", "every part"])
def model(request) -> LaCT:
    torch.manual_seed(0)
    model = LaCT(replace(CONFIG, detail_head=request.param))
    with torch.no_grad():  # what begins at zero is moved away from it, so that every part matters
        for name, parameter in model.named_parameters():
            if name.startswith("detail_head.") and not parameter.any():
                parameter.normal_(std=0.05)
    return model.eval()


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return torch.rand(1, 5, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def encode(model: LaCT, photos: torch.Tensor, cameras: Cameras, **options) -> SceneState:
    small = torch.nn.functional.avg_pool2d(photos[0], 2)[None]
    return model.encode(small, cameras.scaled_to((16, 24)), photos=photos, photo_cameras=cameras, **options)


# ---------------------------------------------------------------- parts against plain references


def test_samples_are_bilinear() -> None:
    maps = torch.rand(1, 2, 4, 6, dtype=torch.float64)
    x, y = torch.tensor([0.9, 3.3, 5.9, -2.0]), torch.tensor([0.6, 2.2, 3.4, 2.5])  # in cells; the last lies outside
    grid = torch.stack([x / 6 * 2 - 1, y / 4 * 2 - 1], -1)[None]
    found = sample(maps, grid)
    for p in range(4):
        u, v = min(max(float(x[p]) - 0.5, 0), 5), min(max(float(y[p]) - 0.5, 0), 3)
        i, j = min(int(v), 2), min(int(u), 4)
        a, b = v - i, u - j
        m = maps[0].float()
        expected = (1 - a) * ((1 - b) * m[:, i, j] + b * m[:, i, j + 1]) + a * (
            (1 - b) * m[:, i + 1, j] + b * m[:, i + 1, j + 1]
        )
        torch.testing.assert_close(found[0, :, p], expected, atol=1e-5, rtol=0)


def test_photos_are_looked_up_by_cubic_convolution() -> None:
    maps = torch.rand(1, 3, 6, 7)
    x, y = torch.tensor([3.3, 0.6, 6.9]), torch.tensor([2.2, 4.9, 0.1])  # in cells; the last two touch the border
    grid = torch.stack([x / 7 * 2 - 1, y / 6 * 2 - 1], -1)[None]
    found = sample(maps, grid, "bicubic")

    def weight(t: float, a: float = -0.75) -> float:  # Keys 1981
        t = abs(t)
        near, far = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * (t**3 - 5 * t**2 + 8 * t - 4)
        return near if t <= 1 else far if t < 2 else 0.0

    for p in range(3):
        u, v = float(x[p]) - 0.5, float(y[p]) - 0.5
        expected = torch.zeros(3)
        for i in range(int(v // 1) - 1, int(v // 1) + 3):
            for j in range(int(u // 1) - 1, int(u // 1) + 3):
                expected += weight(v - i) * weight(u - j) * maps[0, :, min(max(i, 0), 5), min(max(j, 0), 6)]
        torch.testing.assert_close(found[0, :, p], expected, atol=1e-5, rtol=0)


def plain_costs(features, query, valid, groups):
    """`matching_costs`, one cell, view and group after another."""
    n, k, c, d, h, w = features.shape
    size = c // groups
    correlation, difference = torch.zeros(n, k, groups, d, h, w), torch.zeros(n, k, d, h, w)
    variance = torch.zeros(n, groups, d, h, w)
    for a in range(n):
        for z in range(d):
            for y in range(h):
                for x in range(w):
                    f, v = features[a, :, :, z, y, x], valid[a, :, z, y, x]
                    share = v / max(float(v.sum()), 1e-3)
                    mean = sum(share[i] * f[i] for i in range(k))
                    for i in range(k):
                        off = (f[i] - mean) ** 2
                        difference[a, i, z, y, x] = off.mean()
                        for g in range(groups):
                            part = slice(g * size, (g + 1) * size)
                            correlation[a, i, g, z, y, x] = (f[i][part] * query[a, part, y, x]).mean()
                            variance[a, g, z, y, x] += share[i] * off[part].mean()
    return correlation, difference, variance


def test_matching_costs_against_loops() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 3, 4, 2, 2, 3, generator=generator)
    query = torch.randn(2, 4, 2, 3, generator=generator)
    valid = (torch.rand(2, 3, 2, 2, 3, generator=generator) < 0.7).float()
    gradients = []
    for costs in (matching_costs, plain_costs):
        f, q = features.clone().requires_grad_(), query.clone().requires_grad_()
        parts = costs(f, q, valid, 2)
        weights = torch.Generator().manual_seed(2)
        sum((part * torch.randn(part.shape, generator=weights)).sum() for part in parts).backward()
        gradients.append((*parts, f.grad, q.grad))
    for fast, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-4)


def plain_upsampling(values: torch.Tensor, weights: torch.Tensor, factor: int) -> torch.Tensor:
    """`ConvexUpsampling`, one pixel after another; weights: [n, 9, factor^2, h, w], of sum one."""
    n, v, h, w = values.shape
    full = torch.zeros(n, v, h * factor, w * factor)
    for y in range(h * factor):
        for x in range(w * factor):
            row, column, part = y // factor, x // factor, (y % factor) * factor + x % factor
            for i in range(3):
                for j in range(3):
                    cell = values[:, :, min(max(row + i - 1, 0), h - 1), min(max(column + j - 1, 0), w - 1)]
                    full[:, :, y, x] = full[:, :, y, x] + weights[:, 3 * i + j, part, row, column, None] * cell
    return full


@pytest.mark.parametrize("factor", [4, 2])
def test_convex_upsampling_against_loops(factor: int) -> None:
    torch.manual_seed(0)
    layer = ConvexUpsampling(6, factor, 8)
    maps, gradients = torch.randn(2, 6, 3, 4), []
    for plain in (False, True):
        values = torch.rand(2, 2, 3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        if plain:
            weights = layer.weights(maps).unflatten(1, (9, factor**2)).softmax(1)
            full = plain_upsampling(values, weights, factor)
        else:
            full = layer(values, maps)
        assert full.shape == (2, 2, 3 * factor, 4 * factor)
        layer.zero_grad()
        (full * torch.randn(full.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
        gradients.append((full, values.grad, layer.weights[2].weight.grad.clone()))
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)


def test_the_other_surface_against_loops() -> None:
    generator = torch.Generator().manual_seed(4)
    near = torch.where(torch.rand(1, 6, 7, generator=generator) < 0.15, 0.4, 0.0)
    near = near + torch.rand(1, 6, 7, generator=generator) * 0.005
    own = torch.nn.functional.interpolate(near[None], scale_factor=2, mode="nearest")[0]
    found = other_surface(own, near)
    low, high = torch.zeros(6, 7), torch.zeros(6, 7)
    for i in range(6):
        for j in range(7):
            around = near[0, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]
            low[i, j], high[i, j] = around.min(), around.max()
    low, high = (torch.nn.functional.interpolate(e[None, None], (12, 14), mode="bilinear")[0, 0] for e in (low, high))
    changed = 0
    for i in range(12):
        for j in range(14):
            value = own[0, i, j]
            other = high[i, j] if high[i, j] - value > value - low[i, j] else low[i, j]
            expected = other if abs(other - value) > SAME_SURFACE else value
            assert found[0, i, j] == pytest.approx(float(expected), abs=1e-6)
            changed += int(expected != value)
    assert 20 < changed < 12 * 14
    flat = torch.zeros(1, 4, 4)
    assert torch.equal(other_surface(torch.zeros(1, 8, 8), flat), torch.zeros(1, 8, 8))


def test_an_untrained_refinement_changes_nothing() -> None:
    torch.manual_seed(0)
    refinement = Refinement(8 + 2, 6)
    image, lact, photos = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), torch.rand(1, 2, 3, 8, 8)
    share, maps = torch.rand(1, 2, 8, 8), torch.randn(1, 2, 8, 8)
    assert torch.equal(refinement(image, lact, photos, share, maps), image)


def test_hypotheses_cover_the_prior_and_both_sides_of_an_edge() -> None:
    log_depth, log_scale = torch.zeros(1, 2, 2), torch.full((1, 2, 2), -2.0)
    first = first_hypotheses(log_depth, log_scale, 5, 2.0)
    torch.testing.assert_close(first[0, :, 0, 0], torch.linspace(-2, 2, 5) * torch.tensor(-2.0).exp())
    log_depth = torch.tensor([[[0.0, 0.0, 0.3, 0.3]]]).expand(1, 4, 4)
    nothing = torch.zeros(1, 1, 4, 4)
    swept = Swept(torch.stack([log_depth, log_depth + 0.02], 1), nothing, log_depth, 0.01 * torch.ones(1, 4, 4),
                  nothing, nothing, nothing)  # fmt: skip
    fine = narrowed_hypotheses(swept, 3, (8, 8))
    low, high = fine[0, 0], fine[0, -1]
    assert (high - low)[:, :2].max() < 0.06  # away from the edge it is narrow
    assert (low[:, 2:6] < 0).all() and (high[:, 2:6] > 0.3).all()  # beside it both surfaces are tried
    third = finest_hypotheses(torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[0.02, 3.0]]]), 3)
    torch.testing.assert_close(third[0, :, 0], torch.tensor([[0.48, 0.4], [0.5, 0.5], [0.52, 0.6]]))


def test_views_are_chosen_for_what_they_see() -> None:
    context, target = ring(8), ring(8, turn=0.05)
    depth = torch.zeros(1, 8, 4, 6)
    arguments = (context.c2w, context.fxfycxcy, context.image_hw)
    chosen = select_views(depth, target.c2w, target.fxfycxcy, target.image_hw, *arguments, 3)
    assert chosen.shape == (1, 8, 3) and torch.equal(chosen[0, :, 0], torch.arange(8))
    assert all(len(set(row)) == 3 for row in chosen[0].tolist())
    apart = select_views(depth, context.c2w, context.fxfycxcy, context.image_hw, *arguments, 3, exclude_self=True)
    assert all(i not in row for i, row in enumerate(apart[0].tolist()))
    # The nearest camera looks the other way: it is not the first choice.
    c2w = context.c2w.clone()
    c2w[0, 0, :3, 0] *= -1
    c2w[0, 0, :3, 2] *= -1
    turned = select_views(depth[:, :1], target.c2w[:, :1], target.fxfycxcy[:, :1], (32, 48), c2w, *arguments[1:], 2)
    assert 0 not in turned[0, 0].tolist()
    alone = select_views(depth[:, :1], c2w[:, :1], target.fxfycxcy[:, :1], (32, 48), c2w[:, :1],
                         context.fxfycxcy[:, :1], (32, 48), 3, exclude_self=True)  # fmt: skip
    assert alone.tolist() == [[[0]]]


# ---------------------------------------------------------------- the whole


def test_a_wall_is_rendered_from_its_photo(model: LaCT) -> None:
    """Where depth is right, a photo warped with it is the view: the geometry of the whole chain."""
    context, target = ring(2), ring(1, turn=0.1)
    texture = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(3))
    texture = torch.nn.functional.avg_pool2d(texture, 5, 1, 2)  # smooth, so that resampling keeps it
    rays = plane_rays(target.fxfycxcy[0], target.image_hw, target.image_hw)
    depth = torch.full((1, 1, 32, 48), 1.0)
    pose = relative_pose(target.c2w[0], context.c2w[:, :1])
    seen = project(rays, depth, pose, context.fxfycxcy[:, :1], context.image_hw)
    warped = sample(texture, seen.grid[:, 0, 0])[0]
    back = relative_pose(context.c2w[0, :1], target.c2w)
    own = plane_rays(context.fxfycxcy[0, :1], context.image_hw, context.image_hw)
    # The same plane as the context camera sees it: its depth at each of its pixels.
    normal, offset = pose.rotation[0, 0, :, 2], pose.translation[0, 0]
    plane = (1 + (normal * offset).sum()) / (normal[:, None, None] * own[0]).sum(0)
    there = project(own, plane[None, None], back, target.fxfycxcy, target.image_hw)
    again = sample(warped[None], there.grid[:, 0, 0])[0]
    inside = there.valid[0, 0, 0] & (there.grid[0, 0, 0].abs().amax(-1) < 0.7)
    assert inside.sum() > 200
    assert (again - texture[0]).abs().mean(0)[inside].mean() < 0.02


def test_forward_is_encode_then_decode(model: LaCT, photos: torch.Tensor) -> None:
    context, target = ring(5), ring(3, turn=0.2)
    small = torch.nn.functional.avg_pool2d(photos[0], 2)[None]
    with torch.no_grad():
        drawn, _, at_once = model.forward_detail(
            small, context.scaled_to((16, 24)), target.scaled_to((16, 24)), photos, context, target
        )
        apart = model.decode_detail(encode(model, photos, context), target, (16, 24))
    assert apart.images.shape == (1, 3, 3, 32, 48) and apart.images.std() > 0.01 and drawn.shape == (1, 3, 3, 16, 24)
    assert apart.log_depth.shape == (3, 32, 48) and apart.log_scale.shape == (3, 8, 12)
    assert apart.seen.min() >= 0 and apart.seen.max() <= 1
    torch.testing.assert_close(apart.images, at_once.images, rtol=0, atol=1e-3)
    torch.testing.assert_close(apart.log_depth, at_once.log_depth, rtol=0, atol=1e-3)


def test_order_of_views_and_chunks_change_nothing(model: LaCT, photos: torch.Tensor) -> None:
    context, target, order = ring(5), ring(2, turn=0.2), [3, 0, 4, 2, 1]
    with torch.no_grad():
        whole = model.decode_detail(encode(model, photos, context), target, (16, 24)).images
        chunked = model.decode_detail(encode(model, photos, context, views_per_chunk=2), target, (16, 24)).images
        permuted = model.decode_detail(encode(model, photos[:, order], context[:, order]), target, (16, 24)).images
    torch.testing.assert_close(whole, chunked, rtol=0, atol=1e-3)
    torch.testing.assert_close(whole, permuted, rtol=0, atol=1e-3)


def test_any_size_number_of_views_and_one_photo(model: LaCT, photos: torch.Tensor) -> None:
    target = ring(1, (48, 40), turn=0.2)
    with torch.no_grad():
        state = encode(model, photos, ring(5))
        for views in (1, 4, 9):
            sampling = Sampling(views=views, planes=views + 1, fine_planes=2, finest_planes=2)
            assert model.decode_detail(state, target, (24, 16), sampling).images.isfinite().all()
        halved = model.decode_detail(state, target, (24, 16), Sampling(photo_level=1)).images
        assert not torch.equal(halved, model.decode_detail(state, target, (24, 16)).images)
        one = encode(model, photos[:, :1], ring(1))
        assert model.decode_detail(one, target, (24, 16)).images.isfinite().all()


def test_every_parameter_gets_a_gradient(model: LaCT, photos: torch.Tensor) -> None:
    context, target = ring(5), ring(3, turn=0.2)
    small = torch.nn.functional.avg_pool2d(photos[0], 2)[None]
    model.zero_grad()
    drawn, views, output = model.forward_detail(
        small, context.scaled_to((16, 24)), target.scaled_to((16, 24)), photos, context, target
    )
    said = (output.images, output.log_depth, output.log_scale, output.surface, views.features, drawn)
    sum((part * torch.randn_like(part)).sum() for part in said).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A softmax does not see what is added to all its logits.
    assert not [name for name in missing if not name.endswith("volume_out.bias")]
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.zero_grad()


def test_a_state_keeps_photos_and_features(model: LaCT, photos: torch.Tensor, tmp_path) -> None:
    target = ring(2, turn=0.2)
    with torch.no_grad():
        state = encode(model, photos, ring(5))
        loaded = SceneState.load(state.save(tmp_path / "scene.safetensors"))
        assert loaded.context is not None and loaded.context.images.dtype == torch.uint8
        assert loaded.context.features.dtype == torch.float16
        images = [model.decode_detail(s, target, (16, 24)).images for s in (state, loaded)]
        torch.testing.assert_close(*images, rtol=0, atol=0.02)
        plain = replace(state, context=None)
        assert SceneState.load(plain.save(tmp_path / "old.safetensors")).context is None


def test_a_checkpoint_keeps_the_head_in_a_shard_of_its_own(model: LaCT, photos: torch.Tensor, tmp_path) -> None:
    folder = save_checkpoint(tmp_path / "one", model.state_dict(), model.config, {}, dtype="int8")
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json", "detail_head.safetensors", "model-01-of-01.safetensors"
    ]  # fmt: skip
    loaded = load_checkpoint(folder)
    assert loaded.config == model.config
    for name, value in model.state_dict().items():
        if name.startswith("detail_head."):
            assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    without = LaCT(replace(CONFIG, detail_head=None))
    assert "detail_head" not in without.config.to_dict()
    plain = save_checkpoint(tmp_path / "two", without.state_dict(), without.config, {})
    assert load_checkpoint(plain).detail_head is None


def test_a_head_grows_on_a_trained_network() -> None:
    torch.manual_seed(0)
    plain = LaCT(replace(CONFIG, detail_head=None))
    grown = with_changes(plain, "detail_head=features:8+groups:4+guide:16+volume:4+blend:8")
    assert grown.config.detail_head is not None and grown.config.detail_head.guide == 16
    for name, value in plain.state_dict().items():
        assert torch.equal(grown.state_dict()[name], value)
    for sizes in ("guide:32", "planes:24+guide:32", "finest_planes:4", "false"):
        with pytest.raises(NVSError, match="only detail_head=true"):
            with_changes(grown, f"detail_head={sizes}")
    wider = with_changes(grown, "write_steps=2,detail_head=reach:4+planes:16")
    assert wider.config.detail_head == replace(grown.config.detail_head, reach=4.0, planes=16)
    for name, value in grown.state_dict().items():
        assert torch.equal(wider.state_dict()[name], value)


def test_a_head_gets_further_parts_and_keeps_what_it_has_learned(photos: torch.Tensor) -> None:
    torch.manual_seed(0)
    old = LaCT(CONFIG).eval()
    with torch.no_grad():
        for name, parameter in old.named_parameters():
            if name.startswith("detail_head.") and not parameter.any():
                parameter.normal_(std=0.05)
    grown = with_changes(old, "detail_head=true").eval()
    usual = DetailHeadConfig.usual()
    assert grown.config.detail_head == replace(HEAD, finest_planes=usual.finest_planes, layers=2, refine=usual.refine)
    weights, before = grown.state_dict(), old.state_dict()
    for name, value in before.items():
        if weights[name].shape == value.shape:
            assert torch.equal(weights[name], value)
        elif "upsampling" not in name:  # further inputs begin at zero
            kept = value.shape[1]
            assert torch.equal(weights[name][:, :kept], value) and not weights[name][:, kept:].any()
    target = ring(2, turn=0.2)
    with torch.no_grad():
        outputs = [m.decode_detail(encode(m, photos, ring(5)), target, (16, 24)) for m in (old, grown)]
        again = with_changes(grown, "detail_head=true").eval()
        same = again.decode_detail(encode(again, photos, ring(5)), target, (16, 24))
    assert outputs[0].third is None and outputs[1].third is not None
    # The sweeps are those that were there; what is new refines around them.
    torch.testing.assert_close(outputs[0].second.log_depth, outputs[1].second.log_depth)
    assert (outputs[0].log_depth - outputs[1].log_depth).abs().max() < 0.5
    torch.testing.assert_close(same.images, outputs[1].images)
