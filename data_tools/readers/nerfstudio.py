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

from data_tools.readers.below import SeveralScenes
from data_tools.readers.fields import Record, SceneBuilder, first_few, scene_label
from data_tools.readers.json_files import expect_images, frame_records, image_path, load_json
from data_tools.readers.lookup import ImageFiles, one_line
from nvs_app.errors import NVSError, Refusal
from nvs_app.scenes.images import image_size
from nvs_app.scenes.scene import Scene

PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
PANORAMAS = ("EQUIRECTANGULAR", "SPHERICAL", "PANORAMA")
FISHEYE = ("OPENCV_FISHEYE", "FISHEYE")
# Where a folder's camera file lies; in ScanNet++ with bare names of images in a folder of their own.
PLACES = ("transforms.json", "nerfstudio/transforms.json", "dslr/nerfstudio/transforms.json")
SCANNETPP = {"transforms.json": "resized_images", "transforms_undistorted.json": "resized_undistorted_images"}
# Folders inside a scene that hold its cameras: of a file in one of them, the scene is the folder above.
CAMERA_FOLDERS = ("nerfstudio", "colmap", "camera", "cameras", "data", "meta", "poses", "transforms", "sparse", "json")
MOST_OTHERS = 20  # files of other names that are looked into
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
    file = find(path) or find_other(path)
    if file is None:
        raise NVSError(f"{path}: no transforms.json", Refusal.NO_SCENE)
    root, base = _folders(path, file)
    builder = SceneBuilder(root, base=base)
    if path.is_dir() and file.name not in {Path(place).name for place in PLACES}:
        builder.note(f"cameras read from {file.name}, the only file with frames")
    add_transforms(builder, file)
    return builder.build()


def find(path: Path) -> Path | None:
    """The camera file of a folder: of a known name, or the only one that has frames; a file is taken as it is."""
    if path.is_file():
        return path
    return next((file for name in PLACES if (file := path / name).is_file()), None)


def _folders(path: Path, file: Path) -> tuple[Path, Path]:
    """The scene's folder and the one that names start from: the camera file's own, unless it has no images and its
    name, or what was named (``path``), tells that the scene is the folder above."""
    base, above = file.parent, file.resolve().parent.parent
    outer = path if path.is_dir() and path.resolve() != base.resolve() else above
    if base.name == "nerfstudio" and (images := above / SCANNETPP.get(file.name, "none")).is_dir():
        return outer, images
    inner = outer is path or base.name.lower() in CAMERA_FOLDERS
    if (inner and not ImageFiles(base, base).index) or ((inner or path.is_file()) and _starts_above(file)):
        return outer, base
    return base, base


def find_other(path: Path) -> Path | None:
    """A folder's only JSON file that has frames, whatever its name; None where there is none.

    Raises NVSError where there are several."""
    others = [file for file in sorted(path.glob("*.json")) if file.is_file()] if path.is_dir() else []
    with_frames = [file for file in others[:MOST_OTHERS] if _has_frames(file)]
    if len(with_frames) > 1:
        names = first_few([file.name for file in with_frames], 8)
        raise SeveralScenes(f"{path}: {len(with_frames)} files of cameras ({names}); name one")
    return with_frames[0] if with_frames else None


def _starts_above(file: Path) -> bool:
    """Whether the first image of a camera file is there, in the folder above."""
    content = load_json(file)
    frames = content.get("frames") if isinstance(content, dict) else None
    first = frames[0].get("file_path") if isinstance(frames, list) and frames and isinstance(frames[0], dict) else None
    if not isinstance(first, str) or "\0" in first or not first.replace("\\", "/").startswith("../"):
        return False
    return isinstance(ImageFiles(file.resolve().parent.parent, file.parent).find(first), Path)


def _has_frames(file: Path) -> bool:
    """Whether a JSON file of any name holds frames with poses."""
    try:
        content = load_json(file)
    except NVSError:
        return False
    frames = content.get("frames") if isinstance(content, dict) else None
    return isinstance(frames, list) and any(isinstance(f, dict) and "transform_matrix" in f for f in frames[:1])


