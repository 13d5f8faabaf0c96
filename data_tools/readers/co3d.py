"""CO3D: ``CATEGORY/frame_annotations.jgz``, gzipped JSON with one object a frame of every sequence.

Cameras follow PyTorch3D: axes +x left, +y up, +z forward; a world point (a row) becomes ``x R + T``; focal length and
principal point in normalised device coordinates, where +x is left and +y up: half the image's width and height
are 1 (``ndc_norm_image_bounds``), or half its shorter side is (``ndc_isotropic``).
"""

from __future__ import annotations

import gzip
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.readers.fields import Record, SceneBuilder, inverse_rigid, scene_label
from data_tools.readers.json_files import parse_json
from nvs_app.errors import NVSError, Refusal, first_line
from nvs_app.scenes.scene import Scene

NAME = "frame_annotations.jgz"
# Unpacked; CO3D's largest categories are smaller. Its text is packed to a tenth.
MAX_BYTES = 512 << 20
MAX_RATIO, RATIO_FROM = 50, 16 << 20
MAX_VALUES = 20_000_000


def recognise(path: Path) -> bool:
    return _file(path) is not None


def keys(path: Path) -> list[str]:
    """The sequences of a category; of a sequence's own folder that one."""
    file = _file(path)
    assert file is not None
    sequences = _sequences(file)
    if path.is_dir() and path.name in sequences:
        return [path.name]
    return list(sequences)


def read(path: Path, key: str | None = None) -> Scene:
    """Read the sequence ``key``, or the only one. Masks and depths are not read.

    Raises:
        NVSError: a malformed annotation, a missing image.
    """
    file = _file(path)
    assert file is not None
    key = keys(path)[0] if key is None else key
    # Image names start with the category's folder.
    builder = SceneBuilder(file.resolve().parent.parent, name=key)
    label = f"{scene_label(file)}: sequence {key}"
    frames = builder.sampled(_sequences(file)[key])
    named = [frame["image"].get("path") for frame in frames if isinstance(frame.get("image"), dict)]
    builder.files.expect([name for name in named if isinstance(name, str) and name])
    for frame in frames:
        record = Record(f"{label}: frame {frame.get('frame_number')}", frame)
        with builder.frame(record.name):
            image = _object(record, "image")
            name, size = image.get("path"), image.get("size")
            if not isinstance(name, str) or not name:
                record.fail("image has no path")
            if not isinstance(size, list) or len(size) != 2:
                record.fail("image has no size [height, width]")
            sizes = Record(record.label, dict(zip(("height", "width"), size)))
            h, w = sizes.number("height", positive=True), sizes.number("width", positive=True)
            c2w, intrinsics = camera(Record(record.label, _object(record, "viewpoint")), (h, w))
            builder.add(record, builder.find_image(record, name), c2w, intrinsics, (h, w))
    builder.note("masks are not applied")
    return builder.build()


def camera(record: Record, image_hw: tuple[float, float]) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """c2w (OpenCV axes), and fx, fy, cx, cy in pixels, of a viewpoint: R, T, focal_length, principal_point."""
    rotation, translation = record.values.get("R"), record.values.get("T")
    if (
        not isinstance(rotation, list)
        or not isinstance(translation, list)
        or len(rotation) != 3
        or len(translation) != 3
    ):
        record.fail("viewpoint has no R (3x3) and T (3)")
    rows = [[*row, 0.0] if isinstance(row, list) else row for row in rotation]
    matrix, scale = Record(record.label, {"R": [*rows, [0.0, 0.0, 0.0, 1.0]]}).pose("R")
    if scale != 1.0:
        record.fail("R is scaled, expected a rotation", Refusal.BAD_POSE)
    shift = Record(record.label, dict(zip(("T[0]", "T[1]", "T[2]"), translation)))
    w2c = np.eye(4)
    w2c[:3, :3] = matrix[:3, :3].T  # rows of points times R
    w2c[:3, 3] = [shift.number(f"T[{axis}]") for axis in range(3)]
    w2c[:2] *= -1.0  # +x left, +y up
    half_h, half_w = 0.5 * image_hw[0], 0.5 * image_hw[1]
    kind = record.values.get("intrinsics_format", "ndc_norm_image_bounds")
    if kind == "ndc_isotropic":
        unit_x = unit_y = min(half_h, half_w)
    elif kind == "ndc_norm_image_bounds":
        unit_x, unit_y = half_w, half_h
    else:
        record.fail(f"intrinsics_format is {str(kind)[:40]}, expected ndc_isotropic or ndc_norm_image_bounds")
    named: dict[str, Any] = {}
    for key in ("focal_length", "principal_point"):
        pair = record.values.get(key)
        if not isinstance(pair, list) or len(pair) != 2:
            record.fail(f"viewpoint has no {key} of two numbers")
        named.update({f"{key}[0]": pair[0], f"{key}[1]": pair[1]})
    values = Record(record.label, named)
    fx = values.number("focal_length[0]", positive=True) * unit_x
    fy = values.number("focal_length[1]", positive=True) * unit_y
    cx = half_w - values.number("principal_point[0]") * unit_x
    cy = half_h - values.number("principal_point[1]") * unit_y
    return inverse_rigid(w2c), (fx, fy, cx, cy)


def _object(record: Record, key: str) -> dict[str, Any]:
    value = record.values.get(key)
    if not isinstance(value, dict):
        record.fail(f"{key} is missing")
    return value


def _file(path: Path) -> Path | None:
    """The annotations at ``path``: the file, in a category's folder, or beside a sequence's folder."""
    if path.is_file():
        return path if path.suffix == ".jgz" and path.name.startswith("frame_annotations") else None
    beside = path.resolve().parent / NAME if (path / "images").is_dir() else path / NAME
    return next((file for file in (path / NAME, beside) if file.is_file()), None)


def _sequences(file: Path) -> dict[str, list[dict[str, Any]]]:
    status = file.stat()
    return _sequences_cached(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)  # all sequences of a category are usually read one after the other
def _sequences_cached(file: Path, changed: int, size: int) -> dict[str, list[dict[str, Any]]]:
    label = scene_label(file)
    try:
        most = min(MAX_BYTES, max(RATIO_FROM, MAX_RATIO * size))
        with gzip.open(file) as stream:
            data = stream.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise NVSError(f"{label}: cut short or not gzipped ({first_line(error)})") from error
    if len(data) > most:
        raise NVSError(f"{label}: unpacks to more than {most >> 20} MiB; refused")
    try:
        frames = parse_json(label, data, MAX_VALUES)
    except (ValueError, RecursionError) as error:
        raise NVSError(f"{label}: not valid JSON ({first_line(error, 100)})") from error
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise NVSError(f"{label}: expected a list of frames")
    sequences: dict[str, list[dict[str, Any]]] = {}
    for frame in frames:
        sequences.setdefault(str(frame.get("sequence_name")), []).append(frame)
    return sequences
