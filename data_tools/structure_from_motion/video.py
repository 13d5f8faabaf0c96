"""Frames of a video that suit structure from motion: evenly spread over the camera's motion, the sharpest of each
stretch.

    frames = choose_frames("walk.mp4", 60)
    paths = write_frames("walk.mp4", frames, "work/frames", max_size=1600)

A camera that stands still for a while gives few frames there, one that hurries gives many: time is measured in
image motion (points followed by optical flow), not in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data_tools.readers.video_frames import VIDEO_SUFFIXES, open_video
from data_tools.structure_from_motion.prepare import measure_sharpness

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
    """(number of frames as far as the file tells, else 0; (height, width)), from the header and the first frame.

    Raises:
        NVSError: no video that can be read, or larger than 100 megapixels a frame.
    """
    with open_video(Path(video)) as opened:
        return opened.frames, opened.image_hw


def choose_frames(
    video: str | Path, count: int = DEFAULT_FRAMES, tick: Callable[[float], None] | None = None
) -> list[Frame]:
    """Choose at most ``count`` frames.

    Args:
        video: mp4, mov, webm or whatever else FFmpeg reads.
        count: wanted; fewer are returned where the camera moved too little for them.
        tick: called with the fraction looked at, in [0, 1]; may raise to stop.

    Raises:
        NVSError: no video that can be read, larger than 100 megapixels a frame, or without any frames.
    """
    looked_at, sharpness, motion = [], [], []
    before: np.ndarray | None = None
    with open_video(Path(video)) as opened:
        total = opened.frames
        stride = max(1, -(-total // LOOKED_AT))
        for frame in opened:
            if frame.index % stride:
                continue
            grey = frame.grey()
            sharp, contrast = measure_sharpness(grey)
            factor = SMALL / max(grey.shape)
            small = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else grey
            motion.append(0.0 if before is None else image_motion(before, small))
            before = small
            looked_at.append((frame.index, frame.seconds))
            sharpness.append(sharp * np.sqrt(contrast))  # of two alike, the one with stronger edges
            if tick is not None:
                tick(min(1.0, (frame.index + 1) / max(total, frame.index + 1)))
    picked = pick_even(np.array(motion), np.array(sharpness), count)
    return [Frame(*looked_at[i], float(sharpness[i])) for i in picked]


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
    note: Callable[[str], None] | None = None,
) -> list[Path]:
    """Decode the chosen frames and write them as JPEG files, named by their number in the video.

    Args:
        video: the file that they were chosen from.
        frames: ascending.
        folder: created.
        tick: as for :func:`choose_frames`.
        note: called with each line on what was assumed or changed: colours, the shape of pixels, damage.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {frame.index for frame in frames}
    paths: list[Path] = []
    with open_video(Path(video)) as opened:
        for frame in opened:
            if frame.index in wanted:
                path = folder / f"frame_{frame.index:06d}.jpg"
                Image.fromarray(frame.rgb()).save(path, quality=97, subsampling=0)
                paths.append(path)
                if tick is not None:
                    tick(len(paths) / len(frames))
            if len(paths) == len(wanted):
                break
        if note is not None:
            for text in opened.notes:
                note(text)
    return paths
