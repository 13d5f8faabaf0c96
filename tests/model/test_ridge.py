"""The solved output matrix: against plain least squares, its gradients, and as part of the network."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from nvs_app.model.config import LaCTConfig
from nvs_app.model.fast_weights import FastWeightLayer, apply_fast_weights, hidden_units
from nvs_app.model.ridge import (
    RidgeSums,
    ridge_reference,
    ridge_solve,
    ridge_sums,
    solve_positive,
    summed_products,
)
from nvs_app.model.state import FastWeights

SHARE, RIDGE = torch.tensor([0.3, 1.0, 0.7]), torch.tensor([0.1, 1.0, 0.01])


def problem(tokens: int = 40, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    weights = FastWeights(randn(2, 3, 8, 16), randn(2, 3, 16, 8), randn(2, 3, 8, 16))
    lr = torch.rand(2, 3, tokens, 1, generator=generator).to(dtype)
    return weights, randn(2, 3, tokens, 16), randn(2, 3, tokens, 8), lr


def test_it_is_the_least_squares_solution():
    weights, hidden, v, lr = problem()
    lr[:, :, :7] = 0  # tokens that only read
    ours = ridge_solve(weights, ridge_sums(hidden, v, lr), SHARE, RIDGE)
    reference = ridge_reference(weights, hidden, v, lr, SHARE, RIDGE)
    torch.testing.assert_close(ours.w1, reference.w1, rtol=1e-3, atol=1e-4)
    assert torch.equal(ours.w0, weights.w0) and torch.equal(ours.w2, weights.w2)
    without = ridge_solve(weights, ridge_sums(hidden[:, :, 7:], v[:, :, 7:], lr[:, :, 7:]), SHARE, RIDGE)
    torch.testing.assert_close(ours.w1, without.w1, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_least_squares():
    weights, hidden, v, lr = (FastWeights(*(x.double() for x in p)) if isinstance(p, tuple) else p.double()
                              for p in problem())  # fmt: skip
    inputs = [weights.w1, hidden, v, lr, SHARE.double(), RIDGE.double()]
    probe = torch.randn(weights.w1.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def gradients(solve):
        leaves = [x.clone().requires_grad_() for x in inputs]
        moved = solve(weights._replace(w1=leaves[0]), *leaves[1:])
        return torch.autograd.grad((moved.w1 * probe).sum(), leaves)

    ours = gradients(lambda w, h, v, lr, s, r: ridge_solve(w, ridge_sums(h, v, lr), s, r))
    plain = gradients(ridge_reference)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_sums_of_chunks_add_up_and_scales_do_not_matter():
    weights, hidden, v, lr = problem()
    whole = ridge_sums(hidden, v, lr)
    parts = [ridge_sums(hidden[:, :, s], v[:, :, s], lr[:, :, s]) for s in (slice(0, 9), slice(9, None))]
    added = RidgeSums(*map(torch.add, *parts))
    for a, b in zip(whole, added, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    moved = ridge_solve(weights, whole, SHARE, RIDGE).w1
    for sums in (ridge_sums(hidden, v, 50 * lr), ridge_sums(hidden, 50 * v, lr)):
        torch.testing.assert_close(ridge_solve(weights, sums, SHARE, RIDGE).w1, moved, rtol=1e-3, atol=1e-4)


def test_no_share_changes_nothing_and_a_heavy_ridge_little():
    weights, hidden, v, lr = problem()
    sums = ridge_sums(hidden, v, lr)
    assert torch.equal(ridge_solve(weights, sums, 0 * SHARE, RIDGE).w1, weights.w1)
    heavy = ridge_solve(weights, sums, torch.ones(3), torch.full((3,), 1e5)).w1
    torch.testing.assert_close(heavy, weights.w1, rtol=0, atol=1e-2)


@pytest.mark.parametrize("tokens", [12, 200])
def test_tokens_that_wrote_are_read_back(tokens):
    """All of them where there are fewer than hidden units, and better than by the steps where there are more."""
    torch.manual_seed(0)
    config = LaCTConfig(dim=32, blocks=1, attention_head_dim=16, write_steps=2, write_output="solved")
    layer = FastWeightLayer(config)
    asks = (
        F.normalize(torch.randn(1, 1, tokens, 32), dim=-1),
        torch.randn(1, 1, tokens, 32),
        torch.ones(3, 1, 1, tokens, 1),
    )
    with torch.no_grad():
        layer.solve_share.fill_(1.0)
        layer.solve_ridge.fill_(-9.0)
        written = None
        for step in range(2):
            written = layer.step(layer.gradient(asks, None, written), written, step)
        before = F.cosine_similarity(apply_fast_weights(written, asks[0]), asks[1], dim=-1).mean()
        solved = layer.solve(layer.sums(asks, None, written), written)
        after = F.cosine_similarity(apply_fast_weights(solved, asks[0]), asks[1], dim=-1).mean()
    assert before < 0.9
    assert after > 0.999 if tokens == 12 else after > before + 0.05


def test_without_a_token_nothing_breaks():
    weights, hidden, v, lr = problem()
    nothing = ridge_solve(weights, ridge_sums(hidden, v, 0 * lr), SHARE, RIDGE)
    assert nothing.w1.isfinite().all()
    rates = (0 * lr).requires_grad_()
    ridge_sums(hidden, v, rates).units.sum().backward()
    assert rates.grad.isfinite().all()


def test_half_precision_units_give_sums_that_are_not_rounded():
    _, hidden, v, lr = problem(3000)
    hidden, v = (hidden + 1).bfloat16(), v.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        units = summed_products(hidden, hidden)
    exact = hidden.double().mT @ hidden.double()
    assert units.dtype == torch.float32
    assert (units - exact).norm() / exact.norm() < 1e-5
    torch.linalg.cholesky(units + 1e-3 * units.diagonal(dim1=-2, dim2=-1).mean() * torch.eye(16))


def test_the_operators_are_sound():
    weights, hidden, v, _ = problem(dtype=torch.float64)
    torch.library.opcheck(summed_products, (hidden.clone().requires_grad_(), v))
    a = hidden.mT @ hidden + torch.eye(16, dtype=torch.float64)
    torch.library.opcheck(solve_positive, (a, weights.w1), test_utils=("test_schema", "test_faketensor"))


COMPILED = """
import torch
from nvs_app.model.config import LaCTConfig
from nvs_app.model.fast_weights import FastWeightLayer
torch.manual_seed(0)
layer = FastWeightLayer(LaCTConfig(dim=32, blocks=1, attention_head_dim=16, write_output="solved"))
x, weight = torch.randn(2, 20, 32), (torch.arange(20) < 15).float()[:, None]
found = []
for run in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
    layer.zero_grad()
    y = run(x, weight, None, None, layer.start())
    y.square().sum().backward()
    found.append([y, *(p.grad for p in layer.parameters())])
for a, b in zip(*found, strict=True):
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
"""


def test_it_compiles_in_one_piece():
    # In a process of its own: the shape checks that pytest switches on cannot be traced.
    result = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_hidden_units_are_those_of_the_network():
    weights = problem()[0]
    x = torch.randn(2, 3, 5, 8)
    torch.testing.assert_close(hidden_units(weights, x) @ weights.w1, apply_fast_weights(weights, x))
