"""Raw exports of phone apps that know their cameras: Polycam's ``keyframes/`` and Record3D's ``metadata``.

Polycam: ``keyframes/{corrected_cameras,cameras}/STAMP.json`` hold the first three rows of camera-to-world (``t_00`` to
``t_23``, OpenGL axes) and fx, fy, cx, cy in pixels of ``width`` x ``height``; the photos lie in ``corrected_images/``
or ``images/`` under the same stamp. Record3D: a JSON file ``metadata`` or ``metadata.json`` with ``poses`` (quaternion
x, y, z, w and position, camera-to-world, OpenGL axes), ``K`` by columns, ``w`` and ``h``; photos are ``rgb/N.jpg`` (or
``rgbd/N.jpg``). Depth maps are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_tools.readers.fields import Record, SceneBuilder, images_in, rotation_rows, scene_label
from data_tools.readers.json_files import load_json
from data_tools.readers.mvsnet import refuse_other_size
from data_tools.readers.nerfstudio import OPENGL_TO_OPENCV
from nvs_app.errors import NVSError, Refusal
from nvs_app.scenes.scene import Scene

KINDS = (("corrected_cameras", "corrected_images"), ("cameras", "images"))  # of Polycam; after loop closure, before
RGB = ("rgb", "rgbd", "EXR_RGBD/rgb", "images")  # of Record3D


def recognise_polycam(path: Path) -> bool:
    return _keyframes(path) is not None


def read_polycam(path: Path) -> Scene:
    """Read a raw export, given as its folder or as ``keyframes``.

    Raises:
        NVSError: a malformed camera, no photo with a camera.
    """
    frames = _keyframes(path)
    assert frames is not None
    builder = SceneBuilder(path)
    cameras, photos = next(((c, p) for c, p in KINDS if images_in(frames / p) and _stamps(frames / c)), KINDS[0])
    images = {image.stem: image for image in images_in(frames / photos)}
    for file in builder.sampled(_stamps(frames / cameras)):
        values = load_json(file)
        if not isinstance(values, dict):
            raise NVSError(f"{scene_label(file)}: expected an object with t_00 to t_23, fx, fy, cx, cy")
        record = Record(scene_label(file), values)
        with builder.frame(file.stem):
            if file.stem not in images:
                record.fail(f"no image of its name in {photos}/", Refusal.NO_IMAGE)
            rows: list[list[Any]] = [[values.get(f"t_{row}{column}") for column in range(4)] for row in range(3)]
            pose = None if any(value is None for row in rows for value in row) else rows
            c2w = builder.pose(Record(record.label, {"t": pose}), "t") * OPENGL_TO_OPENCV
            hw = record.number("height", positive=True), record.number("width", positive=True)
            builder.add(record, builder.inside(record, images[file.stem]), c2w, record.intrinsics(), hw)
    which = "after the app's loop closure" if (cameras, photos) == KINDS[0] else "before the app's loop closure"
    builder.note(f"Polycam's raw export: cameras of keyframes/{cameras} read ({which}); depth maps are not read")
    return builder.build()


def recognise_record3d(path: Path) -> bool:
    file = _metadata(path)
    if file is None:
        return False
    try:
        content = load_json(file)
    except NVSError:
        return False
    return isinstance(content, dict) and "poses" in content and "K" in content


def read_record3d(path: Path) -> Scene:
    """Read an export of RGBD frames, or an unpacked ``.r3d`` file.

    Raises:
        NVSError: malformed metadata, no photo with a camera.
    """
    file = _metadata(path)
    assert file is not None
    content, label = load_json(file), scene_label(file)
    top = Record(label, content)
    poses, own = content["poses"], content.get("perFrameIntrinsicCoeffs")
    if not isinstance(poses, list):
        raise NVSError(f"{label}: poses is no list of seven numbers a frame", Refusal.BAD_POSE)
    hw = top.number("h", positive=True), top.number("w", positive=True)
    builder = SceneBuilder(file.parent)
    folder = next((name for name in RGB if images_in(file.parent / name)), "")
    found = images_in(file.parent / folder) if folder else []
    images = {int(image.stem): image for image in found if image.stem.isdigit()}
    if not images:
        what = "Record3D's metadata, but no images rgb/0.jpg, ... beside it; export it as RGBD frames (EXR + RGB)"
        raise NVSError(f"{label}: {what}", Refusal.NO_IMAGE)
    for number, image in builder.sampled(sorted(images.items())):
        record = Record(f"{label}: frame {number} ({image.name})", {})
        with builder.frame(image.name):
            if number >= len(poses):
                record.fail(f"no pose of its number, poses has {len(poses)}", Refusal.NO_POSE)
            pose = Record(record.label, {"pose": _matrix(record, poses[number])})
            c2w = builder.pose(pose, "pose") * OPENGL_TO_OPENCV
            intrinsics = _intrinsics(record, own[number] if _is_per_frame(own, poses) else None, content["K"])
            refuse_other_size(record, intrinsics[2:], (int(hw[0]), int(hw[1])))
            builder.add(record, builder.inside(record, image), c2w, intrinsics, hw)
    if len(poses) > len(images):
        builder.note(f"{len(poses) - len(images)} of {len(poses)} poses have no photo")
    builder.note("Record3D's export: depth maps are not read")
    return builder.build()


def _keyframes(path: Path) -> Path | None:
    for folder in (path / "keyframes", path):
        if folder.name == "keyframes" and any(_stamps(folder / cameras) for cameras, _ in KINDS):
            return folder
    return None


def _stamps(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.json") if file.is_file()) if folder.is_dir() else []


def _metadata(path: Path) -> Path | None:
    if path.is_file():
        return path if path.stem == "metadata" else None
    return next((file for name in ("metadata", "metadata.json") if (file := path / name).is_file()), None)


def _is_per_frame(own: Any, poses: list) -> bool:
    return isinstance(own, list) and len(own) == len(poses)


def _matrix(record: Record, pose: Any) -> list[list[float]]:
    """Rows [3, 4] of a quaternion x, y, z, w and a position."""
    if not isinstance(pose, list) or len(pose) != 7:
        record.fail("its pose is no list of seven numbers (x, y, z, w and position)", Refusal.BAD_POSE)
    named = Record(record.label, dict(zip(("x", "y", "z", "w", "px", "py", "pz"), pose)))
    if not all(isinstance(value, (int, float)) and np.isfinite(value) for value in pose):
        record.fail("its pose holds something that is no finite number", Refusal.NO_POSE)
    x, y, z, w, *position = (named.number(key) for key in named.values)
    length = float(np.linalg.norm([x, y, z, w]))
    if length < 1e-9:
        record.fail("its rotation is no unit quaternion (length 0)", Refusal.NO_POSE)
    rows = rotation_rows(*(value / length for value in (w, x, y, z)))
    return [[*row, shift] for row, shift in zip(rows, position)]


def _intrinsics(record: Record, own: Any, k: Any) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy: the frame's own, else of K by columns."""
    if own is None:
        if not isinstance(k, list) or len(k) != 9:
            record.fail("K is no list of nine numbers", Refusal.BAD_CAMERA)
        own = [k[0], k[4], k[6], k[7]]
    if not isinstance(own, list) or len(own) < 4:
        record.fail("perFrameIntrinsicCoeffs is no list of fx, fy, cx, cy", Refusal.BAD_CAMERA)
    return Record(record.label, dict(zip(("fx", "fy", "cx", "cy"), own))).intrinsics()
