"""Colours that change with the direction of sight: what all photos that show a place say of it, as spherical harmonics.

    splats = shaded(splats_of(surfels), surfels, views)

The sheen of cloth or varnish is another in each photo; one colour in all directions is wrong in most of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from nvs_app.export.fusion import Surfels, lookup, project, resolution
from nvs_app.export.splats import Splats
from nvs_app.export.views import SurfaceViews

DEGREE = 3
"""Of the harmonics in 3DGS files; what the original viewer insists on."""
_TOLERANCE = 0.03  # share of the depth: a photo that sees farther shows something else
_UNUSUAL = 0.3  # colours that differ by more count less
_CALM = 0.03  # photos' weight of no change with the direction: where few photos show a place, little is known
_CHUNK = 16384  # surfels at once: 50 MB for 32 views


def shaded(
    splats: Splats,
    surfels: Surfels,
    views: SurfaceViews,
    degree: int = DEGREE,
    progress: Callable[[float], None] | None = None,
) -> Splats:
    """The splats, one for each surfel, coloured by least squares of all photos that show it, their colours in
    `harmonics`; degree 0: one colour, their mean. views: as they were before `agreed`, whose holes would hide nothing.

    progress: called with the share done so far; what it raises stops the work.
    """
    parts = []
    for start in range(0, len(surfels), _CHUNK):
        parts.append(_fitted(surfels[start : start + _CHUNK], views, degree))
        if progress is not None:
            progress(min(1.0, (start + _CHUNK) / len(surfels)))
    found = torch.cat(parts) if parts else surfels.points.new_zeros(0, (degree + 1) ** 2, 3)
    colours = splats.colours + harmonics(splats.means.new_ones(1, 3), 0)[0, 0] * found[:, 0]
    # Beyond [0, 1] harmonics may bring a constant back; one colour may not.
    return replace(splats, colours=colours if degree else colours.clamp(0, 1), harmonics=found[:, 1:])


def blended(
    points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], views: SurfaceViews, otherwise: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    """Colours [n, 3] of points of a surface: the mean of the photos that show them, by how finely each does;
    `otherwise` where none does. normals: unit, outward. views: as for `shaded`."""
    weights, total = torch.zeros_like(points[:, :1]), torch.zeros_like(points)
    for view in range(len(views)):
        place, seen = shown(views, view, points)
        weight = (seen * resolution(views.cameras[view], points, normals))[:, None]
        weights, total = weights + weight, total + weight * lookup(views.images[view], place, "bilinear").T
    return torch.where(weights > 0, total / weights, otherwise)


def shown(
    views: SurfaceViews, view: int, points: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
    """Where points lie in a photo, and whether it shows them."""
    place, z = project(views.cameras[view], points)
    depth = lookup(views.depth[view], place, "nearest")
    return place, (z > 0) & (place.abs() <= 1).all(dim=-1) & ((depth - z).abs() < _TOLERANCE * z)


def _fitted(surfels: Surfels, views: SurfaceViews, degree: int) -> Float[Tensor, "n k 3"]:
    """What to add to the surfels' own colours."""
    weights, changes, bases = [], [], []
    for view in range(len(views)):
        camera = views.cameras[view]
        place, seen = shown(views, view, surfels.points)
        change = lookup(views.images[view], place, "bilinear").T - surfels.colours
        weights.append(seen / (1 + (change.abs().mean(-1) / _UNUSUAL).square()))
        changes.append(change)
        bases.append(harmonics(F.normalize(surfels.points - camera.c2w[:3, 3], dim=-1), degree))
    basis, change = torch.stack(bases, dim=1), torch.stack(changes, dim=1)  # [n, v, k], [n, v, 3]
    weighted = (basis * torch.stack(weights, dim=1)[..., None]).mT
    calm = torch.full((basis.shape[-1],), _CALM, device=basis.device)
    calm[0] *= 0.05
    return torch.linalg.solve(weighted @ basis + calm.diag(), weighted @ change)


def harmonics(directions: Float[Tensor, "n 3"], degree: int) -> Float[Tensor, "n k"]:
    """Real spherical harmonics of unit directions up to a degree of 0 to 3, in the order and with the signs of Kerbl et
    al.'s files; k = (degree + 1) squared."""
    x, y, z = directions.unbind(-1)
    found = [torch.full_like(x, 0.28209479)]
    if degree > 0:
        found += [-0.48860251 * y, 0.48860251 * z, -0.48860251 * x]
    if degree > 1:
        found += [1.09254843 * x * y, -1.09254843 * y * z, 0.31539157 * (2 * z * z - x * x - y * y)]
        found += [-1.09254843 * x * z, 0.54627422 * (x * x - y * y)]
    if degree > 2:
        found += [-0.59004359 * y * (3 * x * x - y * y), 2.89061144 * x * y * z]
        found += [-0.45704580 * y * (4 * z * z - x * x - y * y), 0.37317633 * z * (2 * z * z - 3 * x * x - 3 * y * y)]
        found += [-0.45704580 * x * (4 * z * z - x * x - y * y), 1.44530572 * z * (x * x - y * y)]
        found += [-0.59004359 * x * (x * x - 3 * y * y)]
    return torch.stack(found, dim=-1)
