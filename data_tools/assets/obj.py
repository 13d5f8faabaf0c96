"""Reads a Wavefront OBJ with its MTL and images as an :class:`Asset`, through trimesh's parser.

OBJ says nothing about units or axes; +y is up unless the user says otherwise. Materials become rough and not metallic:
diffuse colour and image (Kd, map_Kd), emission is left out.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.assets.asset import BASE, MAX_TRIANGLES, Asset, AssetFiles, Material, Part, TextureUse
from data_tools.assets.images import TextureImages
from nvs_app.errors import NVSError


class _Resolver:
    """trimesh's way to ask for other files. It goes on without a file that fails, so faults are kept."""

    def __init__(self, files: AssetFiles, max_texture: int) -> None:
        self.files, self.max_texture = files, max_texture
        self.faults: list[NVSError] = []

    def get(self, name: str) -> bytes:
        try:
            data = self.files.read(name.strip())
            if not name.strip().lower().endswith(".mtl"):
                # Judged, decoded and shrunk here: trimesh would open anything that Pillow does, at any size.
                from PIL import Image

                from data_tools.assets.images import decode

                buffer = io.BytesIO()
                Image.fromarray(decode(data, name.strip()[:80], self.max_texture)).save(buffer, "PNG", compress_level=0)
                return buffer.getvalue()
            return data
        except NVSError as error:
            self.faults.append(error)
            raise

    __getitem__ = get


def read_obj(path: Path, data: bytes, root: Path, max_texture: int) -> Asset:
    """Read a file; see :func:`data_tools.assets.gltf.read_gltf` for the arguments.

    Raises:
        NVSError: no faces, a malformed line, a material file or image that is missing, outside or broken.
    """
    from trimesh.exchange.obj import load_obj

    if not data.strip():
        raise NVSError("an empty file")
    logging.getLogger("trimesh").setLevel(logging.CRITICAL)
    beside: Any = _Resolver(AssetFiles(path.parent, root), max_texture)
    text = data.decode("utf-8", "replace")
    try:
        loaded = load_obj(io.StringIO(text), resolver=beside)
    except Exception as error:
        raise NVSError(f"malformed OBJ ({type(error).__name__}: {str(error)[:80]})") from error
    if beside.faults:
        raise beside.faults[0]
    return _convert(loaded, max_texture)


def _convert(loaded: dict[str, Any], max_texture: int) -> Asset:
    meshes = list(loaded["geometry"].values()) if "geometry" in loaded else [loaded]
    asset, images = Asset([], []), TextureImages(max_texture)
    total = 0
    for number, mesh in enumerate(meshes):
        faces = mesh.get("faces")
        if faces is None or not len(faces):
            continue
        faces = np.asarray(faces, np.int64)
        if faces.shape[1] == 4:
            faces = faces[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
        total += len(faces)
        if total > MAX_TRIANGLES:
            raise NVSError(f"too large: more than {MAX_TRIANGLES // 10**6} million triangles")
        positions = np.asarray(mesh["vertices"], np.float64)
        if int(faces.max()) >= len(positions) or int(faces.min()) < 0:
            raise NVSError(f"damaged: a face with vertex {int(faces.max()) + 1} of {len(positions)}")
        material, uvs = _material(mesh.get("visual"), images, number, len(positions))
        normals, colors = mesh.get("vertex_normals"), mesh.get("vertex_colors")
        if normals is not None and len(normals) == len(positions):
            normals = np.nan_to_num(np.asarray(normals, np.float32))
        else:
            normals = None
        asset.parts.append(
            Part(positions, faces.astype(np.int32), material, normals, uvs, _linear(colors, len(positions)))
        )
    asset.images = images.kept
    return asset


def _material(visual: Any, images: TextureImages, number: int, count: int) -> tuple[Material, np.ndarray | None]:
    """The material of one mesh, and its texture coordinates with v downwards."""
    material = getattr(visual, "material", None)
    if material is None:
        return Material(metallic=0.0), None
    kd = getattr(material, "diffuse", None)
    rgba = (np.asarray(kd, np.float64) / 255.0).clip(0.0, 1.0) if kd is not None else np.ones(4)
    r, g, b = srgb_to_linear(rgba[:3]).tolist()
    alpha = float(rgba[3]) if len(rgba) > 3 and rgba[3] > 0 else 1.0  # d 0 is a common mistake of exporters
    uv, image = getattr(visual, "uv", None), getattr(material, "image", None)
    if image is None or uv is None or len(uv) != count:
        mode = "BLEND" if alpha < 1.0 else "OPAQUE"
        return Material((r, g, b, alpha), 0.0, alpha_mode=mode, double_sided=True), None
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)
    use = TextureUse(images.add(id(image), buffer.getvalue(), f"image of material {number}"))
    clear = bool((images.kept[use.image][:, :, 3] < 250).any())
    uvs = np.zeros((count, 2), np.float32)
    uvs[:, 0], uvs[:, 1] = np.nan_to_num(uv[:, 0]), 1.0 - np.nan_to_num(uv[:, 1])
    # With an image, Kd black means "not set" in many files; viewers take it as white.
    base = (r, g, b, alpha) if max(r, g, b) > 0 else (1.0, 1.0, 1.0, alpha)
    mode = "BLEND" if alpha < 1.0 else "MASK" if clear else "OPAQUE"
    return Material(base, 0.0, alpha_mode=mode, double_sided=True, textures={BASE: use}), uvs


def _linear(colors: Any, count: int) -> np.ndarray | None:
    """Vertex colours, sRGB by habit, as linear RGBA."""
    if colors is None or len(colors) != count:
        return None
    values = np.asarray(colors)
    values = values.astype(np.float32) / (255.0 if values.dtype.kind in "iu" else 1.0)
    rgba = np.ones((count, 4), np.float32)
    rgba[:, :3] = srgb_to_linear(np.nan_to_num(values[:, :3]).clip(0.0, 1.0))
    return rgba


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """Stored colours in [0, 1] to linear light (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