def add_transforms(builder: SceneBuilder, path: Path, split: str | None = None) -> None:
    """Add all frames of one transforms file; ``split`` names the split of all of them."""
    content, label = load_json(path), scene_label(path)
    if not isinstance(content, dict):
        raise NVSError(f'{label}: expected an object with "frames"')
    if "frames" not in content:
        raise NVSError(f"{label}: frames is missing")
    records = frame_records(label, content["frames"], empty=split is not None)
    splits = _splits(builder, label, content, records)
    if "test_frames" in content:  # ScanNet++
        held_out = frame_records(f"{label}: test_frames", content["test_frames"], empty=True)
        splits = {name: splits.get(name, "train") for name in map(_file_path, records)}
        splits.update(dict.fromkeys(map(_file_path, held_out), "test"))
        records = records + held_out
    records = builder.sampled(records)
    expect_images(records, builder)
    before = len(builder.image_paths)
    for record in records:
        with builder.frame(record.name):
            merged = Record(record.label, {**content, **record.values})
            image = image_path(record, builder)
            c2w = builder.pose(merged, "transform_matrix") * OPENGL_TO_OPENCV
            camera_hw, intrinsics = _intrinsics(merged, image)
            model, coefficients = _distortion(merged)
            own_split = split or splits.get(_file_path(record))
            builder.add(record, image, c2w, intrinsics, camera_hw, own_split, coefficients, model)
    if split and len(builder.image_paths) == before:
        builder.note(f"split {split} left out: none of its {len(records)} images is there")


def _file_path(record: Record) -> str:
    return posixpath.normpath(str(record.values.get("file_path")))


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
                record.fail(f"camera_angle_{axis} is {angle:g}, expected radians below pi", Refusal.BAD_CAMERA)
            focal[axis] = 0.5 * size / math.tan(0.5 * angle)
        elif f"{axis}_fov" in values:  # instant-ngp's
            angle = record.number(f"{axis}_fov", positive=True)
            if angle >= 180.0:
                record.fail(f"{axis}_fov is {angle:g}, expected degrees below 180", Refusal.BAD_CAMERA)
            focal[axis] = 0.5 * size / math.tan(0.5 * math.radians(angle))
    if not focal:
        record.fail("no focal length, expected fl_x (pixels) or camera_angle_x (radians)", Refusal.BAD_CAMERA)
    fx = focal.get("x", focal.get("y", 0.0))
    cx = record.number("cx") if "cx" in values else 0.5 * width
    cy = record.number("cy") if "cy" in values else 0.5 * height
    return (height, width), (fx, focal.get("y", fx), cx, cy)


def _distortion(record: Record) -> tuple[str, tuple[float, ...] | None]:
    """The lens model of ``nvs_app.scenes.lens`` and its coefficients, None for a plain pinhole."""
    values = record.values
    model = values.get("camera_model", "OPENCV")
    fisheye = bool(values.get("is_fisheye")) or model in FISHEYE
    if isinstance(model, str) and model.upper() in PANORAMAS:
        record.fail(f"camera_model {model} is a panorama, cut it into perspective views first", Refusal.PANORAMA)
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


def _splits(builder: SceneBuilder, label: str, content: dict[str, Any], records: list[Record]) -> dict[str, str]:
    """File path -> split, from train_filenames, val_filenames and test_filenames."""
    names = {record.values.get("file_path") for record in records if isinstance(record.values.get("file_path"), str)}
    known = {posixpath.normpath(str(name)) for name in names}
    found: dict[str, str] = {}
    for split in ("train", "test", "val"):  # test wins: a saved scene repeats it as val, for nerfstudio
        listed = content.get(f"{split}_filenames", [])
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise NVSError(f"{label}: {split}_filenames is no list of file paths")
        if unknown := [name for name in listed if posixpath.normpath(name) not in known]:
            builder.note(f"{split}_filenames lists {len(unknown)} that no frame has ({one_line(first_few(unknown))})")
        for name in listed:
            found.setdefault(posixpath.normpath(name), split)
    return found
