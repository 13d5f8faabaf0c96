"""Choosing views as papers do: every k-th held out, k-means over cameras, evenly by number."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.evaluation.protocols.base import Views, natural, view_name
from nvs_app.scenes.views import ViewSplit, spread_views


def by_name(views: Views) -> list[int]:
    """View indices in the order of their file names, which is the order of capture in the data sets of captures."""
    return sorted(range(len(views)), key=lambda index: natural(view_name(views, index)))


def hold_out(views: Views, every: int = 8, offset: int = 0) -> tuple[list[int], list[int]]:
    """(candidates for the context, targets): in the order of file names, views offset, offset + every, ... are
    targets. The convention of LLFF, mip-NeRF 360 and 3D Gaussian Splatting has every 8 and offset 0."""
    order = by_name(views)
    targets = order[offset::every]
    held = set(targets)
    return [index for index in order if index not in held], targets


def evenly(candidates: list[int], count: int) -> list[int]:
    """`count` of the list at even steps, first and last included (RegNeRF: rounded np.linspace)."""
    return [candidates[slot] for slot in np.linspace(0, len(candidates) - 1, count).round().astype(int)]


def kmeans_views(c2w: Float[Tensor, "n 4 4"], count: int, directions: bool = True, rounds: int = 100) -> list[int]:
    """k-means over cameras: the camera nearest to each of `count` cluster means, ascending; deterministic.

    A camera's features are its position in units of the cameras' root mean square distance from their mean and, with
    `directions`, its viewing direction. The start is farthest-first from the most central camera, so no seed matters.
    """
    position = c2w[:, :3, 3].double()
    position = position - position.mean(0)
    spread = position.square().sum(-1).mean().sqrt().clamp_min(1e-9)
    features = position / spread
    if directions:
        features = torch.cat([features, c2w[:, :3, 2].double()], dim=-1)
    means = features[_farthest_first(features, count)]
    for _ in range(rounds):
        owner = _distances(features, means).argmin(dim=1)
        moved = means.clone()
        for cluster in range(count):
            members = features[owner == cluster]
            if len(members):
                moved[cluster] = members.mean(0)
        if torch.equal(moved, means):
            break
        means = moved
    distance = _distances(features, means)
    chosen: list[int] = []
    for cluster in range(count):  # a camera serves once, also where two means share their nearest one
        distance[chosen] = torch.inf
        chosen.append(int(distance[:, cluster].argmin()))
    return sorted(chosen)


def choose_context(views: Views, candidates: list[int], count: int, how: str, seed: int = 0) -> list[int]:
    """`count` of the candidates, in their order.

    how: "spread" (k-medoids over positions and directions), "kmeans", "kmeans-position", "even" (by number), "first".

    Raises:
        NVSError: fewer candidates than asked for.
    """
    if not 1 <= count <= len(candidates):
        raise NVSError(
            f"scene {views.name}: {count} context views asked for, {len(candidates)} of {len(views)} are not held out"
        )
    if how == "first":
        return candidates[:count]
    if how == "even":
        return evenly(candidates, count)
    c2w = views.c2w[candidates]
    rows = spread_views(c2w, count, seed) if how == "spread" else kmeans_views(c2w, count, how == "kmeans")
    return [candidates[row] for row in rows]


def checked(views: Views, context: list[int], target: list[int]) -> ViewSplit:
    """The split. Raises NVSError where nothing is left to draw."""
    if not target:
        raise NVSError(f"scene {views.name}: none of its {len(views)} views is held out")
    return ViewSplit(context, target)


def _farthest_first(features: Tensor, count: int) -> list[int]:
    chosen = [int((features - features.mean(0)).norm(dim=-1).argmin())]
    nearest = (features - features[chosen[0]]).norm(dim=-1)
    while len(chosen) < count:
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (features - features[chosen[-1]]).norm(dim=-1))
    return chosen


def _distances(features: Tensor, means: Tensor) -> Tensor:
    return torch.cdist(features, means, compute_mode="donot_use_mm_for_euclid_dist")
