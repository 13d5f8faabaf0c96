"""Meshes as binary glTF 2.0.

write_glb(Path("mesh.glb"), mesh)
"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from nvs_app.atomic_io import atomic_write
from nvs_app.export.mesh import Mesh

_QUALITY = 95  # of the texture's JPEG
_VERTICES, _INDICES = 34962, 34963  # what a region of the file is for, as the format counts
# Interpolated, from smaller copies where far away, not repeated.
_SMOOTH = {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}
_TYPES = {"<f4": 5126, "<u2": 5123, "<u4": 5125}


def write_glb(path: Path, mesh: Mesh, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Path:
    """A mesh with its texture, or with a colour a vertex, shown as photographed (KHR_materials_unlit) where that is
    known.

    Vertices' colours are linear, as the format has them, in 16 bits: in 8, dark ones would be few.
    offset: to be added to the vertices, which are float32; it becomes the translation of the mesh's node.
    """
    file = _File()
    place = file.add(mesh.vertices, "<f4", "VEC3", _VERTICES)
    file.accessors[place] |= {"min": mesh.vertices.min(0).tolist(), "max": mesh.vertices.max(0).tolist()}
    attributes = {"POSITION": place, "NORMAL": file.add(mesh.normals, "<f4", "VEC3", _VERTICES)}
    look: dict = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    images: dict = {}
    if mesh.texture is None:
        attributes["COLOR_0"] = file.add(_linear(mesh.colours), "<u2", "VEC4", _VERTICES, normalized=True)
    else:
        attributes["TEXCOORD_0"] = file.add(mesh.texture.uv, "<f4", "VEC2", _VERTICES)
        data = io.BytesIO()
        Image.fromarray(mesh.texture.image).save(data, "JPEG", quality=_QUALITY, subsampling=0)
        look["baseColorTexture"] = {"index": 0}
        images = {
            "images": [{"bufferView": file.region(data.getvalue()), "mimeType": "image/jpeg"}],
            "samplers": [_SMOOTH],
            "textures": [{"source": 0, "sampler": 0}],
        }
    indices = file.add(mesh.triangles.reshape(-1), "<u4", "SCALAR", _INDICES)
    material = {"pbrMetallicRoughness": look, "doubleSided": True, "extensions": {"KHR_materials_unlit": {}}}
    file.write(
        path,
        {
            "asset": {"version": "2.0", "generator": "nvs_app"},
            "extensionsUsed": ["KHR_materials_unlit"],
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0, "translation": list(offset)} if any(offset) else {"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
            "materials": [material],
            **images,
        },
    )
    return path


def _linear(colours: np.ndarray) -> np.ndarray:
    """Colours [n, 3] as displayed, opaque and linear [n, 4], in 16 bits."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    return np.rint(65535 * np.concatenate([linear, np.ones((len(linear), 1))], axis=1))


class _File:
    """The binary part of a file, and what says where in it everything lies."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.regions: list[dict] = []
        self.accessors: list[dict] = []

    def region(self, data: bytes, **more: int) -> int:
        """Adds bytes; the number of their region."""
        self.regions.append({"buffer": 0, "byteOffset": len(self.body), "byteLength": len(data), **more})
        self.body += data + b"\0" * (-len(data) % 4)
        return len(self.regions) - 1

    def add(self, values: np.ndarray, type_: str, kind: str, target: int, **more: bool) -> int:
        """Adds values, one a row; the number of their accessor."""
        data = np.ascontiguousarray(values.astype(type_)).tobytes()
        view = self.region(data, target=target)
        accessor = {"bufferView": view, "componentType": _TYPES[type_], "count": len(values), "type": kind}
        self.accessors.append({**accessor, **more})
        return len(self.accessors) - 1

    def write(self, path: Path, scene: dict) -> None:
        """Writes all, with what the scene says."""
        parts = {"accessors": self.accessors, "bufferViews": self.regions, "buffers": [{"byteLength": len(self.body)}]}
        text = json.dumps({**scene, **parts}).encode()
        text += b" " * (-len(text) % 4)
        whole = 12 + 8 + len(text) + 8 + len(self.body)
        with atomic_write(path) as temporary, temporary.open("wb") as out:
            out.write(struct.pack("<4sII", b"glTF", 2, whole))
            out.write(struct.pack("<I4s", len(text), b"JSON") + text)
            out.write(struct.pack("<I4s", len(self.body), b"BIN\0"))
            out.write(self.body)
