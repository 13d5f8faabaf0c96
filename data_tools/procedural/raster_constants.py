"""Constants of the rasterisers and of shading, in PyTorch and in Triton.

Their result is a visibility buffer: the depth and number of the nearest triangle of every sample, in one int64.
"""

EMPTY = 0x7FFFFFFFFFFFFFFF
"""Value of a sample that no triangle covers."""

NEAR_PLANE = 1e-2
"""Depth in front of which triangles are cut."""

# Neighbouring triangles evaluate their common edge with different rounding: without slack, cracks appear.
EDGE_TOLERANCE = 1e-4

PANEL = (1.5, 0.32, 0.55)
"""Lamps in what mirrors: a grid of them at the key light's height; metres apart, half sizes along x and y."""
