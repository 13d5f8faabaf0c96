"""Scenes of nerfstudio, instant-ngp, Polycam, Record3D and DL3DV: ``transforms.json`` beside its images.

Poses are camera-to-world with OpenGL axes; intrinsics stand at the top or in each frame, in pixels, or as a
field of view (``camera_angle_x``, radians). The frame of the world is taken as it is (``applied_transform`` only
tells where it came from).
"""

from __future__ import annotations

import math
import posixpath
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.readers.fields import Record, SceneBuilder, frame_records, image_path, load_json, scene_label
from nvs_app.errors import NVSError
from nvs_app.scenes.images import image_size
from nvs_app.scenes.scene import Scene

PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
FISHEYE = ("OPENCV_FISHEYE", "FISHEYE")
OPENGL_TO_OPENCV = np.array([1.0, -1.0, -1.0, 1.0])


def read(path: Path) -> Scene:
    """Read a ``transforms.json``, given as the file or as its folder.

    A folder is also one that holds the scene in ``nerfstudio/``, as DL3DV's does.
    Views keep the file's order. ``train_filenames`` and its like become the split. An image whose size is not
    ``w`` x ``h`` gets its intrinsics scaled (also one found in ``images_2/``, ``images_4/`` or ``images_8/`` where
    ``images/`` is absent); distortion, fisheye too, is removed when loading.

    Raises:
        NVSError: any malformed field, a missing image, or a camera model that is neither perspective nor fisheye.
    """
    path = find(path) or path
    builder = SceneBuilder(path.parent)
    add_transforms(builder, path)
    return builder.build()


def find(path: Path) -> Path | None:
    """The camera file of a folder; a file is taken as it is."""
    if path.is_file():
        return path
    candidates = (path / "transforms.json", path / "nerfstudio" / "transforms.json")
    return next((file for file in candidates if file.is_file()), None)


def add_transforms(builder: SceneBuilder, path: Path, split: str | None = None) -> None:
    """Add all frames of one transforms file; ``split`` names the split of all of them."""
    content, label = load_json(path), scene_label(path)
    if not isinstance(content, dict):
        raise NVSError(f'{label}: expected an object with "frames"')
    if "frames" not in content:
        raise NVSError(f"{label}: frames is missing")
    records = frame_records(label, content["frames"])
    splits = _splits(label, content, records)
    for record in builder.sampled(records):
        merged = Record(record.label, {**content, **record.values})
        image = image_path(record, builder)
        c2w = merged.pose("transform_matrix") * OPENGL_TO_OPENCV
        camera_hw, intrinsics = _intrinsics(merged, image)
        model, coefficients = _distortion(merged)
        own_split = split or splits.get(posixpath.normpath(record.values["file_path"]))
        builder.add(record, image, c2w, intrinsics, camera_hw, own_split, coefficients, model)


def _intrinsics(record: Record, image: Path) -> tuple[tuple[float, float], tuple[float, float, float, float]]:
    """The calibrated size (height, width), and fx, fy, cx, cy in its pixels."""
    values = record.values
    if "w" in values or "h" in values:
        width, height = record.number("w", positive=True), record.number("h", positive=True)
    else:
        height, width = (float(size) for size in image_size(image, record.label))
    focal: dict[str, float] = {}
    for axis, size in (("x", width), ("y", height)):
        if f"fl_{axis}" in values:
            focal[axis] = record.number(f"fl_{axis}", positive=True)
        elif f"camera_angle_{axis}" in values:
            angle = record.number(f"camera_angle_{axis}", positive=True)
            if angle >= math.pi:
                record.fail(f"camera_angle_{axis} is {angle:g}, expected radians below pi")
            focal[axis] = 0.5 * size / math.tan(0.5 * angle)
    if not focal:
        record.fail("no focal length, expected fl_x (pixels) or camera_angle_x (radians)")
    fx = focal.get("x", focal.get("y", 0.0))
    cx = record.number("cx") if "cx" in values else 0.5 * width
    cy = record.number("cy") if "cy" in values else 0.5 * height
    return (height, width), (fx, focal.get("y", fx), cx, cy)


def _distortion(record: Record) -> tuple[str, tuple[float, ...] | None]:
    """The lens model of ``nvs_app.scenes.lens`` and its coefficients, None for a plain pinhole."""
    values = record.values
    model = values.get("camera_model", "OPENCV")
    fisheye = bool(values.get("is_fisheye")) or model in FISHEYE
    if not isinstance(model, str) or (model.upper() not in PERSPECTIVE and not fisheye):
        record.fail(f"camera_model {model} is not supported, undistort the images to a pinhole first")
    keys = ("k1", "k2", "k3", "k4", "p1", "p2")
    if "distortion_params" in values:  # nerfstudio's own order
        listed = values["distortion_params"]
        if not isinstance(listed, list) or len(listed) != len(keys):
            record.fail("distortion_params is no list of six numbers (k1, k2, k3, k4, p1, p2)")
        record = Record(record.label, dict(zip(keys, listed)))
    k1, k2, k3, k4, p1, p2 = (record.number(key) if key in record.values else 0.0 for key in keys)
    if fisheye:
        if p1 or p2:
            record.fail("a fisheye with p1, p2 is not supported, undistort the images to a pinhole first")
        return "OPENCV_FISHEYE", (k1, k2, k3, k4)
    if k4:
        return "BROWN4", (k1, k2, p1, p2, k3, k4)
    return "OPENCV", (k1, k2, p1, p2, k3) if any((k1, k2, p1, p2, k3)) else None


def _splits(label: str, content: dict[str, Any], records: list[Record]) -> dict[str, str]:
    """File path -> split, from train_filenames, val_filenames and test_filenames."""
    names = {record.values.get("file_path") for record in records if isinstance(record.values.get("file_path"), str)}
    known = {posixpath.normpath(str(name)) for name in names}
    found: dict[str, str] = {}
    for split in ("train", "test", "val"):  # test wins: a saved scene repeats it as val, for nerfstudio
        listed = content.get(f"{split}_filenames", [])
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise NVSError(f"{label}: {split}_filenames is no list of file paths")
        for name in listed:
            if posixpath.normpath(name) not in known:
                raise NVSError(f"{label}: {split}_filenames lists {name}, which no frame has")
            found.setdefault(posixpath.normpath(name), split)
    return found
