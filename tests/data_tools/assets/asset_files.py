"""Small GLB, glTF and OBJ files for the tests, by trimesh's exporters or byte by byte to the specification."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def quarters() -> np.ndarray:
    """uint8 [64, 64, 3]: red top left, green top right, blue bottom left, yellow bottom right."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32, :32], pixels[:32, 32:] = (220, 30, 30), (30, 200, 30)
    pixels[32:, :32], pixels[32:, 32:] = (30, 30, 220), (230, 220, 30)
    return pixels


def letter_f() -> np.ndarray:
    """uint8 [64, 64, 3]: a dark F on orange; neither turned nor mirrored does it look the same."""
    pixels = np.full((64, 64, 3), (240, 150, 40), np.uint8)
    pixels[8:56, 14:24] = pixels[8:18, 14:50] = pixels[28:38, 14:42] = (20, 20, 60)
    return pixels


def pack(content: dict[str, Any], binary: bytes = b"") -> bytes:
    """A GLB."""
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


class Builder:
    """Collects arrays into buffer views and accessors."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": []}],
            "accessors": [],
            "bufferViews": [],
            "buffers": [{}],
        }
        self.binary = b""

    def view(self, data: bytes) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.content["bufferViews"].append(view)
        self.binary += data
        return len(self.content["bufferViews"]) - 1

    def array(self, values: np.ndarray, **more: Any) -> int:
        codes = {"float32": 5126, "uint32": 5125, "uint16": 5123, "uint8": 5121, "int8": 5120, "int16": 5122}
        values = np.ascontiguousarray(values)
        kind = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}[values.size // len(values)]
        accessor = {
            "bufferView": self.view(values.tobytes()),
            "componentType": codes[str(values.dtype)],
            "count": len(values),
            "type": kind,
            **more,
        }
        self.content["accessors"].append(accessor)
        return len(self.content["accessors"]) - 1

    def image(self, data: bytes, mime: str = "image/png") -> int:
        """A texture of an embedded image."""
        self.content.setdefault("images", []).append({"bufferView": self.view(data), "mimeType": mime})
        return self.texture({"source": len(self.content["images"]) - 1})

    def texture(self, values: dict[str, Any]) -> int:
        self.content.setdefault("textures", []).append(values)
        return len(self.content["textures"]) - 1

    def material(self, **values: Any) -> int:
        self.content.setdefault("materials", []).append(values)
        return len(self.content["materials"]) - 1

    def primitive(self, positions: np.ndarray, faces: np.ndarray, material: int | None = None, **arrays: Any) -> dict:
        attributes = {"POSITION": self.array(positions.astype(np.float32))}
        attributes |= {name: value if isinstance(value, int) else self.array(value) for name, value in arrays.items()}
        primitive: dict[str, Any] = {
            "attributes": attributes,
            "indices": self.array(faces.astype(np.uint32).ravel()),
        }
        if material is not None:
            primitive["material"] = material
        self.content["meshes"][0]["primitives"].append(primitive)
        return primitive

    def glb(self) -> bytes:
        self.content["buffers"][0] = {"byteLength": len(self.binary)}
        return pack(self.content, self.binary)

    def gltf(self, uri: str | None = None) -> bytes:
        """JSON with the buffer as a data uri, or at ``uri``."""
        data = "data:application/octet-stream;base64," + base64.b64encode(self.binary).decode()
        self.content["buffers"][0] = {"byteLength": len(self.binary), "uri": uri or data}
        return json.dumps(self.content).encode()


def box(size: tuple[float, float, float] = (1, 1, 1), centre: tuple[float, float, float] = (0, 0, 0)) -> tuple:
    """24 vertices, 12 triangles outwards, normals, and UVs with v downwards: each side shows its image upright."""
    positions, normals, uvs, faces = [], [], [], []
    ups = {0: (0, 1, 0), 1: (0, 0, -1), 2: (0, 1, 0)}
    for axis in range(3):
        for sign in (1, -1):
            normal = np.zeros(3)
            normal[axis] = sign
            up = np.array(ups[axis], float)
            right = np.cross(up, normal)
            first = len(positions)
            for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)):
                positions.append(0.5 * normal + (u - 0.5) * right + (0.5 - v) * up)
                normals.append(normal)
                uvs.append((u, v))
            faces += [(first, first + 2, first + 1), (first, first + 3, first + 2)]
    return (
        np.array(positions) * size + centre,
        np.array(faces),
        np.array(normals, np.float32),
        np.array(uvs, np.float32),
    )


def add_box(
    builder: Builder, material: int | None, size: Any = (1, 1, 1), centre: Any = (0, 0, 0), **more: Any
) -> dict:
    positions, faces, normals, uvs = box(size, centre)
    return builder.primitive(positions, faces, material, NORMAL=normals, TEXCOORD_0=uvs, **more)


def plain_glb(colour: tuple[float, ...] = (0.8, 0.2, 0.1, 1.0), size: Any = (1, 1, 1)) -> bytes:
    """One box of one colour."""
    builder = Builder()
    material = builder.material(pbrMetallicRoughness={"baseColorFactor": list(colour), "metallicFactor": 0.0})
    add_box(builder, material, size)
    return builder.glb()


def textured_glb(pixels: np.ndarray | None = None, kind: str = "PNG") -> bytes:
    """A cube with an image on every side, embedded."""
    builder = Builder()
    data = png(letter_f() if pixels is None else pixels, kind)
    texture = builder.image(data, f"image/{kind.lower()}")
    material = builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": texture}, "metallicFactor": 0.0})
    add_box(builder, material)
    return builder.glb()


def multi_material_glb() -> bytes:
    """A chair-like thing: red seat, blue metal legs, an emissive green back; +y is up."""
    builder = Builder()
    red = builder.material(pbrMetallicRoughness={"baseColorFactor": [0.8, 0.05, 0.05, 1], "metallicFactor": 0.0})
    metal = builder.material(pbrMetallicRoughness={"baseColorFactor": [0.2, 0.3, 0.9, 1], "roughnessFactor": 0.3})
    glow = builder.material(emissiveFactor=[0.0, 0.7, 0.1], pbrMetallicRoughness={"baseColorFactor": [0, 0, 0, 1]})
    add_box(builder, red, (1, 0.15, 1), (0, 0, 0))
    add_box(builder, glow, (1, 1, 0.12), (0, 0.55, -0.44))
    for x in (-0.42, 0.42):
        for z in (-0.42, 0.42):
            add_box(builder, metal, (0.12, 0.8, 0.12), (x, -0.45, z))
    return builder.glb()


def external_gltf(folder: Path) -> Path:
    """model.gltf with model.bin and textures/a image.jpg (with a space, written as %20)."""
    builder = Builder()
    (folder / "textures").mkdir(parents=True, exist_ok=True)
    (folder / "textures" / "a image.jpg").write_bytes(png(quarters(), "JPEG"))
    builder.content["images"] = [{"uri": "textures/a%20image.jpg"}]
    texture = builder.texture({"source": 0})
    add_box(
        builder,
        builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": texture}, "metallicFactor": 0}),
    )
    (folder / "model.gltf").write_bytes(builder.gltf("model.bin"))
    (folder / "model.bin").write_bytes(builder.binary)
    return folder / "model.gltf"


def ball(rings: int = 16, segments: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A unit ball; +y is its pole."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, segments), indexing="ij")
    points = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1).reshape(-1, 3)
    faces = []
    for i in range(rings - 1):
        for j in range(segments - 1):
            a = i * segments + j
            faces += [(a, a + 1, a + segments), (a + 1, a + segments + 1, a + segments)]
    return points, np.array(faces)


def vertex_colour_glb() -> bytes:
    """A ball whose colours follow its position, normalised bytes."""
    points, faces = ball()
    builder = Builder()
    # Rows of three bytes are not aligned to four, which the specification asks for; exporters pad to RGBA.
    rgba = np.concatenate([(points * 0.5 + 0.5) * 255, np.full((len(points), 1), 255)], 1).astype(np.uint8)
    colours = builder.array(rgba, normalized=True)
    builder.primitive(
        points,
        faces,
        builder.material(pbrMetallicRoughness={"metallicFactor": 0.0}),
        NORMAL=points.astype(np.float32),
        COLOR_0=colours,
    )
    return builder.glb()


def alpha_glb() -> bytes:
    """A masked F (see-through letter), a half-transparent blue pane, and a single-sided back."""
    builder = Builder()
    cut = np.full((64, 64, 4), (240, 150, 40, 255), np.uint8)
    cut[(letter_f() == (20, 20, 60)).all(-1)] = (0, 0, 0, 0)
    texture = builder.image(png(cut))
    masked = builder.material(
        alphaMode="MASK",
        doubleSided=True,
        pbrMetallicRoughness={"baseColorTexture": {"index": texture}, "metallicFactor": 0},
    )
    pane = builder.material(
        alphaMode="BLEND", pbrMetallicRoughness={"baseColorFactor": [0.1, 0.2, 1, 0.5], "metallicFactor": 0}
    )
    add_box(builder, masked, (1, 1, 0.02), (0, 0, 0.4))
    add_box(builder, pane, (1, 1, 0.02), (0, 0, -0.4))
    add_box(builder, builder.material(pbrMetallicRoughness={"baseColorFactor": [0, 0.6, 0, 1]}), (0.3, 0.3, 0.3))
    return builder.glb()


def skinned_glb() -> bytes:
    """A box moved by two joints: its bind pose lies on its side, the joints stand it up."""
    builder = Builder()
    primitive = add_box(builder, None, (2, 0.3, 0.3))
    positions, *_ = box((2, 0.3, 0.3))
    joints = np.zeros((len(positions), 4), np.uint8)
    joints[:, 0] = positions[:, 0] > 0
    weights = np.zeros((len(positions), 4), np.float32)
    weights[:, 0] = 1.0
    primitive["attributes"] |= {"JOINTS_0": builder.array(joints), "WEIGHTS_0": builder.array(weights)}
    inverse = builder.array(np.stack([np.eye(4, dtype=np.float32).ravel()] * 2))
    half = 0.5**0.5
    builder.content["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [50, 0, 0]},
        {"rotation": [0, 0, half, half], "children": [2]},
        {},
    ]
    builder.content["scenes"] = [{"nodes": [0, 1]}]
    builder.content["skins"] = [{"joints": [1, 2], "inverseBindMatrices": inverse}]
    return builder.glb()


def draco_glb() -> bytes:
    """Compressed by DracoPy through trimesh's exporter; a ball of one colour."""
    import trimesh
    from trimesh.visual.material import PBRMaterial

    points, faces = ball()
    uv = np.stack([np.arctan2(points[:, 2], points[:, 0]) / 6.2832 + 0.5, points[:, 1] * 0.5 + 0.5], -1)
    image = Image.fromarray(letter_f())
    visual = trimesh.visual.TextureVisuals(uv, PBRMaterial(baseColorTexture=image, metallicFactor=0.0))
    mesh = trimesh.Trimesh(points, faces, visual=visual, process=False)
    data = trimesh.Scene(mesh).export(file_type="glb", extension_draco=True)
    assert b"KHR_draco_mesh_compression" in data
    return data


