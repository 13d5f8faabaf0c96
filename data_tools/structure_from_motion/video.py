"""Frames of a video that suit structure from motion: evenly spread over the camera's motion, the sharpest of each
stretch.

    frames = choose_frames("walk.mp4", 60)
    paths = write_frames("walk.mp4", frames, "work/frames", max_size=1600)

A camera that stands still for a while gives few frames there, one that hurries gives many: time is measured in
image motion (points followed by optical flow), not in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data_tools.readers.video_frames import open_video
from data_tools.structure_from_motion.prepare import measure_sharpness
from nvs_app.errors import NVSError
from nvs_app.scenes.images import MAX_PIXELS

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi")
DEFAULT_FRAMES = 60
LOOKED_AT = 3000  # frames at most that are measured; of longer videos every second, third ...
SMALL = 320  # pixels of the longer side, for motion
# The least motion, in widths of the image, between two chosen frames: less gives no parallax, only work.
SMALLEST_STEP = 0.01


@dataclass(frozen=True)
class Frame:
    """A chosen frame: its number in the file, its time in seconds (as far as the file tells) and its sharpness."""

    index: int
    seconds: float
    sharpness: float


def is_video(path: Path) -> bool:
    """A file that calls itself a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def video_size(video: str | Path) -> tuple[int, tuple[int, int]]:
    """(number of frames as far as the file tells, else 0; (height, width)), from the header alone.

    Raises:
        NVSError: no video that can be read, or larger than 100 megapixels a frame.
    """
    capture = _open(Path(video))
    size = round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), round(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    capture.release()
    return _probe(Path(video))[0], size


def choose_frames(
    video: str | Path, count: int = DEFAULT_FRAMES, tick: Callable[[float], None] | None = None
) -> list[Frame]:
    """Choose at most ``count`` frames.

    Args:
        video: mp4, mov, webm or whatever else the codecs at hand read.
        count: wanted; fewer are returned where the camera moved too little for them.
        tick: called with the fraction looked at, in [0, 1]; may raise to stop.

    Raises:
        NVSError: no video that can be read, larger than 100 megapixels a frame, or without any frames.
    """
    video = Path(video)
    total, fps = _probe(video)
    stride = max(1, -(-total // LOOKED_AT))
    indices, sharpness, motion = [], [], []
    before: np.ndarray | None = None
    for index, frame in _frames(video, stride):
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        sharp, contrast = measure_sharpness(grey)
        factor = SMALL / max(grey.shape)
        small = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else grey
        motion.append(0.0 if before is None else image_motion(before, small))
        before = small
        indices.append(index)
        sharpness.append(sharp * np.sqrt(contrast))  # of two alike, the one with stronger edges
        if tick is not None:
            tick(min(1.0, (index + 1) / max(total, index + 1)))
    if not indices:
        raise NVSError(f"{video.name}: no frames that can be decoded; convert it to mp4 (H.264)")
    picked = pick_even(np.array(motion), np.array(sharpness), count)
    return [Frame(indices[i], indices[i] / fps, float(sharpness[i])) for i in picked]


def pick_even(motion: np.ndarray, sharpness: np.ndarray, count: int) -> list[int]:
    """Indices of at most ``count`` frames, ascending: the path of motion is cut into equal stretches, and of each
    the sharpest frame of its middle is taken.

    Args:
        motion: [n], from the frame before to this one, in widths of the image.
        sharpness: [n], larger is sharper.
        count: stretches wanted.
    """
    # A little of time itself, so that a still camera does not make stretches of no frames.
    steps = motion + 1e-6
    path = np.cumsum(steps)
    length = float(path[-1] - path[0])
    count = max(1, min(count, len(motion), max(3, int(motion[1:].sum() / SMALLEST_STEP))))
    record = (path - path[0]) / max(length, 1e-9) * count
    chosen: list[int] = []
    for stretch in range(count):
        inside = np.flatnonzero(np.abs(record - stretch - 0.5) <= 0.35)
        if not len(inside):  # a jump: the nearest frame
            inside = np.array([int(np.abs(record - stretch - 0.5).argmin())])
        chosen.append(int(inside[sharpness[inside].argmax()]))
    return sorted(set(chosen))


def image_motion(before: np.ndarray, after: np.ndarray) -> float:
    """How far the image moved between two grey frames of one size, in widths: the median of followed points.

    Where too few points can be followed (a fast turn, a cut) the motion counts as a tenth of the width.
    """
    points = cv2.goodFeaturesToTrack(before, 200, 0.01, 6)
    if points is None or len(points) < 8:
        return 0.0 if float(cv2.absdiff(before, after).mean()) < 2.0 else 0.1
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, np.empty_like(points))
    kept = found.reshape(-1) == 1
    if kept.sum() < 8:
        return 0.1
    return float(np.median(np.linalg.norm((moved - points).reshape(-1, 2)[kept], axis=1))) / before.shape[1]


def write_frames(
    video: str | Path,
    frames: list[Frame],
    folder: str | Path,
    tick: Callable[[float], None] | None = None,
) -> list[Path]:
    """Decode the chosen frames and write them as JPEG files, named by their number in the video.

    Args:
        video: the file that they were chosen from.
        frames: ascending.
        folder: created.
        tick: as for :func:`choose_frames`.
    """
    video, folder = Path(video), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {frame.index for frame in frames}
    paths = []
    for index, frame in _frames(video, 1, max(wanted)):
        if index in wanted:
            path = folder / f"frame_{index:06d}.jpg"
            Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).save(path, quality=97, subsampling=0)
            paths.append(path)
            if tick is not None:
                tick(len(paths) / len(frames))
    return paths


def _open(video: Path) -> cv2.VideoCapture:
    if not video.is_file():
        raise NVSError(f"{video}: no such file")
    # The rotation that phones note in the file is applied by OpenCV's default.
    capture = open_video(video)
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if not capture.isOpened() or width < 1 or height < 1:
        capture.release()
        raise NVSError(f"{video.name}: not a video that can be read; convert it to mp4 (H.264)")
    if width * height > MAX_PIXELS:
        capture.release()
        raise NVSError(f"{video.name}: frames of {width:.0f}x{height:.0f} are more than 100 megapixels")
    return capture


def _probe(video: Path) -> tuple[int, float]:
    """The number of frames and frames a second as the file says, made sensible."""
    capture = _open(video)
    total, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    # webm files from browsers say nothing or nonsense.
    return int(total) if 0 < total < 1e7 else 0, fps if 0.1 < fps < 1000 else 30.0


def _frames(video: Path, stride: int, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """(number, BGR image) of every ``stride``-th frame; the others are passed over without conversion."""
    capture = _open(video)
    try:
        index = 0
        while (last is None or index <= last) and capture.grab():
            if index % stride == 0:
                good, frame = capture.retrieve()
                if good and frame is not None:
                    yield index, frame
            index += 1
    finally:
        capture.release()
