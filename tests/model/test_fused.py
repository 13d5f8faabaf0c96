"""Fused blocks give what the plain ones give, and are compiled once for all blocks, sizes and chunks."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from camera_rings import ring_cameras

from nvs_app.geometry.cameras import Cameras
from nvs_app.model.config import LaCTConfig
from nvs_app.model.detail import DetailHeadConfig
from nvs_app.model.lact import LaCT
from nvs_app.model.state import SceneState

CONFIGS = {
    "published": LaCTConfig(dim=64, blocks=3, attention_head_dim=16, fast_multiplier=4),
    "everything": LaCTConfig(
        dim=64, blocks=3, attention_head_dim=16, fast_head_dim=32, share_initial_weights=True, write_steps=2,
        qk_scale=2.0, value_patch_skip=True, rotary="fast+attention",
    ),
}  # fmt: skip
HEAD = dataclasses.replace(
    CONFIGS["everything"], blocks=1, detail_head=DetailHeadConfig(finest_planes=4, layers=2, refine=8)
)


def circle(views: int, image_hw: tuple[int, int], turn: float = 0.0) -> Cameras:
    height, width = image_hw
    ring = ring_cameras(views, image_hw, (30.0, 30.0, width / 2, height / 2), radius=1.0, height=0.3, start=turn)
    return Cameras(ring.c2w[None], ring.fxfycxcy[None], image_hw)


def written_and_read(
    model: LaCT, images: torch.Tensor, views_per_chunk: int | None, bf16: bool, device: str = "cpu"
) -> tuple[SceneState, torch.Tensor]:
    hw = (images.shape[-2], images.shape[-1])
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bf16):
        state = model.encode(images.to(device), circle(images.shape[1], hw).to(device), views_per_chunk=views_per_chunk)
        return state, model.decode(state, circle(2, hw, 0.4).to(device))


def off(a: SceneState, b: SceneState) -> float:
    """The largest relative difference of two scenes' fast weights."""
    pairs = [(x, y) for one, other in zip(a.fast_weights, b.fast_weights, strict=True) for x, y in zip(one, other)]
    return max(float((x - y).norm() / x.norm()) for x, y in pairs)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_fused_equals_plain(name: str, bf16: bool) -> None:
    torch.manual_seed(0)
    model, images = LaCT(CONFIGS[name]).eval(), torch.rand(1, 5, 3, 32, 48)
    for chunk in (None, 2):
        model.fuse(None)
        state, seen = written_and_read(model, images, chunk, bf16)
        model.fuse(torch.bfloat16 if bf16 else torch.float32)
        fused_state, fused_seen = written_and_read(model, images, chunk, bf16)
        # Newton-Schulz amplifies bfloat16's rounding, of either way, to some percent.
        assert 0 < off(state, fused_state) < (0.15 if bf16 else 1e-4)
        torch.testing.assert_close(seen, fused_seen, rtol=0, atol=5e-3 if bf16 else 1e-5)
        assert state.fast_weights[0].w0.dtype == fused_state.fast_weights[0].w0.dtype == torch.float32


def test_only_what_needs_no_gradient_is_fused() -> None:
    """Training, and scenes side by side, go through the plain blocks."""
    torch.manual_seed(0)
    model = LaCT(CONFIGS["published"])
    model.fuse(torch.float32)
    images, cameras = torch.rand(1, 3, 3, 16, 24), circle(3, (16, 24))
    model.decode(model.encode(images, cameras), cameras).sum().backward()
    assert model.blocks[0].mlp.up.weight.grad.abs().max() > 0
    both = Cameras(cameras.c2w.expand(2, -1, -1, -1), cameras.fxfycxcy.expand(2, -1, -1), cameras.image_hw)
    with torch.inference_mode():
        state = model.encode(images.expand(2, -1, -1, -1, -1), both)
        assert state.fast_weights[0].w0.shape[0] == 2
        assert model.decode(state, both).shape == (2, 3, 3, 16, 24)


COMPILATIONS = """
import torch
from torch._dynamo.testing import CompileCounter
from nvs_app.model.compilation import compiled
from nvs_app.model.lact import LaCT
from test_fused import CONFIGS, circle, off, written_and_read

counter = CompileCounter()
compiled.cache_clear()
plain_compile = torch.compile
torch.compile = lambda function, **options: plain_compile(function, backend=counter, fullgraph=True, **options)
torch.manual_seed(0)
model = LaCT(CONFIGS["published"]).eval()
images = torch.rand(1, 6, 3, 32, 48)
for views, chunk, (height, width) in ((6, None, (32, 48)), (6, 3, (32, 48)), (4, 2, (16, 48)), (5, 3, (32, 24))):
    some = images[:, :views, :, :height, :width]
    model.fuse(None)
    state, seen = written_and_read(model, some, chunk, False)
    model.fuse(torch.float32, compile=True)
    fused_state, fused_seen = written_and_read(model, some, chunk, False)
    assert off(state, fused_state) < 1e-4
    torch.testing.assert_close(seen, fused_seen, rtol=0, atol=1e-5)
# attended, key_value_lr, gradient, step, found and mlp_hidden; for each of three sizes, rays and output
assert counter.frame_count == 6 + 3 * 2, counter.frame_count

model = LaCT(CONFIGS["everything"]).eval()  # nor do rotary phases break a graph
model.fuse(torch.float32, compile=True)
with torch.inference_mode():
    tokens, (attention, fast, hidden) = model._call(LaCT._start)(model, circle(1, (32, 48)))
assert type(attention) is type(fast) is tuple and tokens.shape == (1, 1, 24, 64)
"""


def run_unchecked(code: str) -> None:
    """In a process of its own: the shape checks that pytest switches on cannot be traced."""
    tests = Path(__file__).parent
    paths = f"import sys; sys.path[:0] = {[str(tests), str(tests.parent), str(tests.parent.parent)]!r}\n"
    result = subprocess.run([sys.executable, "-c", paths + code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_one_compilation_serves_all_blocks_chunks_and_sizes() -> None:
    run_unchecked(COMPILATIONS)


COMPILED_ON_A_GPU = """
import torch
from nvs_app.model.lact import LaCT
from test_fused import CONFIGS, HEAD, circle, off, written_and_read

torch.manual_seed(0)
images = torch.rand(1, 6, 3, 64, 96)
for config in CONFIGS.values():
    model = LaCT(config).eval().cuda()
    for chunk in (None, 4):
        model.fuse(None)
        state, seen = written_and_read(model, images, chunk, True, "cuda")
        model.fuse(torch.bfloat16, compile=True)
        fused_state, fused_seen = written_and_read(model, images, chunk, True, "cuda")
        assert 0 < off(state, fused_state) < 0.15
        torch.testing.assert_close(seen, fused_seen, rtol=0, atol=5e-3)
# Smooth photos: of noise, another rounding of a depth is another image.
images = torch.nn.functional.interpolate(images[0, :, :, ::16, ::16], (64, 96), mode="bilinear")[None].cuda()
model, cameras = LaCT(HEAD).eval().cuda(), circle(6, (64, 96)).to("cuda")
with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
    state = model.encode(images, cameras, photos=images, photo_cameras=cameras)
    seen = model.decode_detail(state, cameras[:, :1], (64, 96)).images
    model.fuse(torch.bfloat16, compile=True)
    difference = (model.decode_detail(state, cameras[:, :1], (64, 96)).images - seen).abs()
assert difference.mean() < 0.04, difference.mean()
"""


@pytest.mark.gpu
def test_compiled_equals_plain_on_a_gpu() -> None:
    run_unchecked(COMPILED_ON_A_GPU)
