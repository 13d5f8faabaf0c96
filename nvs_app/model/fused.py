"""Blocks as a GPU wants them for encoding and rendering: few large products, and everything between them fused.

    model.fuse(torch.bfloat16, compile=True)     # then `encode` and `decode` go through these, without gradients

`Block` is the plain reference, operation by operation; a `FusedBlock` answers to the same calls with the same values up
to rounding. Weights are laid out once: q, k and v of a layer in one matrix, w0 and w2 of the fast network side by side,
all in the type that is computed in, so that nothing is cast on the way and no product starts with half a GPU idle. What
lies between two products (norms, gates, rotary phases, learning rates) is a handful of functions of tensors; compiled,
each is one pass over its operands, in float32 inside. They take weights as arguments, and numbers of views and tokens
that change are marked, so that one compilation serves all blocks, all sizes of images and all chunks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nvs_app.model.blocks import Block, RayRotary
from nvs_app.model.compilation import compiled, plainly, varying
from nvs_app.model.fast_weights import KeyValueLR, RotaryCosSin, residual_target, step_fast_weights
from nvs_app.model.rotary import rotate
from nvs_app.model.state import FastWeights


class FastMatrices(NamedTuple):
    """The fast network as it is read: w02 [h, 2 * hidden, d], w0 above w2, turned; w1 [h, hidden, d]."""

    w02: Tensor
    w1: Tensor


class AttentionWeights(NamedTuple):
    """norm [c], q_norm and k_norm [d]: float32; qkv [3 c, c], out [c, c]."""

    norm: Tensor
    q_norm: Tensor
    k_norm: Tensor
    qkv: Tensor
    out: Tensor


class WriteWeights(NamedTuple):
    """norm [c]: float32; kv [2 c, c]; lr [rows, c], 3 * h rows and as many of zeros as make eight of them; lr_bias
    [3 * h]: float32, with softplus^-1(base rate) in it; patch_to_v [c, c] or None."""

    norm: Tensor
    kv: Tensor
    lr: Tensor
    lr_bias: Tensor
    patch_to_v: Tensor | None


class ReadWeights(NamedTuple):
    """norm, mlp_norm [c], out_norm [d]: float32; q, out [c, c]; up [4 c, c], down [c, 4 c]."""

    norm: Tensor
    q: Tensor
    out_norm: Tensor
    out: Tensor
    mlp_norm: Tensor
    up: Tensor
    down: Tensor


def _layer_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.layer_norm(x.float(), weight.shape, weight).to(x.dtype)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight


def _unit(x: Tensor, scale: float, phases: RotaryCosSin) -> Tensor:
    """SiLU, then the length `scale`, then the ray phases; float32."""
    wide = F.silu(x.float())
    wide = wide * (scale / (wide.norm(dim=-1, keepdim=True) + 1e-5))
    return wide if phases is None else rotate(wide, phases[0].float(), phases[1].float())


def attended(x: Float[Tensor, "v n c"], w: AttentionWeights, phases: RotaryCosSin) -> Float[Tensor, "vn c"]:
    """What the tokens of a view find in each other, before the output projection."""
    qkv = F.linear(_layer_norm(x, w.norm), w.qkv).unflatten(-1, (3, -1, w.q_norm.shape[0]))
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [v, heads, n, d]
    eps = torch.finfo(torch.float32).eps
    q, k = _rms_norm(q, w.q_norm, eps), _rms_norm(k, w.k_norm, eps)
    if phases is not None:
        cos, sin = phases[0].float(), phases[1].float()
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
    return out.transpose(1, 2).flatten(2).flatten(0, 1)


def key_value_lr(
    x: Float[Tensor, "n c"], w: WriteWeights, phases: RotaryCosSin, patches: Tensor | None, heads: int, scale: float
) -> KeyValueLR:
    """`Block.key_value_lr` of one scene: k and v [h, n, d], learning rates [3, h, n, 1], float32."""
    tokens = _layer_norm(x, w.norm)
    k, v = F.linear(tokens, w.kv).unflatten(-1, (2, heads, -1)).permute(1, 2, 0, 3).unbind(0)
    if w.patch_to_v is not None:
        assert patches is not None
        v = v + F.linear(patches, w.patch_to_v).unflatten(-1, (heads, -1)).transpose(0, 1)
    lr = F.linear(tokens, w.lr)[:, : 3 * heads].float() + w.lr_bias
    lr = F.softplus(lr).unflatten(-1, (3, heads)).permute(1, 2, 0)[..., None]
    return _unit(k, scale, phases).to(x.dtype), F.silu(v.float()).to(x.dtype), lr


def gradient(
    w: FastMatrices, k: Float[Tensor, "h n d"], v: Float[Tensor, "h n d"], lr: Float[Tensor, "3 h n 1"],
    phases: RotaryCosSin, residual: bool,
) -> FastWeights:  # fmt: skip
    """`fast_weight_gradient` [h, ...], float32; learning rates multiply the side of the last products that is new."""
    gate_in, linear = (k @ w.w02.transpose(-2, -1)).float().chunk(2, -1)
    sigmoid = torch.sigmoid(gate_in)
    gate = gate_in * sigmoid
    hidden = gate * linear
    if phases is not None:
        hidden = rotate(hidden, phases[0].float(), phases[1].float())
    if residual:
        v = residual_target(v, hidden.to(k.dtype) @ w.w1)
    d_hidden = (v @ w.w1.transpose(-2, -1)).float()
    if phases is not None:
        d_hidden = rotate(d_hidden, phases[0].float(), phases[1].float(), inverse=True)
    d_linear = (d_hidden * gate * lr[2]).to(k.dtype)
    d_gate_in = (d_hidden * linear * (sigmoid * (1 + gate_in * (1 - sigmoid))) * lr[0]).to(k.dtype)
    # Not side by side: what lies between the products is one pass only if all it writes has one shape.
    # All three turned the same way, which is the faster one of a sum over many tokens.
    w0, w2 = (d.transpose(-2, -1) @ k for d in (d_gate_in, d_linear))
    w1 = (hidden * lr[1]).to(k.dtype).transpose(-2, -1) @ v
    return FastWeights(w0.float().transpose(-2, -1), w1.float(), w2.float().transpose(-2, -1))


def step(weights: FastWeights, total: FastWeights, muon_steps: int) -> FastWeights:
    """`step_fast_weights` of one scene; `total` without the axis of scenes."""
    return step_fast_weights(weights, FastWeights(*(part[None] for part in total)), muon_steps)


def found(
    x: Float[Tensor, "n c"], w: ReadWeights, fast: FastMatrices, phases: RotaryCosSin, hidden_phases: RotaryCosSin,
    heads: int, scale: float,
) -> Float[Tensor, "n c"]:  # fmt: skip
    """What tokens find in the fast weights, before the output projection."""
    q = F.linear(_layer_norm(x, w.norm), w.q).unflatten(-1, (heads, -1)).transpose(0, 1)
    gate, linear = (_unit(q, scale, phases).to(x.dtype) @ fast.w02.transpose(-2, -1)).float().chunk(2, -1)
    hidden = F.silu(gate) * linear
    if hidden_phases is not None:
        hidden = rotate(hidden, hidden_phases[0].float(), hidden_phases[1].float())
    values = _rms_norm(hidden.to(x.dtype) @ fast.w1, w.out_norm, 1e-5).to(x.dtype)
    return values.transpose(0, 1).flatten(1)


def mlp_hidden(x: Float[Tensor, "n c"], w: ReadWeights) -> Float[Tensor, "n m"]:
    """The hidden units of the MLP."""
    return F.gelu(F.linear(_layer_norm(x, w.mlp_norm), w.up).float()).to(x.dtype)


class FusedBlock:
    """A `Block` for scenes one at a time (b = 1), without gradients; weights are those of the moment it was made.

    dtype: that is computed in, the residual stream's. compile: whether to compile; else the same operations, plainly.
    """

    @torch.inference_mode()  # where they are used: compiled code tells such tensors from others
    def __init__(self, block: Block, dtype: torch.dtype, compile: bool) -> None:
        attention, fast = block.attention, block.fast
        self.dtype, self.heads, self.scale = dtype, fast.heads, float(fast.qk_scale)
        self.muon_steps = fast.muon_steps
        self._call = compiled if compile else plainly

        def own(weight: Tensor, kind: torch.dtype = dtype) -> Tensor:
            return weight.detach().to(kind)

        def wide(weight: Tensor) -> Tensor:
            return own(weight, torch.float32)

        q, kv = fast.to_qkv.weight.split([fast.to_out.in_features, 2 * fast.to_out.in_features])
        self.attention = AttentionWeights(
            wide(block.attention_norm.weight), wide(attention.q_norm.weight), wide(attention.k_norm.weight),
            own(attention.to_qkv.weight), own(attention.to_out.weight),
        )  # fmt: skip
        lr = fast.to_lr.weight
        self.write = WriteWeights(
            wide(block.fast_norm.weight), own(kv), own(F.pad(lr, (0, 0, 0, -len(lr) % 8))),
            wide(fast.to_lr.bias) + fast.base_lr_inverse,
            None if fast.patch_to_v is None else own(fast.patch_to_v.weight),
        )  # fmt: skip
        self.reading = ReadWeights(
            wide(block.fast_norm.weight), own(q), wide(fast.out_norm.weight), own(fast.to_out.weight),
            wide(block.mlp_norm.weight), own(block.mlp.up.weight), own(block.mlp.down.weight),
        )  # fmt: skip
        self.start = FastWeights(*(wide(w)[None] for w in fast.start()))
        self.first = self.prepare(self.start)

    def prepare(self, weights: FastWeights | FastMatrices) -> FastMatrices:
        """Fast weights [1, h, ...] as they are read."""
        if isinstance(weights, FastMatrices):
            return weights
        w0, w1, w2 = (w[0].to(self.dtype) for w in weights)
        return FastMatrices(torch.cat([w0, w2], -1).transpose(-2, -1).contiguous(), w1.contiguous())

    def attend(self, x: Float[Tensor, "1 v n c"], phases: RayRotary) -> Float[Tensor, "1 v n c"]:
        """Attention inside each view; `x` is overwritten."""
        turn = _varying_phases(phases.attention, 0, 2)
        with torch.autocast(x.device.type, enabled=False):
            out = self._call(attended)(varying(x[0], 0, 1), self.attention, turn)
            # In place, the residual is added inside the product.
            x.view(out.shape).addmm_(out, self.attention.out.t())
        return x

    def key_value_lr(
        self, x: Float[Tensor, "1 v n c"], phases: RayRotary, patches: Float[Tensor, "1 m c"] | None = None
    ) -> KeyValueLR:
        with torch.autocast(x.device.type, enabled=False):
            return self._call(key_value_lr)(
                varying(x.flatten(0, 2), 0), self.write, _of_tokens(phases.fast),
                None if patches is None else varying(patches[0], 0), self.heads, self.scale,
            )  # fmt: skip

    def gradient(self, key_value_lr: KeyValueLR, phases: RayRotary, written: FastMatrices | None = None) -> FastWeights:
        k, v, lr = key_value_lr
        k, v, lr = varying(k, 1), varying(v, 1), varying(lr, 2)
        with torch.autocast(k.device.type, enabled=False):
            return self._call(gradient)(
                self.first if written is None else written, k, v, lr, _of_tokens(phases.hidden), written is not None
            )

    def step(self, total: FastWeights, written: FastWeights | None = None) -> FastWeights:
        """The weights `written`, at first the starting weights, plus one write step; float32."""
        with torch.autocast(total.w1.device.type, enabled=False):
            return self._call(step)(self.start if written is None else written, total, self.muon_steps)

    def read(self, x: Float[Tensor, "1 v n c"], weights: FastMatrices, phases: RayRotary) -> Float[Tensor, "1 v n c"]:
        """Read the fast weights and apply the MLP; `x` is overwritten."""
        tokens = x.view(-1, x.shape[-1])
        with torch.autocast(x.device.type, enabled=False):
            out = self._call(found)(
                varying(tokens, 0), self.reading, weights, _of_tokens(phases.fast), _of_tokens(phases.hidden),
                self.heads, self.scale,
            )  # fmt: skip
            tokens.addmm_(out, self.reading.out.t())
            tokens.addmm_(self._call(mlp_hidden)(varying(tokens, 0), self.reading), self.reading.down.t())
        return x


def _varying_phases(phases: RotaryCosSin, *axes: int) -> RotaryCosSin:
    return None if phases is None else (varying(phases[0], *axes), varying(phases[1], *axes))


def _of_tokens(phases: RotaryCosSin) -> RotaryCosSin:
    """Phases [1, 1, n, pairs] of one scene -> [1, n, pairs]."""
    return None if phases is None else _varying_phases((phases[0][0], phases[1][0]), 1)
