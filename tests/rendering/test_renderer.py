"""Renderer: sizes, chunks, normalisation, memory, states on disk; with a detail head and without."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch
from small_scenes import circle, moved, network, plain_renderer, posed

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, vertical_fov, with_vertical_fov
from nvs_app.geometry.normalize import normalize_context
from nvs_app.model.adapted import AdaptedWeights
from nvs_app.model.checkpoint import default_checkpoint, save_checkpoint
from nvs_app.model.config import PRESETS
from nvs_app.model.detail.layers import resize
from nvs_app.model.lact import LaCT
from nvs_app.model.state import SceneState, context_cameras
from nvs_app.rendering import device
from nvs_app.rendering.adapted_networks import KEPT, AdaptedNetworks
from nvs_app.rendering.cuda_graphs import CudaGraphs
from nvs_app.rendering.device import pick_device
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages


@pytest.fixture(scope="module", params=[False, True], ids=["lact", "head"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return plain_renderer(request.param)


def test_normalises_from_the_context_alone(renderer: Renderer) -> None:
    """Encode and render equal the model called by hand with cameras mapped by the context's transform."""
    context, targets = posed(), circle(4, (32, 40))
    state = renderer.encode(context)
    transform = normalize_context(context.cameras.c2w[None], "auto")

    def batch(c: Cameras) -> Cameras:
        return transform.normalise(Cameras(c.c2w[None], c.fxfycxcy[None], c.image_hw))

    model, photos, hw = renderer.model, context.images[None], (16, 16) if renderer.detail else (32, 40)
    with torch.inference_mode():
        if renderer.detail:
            small = resize(photos[0], hw)[None]
            by_hand = model.encode(
                small, batch(context.cameras).scaled_to(hw), photos=photos, photo_cameras=batch(context.cameras)
            )
            by_hand = replace(by_hand, context=by_hand.context.stored())
            expected = model.decode_detail(by_hand, batch(targets), hw).images[0].clamp(0, 1)
        else:
            by_hand = model.encode(photos, batch(context.cameras))
            expected = model.decode(by_hand, batch(targets))[0]
    images = renderer.render(state, targets)
    assert images.dtype == torch.float32 and images.device.type == "cpu" and images.shape == (4, 3, 32, 40)
    assert torch.allclose(images, expected, atol=1e-5)
    assert not images.requires_grad
    # A world that is scaled, turned and moved is the same scene.
    again = renderer.encode(PosedImages(context.images, moved(context.cameras, 7.0)))
    assert torch.allclose(images, renderer.render(again, moved(targets, 7.0)), atol=2e-3)


def test_another_device_than_the_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos and cameras on the CPU, the network elsewhere ("meta": a device that refuses to be mixed with another):
    the frame is found where the cameras are, and everything else where the network is."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # "meta" knows none
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    seen = []

    def normalize(c2w: torch.Tensor, preset: str):
        seen.append(c2w.device.type)
        return normalize_context(c2w, preset)

    monkeypatch.setattr("nvs_app.rendering.inputs.normalize_context", normalize)
    away = Renderer(network(False), device="meta")
    context, targets = posed(), circle(5, (30, 40))
    state = away.encode(context)
    assert seen == ["cpu"] and state.transform is not None and state.transform.scale.is_meta
    chunks = list(away.stream(state, targets, 2, on_device=True))
    assert [chunk.shape for chunk in chunks] == [(2, 3, 30, 40), (2, 3, 30, 40), (1, 3, 30, 40)]
    assert all(chunk.is_meta for chunk in chunks)


def test_uint8_and_float_agree(renderer: Renderer) -> None:
    context = posed()
    bytes_ = (context.images * 255).round().to(torch.uint8)
    targets = circle(1, (32, 40))
    a = renderer.render(renderer.encode(PosedImages(bytes_, context.cameras)), targets)
    b = renderer.render(renderer.encode(PosedImages(bytes_.float() / 255, context.cameras)), targets)
    assert torch.equal(a, b)


