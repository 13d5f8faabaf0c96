"""COLMAP models, binary (``cameras.bin``, ``images.bin``) and text, with the images in ``images/`` beside them.

Images have a world-to-camera rotation (quaternion w, x, y, z) and translation with OpenCV axes; the first pixel's
centre is at (0.5, 0.5), as here. Points are not read. The files are parsed here and not by COLMAP, which ends
the process for some broken ones.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.readers.fields import (
    Record,
    SceneBuilder,
    first_few,
    images_in,
    inverse_rigid,
    is_within,
    rotation_rows,
    scene_label,
)
from data_tools.readers.lookup import ImageFiles
from data_tools.readers.text import floats, integer, lines_of, load_text
from nvs_app.errors import NVSError, Refusal, reading
from nvs_app.scenes.lens import COLMAP_ONLY
from nvs_app.scenes.scene import Scene

# Model number in binary files: name, number of parameters.
MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
    17: ("EQUIRECTANGULAR", 2),
}
COUNTS = dict(MODELS.values())
# Models with one focal length.
SINGLE = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_DIVISION",
          "SIMPLE_FISHEYE")  # fmt: skip
FISHEYES = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_FISHEYE", "FISHEYE")
MAX_IMAGES = 200_000
MAX_MODELS = 50
PLACES = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "colmap", "dslr/colmap", "")
MODEL_FOLDERS = ("sparse", "colmap", "model", "models", "text", "bin", "sfm", "triangulated")
IMAGE_FOLDERS = ("images", "", "image", "input", "rgb", "color")


@dataclass(frozen=True)
class Camera:
    """One entry of cameras.bin."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True)
class Image:
    """One entry of images.bin: world-to-camera quaternion (w, x, y, z) and translation."""

    quaternion: tuple[float, ...]
    translation: tuple[float, ...]
    camera: int
    name: str


def find(path: Path) -> list[Path]:
    """The model folders of a scene, the usual ones first; of a file ``images.bin`` its folder."""
    if path.is_file():
        return [path.parent] if _suffix(path.parent) and path.stem in ("cameras", "images") else []
    found = [path / place for place in PLACES if _suffix(path / place)]
    for several in ("sparse", "colmap/sparse", "distorted/sparse"):  # the last as convert.py of 3D Gaussians leaves it
        if several.startswith("distorted") and found:
            break
        others = sorted((path / several).iterdir()) if (path / several).is_dir() else []
        found += [other for other in others if _suffix(other) and other not in found]
    return found[:MAX_MODELS]


def read(path: Path) -> Scene:
    """Read a model, given as the scene's folder, the model's folder or one of its files; views sorted by name.

    Of several models the one is read with most images that are there. Distortion is removed when loading, so that the
    cameras are pinholes.

    Raises:
        NVSError: a truncated or malformed file, no image, a camera that is no perspective or fisheye one.
    """
    models = find(path)
    if not models:
        raise NVSError(f"{path}: no COLMAP model (cameras.bin and images.bin, or .txt)", Refusal.NO_SCENE)
    found, faults = _ranked(path, models)
    if not found:
        raise next(iter(faults.values()))
    (model, cameras, images, builder, there), *others = found
    suffix = _suffix(model)
    label = scene_label(model / f"images{suffix}")
    if len(models) > 1:
        left_alone = [f"{each[0].name} ({each[-1]})" for each in others]
        left_alone += [f"{each.name} (cannot be read)" for each in faults]
        builder.note(
            f"several models: {model.name} read ({there} images are there), {first_few(left_alone)} left alone"
        )
    common = _common_length(images)
    common = common if abs(common - 1.0) > 0.02 else 1.0
    for image in builder.sampled(images):
        record = Record(f"{label} ({image.name})", {})
        with builder.frame(image.name):
            if image.camera not in cameras:
                record.fail(f"camera {image.camera} is not in cameras{suffix}")
            camera = cameras[image.camera]
            intrinsics, lens_model, coefficients = lens_of(record, camera.model, camera.params)
            if not 0 < camera.width <= 1e6 or not 0 < camera.height <= 1e6:
                record.fail(f"its camera is {camera.width}x{camera.height} pixels", Refusal.BAD_CAMERA)
            c2w = inverse_rigid(_w2c(record, image, builder, common))
            file = builder.find_image(record, image.name)
            hw = (float(camera.height), float(camera.width))
            builder.add(record, file, c2w, intrinsics, hw, None, coefficients, lens_model)
    assert builder.base is not None
    known = {found for image in images if isinstance(found := builder.files.find(image.name), Path)}
    if left := [image.name for image in images_in(builder.base) if Path(os.path.realpath(image)) not in known]:
        builder.note(f"{len(left)} images without a camera in the model left out ({first_few(left)})")
    return builder.build()


def best(path: Path) -> Path | None:
    """The model folder that :func:`read` reads."""
    found, _ = _ranked(path, find(path))
    return found[0][0] if found else None


