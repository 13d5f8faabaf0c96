"""The network as a whole: encode, decode, forward, chunks, states, sizes."""

from dataclasses import replace

import pytest
import torch
from camera_rings import ring_cameras

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.model import lact
from nvs_app.model.blocks import Block
from nvs_app.model.checkpoint import load_checkpoint, save_checkpoint
from nvs_app.model.config import PRESETS, LaCTConfig
from nvs_app.model.flops import lact_flops
from nvs_app.model.lact import LaCT, patchify, unpatchify
from nvs_app.model.state import SceneState

CONFIGS = {
    "published": LaCTConfig(dim=32, blocks=2, attention_head_dim=16),
    "heads": LaCTConfig(dim=32, blocks=2, attention_head_dim=16, fast_head_dim=16, fast_multiplier=4),
    "shared": LaCTConfig(dim=32, blocks=3, attention_head_dim=16, share_initial_weights=True, rotary="fast"),
    "steps": LaCTConfig(dim=32, blocks=2, attention_head_dim=16, fast_head_dim=16, rotary="fast", write_steps=2),
    "patches": LaCTConfig(dim=32, blocks=2, attention_head_dim=16, write_steps=2, value_patch_skip=True),
    "keys": LaCTConfig(dim=32, blocks=2, attention_head_dim=16, qk_scale=4.0, rotary="fast"),
    "rotary": LaCTConfig(dim=32, blocks=2, attention_head_dim=16, rotary="fast+attention+value"),
}


def circle(n: int, image_hw=(16, 24)) -> Cameras:
    return ring_cameras(n, image_hw, (20.0, 20.0, 12.0, 8.0), radius=1.0, height=0.4)[None]


