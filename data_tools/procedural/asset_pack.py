"""The pack of textured scans: read once, kept on the device (the pack's README describes the arrays)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from nvs_app.errors import NVSError


@dataclass(frozen=True)
class AssetPack:
    """All objects as triangle corners, one object after another.

    Attributes:
        corners: positions; z up, bounding-box centre at 0, farthest vertex at radius 1.
        normals: unit corner normals, smooth where neighbouring triangles are nearly flat.
        uvs: in [0, 1], v down.
        offset: faces of object j are offset[j] .. offset[j + 1]; on the device.
        counts: faces of each object; on the device.
        half_size: half extents of the bounding boxes.
        names: K names.
        atlases: K textures, uint8 [3, H, W], on the CPU.
    """

    corners: Float[Tensor, "f 3 3"]
    normals: Float[Tensor, "f 3 3"]
    uvs: Float[Tensor, "f 3 2"]
    offset: Int64[Tensor, " k_plus_1"]
    counts: Int64[Tensor, " k"]
    half_size: Float[Tensor, "k 3"]
    names: list[str]
    atlases: list[UInt8[Tensor, "3 _ _"]]


def read_assets(folder: Path, device: torch.device) -> AssetPack:
    """Read ``objects_pack.npz`` of the folder.

    Raises:
        NVSError: the folder has no such file.
    """
    import cv2  # not on every machine that trains

    path = folder / "objects_pack.npz"
    if not path.is_file():
        raise NVSError(f"{path}: not found, name the folder that holds objects_pack.npz, or leave the assets out")
    with np.load(path, allow_pickle=False) as pack:
        vertices = pack["vertices"].astype(np.float32) / 65535.0 * 2.0 - 1.0
        uv = pack["uv"].astype(np.float32) / 65535.0
        face_offset, vertex_offset = pack["face_offset"], pack["vertex_offset"]
        counts = np.diff(face_offset)
        first = np.repeat(vertex_offset[:-1], counts)
        faces = pack["faces"].astype(np.int64) + first[:, None]
        welded = _weld(pack["vertices"], np.diff(vertex_offset))
        stream, ends = pack["textures"], pack["texture_offset"]
        atlases = []
        for start, end in zip(ends[:-1], ends[1:], strict=True):
            image = cv2.imdecode(stream[start:end], cv2.IMREAD_COLOR)
            atlases.append(torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1).contiguous())
        names = [record["name"] for record in json.loads(str(pack["meta"]))]
    corners = vertices[faces]
    half = np.stack([np.abs(vertices[a:b]).max(0) for a, b in zip(vertex_offset[:-1], vertex_offset[1:], strict=True)])

    def on_device(array: np.ndarray) -> Shaped[Tensor, "..."]:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return AssetPack(
        on_device(corners), on_device(_corner_normals(corners, welded[faces])), on_device(uv[faces]),
        on_device(face_offset.astype(np.int64)), on_device(counts.astype(np.int64)), on_device(half), names, atlases,
    )  # fmt: skip


def _weld(quantised: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Number of the distinct position of every vertex (texture seams split vertices), within each object."""
    x, y, z = quantised.astype(np.int64).T
    owner = np.repeat(np.arange(len(counts)), counts)
    # Rounded to 12 bits: scans leave hair cracks between charts.
    key = ((owner << 12 | x >> 4) << 12 | y >> 4) << 12 | z >> 4
    return np.unique(key, return_inverse=True)[1].reshape(-1)


def _corner_normals(corners: np.ndarray, welded: np.ndarray) -> np.ndarray:
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # The winding is not reliable: turn every face away from the object's centre before summing.
    area *= np.where((area * corners.mean(1)).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    size = welded.max() + 1
    total = np.stack([np.bincount(welded.ravel(), np.repeat(area[:, axis], 3), size) for axis in range(3)], -1)
    face = area / np.maximum(np.linalg.norm(area, axis=-1, keepdims=True), 1e-12)
    smooth = total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-12)
    smooth = smooth[welded]  # [F, 3, 3]
    # Where the summed normal strays from the face's own there is an edge (or a contradiction): shade it flat.
    agrees = (smooth * face[:, None]).sum(-1, keepdims=True) > 0.75
    return np.where(agrees, smooth, face[:, None]).astype(np.float32)
