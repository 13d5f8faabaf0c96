"""The fast-weight layer against plain references, values and gradients."""

import pytest
import torch

from nvs_app.model import fast_weights as fw
from nvs_app.model.config import LaCTConfig
from nvs_app.model.newton_schulz import newton_schulz, newton_schulz_reference
from nvs_app.model.rotary import ray_phases, rotate
from nvs_app.model.state import FastWeights


def random_layer(seed: int = 0, turned: bool = False):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator)

    weights = FastWeights(randn(2, 3, 8, 16), randn(2, 3, 16, 8), randn(2, 3, 8, 16))
    k, v, lr = randn(2, 3, 11, 8), randn(2, 3, 11, 8), torch.rand(3, 2, 3, 11, 1, generator=generator)
    phases = None
    if turned:
        angle = ray_phases(randn(2, 1, 11, 6), 8, 0.5, 8.0)
        phases = (angle.cos(), angle.sin())
    return weights, k, v, lr, phases


def gradient_by_autograd(weights, k, v, lr, phases, residual):
    """`fast_weight_gradient` by autograd: one backward pass a matrix, because each has learning rates of its own."""
    with torch.enable_grad():
        leaves = FastWeights(*(w.detach().clone().requires_grad_() for w in weights))
        found = fw.apply_fast_weights(leaves, k.detach(), phases)
        if residual:
            # The gradient by f(k) of |f(k)|, held fixed, times |v| cos(f(k), v).
            agreement = torch.cosine_similarity(found, v.detach(), dim=-1)[..., None]
            agreement = agreement * found.detach().norm(dim=-1, keepdim=True) * v.norm(dim=-1, keepdim=True)
        else:
            agreement = (found * v.detach()).sum(-1, keepdim=True)
        gradients = [
            torch.autograd.grad((agreement * lr[i]).sum(), leaf, retain_graph=True)[0] for i, leaf in enumerate(leaves)
        ]
    return FastWeights(*gradients)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_gradient_is_that_of_autograd(turned, residual):
    weights, k, v, lr, phases = random_layer(turned=turned)
    ours = fw.fast_weight_gradient(weights, k, v, lr, phases, residual)
    reference = gradient_by_autograd(weights, k, v, lr, phases, residual)
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_outer_gradient_through_the_written_out_gradient(turned, residual):
    weights, k, v, lr, phases = random_layer(turned=turned)
    weights = FastWeights(*(w[:1, :1].double() for w in weights))
    k, v, lr = k[:1, :1, :3].double(), v[:1, :1, :3].double(), lr[:, :1, :1, :3].double()
    phases = None if phases is None else tuple(t[:1, :, :3].double() for t in phases)
    k.requires_grad_()
    v.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda k, v: fw.fast_weight_gradient(weights, k, v, lr, phases, residual).w0, (k, v)
    )


def test_gradient_of_chunks_adds_up():
    weights, k, v, lr, _ = random_layer()
    whole = fw.fast_weight_gradient(weights, k, v, lr)
    parts = [
        fw.fast_weight_gradient(weights, k[:, :, s], v[:, :, s], lr[:, :, :, s]) for s in (slice(0, 4), slice(4, 11))
    ]
    for a, b, c in zip(whole, *parts, strict=True):
        torch.testing.assert_close(a, b + c, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 24, 40), (2, 2, 40, 24), (16, 16)])
def test_newton_schulz_matches_the_published_operations(shape):
    gradient = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    ours, reference = newton_schulz(gradient, 5), newton_schulz_reference(gradient, 5)
    assert ours.shape == gradient.shape
    assert (ours - reference).norm() / reference.norm() < 0.1  # bfloat16, amplified
    values = torch.linalg.svdvals(ours)
    assert 0.3 < values.min() and values.max() < 1.4
    u, _, vh = torch.linalg.svd(gradient, full_matrices=False)
    assert ((u @ vh) * ours).sum((-2, -1)).div((u @ vh).square().sum((-2, -1))).sub(0.95).abs().max() < 0.15


