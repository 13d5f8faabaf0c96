"""7-Scenes, ScanNet and their like: one text file a frame with a camera-to-world 4x4, OpenCV axes.

7-Scenes: ``frame-000000.color.png`` and ``frame-000000.pose.txt`` in one folder. ScanNet: ``color/0.jpg``,
``pose/0.txt`` and ``intrinsic/intrinsic_color.txt``. Others mix: ``rgb/``, ``images/``, ``poses/``,
``intrinsics.txt`` (3x3, 4x4, or fx fy cx cy).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_tools.readers.fields import Record, SceneBuilder, images_in, scene_label
from data_tools.readers.lookup import natural
from data_tools.readers.mvsnet import intrinsics_of, refuse_other_size
from data_tools.readers.text import load_matrix
from nvs_app.errors import Refusal
from nvs_app.scenes.images import image_size
from nvs_app.scenes.scene import Scene

POSE_FOLDERS = ("pose", "poses")
IMAGE_FOLDERS = ("color", "rgb", "images", "image")
INTRINSICS = ("intrinsic/intrinsic_color.txt", "intrinsic_color.txt", "intrinsics.txt", "intrinsic.txt",
              "camera-intrinsics.txt", "K.txt", "../camera-intrinsics.txt")  # fmt: skip
# "principle point (320,240), focal length (585,585)", says the data set's page.
SEVEN_SCENES_HW, SEVEN_SCENES = (480, 640), (585.0, 585.0, 320.0, 240.0)


def recognise(path: Path) -> bool:
    return bool(_pose_files(path))


def read(path: Path) -> Scene:
    """Read a scene's folder. Frames whose tracking was lost (a pose that is not finite) are left out.

    Raises:
        NVSError: a malformed matrix, an image or intrinsics missing.
    """
    poses = _pose_files(path)
    builder = SceneBuilder(path)
    images = _images(path)
    shared = next((file for name in INTRINSICS if (file := path / name).is_file()), None)
    for name, file in builder.sampled(list(poses.items())):
        record = Record(scene_label(file), {})
        with builder.frame(name):
            matrix = load_matrix(file, [(4, 4), (3, 4)])
            if name not in images:
                record.fail("no image of its name", Refusal.NO_IMAGE)
            c2w = builder.pose(Record(f"{record.label} ({images[name].name})", {"pose": matrix.tolist()}), "pose")
            image = builder.inside(record, images[name])
            height, width = image_size(image, record.label)
            intrinsics = _intrinsics(builder, record, shared, name, (height, width))
            refuse_other_size(record, intrinsics[2:], (height, width))
            builder.add(record, image, c2w, intrinsics, None)
    return builder.build()


def _intrinsics(
    builder: SceneBuilder, record: Record, shared: Path | None, name: str, image_hw: tuple[int, int]
) -> tuple[float, float, float, float]:
    own = [file for folder in ("intrinsics", "intrinsic") if (file := builder.root / folder / f"{name}.txt").is_file()]
    file = own[0] if own else shared
    if file is None:
        if record.label.endswith(".pose.txt") and image_hw == SEVEN_SCENES_HW:
            builder.note("no intrinsics file: the data set's published ones taken (585, 585, 320, 240)")
            return SEVEN_SCENES
        record.fail(f"no intrinsics, looked for {', '.join(INTRINSICS[:4])} beside {builder.root.name}'s poses")
    k = load_matrix(file, [(3, 3), (4, 4), (3, 4), (1, 4)])
    if k.shape == (1, 4):
        fx, fy, cx, cy = k[0]
        k = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return intrinsics_of(Record(scene_label(file), {}), k)


def _pose_files(path: Path) -> dict[str, Path]:
    """Pose files by the frame's name, in the order of the frames' numbers."""
    found: dict[str, Path] = {}
    if path.is_dir():
        found = {file.name.removesuffix(".pose.txt"): file for file in path.glob("*.pose.txt")}
        for folder in POSE_FOLDERS:
            if not found and any((path / name).is_dir() for name in IMAGE_FOLDERS):
                found = {file.stem: file for file in (path / folder).glob("*.txt")}
    return {name: found[name] for name in sorted(found, key=natural)}


def _images(path: Path) -> dict[str, Path]:
    beside = {p.stem.removesuffix(".color"): p for p in images_in(path) if p.stem.endswith(".color")}
    for folder in IMAGE_FOLDERS:
        beside = beside or {p.stem: p for p in images_in(path / folder)}
    return beside
