"""Networks that go on with more write steps, other keys, or patches that v sees."""

from dataclasses import replace

import pytest
import torch

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.model.checkpoint import load_checkpoint, save_checkpoint
from nvs_app.model.config import LaCTConfig, read_option
from nvs_app.model.config_override import with_changes
from nvs_app.model.lact import LaCT
from nvs_app.training.optim import MUON, parameter_kind


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
    images = torch.rand(1, 3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.decode(model.encode(images, cameras[:, :3]), cameras[:, 3:])


def test_patch_values_begin_as_nothing_and_are_trained(model: LaCT, cameras: Cameras, tmp_path) -> None:
    grown = with_changes(model, "value_patch_skip=true")
    assert grown.config.value_patch_skip and torch.equal(drawn(grown, cameras), drawn(model, cameras))
    grown.train()(torch.rand(1, 3, 3, 16, 24), cameras[:, :3], cameras[:, 3:]).square().sum().backward()
    for name, parameter in grown.named_parameters():
        if "patch_to_v" in name:
            assert parameter_kind(name, parameter) == MUON and (parameter.grad != 0).any()
    with torch.no_grad():
        grown.blocks[1].fast.patch_to_v.weight.normal_()
    saved = save_checkpoint(tmp_path / "one", grown.state_dict(), grown.config, {})
    again = with_changes(load_checkpoint(saved), "write_steps=3,value_patch_skip=true")
    assert torch.equal(again.blocks[1].fast.patch_to_v.weight, grown.blocks[1].fast.patch_to_v.weight)
    with pytest.raises(NVSError, match="forget"):
        with_changes(grown, "value_patch_skip=false")


def test_a_new_write_step_is_a_full_one(model: LaCT, cameras: Cameras) -> None:
    grown = with_changes(model, "write_steps=3")
    plain = LaCT(replace(model.config, write_steps=3)).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(drawn(grown, cameras), drawn(plain, cameras))
    assert (drawn(grown, cameras) - drawn(model, cameras)).abs().max() > 1e-4


def test_keys_get_another_length_and_phases_another_frequency(cameras: Cameras) -> None:
    torch.manual_seed(0)
    model = LaCT(LaCTConfig(dim=32, blocks=2, attention_head_dim=16, rotary="fast")).eval()
    grown = with_changes(model, "qk_scale=4,rotary_max_frequency=96")
    assert (grown.config.qk_scale, grown.config.rotary_max_frequency) == (4, 96)
    tokens = torch.randn(1, 6, 32)
    for layer, length in ((model.blocks[0].fast, 1.0), (grown.blocks[0].fast, 4.0)):
        for x in (layer.queries(tokens, None), layer.keys_values(tokens, None)[0]):
            torch.testing.assert_close(x.norm(dim=-1), torch.full((1, 1, 6), length), rtol=1e-2, atol=0)
    assert (drawn(grown, cameras) - drawn(model, cameras)).abs().max() > 1e-5
    same = with_changes(grown, "qk_scale=1,rotary_max_frequency=64")
    torch.testing.assert_close(drawn(same, cameras), drawn(model, cameras))


@pytest.mark.parametrize(
    "text",
    ["", "dim=4", "write_steps", "write_steps=x", "write_steps=0", "value_patch_skip=yes", "qk_scale=0", "qk_scale=a"],
)
def test_other_changes_are_refused(model: LaCT, text: str) -> None:
    with pytest.raises(NVSError):
        with_changes(model, text)


@pytest.mark.parametrize(
    "text",
    ["maybe", "views:x", "sides:3", "views:0", "features:7", "planes:1", "finest_planes:1", "layers:2", "layers:3"],
)
def test_impossible_heads_are_refused(text: str) -> None:
    with pytest.raises(NVSError):
        read_option("detail_head", text)
