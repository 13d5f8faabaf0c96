"""Floating-point operations of a forward pass, counted by hand (a multiply-add is two)."""

from __future__ import annotations

from nvs_app.model.config import LaCTConfig


def lact_flops(config: LaCTConfig, num_context_tokens: int, num_target_tokens: int, tokens_per_view: int) -> float:
    """FLOPs of one scene's forward pass: linear layers, attention, fast weights, Newton-Schulz.

    Args:
        config: the network.
        num_context_tokens, num_target_tokens: tokens of all context and of all target views.
        tokens_per_view: tokens that attend to each other.
    Returns:
        FLOPs; training costs three times as much (forward and two products a matrix backward).
    """
    tokens = num_context_tokens + num_target_tokens
    dim, head, hidden = config.dim, config.fast_head_dim, config.fast_hidden
    linear = tokens * 2 * dim * (3 * dim + dim + 3 * dim + dim + 2 * config.mlp_multiplier * dim)
    linear += num_context_tokens * 2 * dim * dim * config.value_patch_skip
    attention = tokens * 2 * 2 * tokens_per_view * dim
    fast_matrix = 2 * config.num_fast_heads * head * hidden
    read = tokens * 3 * fast_matrix
    # A later step also reads, to see what is missing.
    write = num_context_tokens * (7 * config.write_steps - 1) * fast_matrix
    small, large = min(head, hidden), max(head, hidden)
    steps = config.write_steps * config.muon_steps if num_context_tokens else 0
    newton_schulz = 3 * config.num_fast_heads * steps * 2 * (2 * small**2 * large + small**3)
    ends = tokens * 2 * 12 * config.patch**2 * dim + num_target_tokens * 2 * 3 * config.patch**2 * dim
    return float(config.blocks * (linear + attention + read + write + newton_schulz) + ends)
