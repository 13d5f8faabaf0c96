"""The optimizer on flat buffers against plain per-parameter versions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from nvs_app.model.config import LaCTConfig
from nvs_app.model.detail import DetailHeadConfig
from nvs_app.model.lact import LaCT
from nvs_app.model.newton_schulz import newton_schulz, newton_schulz_reference
from nvs_app.training.optim import (
    ADAM,
    ADAM_DECAY,
    MUON,
    FlatParameters,
    MuonAdamW,
    SpikeGuard,
    update_average,
)

TINY = LaCTConfig(dim=32, blocks=2, attention_head_dim=16, fast_head_dim=16)
HEAD = DetailHeadConfig(features=8, groups=4, guide=16, volume=4, blend=8)


def tiny_model(detail_head: DetailHeadConfig | None = None) -> LaCT:
    torch.manual_seed(0)
    return LaCT(replace(TINY, detail_head=detail_head))


def fill_gradients(flat: FlatParameters, scale: float = 1.0, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for slot in flat.slots:
        flat.grad[slot.offset : slot.end] = scale * torch.randn(slot.end - slot.offset, generator=generator)


def everything(flat: FlatParameters, optimizer: MuonAdamW) -> dict[str, torch.Tensor]:
    skip = {"guard_skipped", "guard_norms", "guard_count"}
    tensors = {name: t.clone() for name, t in optimizer.tensors().items() if name not in skip}
    return {"data": flat.data.clone(), **tensors}


@pytest.mark.parametrize("shape", [(5, 24, 24), (3, 16, 48), (4, 48, 16)])
def test_batched_newton_schulz_equals_one_by_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape)
    together = newton_schulz(matrices)
    for i in range(shape[0]):
        assert torch.allclose(together[i], newton_schulz(matrices[i : i + 1])[0], atol=1e-5)
        reference = newton_schulz_reference(matrices[i], 5)  # as published, in bfloat16
        assert (together[i] - reference).norm() < 0.05 * reference.norm()
    singular = torch.linalg.svdvals(together)
    assert singular.max() < 1.3
    if shape[1] != shape[2]:  # a square random matrix has singular values too small for five steps
        assert singular.min() > 0.5


def test_flat_buffers_are_the_parameters() -> None:
    model, before = tiny_model(), {n: p.detach().clone() for n, p in tiny_model().named_parameters()}
    flat = FlatParameters(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        parameter.grad.fill_(1.0)
    assert flat.grad.sum() == sum(p.numel() for p in model.parameters())
    flat.data.zero_()
    assert all(not parameter.any() for parameter in model.parameters())
    kinds = {slot.name: slot.kind for slot in flat.slots}
    assert kinds["blocks.0.attention.to_qkv.weight"] == kinds["blocks.1.fast.w0"] == MUON
    assert kinds["patch_embed.weight"] == kinds["output_linear.weight"] == ADAM_DECAY
    assert kinds["blocks.0.fast.to_lr.weight"] == kinds["blocks.0.mlp_norm.weight"] == ADAM
    # q, k and v count one by one, heads too: every group is a stack of equal matrices.
    assert (32, 32) in {group[:2] for group in flat.groups}
    assert (16, 32) in {group[:2] for group in flat.groups}
    assert all((end - start) % (rows * columns) == 0 for rows, columns, start, end in flat.groups)
    assert all(slot.offset % 4 == 0 for slot in flat.slots)  # 16 bytes: what vectorised kernels need


def test_parameters_of_a_detail_head() -> None:
    model = tiny_model(HEAD)
    plain = {n: p.detach().clone() for n, p in model.named_parameters()}
    flat = FlatParameters(model, prefix="detail_head.")
    assert all(slot.name.startswith("detail_head.") for slot in flat.slots)
    assert not model.blocks[0].fast.w0.requires_grad and model.blocks[0].fast.w0.grad is None
    kinds = {slot.name: slot.kind for slot in flat.slots}
    convolution, logits = "detail_head.blending.view.2.weight", "detail_head.guide.prior.weight"
    assert kinds[convolution] == MUON and kinds[logits] == ADAM_DECAY
    assert kinds["detail_head.blending.view.2.bias"] == ADAM
    fill_gradients(flat)
    gradient = dict(model.named_parameters())[convolution].grad.clone()
    MuonAdamW(flat, muon_lr=0.01, weight_decay=0.1, clip=1e9).step(0.5)
    matrix = (0.0975 * gradient).flatten(1)  # what momentum makes of the first gradient, up to its length
    update = newton_schulz(matrix[None])[0].view(gradient.shape)
    expected = plain[convolution] * (1 - 0.005 * 0.1) - 0.2 * math.sqrt(max(matrix.shape)) * 0.005 * update
    torch.testing.assert_close(dict(model.named_parameters())[convolution], expected, atol=1e-6, rtol=0)
    for name, parameter in model.named_parameters():
        if not name.startswith("detail_head."):
            assert torch.equal(parameter, plain[name])


def test_gradients_accumulate_into_the_flat_buffer() -> None:
    module = nn.Sequential(nn.Linear(4, 4))
    flat = FlatParameters(module)
    module(torch.ones(2, 4)).sum().backward()
    assert flat.grad.abs().sum() > 0
    for slot in flat.slots:
        parameter = dict(module.named_parameters())[slot.name]
        assert parameter.grad is not None and parameter.grad.data_ptr() == flat.grad[slot.offset :].data_ptr()
    flat.zero_grad()
    assert not module[0].weight.grad.any()


def test_muon_step_equals_reference() -> None:
    model = tiny_model()
    flat = FlatParameters(model)
    optimizer = MuonAdamW(flat, muon_lr=0.01, weight_decay=0.1, clip=1e9)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    velocity: dict[str, torch.Tensor] = {}
    for step in range(3):
        fill_gradients(flat, seed=step)
        gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
        optimizer.step(0.5)
        for name in ("blocks.0.mlp.up.weight", "blocks.1.fast.w1", "blocks.0.attention.to_qkv.weight"):
            gradient = gradients[name]
            v = velocity.get(name, torch.zeros_like(gradient)) * 0.95 + 0.05 * gradient
            velocity[name] = v
            direction = 0.05 * gradient + 0.95 * v
            if "qkv" in name:
                direction = direction.view(3, 32, 32)
            rows, columns = direction.shape[-2:]
            update = newton_schulz(direction.reshape(-1, rows, columns)).view(gradient.shape)
            expected = before[name] * (1 - 0.005 * 0.1) + 0.2 * math.sqrt(max(rows, columns)) * 0.005 * -update
            # The optimizer must descend: gradients point uphill.
            before[name] = expected
            assert torch.allclose(dict(model.named_parameters())[name], expected, atol=1e-6), name


def test_adamw_step_equals_torch() -> None:
    model, twin = tiny_model(), tiny_model()
    flat = FlatParameters(model)
    optimizer = MuonAdamW(flat, adam_lr=0.01, weight_decay=0.1, clip=1e9)
    names = [slot.name for slot in flat.slots if slot.kind != MUON]
    decayed = [slot.name for slot in flat.slots if slot.kind == ADAM_DECAY]
    twins = dict(twin.named_parameters())
    reference = torch.optim.AdamW(
        [
            {"params": [twins[n] for n in names if n in decayed], "weight_decay": 0.1},
            {"params": [twins[n] for n in names if n not in decayed], "weight_decay": 0.0},
        ],
        lr=0.01,
        betas=(0.9, 0.95),
    )
    for step in range(4):
        fill_gradients(flat, seed=step)
        for name, parameter in model.named_parameters():
            twins[name].grad = parameter.grad.clone()
        optimizer.step(1.0)
        reference.step()
    for name in names:
        assert torch.allclose(dict(model.named_parameters())[name], twins[name], atol=2e-6), name


@pytest.mark.parametrize("name", ["blocks.0.mlp.up.weight", "patch_embed.weight", "blocks.0.mlp_norm.weight"])
def test_parameters_can_have_rates_of_their_own(name: str) -> None:
    """A rate of a quarter is a step of a quarter, of Muon and of AdamW; others do not change."""
    steps = []
    for rate in (None, lambda other: 0.25 if other == name else 1.0):
        model = tiny_model()
        flat = FlatParameters(model)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        fill_gradients(flat)
        MuonAdamW(flat, muon_lr=0.01, adam_lr=0.01, weight_decay=0.1, rate=rate).step(1.0)
        steps.append({n: p.detach() - before[n] for n, p in model.named_parameters()})
    for other, step in steps[0].items():
        torch.testing.assert_close(steps[1][other], step * (0.25 if other == name else 1.0), atol=1e-6, rtol=1e-3)


def test_clipping() -> None:
    guard = SpikeGuard(torch.device("cpu"), clip=1.0, grad_skip_factor=6.0)
    factor, ok = guard(torch.tensor(4.0))
    assert factor == pytest.approx(0.25, abs=1e-5) and ok == 1
    factor, ok = guard(torch.tensor(0.5))
    assert factor == 1 and ok == 1


@pytest.mark.parametrize("grad_skip_factor", [float("nan"), float("inf"), 50.0])
def test_spikes_are_skipped(grad_skip_factor: float) -> None:
    flat = FlatParameters(tiny_model())
    optimizer = MuonAdamW(flat, grad_skip_factor=6.0)
    for step in range(20):
        fill_gradients(flat, seed=step)
        assert optimizer.step(1.0)["ok"] == 1
    before = everything(flat, optimizer)
    fill_gradients(flat, scale=grad_skip_factor, seed=99)
    assert optimizer.step(1.0)["ok"] == 0
    after = everything(flat, optimizer)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert optimizer.guard.skipped == 1
    flat.zero_grad()
    fill_gradients(flat, seed=100)
    assert optimizer.step(1.0)["ok"] == 1
    assert not torch.equal(flat.data, before["data"]) and flat.data.isfinite().all()


def test_a_lasting_change_of_the_norm_becomes_normal() -> None:
    guard = SpikeGuard(torch.device("cpu"), clip=1.0, grad_skip_factor=6.0, window=32)
    for _ in range(40):
        guard(torch.tensor(1.0))
    taken = [float(guard(torch.tensor(10.0))[1]) for _ in range(40)]
    assert taken[0] == 0 and taken[-1] == 1


def test_average() -> None:
    average, data = torch.zeros(3), torch.ones(3)
    update_average(average, data, 0.9, torch.tensor(1.0))
    assert torch.allclose(average, torch.full((3,), 0.1))
    update_average(average, data, 0.9, torch.tensor(0.0))  # a skipped step
    assert torch.allclose(average, torch.full((3,), 0.1))
