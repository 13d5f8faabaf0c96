"""Sparse points of a scene: what structure from motion left beside its cameras.

    points = scene_points(scene)       # None where there are none
    points.xyz, points.rgb             # float64 [n, 3] in the scene's own frame, uint8 [n, 3]

Read from ``sparse.ply`` (as `data_tools.structure_from_motion` writes it), the ``ply_file_path`` of a
``transforms.json``, or a COLMAP model's ``points3D.bin`` or ``.txt``.
"""

from __future__ import annotations

import array
import contextlib
import io
import struct
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from data_tools.readers import colmap
from data_tools.readers.isolated import isolated
from data_tools.readers.json_files import load_json
from data_tools.readers.text import lines_of
from nvs_app.errors import NVSError
from nvs_app.scenes.scene import Scene

MAX_POINTS = 2_000_000
MAX_FILE_BYTES = 256 << 20
_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


@dataclass(frozen=True)
class Points:
    """A coloured point cloud in the scene's own frame."""

    xyz: Float[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]

    def __len__(self) -> int:
        return len(self.xyz)

    def sample(self, count: int) -> Points:
        """At most ``count`` of the points, the same ones each time."""
        if len(self) <= count:
            return self
        chosen = np.sort(np.random.default_rng(0).permutation(len(self))[:count])
        return Points(self.xyz[chosen], self.rgb[chosen])


def scene_points(scene: Scene) -> Points | None:
    """The sparse points of a scene, or None: where it has none, and where their file cannot be understood (they
    are an ornament; a scene without them is as good)."""
    root = scene.root if scene.root.is_dir() else scene.root.parent
    try:
        for path in _candidates(root):
            if path.is_file() and path.resolve().is_relative_to(root.resolve()):
                points = read_ply(path) if path.suffix == ".ply" else read_colmap_points(path)
                if len(points):
                    return points
    except (NVSError, OSError):
        return None
    return None


def uploaded_points(scene: Scene) -> Points | None:
    """`scene_points` of a stranger's scene, read in a child process."""
    try:
        return isolated(scene_points, replace(scene, encoded=()))
    except NVSError:
        return None


def _candidates(root: Path) -> list[Path]:
    found = [root / "sparse.ply"]
    if (root / "transforms.json").is_file():
        content = load_json(root / "transforms.json")
        named = content.get("ply_file_path") if isinstance(content, dict) else None
        found += [root / named] if isinstance(named, str) and "\0" not in named else []
    if model := colmap.best(root):
        found += [model / "points3D.bin", model / "points3D.txt"]
    return found


def read_ply(path: Path) -> Points:
    """The vertices of a PLY file, ASCII or binary; grey where it has no colours. Raises NVSError."""
    data = _content(path)
    end = data.find(b"end_header")
    start = data.find(b"\n", end) + 1
    lines = data[: max(end, 0)].decode("ascii", errors="replace").split("\n")
    words = [line.split() for line in lines]
    if end < 0 or start < 1 or not words or words[0] != ["ply"]:
        raise NVSError(f"{path.name}: no PLY file")
    form = next((line[1] for line in words if line[:1] == ["format"] and len(line) > 1), "")
    elements = [number for number, line in enumerate(words) if line[:1] == ["element"]]
    if not elements or words[elements[0]][1:2] != ["vertex"] or form not in _PLY_ORDER:
        raise NVSError(f"{path.name}: a PLY file whose first element is no vertex, or of the unknown format {form!r}")
    head = words[elements[0]]
    last = elements[1] if len(elements) > 1 else len(words)
    properties = [line for line in words[elements[0] + 1 : last] if line[:1] == ["property"]]
    if any(len(line) != 3 or line[1] not in _PLY_TYPES for line in properties) or len(head) != 3:
        raise NVSError(f"{path.name}: vertices with lists or unknown types")
    names = [line[2] for line in properties]
    if not {"x", "y", "z"} <= set(names) or len(set(names)) != len(names) or not head[2].isdigit():
        raise NVSError(f"{path.name}: vertices without x, y and z")
    count = int(head[2][:12])
    if count > MAX_POINTS:
        raise NVSError(f"{path.name}: {count} points, {MAX_POINTS} at most")
    if form == "ascii":
        table = np.empty((0, 0))
        with warnings.catch_warnings(), contextlib.suppress(ValueError):
            # NumPy's own reading, row by row in C: lists of words would take thirty times the file.
            warnings.simplefilter("ignore")
            table = np.loadtxt(io.BytesIO(data[start:]), np.float64, comments=None, max_rows=count, ndmin=2)
        table = table if count else np.empty((0, len(names)))
        if table.shape != (count, len(names)):
            raise NVSError(f"{path.name}: cut short, or holds something that is no number")
        columns = {name: table[:, column] for column, name in enumerate(names)}
    else:
        order = _PLY_ORDER[form]
        layout = np.dtype([(name, order + _PLY_TYPES[line[1]]) for name, line in zip(names, properties)])
        if start + count * layout.itemsize > len(data):
            raise NVSError(f"{path.name}: cut short")
        vertices = np.frombuffer(data, layout, count, start)
        columns = {name: vertices[name] for name in names}
    colours = [columns.get(name, np.full(count, 128)) for name in ("red", "green", "blue")]
    return _checked(np.stack([columns[axis] for axis in "xyz"], axis=1), np.stack(colours, axis=1))


_PLY_ORDER = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def read_colmap_points(path: Path) -> Points:
    """``points3D.bin`` or ``points3D.txt`` of a COLMAP model; tracks are passed over. Raises NVSError."""
    rows = array.array("d")  # a list of tuples would take five times the file
    try:
        if path.suffix == ".txt":
            for line in lines_of(path):
                if line.strip() and not line.startswith("#"):
                    words = line.split(maxsplit=7)[1:7]
                    rows.extend([float(word) for word in words] if len(words) == 6 else ())
                    if len(words) != 6 or len(rows) > 6 * MAX_POINTS:
                        raise ValueError
        else:
            data = _content(path)
            (count,) = struct.unpack_from("<Q", data)
            if count > MAX_POINTS:
                raise NVSError(f"{path.name}: {count} points, {MAX_POINTS} at most")
            at = 8
            for _ in range(count):
                *values, _, track = struct.unpack_from("<3d3BdQ", data, at + 8)
                rows.extend(values)
                at += 8 + 43 + 8 * track
        table = np.frombuffer(rows, dtype=np.float64).reshape(-1, 6)
    except (struct.error, ValueError, OverflowError) as error:
        raise NVSError(f"{path.name}: cut short or no COLMAP file") from error
    return _checked(table[:, :3], table[:, 3:])


def _content(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise NVSError(f"{path.name}: larger than {MAX_FILE_BYTES >> 20} MiB")
    return path.read_bytes()


def _checked(xyz: np.ndarray, rgb: np.ndarray) -> Points:
    """Finite points, colours as bytes (those given from 0 to 1 as well)."""
    xyz = np.asarray(xyz).astype(np.float64)
    if np.issubdtype(np.asarray(rgb).dtype, np.floating) and rgb.size and float(np.nanmax(rgb)) <= 1.0:
        rgb = rgb * 255.0
    kept = np.isfinite(xyz).all(1) & (np.abs(xyz) < 1e9).all(1)
    colours = np.nan_to_num(np.asarray(rgb, dtype=np.float64)).clip(0, 255).astype(np.uint8)
    return Points(np.ascontiguousarray(xyz[kept]), np.ascontiguousarray(colours[kept]))
