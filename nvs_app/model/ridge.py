"""The output matrix of a fast network in closed form: ridge regression of the values on the hidden units.

The write steps of arXiv 2505.23884 leave f(k) and v at a cosine of about 0.6 even on the tokens that wrote. But
f(x) = hidden(x) w1 is linear in w1: the w1 that reads best what all tokens asked to write is the solution of a small
linear system, made of two sums over tokens. With hidden units h_n, values v_n and learning rates a_n it minimises

    sum_n a_n |c v_n - h_n w|^2 + ridge t |w - w1|^2

where t is the mean over hidden units of sum_n a_n h_n^2, so that `ridge` has no unit, and c gives the values the
power that f(k) has with the w1 of the write steps, which the solution stays near to. That is the optimum that the
steps approach (test-time regression: "MesaNet", arXiv 2506.05233, solves it for linear layers). This project's
addition. Like a step it is one chunk: sums over tokens, of any number, in any order.

`ridge_reference` is the plain version that the tests compare with.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.model.state import FastWeights


class RidgeSums(NamedTuple):
    """Sums over tokens; those of groups of tokens add up."""

    units: Float[Tensor, "b h m m"]
    """Products of the hidden units with each other."""
    values: Float[Tensor, "b h m d"]
    """Products of hidden units and values."""
    power: Float[Tensor, "b h 1 1"]
    """Squared lengths of the values."""


def ridge_sums(
    hidden: Float[Tensor, "b h n m"], v: Float[Tensor, "b h n d"], lr: Float[Tensor, "b h n 1"]
) -> RidgeSums:
    """What the solution needs of some tokens: hidden units, values, learning rates (0 keeps a token out)."""
    # Roots on both sides keep the sums symmetric and positive however the factors are rounded. The root of a rate
    # that has run to 0 would have no gradient.
    root = (lr.clamp_min(1e-8).sqrt() * (lr > 0)).to(hidden.dtype)
    hidden, v = hidden * root, v.to(hidden.dtype) * root
    power = v.to(torch.promote_types(v.dtype, torch.float32)).square().sum((-2, -1), keepdim=True)
    return RidgeSums(summed_products(hidden, hidden), summed_products(hidden, v), power)


def ridge_solve(
    weights: FastWeights, sums: RidgeSums, share: Float[Tensor, " h"], ridge: Float[Tensor, " h"]
) -> FastWeights:
    """Move w1 by `share` of the way to the solution (0: not at all, 1: all the way) for each head's `ridge`."""
    with torch.autocast(device_type=weights.w1.device.type, enabled=False):
        w1 = weights.w1.to(sums.units.dtype)
        scale = sums.units.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + 1e-20
        units, values, power = sums.units / scale, sums.values / scale, sums.power / scale
        found = (w1 * (units @ w1)).sum((-2, -1), keepdim=True)
        c = (found.clamp_min(1e-20) / (power + 1e-20)).sqrt()
        share, ridge = (x.to(w1.dtype)[:, None, None] for x in (share, ridge))
        eye = torch.eye(units.shape[-1], dtype=units.dtype, device=units.device)
        solution = solve_positive(units + ridge * eye, c * values + ridge * w1)[0]
        return weights._replace(w1=(w1 + share * (solution - w1)).to(weights.w1.dtype))


def ridge_reference(
    weights: FastWeights, hidden: Tensor, v: Tensor, lr: Tensor, share: Tensor, ridge: Tensor
) -> FastWeights:
    """The same as least squares of stacked rows, in double precision: tokens, then the rows that hold w1."""
    h, y, a, w1 = (x.double() for x in (hidden, v, lr, weights.w1))
    c = ((a * (h @ w1).square()).sum((-2, -1)) / (a * y.square()).sum((-2, -1))).sqrt()[..., None, None]
    scale = (a * h.square()).sum((-2, -1), keepdim=True) / h.shape[-1]
    held = (ridge.double()[:, None, None] * scale).sqrt()
    rows = torch.cat(
        [a.sqrt() * h, held * torch.eye(h.shape[-1], dtype=h.dtype).expand_as(w1 @ w1.mT)], dim=-2
    )
    wanted = torch.cat([a.sqrt() * c * y, held * w1], dim=-2)
    solution = torch.linalg.lstsq(rows, wanted).solution
    moved = w1 + share.double()[:, None, None] * (solution - w1)
    return weights._replace(w1=moved.to(weights.w1.dtype))


# Two operators of their own, so that compilers take them as they are: a matrix product of bfloat16 factors whose
# result is not rounded to bfloat16 (its rounding would be larger than the ridge), and the solution of the system.


@torch.library.custom_op("nvs_app::summed_products", mutates_args=(), schema="(Tensor x, Tensor y) -> Tensor")
def summed_products(x: Tensor, y: Tensor) -> Tensor:
    """x^T y over the next-to-last axis: [*b, n, m] and [*b, n, k] -> [*b, m, k], float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(device_type=x.device.type, enabled=False):
        if x.is_cuda and x.dtype == torch.bfloat16:
            product = torch.bmm(x.flatten(0, -3).mT, y.flatten(0, -3), out_dtype=wide)
            return product.view(*x.shape[:-2], x.shape[-1], y.shape[-1])
        return x.to(wide).mT @ y.to(wide)


@summed_products.register_fake
def _(x: Tensor, y: Tensor) -> Tensor:
    shape = (*x.shape[:-2], x.shape[-1], y.shape[-1])
    return x.new_empty(shape, dtype=torch.promote_types(x.dtype, torch.float32))


def _products_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
    x, y = ctx.saved_tensors
    with torch.autocast(device_type=x.device.type, enabled=False):
        gradient = gradient.to(x.dtype)
        return y @ gradient.mT, x @ gradient


summed_products.register_autograd(
    _products_backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs)
)


def _solve_factored(factor: Tensor, b: Tensor) -> Tensor:
    """x of factor factor^T x = b. Twice as fast on CUDA as torch.cholesky_solve."""
    half = torch.linalg.solve_triangular(factor, b, upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True)


@torch.library.custom_op("nvs_app::solve_positive", mutates_args=(), schema="(Tensor a, Tensor b) -> (Tensor, Tensor)")
def solve_positive(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """x of a x = b, and the Cholesky factor; a [*b, m, m] symmetric and positive, b [*b, m, k]."""
    factor = torch.linalg.cholesky_ex(a).L.contiguous()
    return _solve_factored(factor, b).contiguous(), factor


@solve_positive.register_fake
def _(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return b.new_empty(b.shape), a.new_empty(a.shape)


@torch.library.custom_op("nvs_app::solve_factored", mutates_args=(), schema="(Tensor factor, Tensor b) -> Tensor")
def solve_factored(factor: Tensor, b: Tensor) -> Tensor:
    """`_solve_factored` as an operator, for the backward pass."""
    return _solve_factored(factor, b).contiguous()


@solve_factored.register_fake
def _(factor: Tensor, b: Tensor) -> Tensor:
    return b.new_empty(b.shape)


def _solve_backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
    x, factor = ctx.saved_tensors
    by_b = solve_factored(factor, gradient.contiguous())
    return -by_b @ x.mT, by_b


solve_positive.register_autograd(
    _solve_backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*output)
)
