"""Choosing views as papers do: every k-th held out in the order of file names, context among the rest."""

from __future__ import annotations

from data_tools.readers.lookup import natural
from nvs_app.errors import NVSError
from nvs_app.evaluation.protocols.base import view_name
from nvs_app.scenes.views import Views, ViewSplit, pick_views


def by_name(views: Views) -> list[int]:
    """View indices in the order of their file names, which is the order of capture in the data sets of captures."""
    return sorted(range(len(views)), key=lambda index: natural(view_name(views, index)))


def hold_out(views: Views, every: int = 8) -> tuple[list[int], list[int]]:
    """(candidates for the context, targets): in the order of file names, views 0, every, 2 every, ... are targets. The
    convention of LLFF, mip-NeRF 360 and 3D Gaussian Splatting has every 8."""
    order = by_name(views)
    return [index for place, index in enumerate(order) if place % every], order[::every]


def pick_context(views: Views, candidates: list[int], count: int, mode: str, seed: int = 0) -> list[int]:
    """`count` of the candidates, in their order; see `pick_views`. Raises NVSError: fewer candidates than asked for."""
    if not 1 <= count <= len(candidates):
        raise NVSError(
            f"scene {views.name}: {count} context views asked for, {len(candidates)} of {len(views)} are not held out"
        )
    return [candidates[row] for row in pick_views(views.c2w[candidates], count, mode, seed)]


def checked(views: Views, context: list[int], target: list[int]) -> ViewSplit:
    """The split. Raises NVSError where nothing is left to render."""
    if not target:
        raise NVSError(f"scene {views.name}: none of its {len(views)} views is held out")
    return ViewSplit(context, target)
