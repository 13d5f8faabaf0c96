"""RealEstate10K: camera files ``KEY.txt`` with local frames or a local video, and pixelSplat's rows of 18 numbers.

A camera file has the video's address in its first line, then for each frame: timestamp (microseconds), fx fy cx cy
(in units of the image's width and height), two zeros, and the world-to-camera matrix 3x4 by rows, OpenCV axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_tools.readers.fields import Record, SceneBuilder, images_in, inverse_rigid, scene_label
from data_tools.readers.text import floats, integer, load_text
from data_tools.readers.video_frames import VIDEO_SUFFIXES, frames_at
from nvs_app.errors import NVSError, Refusal
from nvs_app.scenes.images import image_size
from nvs_app.scenes.scene import Scene


def recognise(path: Path) -> bool:
    return bool(_files(path))


def keys(path: Path) -> list[str]:
    """The scenes of a folder: the names of its camera files."""
    return [file.stem for file in _files(path)]


def read(path: Path, key: str | None = None) -> Scene:
    """Read a camera file, or the one of a folder that ``key`` names.

    The frames are looked for in ``KEY/``, ``frames/KEY/``, ``images/KEY/``, ``frames/`` and ``images/`` beside the
    camera file, named by their timestamps (``12345678.jpg``) or, if as many as its lines, taken in order; then a
    video ``KEY.mp4`` or the folder's only video is opened at the timestamps.

    Raises:
        NVSError: a malformed line, no frames.
    """
    file = next(file for file in _files(path) if key in (None, file.stem))
    label = scene_label(file)
    lines = [line.split() for line in load_text(file).splitlines()[1:]]
    rows, stamps = [], []
    for number, words in enumerate(lines, 2):
        if not words:
            continue
        values = floats(f"{label}: line {number}", words[1:], 18)
        stamps.append(integer(f"{label}: line {number}", words[0]))
        if not 0 <= stamps[-1] < 1 << 62:
            raise NVSError(f"{label}: line {number}: the timestamp is out of range")
        rows.append(values)
    if not rows:
        raise NVSError(f"{label}: no frame")
    builder = SceneBuilder(file.parent, name=file.stem)
    kept = builder.sampled(list(zip(stamps, rows)))
    stamps, rows = [stamp for stamp, _ in kept], [row for _, row in kept]
    found, data = _frames(file, label, stamps, builder)
    for stamp, row in zip(stamps, rows):
        record = Record(f"{label}: frame {stamp}", {})
        with builder.frame(str(stamp)):
            if stamp not in found:
                record.fail("no image of its timestamp", Refusal.NO_IMAGE)
            image = found[stamp] if data else builder.inside(record, found[stamp])
            add_row(builder, record, image, row, data.get(stamp))
    return builder.build()


def add_row(builder: SceneBuilder, record: Record, image: Path, row: Sequence[float], data: bytes | None) -> None:
    """Add a frame: ``row`` is fx fy cx cy 0 0 w2c(3x4), intrinsics in units of the image's width and height."""
    w2c = np.array([*row[6:], 0.0, 0.0, 0.0, 1.0]).reshape(4, 4)
    values = Record(record.label, {**dict(zip(("fx", "fy", "cx", "cy"), row)), "w2c": w2c.tolist()})
    c2w = inverse_rigid(builder.pose(values, "w2c", world_to_camera=True))
    height, width = image_size(image, record.label, data)
    fx, fy, cx, cy = values.intrinsics()
    if max(fx, fy) > 20.0:
        record.fail(f"fx, fy are {fx:g}, {fy:g}: expected in units of the image's size, not in pixels")
    intrinsics = (fx * width, fy * height, cx * width, cy * height)
    builder.add(record, image, c2w, intrinsics, None, data=data)


def _files(path: Path) -> list[Path]:
    """The camera files at ``path``: itself, or those of a folder."""
    if path.is_dir():
        return sorted(file for file in path.glob("*.txt") if _is_camera_file(file))
    return [path] if path.suffix.lower() == ".txt" and _is_camera_file(path) else []


def _is_camera_file(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            first, second = file.readline(500).strip(), file.readline(2000).split()
    except OSError:
        return False
    return first.startswith(("http://", "https://")) and (not second or len(second) > 6 and second[0].isdigit())


def _frames(
    file: Path, label: str, stamps: list[int], builder: SceneBuilder
) -> tuple[dict[int, Path], dict[int, bytes]]:
    """The image of each timestamp, and its bytes where it comes from a video."""
    parent, key = file.parent, file.stem
    for name in (key, f"frames/{key}", f"images/{key}", "frames", "images"):
        folder = parent / name
        images = images_in(folder)
        named = {int(image.stem): image for image in images if image.stem.isdigit()}
        if any(stamp in named for stamp in stamps):
            return named, {}
        if images and len(images) == len(stamps):
            builder.note(f"frames of {folder.name}/ are not named by timestamp: taken in order, one a line")
            return dict(zip(stamps, images)), {}
    videos = [parent / f"{key}{suffix}" for suffix in VIDEO_SUFFIXES if (parent / f"{key}{suffix}").is_file()]
    videos = videos or sorted(video for video in parent.iterdir() if video.suffix.lower() in VIDEO_SUFFIXES)
    if len(videos) != 1:
        found = f"{len(videos)} videos" if videos else "none"
        raise NVSError(f"{label}: no frames named by timestamp in {key}/ and no video {key}.mp4 beside it ({found})")
    video = builder.inside(Record(label, {}), videos[0])
    data, notes = frames_at(video, [stamp * 1e-6 for stamp in stamps])
    builder.note(f"frames decoded from {video.name}, each the one that is shown at its timestamp")
    for note in notes:
        builder.note(f"{video.name}: {note}")
    stamps = sorted(stamps)
    digits = max(1, math.ceil(math.log10(max(stamps) + 1)))
    names = {stamp: Path(f"images/{stamp:0{digits}d}.jpg") for stamp in stamps}
    encoded = {stamp: data[stamp * 1e-6] for stamp in stamps if stamp * 1e-6 in data}
    return {stamp: builder.root / names[stamp] for stamp in encoded}, encoded
