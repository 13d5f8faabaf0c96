"""Bundler: ``bundle.out`` (or ``bundle/bundle.out``) with ``list.txt``, the names of the images.

Each camera has a focal length in pixels, two radial distortion coefficients (OpenCV's k1, k2), and a world-to-camera
rotation and translation with OpenGL axes (+y up, -z forward). The principal point is the middle of the image.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from data_tools.readers.fields import Record, SceneBuilder, inverse_rigid, scene_label
from data_tools.readers.text import floats, integer, load_text
from nvs_app.errors import NVSError, Refusal
from nvs_app.scenes.images import image_size
from nvs_app.scenes.scene import Scene

HEADER = "# Bundle file v0.3"
LISTS = ("list.txt", "list.orig.txt", "bundle.out.list.txt", "{stem}.list.txt", "{stem}.out.list.txt", "imagelist.lst",
         "{stem}.lst")  # fmt: skip
# What may follow a name: a zero and the focal length that EXIF tells.
FOCAL = re.compile(r"(\s+[\d.eE+-]+){1,2}\s*$")


def recognise(path: Path) -> bool:
    return _file(path) is not None


def read(path: Path) -> Scene:
    """Read a ``.out`` file, or the scene's folder. Images that Bundler left without a camera are counted.

    Raises:
        NVSError: a truncated or malformed file, another number of names than of cameras, a missing image.
    """
    file = _file(path)
    assert file is not None
    label = scene_label(file)
    root = file.parent.parent if file.parent.name == "bundle" else file.parent
    names = _names(file, root)
    lines = load_text(file).splitlines()
    if not lines or lines[0].strip() != HEADER:
        raise NVSError(f"{label}: does not start with {HEADER!r}")
    counts = lines[1].split() if len(lines) > 1 else []
    if len(counts) != 2:
        raise NVSError(f"{label}: line 2: expected the numbers of cameras and of points")
    count = integer(f"{label}: line 2", counts[0])
    if count != len(names):
        raise NVSError(f"{label}: {count} cameras, but the list has {len(names)} images; they must match")
    if len(lines) < 2 + 5 * count:
        raise NVSError(f"{label}: cut short ({len(lines)} lines, at least {2 + 5 * count} expected)")
    builder = SceneBuilder(root)
    listed = builder.sampled(list(enumerate(names)))
    places = {name: name if (root / name).exists() else f"images/{name}" for _, name in listed}
    builder.files.expect(places.values())
    unplaced = 0
    for index, name in listed:
        rows = [floats(f"{label}: line {at + 1}", lines[at].split(), 3) for at in range(2 + 5 * index, 7 + 5 * index)]
        if rows[0][0] == 0.0:
            unplaced += 1  # Bundler's mark of an image that it could not place
            continue
        record = Record(f"{label}: camera {index} ({name})", dict(zip(("f", "k1", "k2"), rows[0])))
        with builder.frame(name):
            w2c = np.eye(4)
            w2c[:3, :3], w2c[:3, 3] = rows[1:4], rows[4]
            w2c = builder.pose(Record(record.label, {"R, t": w2c.tolist()}), "R, t", world_to_camera=True)
            w2c[1:3] *= -1.0  # +y down, +z forward
            image = builder.find_image(record, places[name])
            height, width = image_size(image, record.label)
            focal = record.number("f", positive=True)
            intrinsics = (focal, focal, 0.5 * width, 0.5 * height)
            coefficients = (record.number("k1"), record.number("k2"), 0.0, 0.0, 0.0)
            builder.add(record, image, inverse_rigid(w2c), intrinsics, None, None, coefficients)
    if unplaced == count:
        raise NVSError(f"{label}: none of the {count} images has a camera", Refusal.NO_POSE)
    if unplaced:
        builder.note(f"{unplaced} of {count} images left out: Bundler gave them no camera")
    return builder.build()


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix == ".out" else None
    candidates = [path / "bundle.out", path / "bundle" / "bundle.out"]
    return next((file for file in candidates if file.is_file()), None)


def _names(file: Path, root: Path) -> list[str]:
    """The images' names, which may have spaces; what follows a name in its line is left out."""
    for folder in dict.fromkeys((root, file.parent)):
        for name in LISTS:
            listed = folder / name.format(stem=file.stem)
            if listed.is_file():
                return [FOCAL.sub("", line).strip() for line in load_text(listed).splitlines() if line.strip()]
    raise NVSError(f"{scene_label(file)}: no list.txt with the names of the images beside it")