def obj_mtl(folder: Path) -> Path:
    """thing.obj with thing.mtl and an image: a textured cube on a grey foot; faces of four corners."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["mtllib thing.mtl"]
    count = 0
    for name, size, centre in (("paint", (1, 1, 1), (0, 0, 0)), ("grey", (1.4, 0.2, 1.4), (0, -0.6, 0))):
        positions, _, normals, uvs = box(size, centre)
        lines += ["v {} {} {}".format(*p) for p in positions]
        lines += [f"vt {u} {1 - v}" for u, v in uvs] + ["vn {} {} {}".format(*n) for n in normals]
        lines += [f"o {name}", f"usemtl {name}"]
        for first in range(count + 1, count + 25, 4):
            lines.append("f " + " ".join(f"{i}/{i}/{i}" for i in (first, first + 3, first + 2, first + 1)))
        count += 24
    (folder / "thing.obj").write_text("\n".join(lines) + "\n")
    (folder / "thing.mtl").write_text("newmtl paint\nKd 1 1 1\nmap_Kd f.png\nnewmtl grey\nKd 0.4 0.4 0.4\n")
    (folder / "f.png").write_bytes(png(letter_f()))
    return folder / "thing.obj"


def corrupt(data: bytes, kind: int) -> bytes:
    """Ten ways in which a GLB is broken."""
    size = struct.unpack_from("<I", data, 12)[0]
    content, rest = json.loads(data[20 : 20 + size]), data[28 + size :]
    if kind % 10 == 0:
        return b""
    if kind % 10 == 1:
        return data[: len(data) // 2]
    if kind % 10 == 2:
        return b"\x89PNG\r\n\x1a\n" + data[8:]
    if kind % 10 == 3:
        return data[:20] + b"[" * size + data[20 + size :]
    if kind % 10 == 4:
        accessor = content["accessors"][content["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
        view = content["bufferViews"][accessor["bufferView"]]
        at, length = view["byteOffset"], view["byteLength"]
        return pack(content, rest[:at] + np.full(length // 4, np.nan, np.float32).tobytes() + rest[at + length :])
    if kind % 10 == 5:
        content["meshes"][0]["primitives"] = []
    elif kind % 10 == 6:
        content["buffers"] = [{"byteLength": 10, "uri": "../../../../etc/passwd"}]
    elif kind % 10 == 7:
        content["extensionsRequired"] = ["EXT_meshopt_compression"]
    elif kind % 10 == 8:
        content["accessors"][0]["count"] = 2**31
    else:
        content["nodes"] = [{"mesh": 0, "children": [0]}]
    return pack(content, rest)


def random_glb(number: int) -> bytes:
    """A procedural asset: one to four boxes of random places, sizes and materials, every fourth one textured."""
    random = np.random.Generator(np.random.PCG64(number))
    builder = Builder()
    for _ in range(int(random.integers(1, 5))):
        pbr: dict[str, Any] = {
            "baseColorFactor": [*random.uniform(0.1, 1, 3).tolist(), 1.0],
            "metallicFactor": float(random.integers(0, 2)),
            "roughnessFactor": float(random.uniform(0.1, 1)),
        }
        if number % 4 == 0:
            pixels = random.integers(0, 255, (16, 16, 3), np.uint8)
            pbr["baseColorTexture"] = {"index": builder.image(png(pixels))}
        add_box(
            builder,
            builder.material(pbrMetallicRoughness=pbr),
            random.uniform(0.2, 1, 3),
            random.uniform(-0.5, 0.5, 3),
        )
    return builder.glb()
