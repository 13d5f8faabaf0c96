"""The hash of ``rng`` as one Triton kernel: the same bits as the tensor arithmetic there."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _mix(x):
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit(do_not_specialize=["salt", "columns"])
def _table_kernel(key_ptr, out_ptr, salt, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    # Unsigned 32-bit arithmetic wraps, as the masks of the reference do.
    own = _mix((tl.load(key_ptr + row) + salt).to(tl.uint32))
    bits = _mix(_mix(own + column.to(tl.uint32) * 0x9E3779B1) + own)
    value = (bits >> 8).to(tl.int32).to(tl.float32) * (2.0**-24)
    tl.store(out_ptr + row * columns + column, value, column < columns)


def uniform_table_triton(keys: Int64[Tensor, "*keys"], salt: int, columns: int) -> Float[Tensor, "*keys columns"]:
    """Uniform numbers [*keys, columns] of int64 keys, as ``rng.uniform_table`` gives them."""
    out = torch.empty(*keys.shape, columns, device=keys.device)
    if out.numel():
        grid = (keys.numel(), triton.cdiv(columns, _BLOCK))
        _table_kernel[grid](keys.contiguous(), out, salt, columns, BLOCK=_BLOCK)
    return out
