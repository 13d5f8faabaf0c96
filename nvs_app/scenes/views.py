"""Choosing context (input) and target views of a scene: evenly spread, by k-means, by number, at random, or listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.scenes.posed import PosedImages

MODES = ("spread", "random", "even", "first", "kmeans", "kmeans-position", "listed")
DEFAULT_VIEWS = 16


@runtime_checkable
class Views(Protocol):
    """Posed images that are not loaded yet: a `Scene`, or something that can do this much of it.

    name: for people. root: the folder, for people. image_paths: a name for each view. c2w: OpenCV axes, on the CPU.
    """

    @property
    def name(self) -> str: ...

    @property
    def root(self) -> Path: ...

    @property
    def image_paths(self) -> list[Path]: ...

    @property
    def c2w(self) -> Float[Tensor, "n 4 4"]: ...

    def __len__(self) -> int: ...

    def load(self, indices: Sequence[int] | None = None, image_hw: tuple[int, int] | None = None) -> PosedImages:
        """The views at `image_hw`, float32 in [0, 1] or uint8, on any device."""
        ...


@dataclass(frozen=True)
class ViewSplit:
    """View indices of a scene: what the network reads, and what it has to render."""

    context: list[int]
    target: list[int]


def default_views(count: int) -> int:
    """How many of `count` views are input where nobody says a number: DEFAULT_VIEWS, or all but one to compare with."""
    return max(1, min(DEFAULT_VIEWS, count - 1))


def choose_views(
    scene: Views,
    num_context: int,
    mode: str = "spread",
    seed: int = 0,
    context: Sequence[int] | None = None,
    target: Sequence[int] | None = None,
    max_targets: int | None = None,
) -> ViewSplit:
    """Split the views of a scene into context and targets.

    Args:
        scene: with two views or more, unless both lists are given.
        num_context: number of context views; ignored where ``context`` lists them.
        mode: one of `MODES`, see :func:`pick_views`; with "listed", ``context`` must be given. A given ``context`` is
            used in any mode.
        seed: see :func:`pick_views`.
        context: view indices to take as context, in this order.
        target: view indices to take as targets; all views that are no context unless given. A listed target may
            also be a listed context (rendering what was read).
        max_targets: keep at most this many targets, evenly spaced in their order.

    Raises:
        NVSError: an index out of range or given twice, or too few views.
    """
    count = len(scene)
    if mode not in MODES:
        raise NVSError(f"view mode {mode!r}: unknown, expected one of {', '.join(MODES)}")
    targets = None if target is None else _check_listed(target, count, scene.name, "target")
    if context is not None:
        chosen = _check_listed(context, count, scene.name, "context")
    elif mode == "listed":
        raise NVSError(f"scene {scene.name}: view mode 'listed' needs a list of context views")
    else:
        # Listed targets are kept out of the context, so that nothing is rendered that was read.
        pool = [index for index in range(count) if targets is None or index not in set(targets)]
        spare = 1 if targets is None else 0
        if not 1 <= num_context <= len(pool) - spare:
            raise NVSError(
                f"scene {scene.name}: {num_context} context views asked for, expected 1 to {len(pool) - spare}"
                f" ({count} views{', one left to render' if spare else ', the targets taken out'})"
            )
        chosen = [pool[row] for row in pick_views(scene.c2w[pool], num_context, mode, seed)]
    if targets is None:
        targets = [index for index in range(count) if index not in set(chosen)]
    if max_targets is not None and len(targets) > max_targets:
        if max_targets < 1:
            raise NVSError(f"max_targets is {max_targets}, expected 1 or more")
        targets = [targets[int((slot + 0.5) * len(targets) / max_targets)] for slot in range(max_targets)]
    if not targets:
        raise NVSError(f"scene {scene.name}: all {count} views are context, none is left to render")
    return ViewSplit(chosen, targets)


def pick_views(c2w: Float[Tensor, "n 4 4"], k: int, mode: str, seed: int = 0) -> list[int]:
    """Rows of k of n cameras, ascending.

    mode: "spread" (k-medoids over positions and directions, see :func:`spread_views`), "kmeans" and "kmeans-position"
        (see :func:`kmeans_views`), "even" (by number, first and last included: RegNeRF's rounded linspace), "first",
        "random".
    seed: of "random", and of the start of "spread".

    Raises:
        NVSError: k is not 1 to n.
    """
    n = len(c2w)
    if not 1 <= k <= n:
        raise NVSError(f"{k} views asked for, expected 1 to {n}")
    if mode == "spread":
        return spread_views(c2w, k, seed)
    if mode == "random":
        return sorted(torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:k].tolist())
    if mode in ("first", "even"):
        return list(range(k)) if mode == "first" else np.linspace(0, n - 1, k).round().astype(int).tolist()
    return kmeans_views(c2w, k, mode == "kmeans")


def spread_views(c2w: Float[Tensor, "n 4 4"], k: int, seed: int = 0) -> list[int]:
    """Choose k views so that every view has a chosen one near it; deterministic.

    The distance of two views joins positions (in units of their spread) and directions of view. Farthest-point
    choices start it; exchanging each chosen view for the one in the middle of those it serves (k-medoids)
    then moves the choices from the rim into the middle of their share.

    Args:
        c2w: all candidate cameras. k: 1 to n. seed: shifts the start; 0 starts at the most central view.

    Returns:
        k different indices, ascending.
    """
    n = len(c2w)
    if not 1 <= k <= n:
        raise NVSError(f"{k} views asked for, expected 1 to {n}")
    position = c2w[:, :3, 3].double()
    position = position - position.mean(0)
    # The median keeps one wild camera from shrinking all others to a point.
    size = position.norm(dim=-1).median().clamp_min(1e-9)
    features = torch.cat([position / size, c2w[:, :3, 2].double()], dim=-1)
    start = int(torch.randint(n, (), generator=torch.Generator().manual_seed(seed))) if seed else None
    chosen = _farthest_first(features, k, start)
    # Beyond this many views the table of all distances would take too much memory for a refinement.
    return sorted(_refine(features, chosen) if n <= 4000 else chosen)


def kmeans_views(c2w: Float[Tensor, "n 4 4"], k: int, directions: bool = True, rounds: int = 100) -> list[int]:
    """k-means over cameras: the camera nearest to each of k cluster means, ascending; deterministic.

    A camera's features are its position in units of the cameras' root mean square distance from their mean and, with
    `directions`, its viewing direction. The start is farthest-first from the most central camera, so no seed matters.
    """
    position = c2w[:, :3, 3].double()
    position = position - position.mean(0)
    features = position / position.square().sum(-1).mean().sqrt().clamp_min(1e-9)
    if directions:
        features = torch.cat([features, c2w[:, :3, 2].double()], dim=-1)
    means = features[_farthest_first(features, k)]
    for _ in range(rounds):
        owner = _distances(features, means).argmin(dim=1)
        moved = means.clone()
        for cluster in range(k):
            members = features[owner == cluster]
            if len(members):
                moved[cluster] = members.mean(0)
        if torch.equal(moved, means):
            break
        means = moved
    distance = _distances(features, means)
    chosen: list[int] = []
    for cluster in range(k):  # a camera serves once, also where two means share their nearest one
        distance[chosen] = torch.inf
        chosen.append(int(distance[:, cluster].argmin()))
    return sorted(chosen)


def _farthest_first(features: Tensor, k: int, start: int | None = None) -> list[int]:
    """k rows, each farthest from those before; the first is the most central one unless `start` says."""
    chosen = [int((features - features.mean(0)).norm(dim=-1).argmin()) if start is None else start]
    nearest = (features - features[chosen[0]]).norm(dim=-1)
    while len(chosen) < k:
        nearest[chosen] = -1.0  # never twice, also where cameras coincide
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (features - features[chosen[-1]]).norm(dim=-1))
    return chosen


def _distances(features: Tensor, means: Tensor) -> Tensor:
    return torch.cdist(features, means, compute_mode="donot_use_mm_for_euclid_dist")


def _refine(features: Tensor, chosen: list[int]) -> list[int]:
    """k-medoids by alternation: assign each view to its nearest chosen one, then take each share's medoid."""
    distance = _distances(features, features)
    for _ in range(10):
        columns = distance[:, chosen]
        owner = columns.argmin(dim=1)
        # A chosen view always owns itself, also where another chosen camera coincides with it.
        owner[torch.tensor(chosen)] = torch.arange(len(chosen))
        moved = []
        for slot in range(len(chosen)):
            share = (owner == slot).nonzero()[:, 0]
            cost = distance[share][:, share].square().sum(dim=0)
            moved.append(int(share[cost.argmin()]))
        if moved == chosen:
            break
        chosen = moved
    return chosen


def _check_listed(indices: Sequence[int], count: int, name: str, what: str) -> list[int]:
    listed = [int(index) for index in indices]
    if not listed:
        raise NVSError(f"scene {name}: the list of {what} views is empty")
    for index in listed:
        if not 0 <= index < count:
            raise NVSError(f"scene {name}: {what} view {index} does not exist, expected 0 to {count - 1}")
    if len(set(listed)) != len(listed):
        twice = next(index for index in listed if listed.count(index) > 1)
        raise NVSError(f"scene {name}: {what} view {twice} is listed twice")
    return listed