_Found = tuple[Path, dict[int, Camera], list[Image], SceneBuilder, int]
"""A model's folder, cameras, images by name, the builder of their scene, and how many images are there."""


def _ranked(path: Path, models: list[Path]) -> tuple[list[_Found], dict[Path, NVSError]]:
    """The models that can be read, most images first, and why the others cannot."""
    found, faults = [], {}
    for model in models:
        try:
            found.append(_with_images(path, model))
        except NVSError as error:
            faults[model] = error
    return sorted(found, key=lambda each: -each[-1]), faults


def _with_images(path: Path, model: Path) -> _Found:
    suffix = _suffix(model)
    cameras = (_binary_cameras if suffix == ".bin" else _text_cameras)(model / f"cameras{suffix}")
    images = (_binary_images if suffix == ".bin" else _text_images)(model / f"images{suffix}")
    if not images:
        raise NVSError(f"{scene_label(model / f'images{suffix}')}: no registered image", Refusal.NO_POSE)
    images.sort(key=lambda image: image.name)
    root, base = _images_folder(path, model, [image.name for image in images])
    builder = SceneBuilder(root, base=base)
    builder.files.expect([image.name for image in images])
    return model, cameras, images, builder, sum(isinstance(builder.files.find(image.name), Path) for image in images)


def lens_of(
    record: Record, model: str, params: tuple[float, ...]
) -> tuple[tuple[float, float, float, float], str, tuple[float, ...] | None]:
    """fx, fy, cx, cy, then the model and the coefficients of ``nvs_app.scenes.lens`` (None for a pinhole).

    Args:
        record: for error messages.
        model: COLMAP's name.
        params: COLMAP's parameters.
    """
    if model == "EQUIRECTANGULAR":
        record.fail("camera model EQUIRECTANGULAR is a panorama, cut it into perspective views first", Refusal.PANORAMA)
    if len(params) != COUNTS[model]:
        record.fail(f"camera model {model} has {len(params)} parameters, expected {COUNTS[model]}")
    if model in SINGLE:
        params = (params[0], *params)
    intrinsics = Record(f"{record.label}: camera", dict(zip(("fx", "fy", "cx", "cy"), params))).intrinsics()
    rest = tuple(Record(record.label, {"k": value}).number("k") for value in params[4:])
    if model in ("SIMPLE_PINHOLE", "PINHOLE"):
        return intrinsics, "OPENCV", None
    if model in ("SIMPLE_RADIAL", "RADIAL", "OPENCV"):
        return intrinsics, "OPENCV", (*rest, *(0.0,) * (5 - len(rest)))
    if model == "FULL_OPENCV":
        return intrinsics, "OPENCV", rest
    if model in FISHEYES:
        return intrinsics, "OPENCV_FISHEYE", (*rest, *(0.0,) * (4 - len(rest)))
    assert model.removeprefix("SIMPLE_") in COLMAP_ONLY
    return intrinsics, model.removeprefix("SIMPLE_"), rest


def _suffix(folder: Path) -> str:
    """The suffix of a model's files, empty where there is none."""
    for suffix in (".bin", ".txt"):
        if all((folder / f"{name}{suffix}").is_file() for name in ("cameras", "images")):
            return suffix
    return ""


