"""Networks that get more write steps, and sizes of them that are learned."""

import pytest
import torch

from nvs_app.engine.optim import ADAM, parameter_kind
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.model.checkpoint import load_checkpoint, save_checkpoint
from nvs_app.model.config import LaCTConfig
from nvs_app.model.fast_weights import FastWeights, newton_schulz, step_fast_weights
from nvs_app.model.growth import NEW_STEP, with_changes
from nvs_app.model.lact import LaCT


@pytest.fixture
def cameras() -> Cameras:
    eye = torch.tensor([[2.0, 0, 1], [0, 2, 1], [-2, 0, 1], [1, 1, 2]])
    c2w = look_at(eye, torch.zeros(4, 3), torch.tensor([0.0, 0, 1]).expand(4, 3))
    return Cameras(c2w[None], torch.tensor([20.0, 20, 12, 8]).expand(1, 4, 4), (16, 24))


@pytest.fixture
def model() -> LaCT:
    torch.manual_seed(0)
    config = LaCTConfig(dim=32, blocks=2, attention_head_dim=16, fast_head_dim=16, write_steps=2)
    return LaCT(config).eval()


def drawn(model: LaCT, cameras: Cameras) -> torch.Tensor:
    pictures = torch.rand(1, 3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.decode(model.encode(pictures, cameras[:, :3]), cameras[:, 3:])


def test_sizes_scale_each_matrix_of_each_head() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 8, 16), (2, 3, 16, 8), (2, 3, 8, 16))
    weights, gradient = (FastWeights(*(torch.randn(s, generator=generator) for s in shapes)) for _ in range(2))
    sizes = torch.rand(3, 1, 3, 1, 1, generator=generator)
    found = step_fast_weights(weights, gradient, 5, sizes=sizes)
    for i, (weight, direction, moved) in enumerate(zip(weights, gradient, found, strict=True)):
        for head in range(3):
            plain = weight[:, head] + sizes[i, 0, head] * newton_schulz(direction[:, head], 5)
            plain = plain / (plain.norm(dim=-2, keepdim=True) + 1e-5) * weight[:, head].norm(dim=-2, keepdim=True)
            torch.testing.assert_close(moved[:, head], plain, rtol=1e-4, atol=1e-5)
    ones = step_fast_weights(weights, gradient, 5, sizes=torch.ones(3, 1, 3, 1, 1))
    assert all(torch.equal(a, b) for a, b in zip(ones, step_fast_weights(weights, gradient, 5), strict=True))


def test_learned_sizes_begin_as_what_was_trained(model: LaCT, cameras: Cameras) -> None:
    learned = with_changes(model, "write_sizes=learned")
    assert learned.config.write_sizes == "learned" and learned.config.write_steps == 2
    torch.testing.assert_close(drawn(learned, cameras), drawn(model, cameras), rtol=0, atol=1e-6)


def test_a_new_step_of_no_size_changes_nothing_and_a_small_one_little(model: LaCT, cameras: Cameras) -> None:
    before = drawn(model, cameras)
    grown = with_changes(model, "write_steps=3, write_sizes=learned")
    sizes = grown.blocks[1].fast.step_sizes
    assert sizes.view(3, 3, 2)[:2].eq(1).all() and sizes.view(3, 3, 2)[2].eq(NEW_STEP).all()
    small = (drawn(grown, cameras) - before).abs().max()
    full = (drawn(with_changes(model, "write_steps=3"), cameras) - before).abs().max()
    assert 0 < small < 0.5 * full
    with torch.no_grad():
        for block in grown.blocks:
            block.fast.step_sizes.view(3, -1)[2] = 0
    torch.testing.assert_close(drawn(grown, cameras), before, rtol=0, atol=1e-4)


def test_what_was_learned_stays(model: LaCT, tmp_path) -> None:
    learned = with_changes(model, "write_sizes=learned")
    with torch.no_grad():
        learned.blocks[0].fast.step_sizes.copy_(torch.rand(12))
    saved = save_checkpoint(tmp_path / "one", learned.state_dict(), learned.config, {}, dtype="int8")
    grown = with_changes(load_checkpoint(saved), "write_steps=4")
    sizes = grown.blocks[0].fast.step_sizes.view(4, -1)
    assert torch.equal(sizes[:2].flatten(), learned.blocks[0].fast.step_sizes) and sizes[2:].eq(NEW_STEP).all()
    assert with_changes(grown, "write_steps=1").blocks[0].fast.step_sizes.numel() == 6
    with pytest.raises(NVSError, match="forget"):
        with_changes(grown, "write_sizes=one")


def test_sizes_are_trained_as_numbers(model: LaCT, cameras: Cameras) -> None:
    grown = with_changes(model, "write_steps=3,write_sizes=learned").train()
    grown(torch.rand(1, 3, 3, 16, 24), cameras[:, :3], cameras[:, 3:]).square().sum().backward()
    for name, parameter in grown.named_parameters():
        if name.endswith("step_sizes"):
            assert parameter_kind(name, parameter) == ADAM and (parameter.grad != 0).all()


def test_keys_get_another_length_and_phases_another_frequency(cameras: Cameras) -> None:
    torch.manual_seed(0)
    model = LaCT(LaCTConfig(dim=32, blocks=2, attention_head_dim=16, rotary="fast")).eval()
    grown = with_changes(model, "key_length=4,rotary_max_frequency=96")
    assert (grown.config.key_length, grown.config.rotary_max_frequency) == (4, 96)
    tokens = torch.randn(1, 6, 32)
    for layer, length in ((model.blocks[0].fast, 1.0), (grown.blocks[0].fast, 4.0)):
        for x in (layer.queries(tokens, None), layer.keys_values(tokens, None)[0]):
            torch.testing.assert_close(x.norm(dim=-1), torch.full((1, 1, 6), length), rtol=1e-2, atol=0)
    assert (drawn(grown, cameras) - drawn(model, cameras)).abs().max() > 1e-5
    same = with_changes(grown, "key_length=1,rotary_max_frequency=64")
    torch.testing.assert_close(drawn(same, cameras), drawn(model, cameras))


@pytest.mark.parametrize(
    "text",
    ["", "dim=4", "write_steps", "write_steps=x", "write_steps=0", "write_sizes=big", "key_length=0", "key_length=a"],
)
def test_other_changes_are_refused(model: LaCT, text: str) -> None:
    with pytest.raises(NVSError):
        with_changes(model, text)
