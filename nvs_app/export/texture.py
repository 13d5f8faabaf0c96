"""The photos' colours on a mesh, as an image: for each texel the mean of the photos that show its place.

mesh = textured(mesh_of(views), views)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nvs_app.export.atlas import PAD, unwrap
from nvs_app.export.fusion import lookup, project, resolution
from nvs_app.export.mesh import Mesh, Texture, raycaster, simplified
from nvs_app.export.shading import shown
from nvs_app.export.views import SurfaceViews
from nvs_app.scenes.posed import PosedImages

MOST = 4096
"""Texels a side, at most: what phones' GPUs take."""
SMALLEST, LARGEST = 256, 8192
"""What `most` may be."""
_SHARE, _FEW = 0.25, 4000  # triangles that are kept; of fewer, all
_VIEWS = 16  # photos that give a texel its colour, at most: those that see it finest
_FINER = 1.5  # texels for a pixel of the photo that sees a place finest: what is drawn is interpolated twice
_CHUNK = 2**19  # texels at once: about 100 MB
_RATES = 2**24  # triangles times views at once


def textured(
    mesh: Mesh,
    views: SurfaceViews,
    photos: PosedImages | None = None,
    most: int = MOST,
    progress: Callable[[float], None] | None = None,
) -> Mesh:
    """The mesh with a texture instead of colours at its vertices, and of fewer triangles: they tell the shape alone.

    views: as `mesh_of` took them. photos: [v], the same photos, finer, with their cameras in the scene's own frame
    (`fine_photos`); None: those of `views`. most: texels a side; it has fewer where the photos do not hold more.
    progress: called with the share done so far; what it raises stops the work.

    Raises NVSError where so few texels do not hold the mesh's pieces.
    """
    tell = progress or (lambda share: None)
    if len(mesh.triangles) > _FEW:
        mesh = simplified(mesh, _SHARE)
    if photos is None:
        photos = PosedImages(views.images, views.cameras)
    else:
        c2w = photos.cameras.c2w.double().clone()
        c2w[:, :3, 3] -= c2w.new_tensor(views.offset)
        photos = PosedImages(photos.images, replace(photos.cameras, c2w=c2w).to(torch.float32))
    corners = torch.from_numpy(mesh.vertices[mesh.triangles.astype(np.int64)])
    best, finest = _best(corners, views, photos)
    tell(0.1)
    usual = finest[finest > 0].median() if (finest > 0).any() else finest.new_tensor(1.0)
    density = _FINER * torch.where(finest > 0, finest, usual).sqrt()
    atlas = unwrap(mesh.vertices, mesh.triangles, density.numpy(), most)
    tell(0.2)
    height, width = atlas.size
    flat = np.concatenate([atlas.place, np.zeros((len(atlas.place), 1))], axis=1)
    caster, core = raycaster(flat, atlas.triangles)
    vertices, normals, mixed = (values[atlas.source] for values in (mesh.vertices, mesh.normals, mesh.colours))
    image, filled = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool)
    rows = max(1, _CHUNK // width)
    for start in range(0, height, rows):
        y, x = np.mgrid[start : min(height, start + rows), :width].astype(np.float32) + 0.5
        rays = np.stack([x, y, np.ones_like(x), np.zeros_like(x), np.zeros_like(x), -np.ones_like(x)], axis=-1)
        hit = caster.cast_rays(core.Tensor(rays))
        inside = np.isfinite(hit["t_hit"].numpy())
        owner = hit["primitive_ids"].numpy()[inside].astype(np.int64)
        second, third = hit["primitive_uvs"].numpy()[inside].T
        share = np.stack([1 - second - third, second, third], axis=-1)[..., None]
        of = atlas.triangles[owner]
        points, facing, otherwise = (
            torch.from_numpy((values[of] * share).sum(1, dtype=np.float32)) for values in (vertices, normals, mixed)
        )
        colours = _coloured(
            points, F.normalize(facing, dim=-1), otherwise, best[:, torch.from_numpy(owner)], views, photos
        )
        part = image[start : start + rows]
        part[inside] = np.rint(255 * colours.clamp(0, 1).numpy())
        filled[start : start + rows] = inside
        tell(0.2 + 0.75 * min(1.0, (start + rows) / height))
    uv = atlas.place / (width, height)
    _spread(image, filled)
    texture = Texture(image, np.ascontiguousarray(uv, np.float32))
    tell(1.0)
    return Mesh(vertices, normals, mixed, atlas.triangles.astype(np.uint32), texture)


def _best(
    corners: Float[Tensor, "m 3 3"], views: SurfaceViews, photos: PosedImages
) -> tuple[Tensor, Float[Tensor, " m"]]:
    """For each triangle the photos that see it finest, a mask [v, m], and pixels a unit of area of the finest."""
    normals = F.normalize(torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), dim=-1)
    middle = corners.mean(1)
    rate = middle.new_zeros(len(views), len(middle))
    for view in range(len(views)):
        seen = torch.zeros(len(middle), dtype=torch.bool)
        for point in (middle, *corners.unbind(1)):
            seen |= shown(views, view, point)[1]
        rate[view] = seen * resolution(photos.cameras[view], middle, normals)
    count, few = min(_VIEWS, len(views)), max(1, _RATES // len(views))
    best = torch.zeros(rate.shape, dtype=torch.bool)
    for part, into in zip(rate.split(few, dim=1), best.split(few, dim=1)):
        into.scatter_(0, part.topk(count, dim=0).indices, True)
    return best & (rate > 0), rate.amax(0)


def _coloured(
    points: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    otherwise: Float[Tensor, "n 3"],
    asked: Tensor,
    views: SurfaceViews,
    photos: PosedImages,
) -> Float[Tensor, "n 3"]:
    """The mean of the photos that show each point, of those that are asked [v, n]; `otherwise` where none does."""
    weights, total = torch.zeros_like(points[:, :1]), torch.zeros_like(points)
    for view in range(len(views)):
        rows = asked[view].nonzero()[:, 0]
        if not len(rows):
            continue
        at, camera = points[rows], photos.cameras[view]
        weight = (shown(views, view, at)[1] * resolution(camera, at, normals[rows]))[:, None]
        image = photos.images[view]
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        colours = lookup(image, project(camera, at)[0], "bilinear").T
        weights.index_add_(0, rows, weight)
        total.index_add_(0, rows, weight * colours)
    return torch.where(weights > 0, total / weights.clamp_min(1e-30), otherwise)


def _spread(image: np.ndarray, filled: np.ndarray) -> None:
    """Colours beyond the charts, in place: for `PAD` texels those of the nearest, else the mean of all."""
    if filled.any():
        image[~filled] = image[filled].mean(0).round()
    for _ in range(PAD):
        before = filled.copy()
        # What comes round from the other side is in no chart's way.
        for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            new = np.roll(before, step, (0, 1)) & ~filled
            image[new] = np.roll(image, step, (0, 1))[new]
            filled |= new
