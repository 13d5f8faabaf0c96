"""Reads a GLB or glTF 2.0 file as an :class:`Asset`: the default scene at rest, all triangles in one frame, +y up.

Skins and morph targets are applied as the file's nodes stand; animations, cameras and lights are left out. Draco is
decoded by DracoPy. A file that *requires* an extension which is not in SUPPORTED is refused.

A reader of our own, and not trimesh's: it checks every number of a stranger's file, keeps to the asset's folder, and
honours UV sets, texture transforms, samplers, alpha modes, skins and quantised meshes.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.assets.asset import MAX_TRIANGLES, MAX_VERTICES, Asset, AssetFiles, Material, Part, TextureUse
from data_tools.assets.gltf_data import Buffers, item, numbers, open_container
from data_tools.assets.gltf_materials import SLOTS, GltfMaterials
from data_tools.assets.images import TextureImages
from nvs_app.errors import NVSError, first_line

SUPPORTED = {
    "KHR_draco_mesh_compression", "KHR_materials_emissive_strength", "KHR_materials_pbrSpecularGlossiness",
    "KHR_materials_unlit", "KHR_mesh_quantization", "KHR_texture_transform", "EXT_texture_webp", "EXT_texture_avif",
    # These change highlights only; an asset without them still looks like itself.
    "KHR_materials_ior", "KHR_materials_specular", "KHR_materials_clearcoat", "KHR_materials_sheen",
    "KHR_materials_anisotropy", "KHR_materials_iridescence", "KHR_lights_punctual", "KHR_materials_variants",
}  # fmt: skip
MAX_NODES = 1_000_000
# What reading a malformed structure raises where it is not looked at one by one.
MALFORMED = (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError, struct.error)


def read_gltf(path: Path, data: bytes, root: Path, max_texture: int) -> Asset:
    """Read a file.

    Args:
        path: of the file; others are looked for relative to it.
        data: its bytes.
        root: nothing outside of this folder is read.
        max_texture: images are shrunk to this longer side.

    Raises:
        NVSError: a malformed, damaged or oversized file, or one that needs an unsupported extension.
    """
    try:
        return _Reader(path, data, root, max_texture).read()
    except MALFORMED as error:
        raise NVSError(f"malformed glTF ({type(error).__name__}: {first_line(error, 100)})") from error


class _Reader:
    def __init__(self, path: Path, data: bytes, root: Path, max_texture: int) -> None:
        self.content, binary = open_container(data)
        required = self.content.get("extensionsRequired") or []
        missing = sorted({str(name)[:60] for name in required} - SUPPORTED)
        if missing:
            raise NVSError(f"needs {', '.join(missing[:4])}, which is not supported; export it without")
        if not str((self.content.get("asset") or {}).get("version", "2")).startswith("2"):
            raise NVSError(f"glTF version {str(self.content['asset']['version'])[:20]}, only version 2 is supported")
        self.buffers = Buffers(self.content, binary, AssetFiles(path.parent, root))
        self.asset = Asset([], [])
        self.images = TextureImages(max_texture)
        self.materials = GltfMaterials(self.content, self.buffers, self.images, self.asset.notes)
        self.triangles = self.vertices = 0

    def read(self) -> Asset:
        world = self.place_nodes()
        for index, matrix in world.items():
            node = self.content["nodes"][index]
            if "mesh" not in node:
                continue
            mesh = item(self.content, "meshes", node["mesh"])
            weights = node.get("weights", mesh.get("weights")) or []
            joints = self.joints(node["skin"], world) if "skin" in node else None
            for primitive in mesh.get("primitives") or []:
                self.add(primitive, matrix, joints, weights)
        self.asset.images = self.images.kept
        self.asset.notes = list(dict.fromkeys(self.asset.notes))
        return self.asset

    def place_nodes(self) -> dict[int, np.ndarray]:
        """Node -> its 4x4 in the world, of the default scene."""
        nodes = self.content.get("nodes") or []
        if len(nodes) > MAX_NODES:
            raise NVSError(f"{len(nodes)} nodes, at most {MAX_NODES} are read")
        scenes = self.content.get("scenes") or []
        if scenes:
            roots = item(self.content, "scenes", self.content.get("scene", 0)).get("nodes") or []
        else:
            children = {child for node in nodes for child in node.get("children") or []}
            roots = [index for index in range(len(nodes)) if index not in children]
        world: dict[int, np.ndarray] = {}
        waiting = [(index, np.eye(4)) for index in roots]
        while waiting:
            index, above = waiting.pop()
            node = item(self.content, "nodes", index)
            if index in world:
                raise NVSError(f"malformed glTF: node {index} is reached twice, expected a tree")
            world[index] = above @ _local(node)
            waiting += [(child, world[index]) for child in node.get("children") or []]
        return world

    def joints(self, index: Any, world: dict[int, np.ndarray]) -> np.ndarray:
        """[joints, 4, 4]: what each joint of a skin does to a vertex of the bind pose."""
        skin = item(self.content, "skins", index)
        names = skin["joints"]
        inverse = np.broadcast_to(np.eye(4), (len(names), 4, 4))
        if "inverseBindMatrices" in skin:
            stored = self.buffers.accessor(skin["inverseBindMatrices"], 16, "inverseBindMatrices")
            inverse = stored[: len(names)].astype(np.float64).reshape(-1, 4, 4).transpose(0, 2, 1)
        if any(name not in world for name in names):
            raise NVSError("malformed glTF: a skin has joints outside of the scene")
        return np.stack([world[name] for name in names]) @ inverse

    def add(self, primitive: dict[str, Any], matrix: np.ndarray, joints: np.ndarray | None, weights: list) -> None:
        mode = primitive.get("mode", 4)
        if mode not in (4, 5, 6):
            self.asset.notes.append("points and lines are left out")
            return
        given, take = primitive["attributes"], self.attributes(primitive)
        if "POSITION" not in given:
            return
        positions = take("POSITION", 3).astype(np.float64)
        indices = take(None, 1)[:, 0] if "indices" in primitive else np.arange(len(positions), dtype=np.uint32)
        self.vertices += len(positions)
        self.triangles += len(indices) // 3 if mode == 4 else max(0, len(indices) - 2)
        if self.triangles > MAX_TRIANGLES or self.vertices > MAX_VERTICES:
            limits = f"{MAX_TRIANGLES // 10**6} million triangles and {MAX_VERTICES // 10**6} million vertices"
            raise NVSError(f"too large: more than {limits}")
        faces = _triangles(indices.astype(np.int64), mode)
        if len(faces) and int(faces.max()) >= len(positions):
            raise NVSError(f"damaged: a triangle with vertex {int(faces.max())} of {len(positions)}")
        normals = take("NORMAL", 3).astype(np.float64) if "NORMAL" in given else None
        positions, normals = self.morph(primitive, weights, positions, normals)
        if joints is not None and "JOINTS_0" in given and "WEIGHTS_0" in given:
            positions, normals = self.skinned(take, joints, positions, normals)
        else:
            positions = positions @ matrix[:3, :3].T + matrix[:3, 3]
            normals = None if normals is None else normals @ _cofactor(matrix[:3, :3]).T
            if np.linalg.det(matrix[:3, :3]) < 0.0:
                faces = faces[:, ::-1]
        material, uvs = self.coordinates(self.materials.get(primitive.get("material")), take)
        colors = None
        if "COLOR_0" in given:
            colors = take("COLOR_0", 0).astype(np.float32)
            if colors.shape[1] == 3:
                colors = np.concatenate([colors, np.ones((len(colors), 1), np.float32)], axis=1)
            colors = np.nan_to_num(colors).clip(0.0, 1.0)
        if normals is not None:
            length = np.linalg.norm(normals, axis=1, keepdims=True)
            normals = np.nan_to_num(normals / np.where(length > 0, length, 1.0)).astype(np.float32)
        self.asset.parts.append(
            Part(positions, np.ascontiguousarray(faces, dtype=np.int32), material, normals, uvs, colors)
        )

    def coordinates(self, material: Material, take: Any) -> tuple[Material, np.ndarray | None]:
        """The material as this primitive can wear it, and the UV sets that it uses, [n, 2 a set], in its numbers."""
        textures: dict[int, TextureUse] = {}
        sets: dict[int, np.ndarray] = {}
        for slot, use in material.textures.items():
            number = use.uv_set
            if number not in sets:
                try:
                    sets[number] = np.nan_to_num(take(f"TEXCOORD_{number}", 2), posinf=0.0, neginf=0.0)
                except (NVSError, KeyError) as error:
                    why = "does not exist" if isinstance(error, KeyError) else f"cannot be used ({error})"
                    self.asset.notes.append(f"{SLOTS[slot]} left out: its UV set {number} {why}")
                    continue
            textures[slot] = replace(use, uv_set=list(sets).index(number))
        uvs = np.concatenate(list(sets.values()), axis=1, dtype=np.float32) if sets else None
        return replace(material, textures=textures), uvs

    def attributes(self, primitive: dict[str, Any]) -> Any:
        """A function (attribute, width) -> array; None is the indices; width 0 is 3 or 4 of COLOR_0."""
        given = primitive["attributes"]
        draco = (primitive.get("extensions") or {}).get("KHR_draco_mesh_compression")
        decoded = self.draco(draco) if draco else {}
        count: list[int] = []

        def take(name: str | None, width: int) -> np.ndarray:
            index = primitive["indices"] if name is None else given[name]
            if width == 0:
                width = 4 if item(self.content, "accessors", index).get("type") == "VEC4" else 3
            if name in decoded:
                array = decoded[name]
                values = item(self.content, "accessors", index)
                if array.ndim != 2 or array.shape[1] != width:
                    raise NVSError(f"damaged: Draco gives {name} with {array.shape[-1]} components, expected {width}")
                if values.get("normalized") and array.dtype.kind in "iu":
                    array = array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
            else:
                array = self.buffers.accessor(index, width, name or "indices")
                if name == "COLOR_0" and array.dtype.kind in "iu":  # "normalized" is often forgotten
                    array = array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
            if name is None:
                if array.dtype.kind not in "iu":
                    raise NVSError("malformed glTF: indices are no whole numbers")
                return array
            count.append(len(array))
            if len(array) != count[0]:
                raise NVSError(f"malformed glTF: {name} has {len(array)} entries, POSITION {count[0]}")
            return array

        return take

    def draco(self, values: dict[str, Any]) -> dict[str | None, np.ndarray]:
        """Attribute -> array of a Draco-compressed primitive."""
        import DracoPy

        data, _ = self.buffers.view(values["bufferView"])
        try:
            mesh = DracoPy.decode(bytes(data))
        except Exception as error:
            raise NVSError(f"damaged: its Draco data cannot be decoded ({str(error)[:80]})") from error
        names = {number: name for name, number in values["attributes"].items()}
        arrays: dict[str | None, np.ndarray] = {
            names[entry["unique_id"]]: np.asarray(entry["data"])
            for entry in mesh.attributes
            if entry["unique_id"] in names
        }
        faces = getattr(mesh, "faces", None)
        if faces is not None:
            arrays[None] = np.asarray(faces).reshape(-1, 1)
        return arrays

    def morph(
        self, primitive: dict[str, Any], weights: list, positions: np.ndarray, normals: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Morph targets at the weights that the file stands at."""
        for target, weight in zip(primitive.get("targets") or [], weights, strict=False):
            (factor,) = numbers({"weight": weight}, "weight", (0.0,))
            for name, array in (("POSITION", positions), ("NORMAL", normals)):
                if factor and array is not None and name in target:
                    array += factor * self.buffers.accessor(target[name], 3, f"target {name}")
        return positions, normals

    def skinned(
        self, take: Any, joints: np.ndarray, positions: np.ndarray, normals: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Vertices moved by their joints; the mesh's own node does not count (specification, 3.7.3.1)."""
        numbers_of, shares = take("JOINTS_0", 4).astype(np.int64), take("WEIGHTS_0", 4).astype(np.float64)
        if len(numbers_of) and int(numbers_of.max()) >= len(joints):
            raise NVSError("damaged: a vertex with a joint that its skin does not have")
        total = shares.sum(axis=1, keepdims=True)
        shares = shares / np.where(total > 0, total, 1.0)
        moved, turned = np.zeros_like(positions), None if normals is None else np.zeros_like(normals)
        for slot in range(4):
            matrix, share = joints[numbers_of[:, slot]], shares[:, slot, None]
            moved += share * (np.einsum("nij,nj->ni", matrix[:, :3, :3], positions) + matrix[:, :3, 3])
            if turned is not None and normals is not None:
                turned += share * np.einsum("nij,nj->ni", matrix[:, :3, :3], normals)
        return moved, turned


def _local(node: dict[str, Any]) -> np.ndarray:
    """4x4 of a node: ``matrix`` column by column, or translation, rotation (x, y, z, w) and scale."""
    if "matrix" in node:
        return np.array(numbers(node, "matrix", (0.0,) * 16)).reshape(4, 4).T
    x, y, z, w = numbers(node, "rotation", (0.0, 0.0, 0.0, 1.0))
    length = x * x + y * y + z * z + w * w
    s = 2.0 / length if length > 0 else 0.0
    rotation = np.array(
        [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * numbers(node, "scale", (1.0, 1.0, 1.0))
    matrix[:3, 3] = numbers(node, "translation", (0.0, 0.0, 0.0))
    return matrix


def _cofactor(matrix: np.ndarray) -> np.ndarray:
    """The inverse transpose times |determinant|: for normals, also where the matrix is singular."""
    a, b, c = matrix
    cofactor = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
    return -cofactor if np.dot(a, cofactor[0]) < 0.0 else cofactor


def _triangles(indices: np.ndarray, mode: int) -> np.ndarray:
    """[m, 3] of a list (4), strip (5) or fan (6)."""
    if mode == 4:
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    if len(indices) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == 5:
        faces = np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1)
        faces[1::2] = faces[1::2, [1, 0, 2]]
        return faces
    return np.stack([np.full(len(indices) - 2, indices[0]), indices[1:-1], indices[2:]], axis=1)
