"""A mesh of the surfaces that several views agree on: their depth in a truncated signed distance field (open3d).

mesh = mesh_of(views)
write_glb(Path("mesh.glb"), mesh)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt32

from nvs_app.atomic_io import atomic_write
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
class Mesh:
    """Triangles in the scene's own frame.

    vertices: [n, 3]. normals: [n, 3], unit, outward. colours: [n, 3] in [0, 1], as displayed (sRGB).
    triangles: [m, 3], counter-clockwise seen from outside.
    """

    vertices: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    colours: Float[np.ndarray, "n 3"]
    triangles: UInt32[np.ndarray, "m 3"]


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
    try:
        import open3d
    except (ImportError, OSError) as error:
        raise NVSError(f"a mesh needs open3d: pip install open3d ({' '.join(str(error).split())[:120]})") from error

    library: Any = open3d  # its types know no arrays
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


def write_glb(path: Path, mesh: Mesh, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Path:
    """Binary glTF 2.0 with a colour a vertex, shown as photographed (KHR_materials_unlit) where that is known.

    Colours are linear, as the format has them, in 16 bits: in 8, dark ones would be few.
    offset: to be added to the vertices, which are float32; it becomes the translation of the mesh's node.
    """
    linear = np.where(mesh.colours <= 0.04045, mesh.colours / 12.92, ((mesh.colours + 0.055) / 1.055) ** 2.4)
    colours = np.concatenate([linear, np.ones((len(linear), 1))], axis=1)
    parts: list[tuple[np.ndarray, str, int]] = [  # with their type and target, as the format counts them
        (np.ascontiguousarray(mesh.vertices, "<f4"), "VEC3", 34962),
        (np.ascontiguousarray(mesh.normals, "<f4"), "VEC3", 34962),
        (np.rint(65535 * colours).astype("<u2"), "VEC4", 34962),
        (np.ascontiguousarray(mesh.triangles.reshape(-1), "<u4"), "SCALAR", 34963),
    ]
    codes = {"f": 5126, "u2": 5123, "u4": 5125}
    accessors: list[dict] = []
    regions: list[dict] = []
    start = 0
    for values, kind, target in parts:
        code = codes["f" if values.dtype.kind == "f" else f"u{values.dtype.itemsize}"]
        accessor = {"bufferView": len(regions), "componentType": code, "count": len(values), "type": kind}
        if values.dtype == np.uint16:
            accessor["normalized"] = True
        if not regions:  # of positions the format wants the range
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        accessors.append(accessor)
        regions.append({"buffer": 0, "byteOffset": start, "byteLength": values.nbytes, "target": target})
        start += values.nbytes
    shape = {"attributes": {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}, "indices": 3, "material": 0}
    rough = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    material = {"pbrMetallicRoughness": rough, "doubleSided": True, "extensions": {"KHR_materials_unlit": {}}}
    text = json.dumps(
        {
            "asset": {"version": "2.0", "generator": "nvs_app"},
            "extensionsUsed": ["KHR_materials_unlit"],
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0, "translation": list(offset)} if any(offset) else {"mesh": 0}],
            "meshes": [{"primitives": [shape]}],
            "materials": [material],
            "accessors": accessors,
            "bufferViews": regions,
            "buffers": [{"byteLength": start}],
        }
    ).encode()
    text += b" " * (-len(text) % 4)
    body = b"".join(values.tobytes() for values, _, _ in parts)  # each a multiple of four bytes long
    whole = 12 + 8 + len(text) + 8 + len(body)
    with atomic_write(path) as temporary:
        head = struct.pack("<4sII", b"glTF", 2, whole)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
        temporary.write_bytes(head + chunks)
    return path
