"""A mesh of the surfaces that several views agree on: their depth in a truncated signed distance field (open3d).

mesh = mesh_of(views)
write_glb(Path("mesh.glb"), mesh)     # `glb`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8, UInt32

from nvs_app.errors import NVSError
from nvs_app.export.fusion import LEAST, TOLERANCE, agreed
from nvs_app.export.shading import blended
from nvs_app.export.views import SurfaceViews

_VOXEL = 1.5  # width of a voxel, in pixels of the photos at the median distance
_TRUNCATION = 4.0  # voxels: depths of views that agree differ by about as much
_BLOCK = 16  # voxels a side of what is allocated together
_WEIGHT = 1.5  # views that must have seen a voxel: two
_LARGEST = 400  # voxels across what is seen, at most; of many more the field would take gigabytes
_SMALLEST_PART = 0.01  # of the triangles of the largest part: less is a splinter


@dataclass(frozen=True)
class Texture:
    """An image on a mesh of n vertices.

    image: [h, w, 3], as displayed (sRGB). uv: [n, 2] in [0, 1], from the image's upper left corner, v down.
    """

    image: UInt8[np.ndarray, "h w 3"]
    uv: Float[np.ndarray, "n 2"]


@dataclass(frozen=True)
class Mesh:
    """Triangles in the scene's own frame.

    vertices: [n, 3]. normals: [n, 3], unit, outward. colours: [n, 3] in [0, 1], as displayed (sRGB).
    triangles: [m, 3], counter-clockwise seen from outside. texture: None: the vertices' colours are shown.
    """

    vertices: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    colours: Float[np.ndarray, "n 3"]
    triangles: UInt32[np.ndarray, "m 3"]
    texture: Texture | None = None

    @property
    def words(self) -> str:
        """For people: how large it is."""
        if self.texture is None:
            return f"{len(self.triangles):,} triangles"
        height, width = self.texture.image.shape[:2]
        return f"{len(self.triangles):,} triangles, texture {width}x{height}"


def mesh_of(
    views: SurfaceViews,
    least: int = LEAST,
    tolerance: float = TOLERANCE,
    voxel: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Mesh:
    """The surface, without small splinters.

    least, tolerance: see `fuse`. voxel: width of a cell in world units; None: about that of a pixel.
    progress: called with the share done so far; what it raises stops the work.

    Raises NVSError where open3d is missing, and where no surface is agreed on.
    """
    library = _open3d()
    tell = progress or (lambda share: None)
    photos, views = views, agreed(views, least, tolerance, progress=lambda share: tell(0.6 * share))
    cameras, known = views.cameras, views.depth > 0
    if not known.any():
        raise NVSError("mesh: the views agree on no surface; more photos, closer together, may help")
    if voxel is None:
        pixel = float((views.depth / cameras.fxfycxcy[:, 1, None, None])[known].median())
        spread = float(views.depth[known].quantile(0.95)) if known.sum() < 2**24 else float(views.depth.max())
        voxel = max(_VOXEL * pixel, spread / _LARGEST)
    core, kind = library.core, library.core.float32
    # Not open3d's older ScalableTSDFVolume: of release 0.20 it stays empty.
    field = library.t.geometry.VoxelBlockGrid(
        ("tsdf", "weight", "color"), (kind,) * 3, ((1,), (1,), (3,)), voxel, _BLOCK, 1000, core.Device("CPU:0")
    )
    farthest = float(views.depth.max()) + 1
    for view in range(len(views)):
        depth, colours = (
            library.t.geometry.Image(core.Tensor(np.ascontiguousarray(part.float().numpy())))
            for part in (views.depth[view], views.images[view].movedim(0, -1))
        )
        fx, fy, cx, cy = cameras.fxfycxcy[view].tolist()
        # open3d counts from the centre of the first pixel.
        lens = core.Tensor(np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1.0]]))
        pose = core.Tensor(cameras.w2c[view].double().numpy())
        if known[view].any():
            blocks = field.compute_unique_block_coordinates(depth, lens, pose, 1.0, farthest, _TRUNCATION)
            field.integrate(blocks, depth, colours, lens, pose, 1.0, farthest, _TRUNCATION)
        tell(0.6 + 0.3 * (view + 1) / len(views))
    found = field.extract_triangle_mesh(_WEIGHT).to_legacy()
    parts, sizes, _ = found.cluster_connected_triangles()
    if not len(sizes):
        raise NVSError("mesh: the views agree on no surface; more photos, closer together, may help")
    sizes = np.asarray(sizes)[np.asarray(parts)]
    found.remove_triangles_by_mask(sizes < _SMALLEST_PART * sizes.max())
    found.remove_unreferenced_vertices()
    found.compute_vertex_normals()
    columns = (found.vertices, found.vertex_normals, found.vertex_colors)
    points, normals, mixed = (torch.from_numpy(np.asarray(column, np.float32)) for column in columns)
    # The field mixes colours of what lies before and behind a surface, too.
    colours = blended(points, normals, photos, mixed)
    tell(1.0)
    return Mesh(points.numpy(), normals.numpy(), colours.numpy(), np.asarray(found.triangles, np.uint32))


def simplified(mesh: Mesh, share: float) -> Mesh:
    """About that share of the triangles, where they tell most of the shape; colours are the old vertices', mixed."""
    library = _open3d()
    of = library.utility
    whole = library.geometry.TriangleMesh(
        of.Vector3dVector(mesh.vertices.astype(np.float64)), of.Vector3iVector(mesh.triangles.astype(np.int32))
    )
    whole.vertex_colors = of.Vector3dVector(mesh.colours.astype(np.float64))
    found = whole.simplify_quadric_decimation(max(1, round(share * len(mesh.triangles))))
    found.remove_degenerate_triangles()
    found.remove_unreferenced_vertices()
    found.compute_vertex_normals()
    points, normals, colours = (
        np.asarray(column, np.float32) for column in (found.vertices, found.vertex_normals, found.vertex_colors)
    )
    return Mesh(points, normals, colours.clip(0, 1), np.asarray(found.triangles, np.uint32))


def raycaster(vertices: Float[np.ndarray, "n 3"], triangles: Integer[np.ndarray, "m 3"]) -> tuple[Any, Any]:
    """An open3d scene of triangles that casts rays, and the module whose tensors it takes."""
    library = _open3d()
    core = library.core
    scene = library.t.geometry.RaycastingScene()
    scene.add_triangles(core.Tensor(vertices.astype(np.float32)), core.Tensor(triangles.astype(np.uint32)))
    return scene, core


def _open3d() -> Any:  # its types know no arrays
    try:
        import open3d
    except (ImportError, OSError) as error:
        raise NVSError(f"a mesh needs open3d: pip install open3d ({' '.join(str(error).split())[:120]})") from error
    return open3d
