"""Newton-Schulz iteration: the orthogonal factor of a matrix, nearly, from products alone.

The fast weights write with it (as published, arXiv 2505.23884), and Muon trains with it (Keller Jordan 2024,
kellerjordan.github.io/posts/muon, which the coefficients are from).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def newton_schulz_reference(matrices: Float[Tensor, "*b m n"], steps: int) -> Float[Tensor, "*b m n"]:
    """Orthogonalise as published, operation by operation in bfloat16 (slow on most CPUs)."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16()
    transposed = matrices.size(-2) > matrices.size(-1)
    if transposed:
        x = x.transpose(-2, -1)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(-2, -1)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(-2, -1) if transposed else x).to(matrices.dtype)


def newton_schulz(matrices: Float[Tensor, "*b m n"], steps: int = STEPS) -> Float[Tensor, "*b m n"]:
    """Replace the singular values of each matrix by values near one (quintic Newton-Schulz).

    In bfloat16 on CUDA, as published; in float32 elsewhere: CPUs are ten times slower on bfloat16, and the
    rounding, which the iteration amplifies to a few percent, would make the order of the views visible.

    Args:
        matrices: [..., m, n], any scale.
        steps: number of iterations; 5 as published.
    Returns:
        Same shape and type.
    """
    a, b, c = COEFFICIENTS
    transposed = matrices.size(-2) > matrices.size(-1)
    x = matrices.transpose(-2, -1) if transposed else matrices
    shape = x.shape
    x = x.flatten(0, -3).float() if x.dim() > 2 else x[None].float()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if x.is_cuda:
        x = x.bfloat16()
    for _ in range(steps):
        gram = x @ x.transpose(-2, -1)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.view(shape)
    return (x.transpose(-2, -1) if transposed else x).to(matrices.dtype)
