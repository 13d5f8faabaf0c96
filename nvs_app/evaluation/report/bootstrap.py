"""Intervals by drawing scenes anew (the bootstrap): how much of a mean is the choice of scenes.

low, high = interval([31.2, 28.4, 30.1])        # 95 % of the mean
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SAMPLES = 10_000
LEVEL = 0.95


def interval(values: Sequence[float | int], level: float = LEVEL) -> tuple[float, float] | None:
    """The percentile interval of the mean of `values` (one a scene), drawn with replacement SAMPLES times.

    The same values in the same order give the same interval. None for fewer than three values: so few say nothing
    about other scenes. For differences of pairs, pass the differences.
    """
    if len(values) < 3:
        return None
    array = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(0)
    # In parts: thousands of scenes times 10,000 draws would take a gigabyte at once.
    at_once = max(1, 2_000_000 // len(array))
    means = [
        array[generator.integers(0, len(array), (min(at_once, SAMPLES - first), len(array)))].mean(axis=1)
        for first in range(0, SAMPLES, at_once)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
