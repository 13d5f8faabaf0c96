"""The fast-weight layer: a small network whose weights are written by the context and read by every token.

Source: "Test-Time Training Done Right", arXiv 2505.23884, section 3 and algorithm 1. The fast network is
f(x) = (silu(x w0) * (x w2)) w1. Writing takes one gradient step on -<f(k), v>, summed over all context tokens
as one chunk and weighted by per-token learning rates, orthogonalises each matrix of the step by Newton-Schulz
(Muon), adds it, and gives every column its old norm back. Reading is f(q).

With `write_steps` above one (this project's addition) the same chunk is written again: the later steps take the
gradient of the cosine similarity of f(k) and v, so that they write what the earlier ones left residual.

The gradient is written out by hand (three products a matrix) as autograd inside autograd would cost more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nvs_app.model.config import LaCTConfig
from nvs_app.model.newton_schulz import newton_schulz
from nvs_app.model.rotary import rotate
from nvs_app.model.state import FastWeights

RotaryCosSin = tuple[Tensor, Tensor] | None
"""Cosine and sine of rotary phases, [b, 1, n, pairs] each, or None for none."""

KeyValueLR = tuple[Tensor, Tensor, Tensor]
"""k and v [b, h, n, d] and the learning rates [3, b, h, n, 1] of tokens that write."""


def apply_fast_weights(
    weights: FastWeights, x: Float[Tensor, "b h n d"], phases: RotaryCosSin = None
) -> Float[Tensor, "b h n d"]:
    """f(x), with the hidden units turned by the ray phases when `phases` is given."""
    hidden = F.silu(x @ weights.w0.to(x.dtype)) * (x @ weights.w2.to(x.dtype))
    if phases is not None:
        hidden = rotate(hidden, *phases)
    return hidden @ weights.w1.to(x.dtype)


def fast_weight_gradient(
    weights: FastWeights,
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    lr: Float[Tensor, "3 b h n 1"],
    phases: RotaryCosSin = None,
    residual: bool = False,
) -> FastWeights:
    """Minus the gradient of -sum_n <f(k_n), v_n> by w0, w1, w2, each token weighted by its learning rate.

    A sum over tokens: gradients of several chunks of tokens add up.

    Args:
        weights: fast weights before the step, [b, h, ...].
        k, v: keys (all of one length) and values of the tokens.
        lr: learning rates of w0, w1, w2 (in this order); 0 keeps a token out.
        phases: rotary phases of the hidden units.
        residual: in place of v take what f(k) misses of it, v less its projection on f(k).
    Returns:
        Ascent directions, shaped like `weights`.
    """
    w0, w1, w2 = (w.to(k.dtype) for w in weights)
    lr = lr.to(k.dtype)
    gate_in = k @ w0
    linear = k @ w2
    # Operation by operation as published: Newton-Schulz in bfloat16 amplifies the last bit of its input.
    sigmoid = torch.sigmoid(gate_in)
    gate = F.silu(gate_in)
    hidden = gate * linear
    if phases is not None:
        hidden = rotate(hidden, *phases)
    if residual:
        v = residual_target(v, hidden @ w1)
    d_hidden = v @ w1.transpose(-2, -1)
    if phases is not None:
        d_hidden = rotate(d_hidden, *phases, inverse=True)
    d_linear = d_hidden * gate
    d_gate_in = d_hidden * linear * sigmoid * (1 + gate_in * (1 - sigmoid))
    return FastWeights(
        w0=(k * lr[0]).transpose(-2, -1) @ d_gate_in,
        w1=(hidden * lr[1]).transpose(-2, -1) @ v,
        w2=(k * lr[2]).transpose(-2, -1) @ d_linear,
    )


def residual_target(v: Float[Tensor, "*b d"], found: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """v less its projection on what was found: the gradient of cos(found, v) by found, times |found| |v|."""
    wide = found.to(torch.promote_types(found.dtype, torch.float32))
    share = (v * wide).sum(-1, keepdim=True) / (wide.square().sum(-1, keepdim=True) + 1e-12)
    return v - (share * wide).to(v.dtype)


def step_fast_weights(
    weights: FastWeights,
    gradient: FastWeights,
    muon_steps: int,
    orthogonalise: Callable[[Tensor, int], Tensor] = newton_schulz,
) -> FastWeights:
    """Add the orthogonalised step and rescale every column to the norm it had."""
    # The three matrices, w1 turned, as one batch: a third of the launches, which are the limit of small steps.
    turned = torch.stack([gradient.w0, gradient.w1.transpose(-2, -1), gradient.w2])
    d0, d1, d2 = orthogonalise(turned, muon_steps).unbind(0)

    def step(weight: Tensor, direction: Tensor) -> Tensor:
        moved = weight + direction.to(weight.dtype)
        norm = weight.detach().norm(dim=-2, keepdim=True)
        return moved / (moved.norm(dim=-2, keepdim=True) + 1e-5) * norm

    moves = (d0, d1.transpose(-2, -1), d2)
    return FastWeights(*(step(w, d) for w, d in zip(weights, moves, strict=True)))


def _random(heads: int, rows: int, columns: int) -> Tensor:
    """Matrices to start from. Those on "meta" are about to be loaded; random ones would make torch import its compiler,
    seconds for nothing."""
    empty = torch.empty(heads, rows, columns)
    return empty if empty.is_meta else empty.normal_().mul_(math.sqrt(2)).div_(math.sqrt(rows))


class FastWeightLayer(nn.Module):
    """Projections around the fast network: q, k, v, learning rates, output norm and projection.

    With `start_of` given, the starting weights are those of that layer.
    """

    def __init__(self, config: LaCTConfig, start_of: FastWeightLayer | None = None) -> None:
        super().__init__()
        # In a tuple, so that it does not count as a part of this layer, nor its weights as weights of this one.
        self.start_of = (start_of,)
        self.heads, self.muon_steps = config.num_fast_heads, config.muon_steps
        self.write_steps, self.qk_scale = config.write_steps, config.qk_scale
        width, hidden = config.fast_head_dim, config.fast_hidden
        if start_of is None:
            self.w0, self.w1, self.w2 = (
                nn.Parameter(_random(self.heads, rows, columns))
                for rows, columns in ((width, hidden), (hidden, width), (width, hidden))
            )
        self.to_qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.patch_to_v = nn.Linear(config.dim, config.dim, bias=False) if config.value_patch_skip else None
        self.to_lr = nn.Linear(config.dim, 3 * self.heads)
        self.out_norm = nn.RMSNorm(width, eps=1e-5)
        self.to_out = nn.Linear(config.dim, config.dim, bias=False)
        self.orthogonalise = newton_schulz
        self.base_lr_inverse = config.base_lr + math.log(-math.expm1(-config.base_lr))

    def start(self) -> FastWeights:
        """The learned starting weights, [h, ...]."""
        layer = self.start_of[0] or self
        return FastWeights(layer.w0, layer.w1, layer.w2)

    @staticmethod
    def _batch(start: FastWeights, batch: int) -> FastWeights:
        """The same starting weights for every scene of a batch, [b, h, ...]."""
        return FastWeights(*(w[None].expand(batch, -1, -1, -1) for w in start))

    def _project(self, x: Tensor, which: int, more: Tensor | None = None) -> Float[Tensor, "b h n d"]:
        # One product each for q, k and v: tokens that only read need no k and v.
        product = F.linear(x, self.to_qkv.weight.chunk(3)[which])
        product = product if more is None else product + more
        return F.silu(product).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def queries(self, x: Float[Tensor, "b n c"], phases: RotaryCosSin) -> Float[Tensor, "b h n d"]:
        """q, of length `qk_scale`, turned by the ray phases."""
        return self._scaled(self._project(x, 0), phases)

    def keys_values(
        self, x: Float[Tensor, "b n c"], phases: RotaryCosSin, patches: Float[Tensor, "b n c"] | None = None
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b h n d"]]:
        """k, of length `qk_scale`, turned by the ray phases, and v; patches: the embedded ones, where v sees them."""
        more: Tensor | None = None
        if self.patch_to_v is not None:
            assert patches is not None
            more = self.patch_to_v(patches)
        return self._scaled(self._project(x, 1), phases), self._project(x, 2, more)

    def _scaled(self, x: Tensor, phases: RotaryCosSin) -> Tensor:
        unit = x / (x.norm(dim=-1, keepdim=True) + 1e-5)
        if self.qk_scale != 1:
            unit = unit * self.qk_scale
        return (unit if phases is None else rotate(unit, *phases)).to(x.dtype)

    def learning_rates(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "3 b h n 1"]:
        """softplus(linear + softplus^-1(base)); under autocast only the product is rounded, not the rate."""
        if torch.is_autocast_enabled(x.device.type):
            # Padded to eight columns: tensor cores take no fewer, and in float32 it would cost more than q's product.
            rows = len(self.to_lr.weight)
            product = F.linear(x, F.pad(self.to_lr.weight, (0, 0, 0, -rows % 8)))
            linear = product[..., :rows].float() + self.to_lr.bias
        else:
            linear = self.to_lr(x)
        with torch.autocast(device_type=x.device.type, enabled=False):
            lr = F.softplus(linear + self.base_lr_inverse)
        return lr.unflatten(-1, (3, self.heads)).permute(2, 0, 3, 1)[..., None]

    def key_value_lr(
        self, x: Float[Tensor, "b n c"], phases: RotaryCosSin, patches: Float[Tensor, "b n c"] | None = None
    ) -> KeyValueLR:
        """What the tokens x have to write: k, v and learning rates, the same in every write step."""
        return (*self.keys_values(x, phases, patches), self.learning_rates(x))

    def gradient(
        self, key_value_lr: KeyValueLR, hidden_phases: RotaryCosSin, written: FastWeights | None = None
    ) -> FastWeights:
        """The step direction that tokens ask for: the first, or the next after the weights `written`."""
        k, v, lr = key_value_lr
        weights = self._batch(self.start(), k.shape[0]) if written is None else written
        return fast_weight_gradient(weights, k, v, lr, hidden_phases, written is not None)

    def step(self, gradient: FastWeights, written: FastWeights | None = None) -> FastWeights:
        """The weights `written`, at first the starting weights, plus one write step."""
        weights = self._batch(self.start(), gradient.w0.shape[0]) if written is None else written
        return step_fast_weights(weights, gradient, self.muon_steps, self.orthogonalise)

    def read(
        self, x: Float[Tensor, "b n c"], weights: FastWeights, phases: RotaryCosSin, hidden_phases: RotaryCosSin
    ) -> Float[Tensor, "b n c"]:
        """What the tokens x find in the fast weights."""
        q = self.queries(x, phases)
        found = apply_fast_weights(weights, q, hidden_phases)
        found = self.out_norm(found.float()).to(q.dtype)
        return self.to_out(found.transpose(1, 2).flatten(2))

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        weight: Float[Tensor, "m 1"],
        phases: RotaryCosSin,
        hidden_phases: RotaryCosSin,
        start: FastWeights,
        patches: Float[Tensor, "b m c"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Write with the first m tokens, their learning rates times `weight`; read with all (training).

        start: what `start()` returns; an argument, so that compiled blocks need not know whose it is.
        patches: of the first m tokens, as they were embedded, for `value_patch_skip`.
        """
        count = weight.shape[0]
        first, weights = x[:, :count], self._batch(start, x.shape[0])
        k, v = self.keys_values(first, _first(phases, count), patches)
        lr = self.learning_rates(first) * weight
        for step in range(self.write_steps):
            gradient = fast_weight_gradient(weights, k, v, lr, _first(hidden_phases, count), residual=step > 0)
            weights = self.step(gradient, weights)
        return self.read(x, weights, phases, hidden_phases)


def _first(phases: RotaryCosSin, count: int) -> RotaryCosSin:
    """The phases of the first tokens."""
    return None if phases is None else (phases[0][..., :count, :], phases[1][..., :count, :])