@pytest.mark.parametrize("image_hw", [(33, 47), (8, 9), (32, 40), (1, 1)])
def test_any_size_is_a_cut_of_the_padded_frame(renderer: Renderer, image_hw: tuple[int, int]) -> None:
    state = renderer.encode(posed())
    cameras = circle(2, image_hw)
    padded = tuple(-(-side // 8) * 8 for side in image_hw)
    larger = renderer.render(state, Cameras(cameras.c2w, cameras.fxfycxcy, padded))
    images = renderer.render(state, cameras)
    assert images.shape == (2, 3, *image_hw)
    assert torch.allclose(images, larger[:, :, : image_hw[0], : image_hw[1]], atol=1e-5)


def test_context_is_cut_to_patches_with_its_cameras(renderer: Renderer) -> None:
    """Cutting by hand gives the same state, so pixels and principal point moved together and none was resampled."""
    context = posed(3, (37, 45))  # cut to 32x40: 2 rows off the top, 2 columns off the left
    k = context.cameras.fxfycxcy - torch.tensor([0.0, 0.0, 2.0, 2.0])
    by_hand = PosedImages(context.images[:, :, 2:34, 2:42].contiguous(), Cameras(context.cameras.c2w, k, (32, 40)))
    a, b = renderer.encode(context), renderer.encode(by_hand)
    for layer_a, layer_b in zip(a.fast_weights, b.fast_weights):
        assert all(torch.equal(x, y) for x, y in zip(layer_a, layer_b))
    assert torch.equal(context_cameras(a).fxfycxcy, k)
    with pytest.raises(NVSError, match="smaller than one patch"):
        renderer.encode(posed(2, (4, 40)))
    assert (a.context is not None) == renderer.detail
    if a.context is not None and b.context is not None:
        assert torch.equal(a.context.images, b.context.images) and torch.equal(a.context.features, b.context.features)
        assert a.context.cameras.image_hw == (32, 40)


def test_chunks_progress_and_stream(renderer: Renderer) -> None:
    state = renderer.encode(posed())
    cameras = circle(5, (16, 16))
    seen: list[int] = []
    whole = renderer.render(state, cameras, chunk=5)
    parts = renderer.render(state, cameras, chunk=2, progress=seen.append)
    assert seen == [2, 2, 1]
    assert torch.allclose(whole, parts, atol=1e-5)
    assert [len(images) for images in renderer.stream(state, cameras, 3)] == [3, 2]


def test_encoding_takes_the_chunk_it_is_told(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What memory is free decides nothing then: the same calls, so the same rounding, wherever a scene is encoded."""
    told, original = [], renderer.model.encode

    def encode(*arguments, views_per_chunk: int, **others):
        told.append(views_per_chunk)
        return original(*arguments, views_per_chunk=views_per_chunk, **others)

    monkeypatch.setattr(renderer.model, "encode", encode)
    context, targets = posed(5), circle(2, (32, 40))
    monkeypatch.setattr(Renderer, "_views_at_once", lambda self, plan: 4)
    whole = renderer.render(renderer.encode(context), targets)
    parts = renderer.render(renderer.encode(context, chunk=2), targets)
    assert told == [4, 2]
    assert torch.allclose(whole, parts, atol=1e-4)


def test_out_of_memory_halves_the_chunk(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    state = renderer.encode(posed())
    cameras = circle(5, (16, 16))
    expected = renderer.render(state, cameras)
    asked: list[int] = []
    name = "decode_detail" if renderer.detail else "decode"
    decode = getattr(renderer.model, name)

    def short_of_memory(state, cameras, *more):
        asked.append(cameras.shape[1])
        if cameras.shape[1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(state, cameras, *more)

    monkeypatch.setattr(renderer.model, name, short_of_memory)
    assert torch.allclose(renderer.render(state, cameras, chunk=4), expected, atol=1e-5)
    assert asked == [4, 2, 1, 1, 1, 1, 1]

    def none_left(state, cameras, *more):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(renderer.model, name, none_left)
    with pytest.raises(NVSError, match="16x16 does not fit in the memory of cpu"):
        renderer.render(state, cameras)


def test_state_on_disk_renders_the_same(renderer: Renderer, tmp_path) -> None:
    context, cameras = posed(), circle(2, (24, 24))
    state = renderer.encode(context)
    loaded = SceneState.load(state.save(tmp_path / "state.safetensors"))
    if renderer.detail:
        assert loaded.context is not None and loaded.context.images.dtype == torch.uint8
        assert loaded.context.features.dtype == torch.float16
    assert torch.equal(renderer.render(state, cameras), renderer.render(loaded, cameras))
    remembered = context_cameras(loaded)
    assert torch.equal(remembered.c2w, context.cameras.c2w) and remembered.image_hw == (32, 40)
    assert torch.equal(remembered.fxfycxcy, context.cameras.fxfycxcy)


def test_state_of_another_checkpoint_is_refused(renderer: Renderer) -> None:
    state = renderer.encode(posed())
    state = replace(state, meta={**state.meta, "checkpoint_hash": "another"})
    with pytest.raises(NVSError, match="encoded by checkpoint tiny"):
        renderer.render(state, circle(1, (16, 16)))


def test_bf16_stays_near(renderer: Renderer) -> None:
    rough = Renderer(renderer.model, "cpu", "bf16")
    context, cameras = posed(), circle(2, (32, 32))
    fine = renderer.render(renderer.encode(context), cameras)
    images = rough.render(rough.encode(context), cameras)
    assert images.dtype == torch.float32
    assert (images - fine).abs().mean() < 0.02


@pytest.mark.parametrize(("says", "seconds", "precision"), [
    ("avx512_bf16", (1.0, 2.4), "bf16"), ("amx_bf16", (1.0, 8.0), "bf16"),
    ("avx512_bf16", (2.0, 1.1), "fp32"),  # says so, and is slower
    ("avx2", (1.0, 2.4), "fp32"),
])  # fmt: skip
def test_auto_is_bf16_where_the_cpu_multiplies_it_fast(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, says: str, seconds: tuple[float, float], precision: str
) -> None:
    real = device.product_seconds((torch.bfloat16, torch.float32))
    assert len(real) == 2 and min(real) > 0
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {says: True}, raising=False)
    monkeypatch.setattr(device, "product_seconds", lambda dtypes: list(seconds))
    device.fast_bfloat16.cache_clear()
    try:
        assert Renderer(renderer.model, "cpu").precision == precision
    finally:
        device.fast_bfloat16.cache_clear()


def test_devices_and_default_checkpoint(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu").type == "cpu"
    for wrong in ("toaster", "cuda:99"):
        with pytest.raises(NVSError, match="device"):
            pick_device(wrong)
    monkeypatch.setenv("NVS_CHECKPOINTS", str(tmp_path))
    with pytest.raises(NVSError, match="holds none"):
        default_checkpoint()
    config = PRESETS["tiny"]
    weights = LaCT(config).state_dict()
    save_checkpoint(tmp_path / "one", weights, config, {})
    assert default_checkpoint() == "one"
    save_checkpoint(tmp_path / "two", weights, config, {})
    with pytest.raises(NVSError, match="one, two"):
        default_checkpoint()
    save_checkpoint(tmp_path / "two", weights, config, {"default": True})
    assert default_checkpoint() == "two"
    assert Renderer.from_checkpoint(device="cpu").card["name"] == "two"


def test_vertical_field_of_view() -> None:
    zoomed = with_vertical_fov(circle(2, (60, 100)), 40.0, (64, 32))
    assert zoomed.image_hw == (64, 32)
    assert torch.allclose(vertical_fov(zoomed), torch.full((2,), 40.0))
    assert torch.allclose(zoomed.fxfycxcy[0, 2:], torch.tensor([16.0, 32.0]))
    each = with_vertical_fov(circle(2, (60, 100)), torch.tensor([30.0, 60.0]))
    assert torch.allclose(vertical_fov(each), torch.tensor([30.0, 60.0]))


def test_networks_of_single_scenes_come_and_go() -> None:
    """The last few stay; each is the same object as long as it does, and what was recorded of one goes with it."""
    shared, gone = network(False), []
    networks = AdaptedNetworks(shared, gone.append, None)
    weights = [AdaptedWeights({"output_norm.weight": torch.full((32,), float(i)).half()}) for i in range(KEPT + 1)]
    made = [networks.network(own) for own in weights]
    assert gone == [made[0]] and networks.network(weights[-1]) is made[-1]
    assert [float(own.output_norm.weight[0]) for own in made] == [1.0 + i for i in range(KEPT + 1)]
    assert networks.network(weights[0]) is not made[0] and float(shared.output_norm.weight.detach()[0]) == 1.0
    graphs = CudaGraphs()
    for own in made[:2]:
        graphs.run(id(own), lambda x: x, torch.zeros(1), holds=(own, None))
    graphs.forget(made[0])
    assert list(graphs._seen) == [id(made[1])]