def test_newton_schulz_ignores_the_scale_of_the_gradient():
    gradient = torch.randn(1, 16, 24, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(newton_schulz(gradient, 5), newton_schulz(1024 * gradient, 5), rtol=0, atol=1e-2)


def test_step_keeps_column_norms():
    weights, k, v, lr, _ = random_layer()
    moved = fw.step_fast_weights(weights, fw.fast_weight_gradient(weights, k, v, lr), 5)
    for before, after in zip(weights, moved, strict=True):
        torch.testing.assert_close(before.norm(dim=-2), after.norm(dim=-2), rtol=1e-3, atol=1e-3)
        assert (before - after).abs().max() > 1e-2


def test_step_raises_the_agreement_of_keys_and_values():
    weights, k, v, lr, _ = random_layer()
    k = k / k.norm(dim=-1, keepdim=True)

    def agreement(w):
        return (fw.apply_fast_weights(w, k) * v).sum()

    assert agreement(fw.step_fast_weights(weights, fw.fast_weight_gradient(weights, k, v, lr), 5)) > agreement(weights)


def test_a_second_step_writes_what_the_first_left_out():
    generator = torch.Generator().manual_seed(0)
    layer = fw.FastWeightLayer(LaCTConfig(dim=64, blocks=1, fast_head_dim=64))
    k, v = torch.randn(2, 1, 1, 256, 64, generator=generator)
    k, lr = k / k.norm(dim=-1, keepdim=True), torch.ones(3, 1, 1, 256, 1)
    weights, recalled = layer._batch(layer.start(), 1), []
    for step in range(3):
        gradient = fw.fast_weight_gradient(weights, k, v, lr, residual=step > 0)
        weights = fw.step_fast_weights(weights, gradient, 5)
        found = fw.apply_fast_weights(weights, k)
        recalled.append(torch.nn.functional.cosine_similarity(found, v, dim=-1).square().mean().item())
    assert recalled[1] > 1.5 * recalled[0] and recalled[2] > recalled[1]
    assert (fw.residual_target(v, found) * found).sum(-1).abs().max() < 1e-4


def test_rotation_is_orthogonal_and_relative():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(12, generator=generator), torch.randn(12, generator=generator)
    a, b, shift = (torch.randn(6, generator=generator) for _ in range(3))

    def turned(x, coordinates):
        angle = ray_phases(coordinates, 6, 1.0, 1.0)
        return rotate(x, angle.cos(), angle.sin())

    torch.testing.assert_close(turned(q, a).norm(), q.norm())
    torch.testing.assert_close(turned(q, a) @ turned(k, b), turned(q, a + shift) @ turned(k, b + shift))
    angle = ray_phases(a, 6, 1.0, 1.0)
    torch.testing.assert_close(rotate(turned(q, a), angle.cos(), angle.sin(), inverse=True), q)


@pytest.mark.parametrize("turned", [False, True])
def test_only_the_first_tokens_write(turned):
    torch.manual_seed(0)
    rotary = "fast" if turned else ""
    layer = fw.FastWeightLayer(LaCTConfig(dim=32, blocks=1, attention_head_dim=16, fast_head_dim=16, rotary=rotary))
    x = torch.randn(2, 10, 32)
    phases = [None, None]
    if turned:
        angles = [ray_phases(torch.randn(2, 1, 10, 6), pairs, 0.5, 8.0) for pairs in (8, 16)]
        phases = [(angle.cos(), angle.sin()) for angle in angles]
    first = [None if t is None else (t[0][:, :, :6], t[1][:, :, :6]) for t in phases]
    weights = layer.step(layer.gradient(layer.key_value_lr(x[:, :6], first[0]), first[1]))
    six, ten = (layer(x, torch.ones(count, 1), *phases, layer.start()) for count in (6, 10))
    torch.testing.assert_close(six, layer.read(x, weights, *phases), rtol=1e-4, atol=1e-5)
    assert (six - ten).abs().max() > 1e-4