def _images_folder(path: Path, model: Path, names: list[str]) -> tuple[Path, Path]:
    """The scene's folder and, inside it, the folder that holds most of the model's names, as they are written.

    Above a model's own folder, whose name tells that it is one, the scene is looked for as well."""
    roots = [path.resolve() if path.is_dir() else model.resolve()]
    while len(roots) < 4 and (roots[-1].name.isdigit() or roots[-1].name.lower() in MODEL_FOLDERS):
        if roots[-1] == roots[-1].parent or not is_within(roots[-1].parent):
            break
        roots.append(roots[-1].parent)
    sample = [names[index * len(names) // min(200, len(names))] for index in range(min(200, len(names)))]
    for root in roots:
        files = ImageFiles(root, root)
        held = Counter(folder for name in sample for folder in files.folders_of(name))
        if held:  # of a usual folder some images may have been deleted whose originals lie elsewhere
            usual = ["input"] * ("distorted" in model.parts) + [*IMAGE_FOLDERS, *sorted(held, key=lambda f: -held[f])]
            return root, root / next(folder for folder in usual if 2 * held[folder] >= max(held.values()))
    for root in roots:
        if any((root / f"images{suffix}").is_dir() for suffix in ("", "_2", "_4", "_8")):
            return root, root / "images"
    if not ImageFiles(roots[-1], roots[-1]).index:
        label = scene_label(model / "images")
        raise NVSError(f"{label}: no folder images/ (nor images_2, images_4, images_8) beside it", Refusal.NO_IMAGE)
    return roots[-1], roots[-1]


def _common_length(images: list[Image]) -> float:
    """The length that all quaternions have; 1 where they differ."""
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm([image.quaternion for image in images], axis=1)
    lengths = lengths[(lengths > 1e-9) & (lengths < 1e9)]
    return float(np.median(lengths)) if len(lengths) and 0.02 * lengths.min() > np.ptp(lengths) else 1.0


def _w2c(record: Record, image: Image, builder: SceneBuilder, common: float) -> np.ndarray:
    """World to camera. common: the length of the scene's quaternions."""
    length = float(np.linalg.norm(image.quaternion))
    if not 1e-9 < length < 1e9:  # also NaN
        record.fail(f"its rotation is no unit quaternion (length {length:g})", Refusal.NO_POSE)
    if not abs(length / common - 1.0) < 0.02:
        record.fail(f"its rotation is no unit quaternion (length {length:g})", Refusal.BAD_POSE)
    if common != 1.0:
        builder.note(f"quaternions are of length {common:.6g}; the length is divided out")
    w2c = np.eye(4)
    w2c[:3, :3] = rotation_rows(*(value / length for value in image.quaternion))
    w2c[:3, 3] = image.translation
    return builder.pose(Record(record.label, {"w2c": w2c.tolist()}), "w2c", world_to_camera=True)


class _Cursor:
    """Little-endian values of a file, one after the other."""

    def __init__(self, path: Path) -> None:
        self.label, self.at = scene_label(path), 0
        # Mapped: most of images.bin are points, which are skipped.
        with reading(self.label), path.open("rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""

    def count(self) -> int:
        """How many entries follow."""
        (count,) = self.take("Q")
        if count > len(self.data) - self.at:
            self.skip(count)
        if count > MAX_IMAGES:
            raise NVSError(f"{self.label}: {count} entries, {MAX_IMAGES} at most")
        return count

    def take(self, layout: str) -> tuple:
        layout = "<" + layout
        self.skip(struct.calcsize(layout))
        return struct.unpack_from(layout, self.data, self.at - struct.calcsize(layout))

    def skip(self, count: int) -> None:
        if self.at + count > len(self.data):
            raise NVSError(f"{self.label}: cut short or no COLMAP file ({len(self.data)} bytes, more expected)")
        self.at += count

    def name(self) -> str:
        end = self.data.find(b"\0", self.at, self.at + 4096)
        if end < 0:
            raise NVSError(f"{self.label}: cut short or no COLMAP file (a name without its end)")
        text = self.data[self.at : end].decode("utf-8", errors="surrogateescape")
        self.at = end + 1
        return text

    def end(self) -> None:
        if self.at != len(self.data):
            raise NVSError(f"{self.label}: {len(self.data) - self.at} bytes too many, so no COLMAP file")


def _binary_cameras(path: Path) -> dict[int, Camera]:
    cursor, cameras = _Cursor(path), {}
    for _ in range(cursor.count()):
        number, model, width, height = cursor.take("iiQQ")
        if model not in MODELS:
            raise NVSError(f"{cursor.label}: camera {number} has the unknown model {model}")
        name, count = MODELS[model]
        cameras[number] = Camera(name, width, height, cursor.take(f"{count}d"))
    cursor.end()
    return cameras


def _binary_images(path: Path) -> list[Image]:
    cursor, images = _Cursor(path), []
    for _ in range(cursor.count()):
        values = cursor.take("I7di")
        images.append(Image(values[1:5], values[5:8], values[8], cursor.name()))
        cursor.skip(24 * cursor.take("Q")[0])
    cursor.end()
    return images


def _text_cameras(path: Path) -> dict[int, Camera]:
    cameras = {}
    for number, line in enumerate(load_text(path).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        label = f"{scene_label(path)}: line {number}"
        if len(words) < 5:
            raise NVSError(f"{label}: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS")
        if words[1] not in COUNTS:
            raise NVSError(f"{label}: unknown camera model {words[1][:40]}")
        width, height = integer(label, words[2]), integer(label, words[3])
        cameras[integer(label, words[0])] = Camera(words[1], width, height, tuple(floats(label, words[4:])))
    return cameras


def _is_image_line(words: list[str]) -> bool:
    """Whether a line, split into ten, is an image's and not its points: some programs leave the empty line out that
    an image without points should have."""
    try:
        float(words[9].split()[0])
    except IndexError:
        return False
    except ValueError:
        return words[0].isdigit()
    return False


def _text_images(path: Path) -> list[Image]:
    images: list[Image] = []
    pending = False  # whether the points of an image may follow
    for number, line in enumerate(lines_of(path), 1):
        words = line.split(maxsplit=9)
        if pending and not _is_image_line(words):
            pending = False
            continue
        if not words or words[0].startswith("#"):
            continue
        label = f"{scene_label(path)}: line {number}"
        if len(words) != 10:
            raise NVSError(f"{label}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME")
        if len(images) == MAX_IMAGES:
            raise NVSError(f"{label}: more than {MAX_IMAGES} images")
        values = tuple(floats(label, words[1:8]))
        images.append(Image(values[:4], values[4:], integer(label, words[8]), words[9].strip()))
        pending = True
    return images