@pytest.fixture(params=CONFIGS, scope="module")
def model(request):
    torch.manual_seed(0)
    model = LaCT(CONFIGS[request.param])
    with torch.no_grad():  # larger than at the start of training, so that every part matters
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5)
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(1, 5, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def test_patches_come_back():
    x = torch.rand(2, 3, 5, 16, 24)
    patches = patchify(x, 8)
    assert patches.shape == (2, 3, 6, 8 * 8 * 5)
    torch.testing.assert_close(unpatchify(patches, 8, (16, 24)), x)
    # row 1, column 2 of the patches; row 3, column 4 inside; channel 2
    assert patches[1, 2, 5, (3 * 8 + 4) * 5 + 2] == x[1, 2, 2, 8 + 3, 16 + 4]


def test_shared_start_is_one_set_of_weights_that_every_block_trains(tmp_path):
    torch.manual_seed(0)
    model, own = LaCT(CONFIGS["shared"]), LaCT(replace(CONFIGS["shared"], share_initial_weights=False))
    one_set = 3 * 32 * 64
    count = [sum(p.numel() for p in m.parameters()) for m in (model, own)]
    assert count[1] - count[0] == 2 * one_set
    starts = [block.fast.start().w0 for block in model.blocks]
    assert starts[1] is starts[0] and starts[2] is starts[0] and sum("w0" in name for name in model.state_dict()) == 1
    loaded = load_checkpoint(save_checkpoint(tmp_path / "one", model.state_dict(), model.config, {}))
    cameras = circle(3)
    images = torch.rand(1, 2, 3, 16, 24)
    with torch.no_grad():
        rendered = [m(images, cameras[:, :2], cameras[:, 2:]) for m in (model, loaded)]
    assert torch.equal(*rendered)
    gradients = []
    for block in model.blocks:  # each block alone reaches it
        tokens = torch.randn(1, 3, 6, 32)
        block(tokens, torch.ones(12, 1), model.phases(cameras), block.fast.start()).square().sum().backward()
        gradients.append(model.blocks[0].fast.w1.grad.abs().sum().item())
    assert gradients[0] > 0 and len(set(gradients)) == 3


def test_v_sees_the_embedded_patch(images):
    torch.manual_seed(0)
    model, cameras = LaCT(CONFIGS["patches"]), circle(8)
    plain = LaCT(replace(CONFIGS["patches"], value_patch_skip=False))
    plain.load_state_dict({n: p for n, p in model.state_dict().items() if "patch_to_v" not in n})
    with torch.no_grad():
        patches = model.embed(images, cameras[:, :5])
        phases = model.phases(cameras[:, :5])
        for block, other in zip(model.blocks, plain.blocks, strict=True):
            tokens = torch.randn_like(patches)
            k, v, lr = block.key_value_lr(tokens, phases, patches.flatten(1, 2))
            k_plain, v_plain, lr_plain = other.key_value_lr(tokens, phases)
            assert torch.equal(k, k_plain) and torch.equal(lr, lr_plain) and not torch.equal(v, v_plain)
            to_v = torch.cat([other.fast.to_qkv.weight[64:], block.fast.patch_to_v.weight], dim=1)
            both = torch.cat([block.fast_norm(tokens), patches], dim=-1).flatten(1, 2)
            expected = torch.nn.functional.silu(both @ to_v.T)[:, None]
            torch.testing.assert_close(v, expected, rtol=0, atol=1e-5)


def test_forward_is_encode_then_decode(model, images):
    cameras = circle(8)
    with torch.no_grad():
        state = model.encode(images, cameras[:, :5])
        apart = model.decode(state, cameras[:, 5:])
        at_once = model(images, cameras[:, :5], cameras[:, 5:])
    assert apart.shape == (1, 3, 3, 16, 24)
    assert apart.std() > 0.01
    torch.testing.assert_close(apart, at_once, rtol=0, atol=1e-3)


def test_chunks_and_order_of_views_change_nothing(model, images):
    cameras = circle(8)
    order = [3, 0, 4, 2, 1]
    with torch.no_grad():
        whole = model.decode(model.encode(images, cameras[:, :5]), cameras[:, 5:])
        chunked = model.decode(model.encode(images, cameras[:, :5], views_per_chunk=2), cameras[:, 5:])
        permuted = model.decode(model.encode(images[:, order], cameras[:, order]), cameras[:, 5:])
    torch.testing.assert_close(whole, chunked, rtol=0, atol=1e-3)
    torch.testing.assert_close(whole, permuted, rtol=0, atol=1e-3)


def test_keys_made_anew_in_every_write_step_are_the_same(monkeypatch, images):
    """What many tokens take, who would not fit in memory, gives what few take."""
    torch.manual_seed(0)
    model, cameras = LaCT(CONFIGS["steps"]).eval(), circle(8)
    made = []
    key_value_lr = Block.key_value_lr
    monkeypatch.setattr(Block, "key_value_lr", lambda self, *args: made.append(1) or key_value_lr(self, *args))
    with torch.no_grad():
        kept = model.encode(images, cameras[:, :5], views_per_chunk=2)
        monkeypatch.setattr(lact, "KV_CACHE_MAX_TOKENS", 29)
        anew = model.encode(images, cameras[:, :5], views_per_chunk=2)
    assert len(made) == 2 * 3 + 2 * 2 * 3  # blocks, groups; blocks, write steps, groups
    for a, b in zip(kept.fast_weights, anew.fast_weights, strict=True):
        assert torch.equal(a.w0, b.w0) and torch.equal(a.w1, b.w1) and torch.equal(a.w2, b.w2)


def test_images_and_cameras_matter(model, images):
    cameras = circle(8)
    with torch.no_grad():
        state = model.encode(images, cameras[:, :5])
        other = model.encode(1 - images, cameras[:, :5])
        a, b = model.decode(state, cameras[:, 5:]), model.decode(other, cameras[:, 5:])
        moved = model.decode(state, cameras[:, 4:7])
    assert (a - b).abs().max() > 1e-3
    assert (a - moved).abs().max() > 1e-3


def test_every_parameter_gets_a_gradient(model, images):
    cameras = circle(8)
    model.zero_grad()
    model(images, cameras[:, :5], cameras[:, 5:]).square().mean().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # The three learning rates are scaled away where a single token would write; with many, all matter.
    assert not missing
    model.zero_grad()


def test_activation_checkpointing_gives_the_same_gradient(images):
    torch.manual_seed(0)
    model, cameras, gradients = LaCT(CONFIGS["rotary"]), circle(8), []
    for flag in (False, True):
        model.activation_checkpointing = flag
        model.zero_grad()
        model(images, cameras[:, :5], cameras[:, 5:]).square().mean().backward()
        gradients.append(model.blocks[0].mlp.up.weight.grad.clone())
    torch.testing.assert_close(*gradients)


ONE_COMPILATION = """
import torch
from torch._dynamo.testing import CompileCounter
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.model.config import LaCTConfig
from nvs_app.model.lact import LaCT

torch.manual_seed(0)
config = LaCTConfig(dim=32, blocks=4, attention_head_dim=16, rotary="fast+attention+value", value_patch_skip=True)
model = LaCT(config)
eye = torch.randn(1, 8, 3)
c2w = look_at(eye, torch.zeros(1, 8, 3), torch.tensor([0.0, 0.0, 1.0]).expand(1, 8, 3))
cameras = Cameras(c2w, torch.tensor([20.0, 20.0, 12.0, 8.0]).expand(1, 8, 4), (16, 24))
images, counter = torch.rand(1, 5, 3, 16, 24), CompileCounter()
plain = model(images, cameras[:, :5], cameras[:, 5:])
for block in model.blocks:
    block.compile(backend=counter)
compiled = model(images, cameras[:, :5], cameras[:, 5:])
model(images[:, :3], cameras[:, :3], cameras[:, 3:])  # another split of as many views
assert counter.frame_count == 1, counter.frame_count
torch.testing.assert_close(plain, compiled)
"""


def test_one_compilation_serves_every_block():
    # In a process of its own: the shape checks that pytest switches on cannot be traced.
    import subprocess
    import sys

    result = subprocess.run([sys.executable, "-c", ONE_COMPILATION], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_state_saves_and_loads(model, images, tmp_path):
    cameras = circle(8)
    with torch.no_grad():
        state = model.encode(images, cameras[:, :5])
    state.meta["note"] = "five views"
    loaded = SceneState.load(state.save(tmp_path / "scene.safetensors"))
    assert loaded.meta == state.meta and loaded.transform is None
    for a, b in zip(state.fast_weights, loaded.fast_weights, strict=True):
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y)
    (tmp_path / "bad.safetensors").write_bytes(b"12345678" + bytes(50))
    with pytest.raises(NVSError, match="not a readable scene state"):
        SceneState.load(tmp_path / "bad.safetensors")
    with pytest.raises(NVSError, match="no such scene state"):
        SceneState.load(tmp_path / "none.safetensors")


def test_sizes_that_do_not_fit_are_refused(model, images):
    with pytest.raises(NVSError, match="multiples of the patch"):
        model.decode(model.encode(images, circle(5)), circle(2, (16, 20)))
    with pytest.raises(NVSError, match="layers"):
        model.decode(SceneState([]), circle(2))
    with pytest.raises(NVSError, match="divisor of dim"):
        LaCTConfig(dim=100)
    with pytest.raises(NVSError, match="rotary names"):
        LaCTConfig(rotary="fast+slow")
    with pytest.raises(NVSError, match="unknown options"):
        LaCTConfig.from_dict({"depth": 3})


@pytest.mark.parametrize(("steps", "patches"), [(1, False), (1, True), (3, False)])
def test_flops_agree_with_torchs_counter(images, steps, patches):
    from torch.utils.flop_counter import FlopCounterMode

    config = LaCTConfig(dim=64, blocks=2, attention_head_dim=32, write_steps=steps, value_patch_skip=patches)
    model, cameras = LaCT(config), circle(8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.decode(model.encode(images, cameras[:, :5]), cameras[:, 5:])
    ours = lact_flops(config, 5 * 6, 3 * 6, 6)
    assert 0.7 < counter.get_total_flops() / ours < 1.1  # encode spares the last block's reading


def test_presets_have_the_published_sizes():
    with torch.device("meta"):
        count = sum(p.numel() for p in LaCT(PRESETS["lact_l24_d768_ttt2x"]).parameters())
    assert 300e6 < count < 330e6
