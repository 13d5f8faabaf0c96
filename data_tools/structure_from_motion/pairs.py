"""Which photos are compared with which: all, neighbours in the sequence, or look-alikes.

Comparing all pairs is best and grows with the square of the number of photos. Beyond ``EXHAUSTIVE`` photos the
pairs are neighbours in the order of taking, plus, for closing loops, the photos that look most alike by a
vocabulary of local features. The vocabulary is made from the photos themselves, so that none has to be downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

EXHAUSTIVE = 60
WORDS = 256
ALIKE = 16  # look-alikes for each photo
NEIGHBOURS = 8

Pair = tuple[int, int]


def choose_pairs(count: int, ordered: bool, words: np.ndarray | None) -> tuple[list[Pair], str]:
    """Pairs (i, j) with i < j, sorted, and the name of the strategy.

    Args:
        count: number of photos.
        ordered: consecutive photos were taken consecutively (a video); file names else count as a hint only.
        words: float [count, WORDS] from :func:`word_histograms`; None leaves the look-alikes out.
    """
    if count <= (EXHAUSTIVE // 2 if ordered else EXHAUSTIVE):
        return [(i, j) for i in range(count) for j in range(i + 1, count)], "exhaustive"
    pairs: set[Pair] = set(sequential_pairs(count, NEIGHBOURS))
    if words is not None:
        pairs.update(alike_pairs(words, ALIKE // 2 if ordered else ALIKE))
    return sorted(pairs), "sequential" if ordered else "sequential and look-alikes"


def sequential_pairs(count: int, neighbours: int) -> list[Pair]:
    """Each photo with its next ones: all up to ``neighbours``, then at distances that double."""
    steps = [*range(1, neighbours + 1)]
    while steps and steps[-1] * 2 < count and steps[-1] < 8 * neighbours:
        steps.append(steps[-1] * 2)
    return [(i, i + step) for i in range(count) for step in steps if i + step < count]


def alike_pairs(words: np.ndarray, number: int) -> list[Pair]:
    """Each photo with the ``number`` others whose words agree most."""
    similarity = words @ words.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :number]
    return sorted({(min(i, int(j)), max(i, int(j))) for i, row in enumerate(nearest) for j in row if i != j})


def word_histograms(descriptors: Sequence[np.ndarray]) -> np.ndarray:
    """Unit vectors float32 [n, WORDS]: how often each visual word occurs, rare words counting more.

    descriptors: for each photo its SIFT descriptors, [k, 128], k may be 0.
    """
    random = np.random.default_rng(0)
    share = max(1, 30_000 // max(1, len(descriptors)))
    parts = [d[random.permutation(len(d))[:share]] for d in descriptors if len(d)]
    sample = np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, 128), np.float32)
    if len(sample) < WORDS:
        return np.zeros((len(descriptors), WORDS), np.float32)
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_MAX_ITER, 8, 0.0)
    labels: Any = None  # cv2 takes None for none, its types do not say so
    _, _, centers = cv2.kmeans(sample, WORDS, labels, stop, 1, cv2.KMEANS_RANDOM_CENTERS)
    half_norm = 0.5 * (centers**2).sum(1)
    counts = np.zeros((len(descriptors), WORDS), np.float32)
    for row, own in zip(counts, descriptors):
        if len(own):
            nearest = (own.astype(np.float32) @ centers.T - half_norm).argmax(1)
            row += np.bincount(nearest, minlength=WORDS)
    rarity = np.log((1.0 + len(counts)) / (1.0 + (counts > 0).sum(0)))
    weighted = np.sqrt(counts) * (rarity + 0.1)
    return (weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-6)).astype(np.float32)
