"""LLFF scenes: ``poses_bounds.npy`` beside ``images/`` (or ``images_2/``, ``images_4/``, ``images_8/``).

Row i, 17 numbers, belongs to the i-th image by name: a 3x5 matrix whose columns are the camera's axes [down,
right, backwards] in the world, its position, and (height, width, focal length in pixels), then the depth range.
The principal point is the middle of the image.
"""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

from data_tools.readers.fields import Record, SceneBuilder, images_in, scene_label
from nvs_app.errors import NVSError, first_line
from nvs_app.scenes.scene import Scene

FOLDERS = ("images", "images_2", "images_4", "images_8")
# What NumPy raises for broken headers, which it reads as Python literals.
BROKEN = (OSError, ValueError, EOFError, SyntaxError, TypeError, KeyError, OverflowError, MemoryError, RecursionError,
          tokenize.TokenError)  # fmt: skip


def recognise(path: Path) -> bool:
    return (path / "poses_bounds.npy").is_file() or path.name == "poses_bounds.npy"


def read(path: Path) -> Scene:
    """Read a ``poses_bounds.npy``, given as the file or as its folder.

    Raises:
        NVSError: a broken array, another number of images than of rows, a matrix that is no rotation.
    """
    path = path / "poses_bounds.npy" if path.is_dir() else path
    label = scene_label(path)
    rows = _load(path, label)
    builder = SceneBuilder(path.parent)
    folder, images = next(
        ((name, found) for name in FOLDERS if (found := images_in(path.parent / name))), ("images", [])
    )
    if len(images) != len(rows):
        raise NVSError(f"{label}: {len(rows)} cameras, but {folder}/ has {len(images)} images; they must match")
    if folder != "images":
        builder.note(f"images/ is absent: images read from {folder}/, intrinsics scaled to them")
    for index, (row, image) in builder.sampled(list(enumerate(zip(rows, images)))):
        record = Record(f"{label}: camera {index} ({image.name})", {})
        with builder.frame(image.name):
            down, right, backwards, position, (height, width, focal) = row[:15].reshape(3, 5).T
            c2w = np.eye(4)
            c2w[:3] = np.stack([right, down, -backwards, position], axis=1)
            names = Record(record.label, {"height": height, "width": width, "focal": focal, "c2w": c2w.tolist()})
            pose = builder.pose(names, "c2w")
            h, w, f = (names.number(key, positive=True) for key in ("height", "width", "focal"))
            builder.add(record, builder.inside(record, image), pose, (f, f, 0.5 * w, 0.5 * h), (h, w))
    return builder.build()


def _load(path: Path, label: str) -> np.ndarray:
    try:
        # Mapped, so that a header with a false size is found before memory is asked for.
        rows = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except BROKEN as error:
        raise NVSError(f"{label}: not a NumPy array that can be read ({first_line(error, 120)})") from error
    if rows.ndim != 2 or rows.shape[1] not in (15, 17) or len(rows) == 0 or rows.dtype.kind not in "fi":
        raise NVSError(f"{label}: holds {rows.dtype} {list(rows.shape)}, expected numbers [views, 17]")
    return rows.astype(np.float64)
