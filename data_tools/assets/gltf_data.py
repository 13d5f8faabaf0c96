"""The bytes of a glTF file: the GLB container, buffers and accessors, each number checked before it is used.

Source: Khronos glTF 2.0 specification, sections 3.6 (buffers, accessors, sparse) and 4 (GLB); KHR_mesh_quantization.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import Any

import numpy as np

from data_tools.assets.asset import MAX_JSON_BYTES, MAX_VERTICES, AssetFiles
from nvs_app.errors import NVSError, first_line

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


def open_container(data: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The JSON of a .glb or .gltf file, and the GLB's binary chunk.

    Raises:
        NVSError: cut short, another version, no JSON object.
    """
    binary = None
    if data[:4] == b"glTF":
        if len(data) < 20:
            raise NVSError(f"cut short: {len(data)} bytes")
        version, length = struct.unpack_from("<II", data, 4)
        if version != 2:
            raise NVSError(f"glTF version {version}, only version 2 is supported")
        if length > len(data):
            raise NVSError(f"cut short: {len(data)} of {length} bytes")
        chunks: dict[bytes, bytes] = {}
        at = 12
        while at + 8 <= length:
            size, kind = struct.unpack_from("<I4s", data, at)
            if at + 8 + size > length:
                raise NVSError(f"damaged: a chunk of {size} bytes at {at} does not fit into {length} bytes")
            if kind == b"JSON" and size > MAX_JSON_BYTES:
                raise NVSError(f"its JSON has {size >> 20} MiB, at most {MAX_JSON_BYTES >> 20} MiB are read")
            chunks.setdefault(kind, data[at + 8 : at + 8 + size])
            at += 8 + size
        if b"JSON" not in chunks:
            raise NVSError("damaged: a GLB without a JSON chunk")
        data, binary = chunks[b"JSON"], chunks.get(b"BIN\0")
    if len(data) > MAX_JSON_BYTES:
        raise NVSError(f"its JSON has {len(data) >> 20} MiB, at most {MAX_JSON_BYTES >> 20} MiB are read")
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise NVSError("its JSON is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise NVSError("neither a GLB nor JSON (no text)") from error
    except ValueError as error:
        raise NVSError(f"neither a GLB nor JSON ({first_line(error, 80)})") from error
    if not isinstance(content, dict):
        raise NVSError("its JSON is no object")
    return content, binary


def item(content: Any, name: str, index: Any) -> dict[str, Any]:
    """``content[name][index]``, an object. Raises NVSError where there is none."""
    items = content.get(name)
    if not isinstance(index, int) or isinstance(index, bool) or not isinstance(items, list):
        raise NVSError(f"malformed glTF: {name} {index!r} does not exist")
    if not 0 <= index < len(items) or not isinstance(items[index], dict):
        raise NVSError(f"malformed glTF: {name} {index} does not exist")
    return items[index]


def non_negative_int(values: dict[str, Any], name: str) -> int:
    """A whole number of 0 or more, 0 where it is left out. Raises NVSError."""
    value = values.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 40:
        raise NVSError(f"malformed glTF: {name} is {str(value)[:40]}, expected a whole number of 0 or more")
    return value


class Buffers:
    """Buffers, views and accessors of one file, read when asked for."""

    def __init__(self, content: dict[str, Any], binary: bytes | None, files: AssetFiles) -> None:
        self.content, self.binary, self.files = content, binary, files
        self.buffers: dict[int, bytes] = {}

    def uri(self, uri: Any) -> bytes:
        """The bytes of a data uri or of a file beside the asset."""
        if not isinstance(uri, str):
            raise NVSError("malformed glTF: a uri is no text")
        if uri[:5].lower() != "data:":
            return self.files.read(uri)
        head, comma, body = uri.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise NVSError("malformed glTF: a data uri that is not base64")
        try:
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise NVSError("malformed glTF: a data uri that is not base64") from error

    def buffer(self, index: int) -> bytes:
        if index not in self.buffers:
            values = item(self.content, "buffers", index)
            if "uri" in values:
                data = self.uri(values["uri"])
            elif index == 0 and self.binary is not None:
                data = self.binary
            else:
                raise NVSError(f"malformed glTF: buffer {index} has no bytes")
            declared = non_negative_int(values, "byteLength")
            if declared > len(data):
                raise NVSError(f"cut short: buffer {index} has {len(data)} of {declared} bytes")
            self.buffers[index] = data
        return self.buffers[index]

    def view(self, index: Any) -> tuple[memoryview, int]:
        """Bytes and stride (0: tight) of a buffer view."""
        values = item(self.content, "bufferViews", index)
        if "EXT_meshopt_compression" in (values.get("extensions") or {}):
            raise NVSError("meshopt compression (EXT_meshopt_compression) is not supported; export it without")
        data = self.buffer(non_negative_int(values, "buffer"))
        start, size = non_negative_int(values, "byteOffset"), non_negative_int(values, "byteLength")
        if start + size > len(data):
            raise NVSError(f"damaged: buffer view {index} ends at {start + size} of {len(data)} bytes")
        return memoryview(data)[start : start + size], non_negative_int(values, "byteStride")

    def accessor(self, index: Any, width: int, what: str) -> np.ndarray:
        """[count, width], integers as stored, or floats in their range where the accessor is normalised.

        Raises:
            NVSError: it does not fit into its buffer, or has another number of components.
        """
        values = item(self.content, "accessors", index)
        code, kind, count = values.get("componentType"), values.get("type"), non_negative_int(values, "count")
        if code not in COMPONENTS or WIDTHS.get(str(kind)) != width:
            raise NVSError(f"malformed glTF: {what} is {kind} of {code}, expected {width} components")
        if count > 3 * MAX_VERTICES:
            raise NVSError(f"{what} has {count} entries, at most {3 * MAX_VERTICES} are read")
        dtype = np.dtype(COMPONENTS[code])
        if "bufferView" in values:
            data, stride = self.view(values["bufferView"])
            array = self.strided(data, non_negative_int(values, "byteOffset"), stride, count, width, dtype, what)
        else:
            array = np.zeros((count, width), dtype)
        if isinstance(values.get("sparse"), dict):
            array = self.sparse(array, values["sparse"], what)
        if values.get("normalized") and dtype.kind in "iu":
            top = float(np.iinfo(dtype).max)
            return np.maximum(array.astype(np.float32) / np.float32(top), -1.0).astype(np.float32)
        return array

    def strided(
        self, data: memoryview, offset: int, stride: int, count: int, width: int, dtype: np.dtype, what: str
    ) -> np.ndarray:
        size = dtype.itemsize * width
        stride = stride or size
        if stride < size or (count and offset + stride * (count - 1) + size > len(data)):
            raise NVSError(f"damaged: {what} does not fit into its buffer view")
        if not count:
            return np.zeros((0, width), dtype)
        return np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize)).copy()

    def sparse(self, array: np.ndarray, values: dict[str, Any], what: str) -> np.ndarray:
        count, where, new = non_negative_int(values, "count"), values["indices"], values["values"]
        if count > len(array) or where.get("componentType") not in (5121, 5123, 5125):
            raise NVSError(f"malformed glTF: {what} has a wrong sparse part")
        data, _ = self.view(where["bufferView"])
        kind = np.dtype(COMPONENTS[where["componentType"]])
        rows = self.strided(data, non_negative_int(where, "byteOffset"), 0, count, 1, kind, what)[:, 0]
        data, _ = self.view(new["bufferView"])
        fresh = self.strided(data, non_negative_int(new, "byteOffset"), 0, count, array.shape[1], array.dtype, what)
        if count and int(rows.max()) >= len(array):
            raise NVSError(f"malformed glTF: {what} has a wrong sparse part")
        array[rows] = fresh
        return array


def numbers(values: dict[str, Any], name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """A list of finite numbers as long as ``default``; one number where that has one entry."""
    given = values.get(name)
    if given is None:
        return default
    listed = given if isinstance(given, list) else [given]
    good = len(listed) == len(default) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30 for value in listed
    )
    if not good:
        raise NVSError(f"malformed glTF: {name} is {str(given)[:60]}, expected {len(default)} numbers")
    return tuple(float(value) for value in listed)
