"""MVSNet, DTU and BlendedMVS scenes: ``cams/00000000_cam.txt`` beside the images.

A camera file has the word ``extrinsic``, a world-to-camera 4x4 (OpenCV axes), the word ``intrinsic``, a 3x3 matrix
in pixels of the image, and a line with the depth range.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from data_tools.readers.fields import Record, SceneBuilder, images_in, inverse_rigid, scene_label
from data_tools.readers.text import floats, load_text
from nvs_app.errors import NVSError, Refusal
from nvs_app.scenes.images import image_size
from nvs_app.scenes.scene import Scene

CAMERA_FOLDERS = ("cams", "cams_1", "Cameras", "cameras", "blended_cams")
IMAGE_FOLDERS = ("images", "blended_images", "image", "images_post", "rgb")
DTU_NAME = re.compile(r"rect_(\d+)_(\w+?)(_r\d+)?")


def recognise(path: Path) -> bool:
    return bool(_camera_files(path))


def read(path: Path) -> Scene:
    """Read a scene's folder, or its folder of camera files.

    Images lie in ``images/`` or ``blended_images/`` (BlendedMVS; its ``_masked`` copies are left alone) and are
    called as their camera, ``00000000.jpg``, or as in DTU: ``rect_001_3_r5000.png``, of which one light is taken.

    Raises:
        NVSError: a malformed camera file, images missing, intrinsics of another image size.
    """
    files = _camera_files(path)
    root = files[0].parent.parent if files[0].parent.name in CAMERA_FOLDERS else files[0].parent
    builder = SceneBuilder(root)
    folder = next((root / name for name in IMAGE_FOLDERS if images_in(root / name)), root)
    images = _by_number(images_in(folder), builder)
    if not images:
        raise NVSError(f"{scene_label(files[0])}: no images in images/ (nor blended_images, image) beside {path.name}")
    for file in builder.sampled(files):
        number = int(file.name.split("_")[0])
        with builder.frame(f"{number:08d}"):
            if number not in images:
                Record(scene_label(file), {}).fail(f"no image of its number in {folder.name}/", Refusal.NO_IMAGE)
            record = Record(f"{scene_label(file)} ({images[number].name})", {})
            w2c, (fx, fy, cx, cy) = parse(record, load_text(file), builder)
            image = builder.inside(record, images[number])
            height, width = image_size(image, record.label)
            refuse_other_size(record, (cx, cy), (height, width))
            builder.add(record, image, inverse_rigid(w2c), (fx, fy, cx, cy), None)
    return builder.build()


def parse(record: Record, text: str, builder: SceneBuilder) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The world-to-camera matrix, and fx, fy, cx, cy, of one camera file."""
    words = text.split()
    for key, at in (("extrinsic", 0), ("intrinsic", 17)):
        if len(words) <= at or words[at] != key:
            record.fail(f"no {key} where it was expected (extrinsic, 4x4, intrinsic, 3x3, depth range)")
    extrinsic = np.array(floats(record.label, words[1:17], 16)).reshape(4, 4)
    k = np.array(floats(record.label, words[18:27], 9)).reshape(3, 3)
    w2c = builder.pose(Record(record.label, {"extrinsic": extrinsic.tolist()}), "extrinsic", world_to_camera=True)
    return w2c, intrinsics_of(record, k)


def intrinsics_of(record: Record, k: np.ndarray) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of a camera matrix, 3x3 or the upper left of a 4x4."""
    numbers = (float(k[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    fx, fy, cx, cy = Record(record.label, dict(zip(("fx", "fy", "cx", "cy"), numbers))).intrinsics()
    if not abs(k[0, 1]) <= 1e-3 * fx or not np.abs(k[2, :3] - [0, 0, 1]).max() < 1e-6 or not abs(k[1, 0]) < 1e-6:
        record.fail("its intrinsic is no camera matrix without skew [fx 0 cx; 0 fy cy; 0 0 1]")
    return fx, fy, cx, cy


def refuse_other_size(record: Record, center: tuple[float, float], image_hw: tuple[int, int]) -> None:
    """Refuses intrinsics that cannot be of the image, for formats that do not tell the calibrated size."""
    height, width = image_hw
    if not (0.2 * width < center[0] < 0.8 * width and 0.2 * height < center[1] < 0.8 * height):
        record.fail(
            f"the principal point ({center[0]:g}, {center[1]:g}) is far from the middle of the {width}x{height}"
            " image: the intrinsics seem to belong to another size"
        )


def _camera_files(path: Path) -> list[Path]:
    """Sorted ``*_cam.txt``."""
    for folder in (path, *(path / name for name in CAMERA_FOLDERS)):
        if folder.is_dir():
            found = [f for f in folder.glob("*_cam.txt") if f.name.removesuffix("_cam.txt").isdigit()]
            if found:
                return sorted(found)
    return []


def _by_number(images: list[Path], builder: SceneBuilder) -> dict[int, Path]:
    """Images by the number of their camera, which counts from 0."""
    plain = {int(p.stem): p for p in images if p.stem.isdigit()}
    if plain:
        return plain
    found = [(match, p) for p in images if (match := DTU_NAME.fullmatch(p.stem))]
    lights = sorted({match[2] for match, _ in found})
    if not lights:
        return {}
    light = "3" if "3" in lights else lights[0]  # the diffuse one that MVSNet and pixelNeRF test with
    if len(lights) > 1:
        builder.note(f"{len(lights)} lights a view: light {light} read")
    return {int(match[1]) - 1: p for match, p in found if match[2] == light}
