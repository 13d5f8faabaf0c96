"""A LaCT block: attention inside each view, fast weights over all views, MLP; each residual and normed.

Tokens are [b, v, n, c] (scenes, views, tokens of a view, channels) inside a block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nvs_app.model.config import LaCTConfig
from nvs_app.model.fast_weights import FastWeightLayer, KeyValueLR, RotaryCosSin
from nvs_app.model.rotary import rotate
from nvs_app.model.state import FastWeights


class RayRotary(NamedTuple):
    """Rotary phases of the tokens of some views; None where the configuration has none.

    attention: [b * v, 1, n, attention_head_dim / 2]; fast: [b, 1, v * n, fast_head_dim / 2];
    hidden: [b, 1, v * n, fast_hidden / 2].
    """

    attention: RotaryCosSin = None
    fast: RotaryCosSin = None
    hidden: RotaryCosSin = None


class ViewAttention(nn.Module):
    """Multi-head attention among the tokens of one view, with RMS-norm on q and k."""

    def __init__(self, config: LaCTConfig) -> None:
        super().__init__()
        self.head_dim = config.attention_head_dim
        self.to_qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.to_out = nn.Linear(config.dim, config.dim, bias=False)
        self.q_norm = nn.RMSNorm(self.head_dim)
        self.k_norm = nn.RMSNorm(self.head_dim)

    def forward(self, x: Float[Tensor, "bv n c"], phases: RotaryCosSin = None) -> Float[Tensor, "bv n c"]:
        q, k, v = (
            F.linear(x, weight).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for weight in self.to_qkv.weight.chunk(3)
        )
        q, k = self.q_norm(q), self.k_norm(k)
        if phases is not None:
            q, k = rotate(q, *phases), rotate(k, *phases)
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
        return self.to_out(out.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, config: LaCTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.dim, config.mlp_multiplier * config.dim, bias=False)
        self.down = nn.Linear(config.mlp_multiplier * config.dim, config.dim, bias=False)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    """One block; `forward` for training; `attend`, `key_value_lr`, `gradient` and `read` to write and read apart."""

    def __init__(self, config: LaCTConfig, start_of: FastWeightLayer | None = None) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim, bias=False)
        self.attention = ViewAttention(config)
        self.fast_norm = nn.LayerNorm(config.dim, bias=False)
        self.fast = FastWeightLayer(config, start_of)
        self.mlp_norm = nn.LayerNorm(config.dim, bias=False)
        self.mlp = MLP(config)

    def attend(self, x: Float[Tensor, "b v n c"], phases: RayRotary) -> Float[Tensor, "b v n c"]:
        """Attention inside each view."""
        update = self.attention(self.attention_norm(x).flatten(0, 1), phases.attention)
        return x + update.view(x.shape)

    def _fast_input(self, x: Float[Tensor, "b v n c"], phases: RayRotary) -> tuple[Tensor, RotaryCosSin, RotaryCosSin]:
        """Normed tokens [b, v * n, c] and the phases of q, k and of the hidden units."""
        return self.fast_norm(x).flatten(1, 2), phases.fast, phases.hidden

    def key_value_lr(
        self, x: Float[Tensor, "b v n c"], phases: RayRotary, patches: Float[Tensor, "b m c"] | None = None
    ) -> KeyValueLR:
        """What context tokens (after `attend`) have to write; patches: as embedded, for `value_patch_skip`."""
        tokens, fast, _ = self._fast_input(x, phases)
        return self.fast.key_value_lr(tokens, fast, patches)

    def gradient(self, key_value_lr: KeyValueLR, phases: RayRotary, written: FastWeights | None = None) -> FastWeights:
        """Fast-weight step direction of context tokens; adds up over groups of views."""
        return self.fast.gradient(key_value_lr, phases.hidden, written)

    def step(self, total: FastWeights, written: FastWeights | None = None) -> FastWeights:
        """The weights `written`, at first the starting weights, plus one write step; float32."""
        return FastWeights(*(w.float() for w in self.fast.step(total, written)))

    def prepare(self, weights: FastWeights) -> FastWeights:
        """Fast weights as `gradient` and `read` take them: these are the plain ones."""
        return weights

    def read(self, x: Float[Tensor, "b v n c"], weights: FastWeights, phases: RayRotary) -> Float[Tensor, "b v n c"]:
        """Read the fast weights and apply the MLP (after `attend`)."""
        tokens, fast, hidden = self._fast_input(x, phases)
        found = self.fast.read(tokens, weights, fast, hidden)
        x = x + found.view(x.shape)
        return x + self.mlp(self.mlp_norm(x))

    def forward(
        self, x: Float[Tensor, "b v n c"], weight: Float[Tensor, "m 1"], phases: RayRotary, start: FastWeights,
        patches: Float[Tensor, "b m c"] | None = None,
    ) -> Float[Tensor, "b v n c"]:  # fmt: skip
        """Attend, write with the first m tokens (times `weight`), read with all, MLP; start: `fast.start()`.

        patches: those of the first m tokens, as they were embedded, for `value_patch_skip`.
        """
        x = self.attend(x, phases)
        tokens, fast, hidden = self._fast_input(x, phases)
        x = x + self.fast(tokens, weight, fast, hidden, start, patches).view(x.shape)
        return x + self.mlp(self.mlp_norm(x))


def scaled_init(module: nn.Module, num_residuals: int) -> None:
    """Normal(0, 0.02) for linear layers, over sqrt(branches) where they write to the residual."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            std = 0.02 / num_residuals**0.5 if name.endswith(("to_out", "down")) else 0.02
            if not child.weight.is_meta:  # about to be loaded, see `fast_weights`
                nn.init.normal_(child.weight, std=std)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
