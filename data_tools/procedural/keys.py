"""What the rasterisers, in PyTorch and in Triton, agree on."""

EMPTY = 0x7FFFFFFFFFFFFFFF
"""Key of a sample that no triangle covers."""

NEAR = 1e-2
"""Depth in front of which triangles are cut."""

# Neighbouring triangles evaluate their common edge with different rounding: without slack, cracks appear.
SLACK = 1e-4
