"""Frames of a video file at given times, as JPEG bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from data_tools.readers.fields import scene_label
from nvs_app.errors import NVSError

QUALITY = 95


def frames_at(path: Path, seconds: Sequence[float]) -> tuple[dict[float, bytes], float]:
    """Decode a video once and keep the frames nearest to ``seconds``.

    Args:
        path: a video file of constant frame rate.
        seconds: times from its start, in any order.

    Returns:
        JPEG bytes for each time that the video has (others are absent), and the frame rate.

    Raises:
        NVSError: no video that OpenCV reads.
    """
    label = scene_label(path)
    capture = cv2.VideoCapture(str(path))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        if not capture.isOpened() or not 0.1 < rate < 1000.0:
            raise NVSError(f"{label}: not a video that can be read")
        wanted: dict[int, list[float]] = {}
        for time in seconds:
            wanted.setdefault(round(time * rate), []).append(time)
        found: dict[float, bytes] = {}
        for number in range(max(wanted, default=-1) + 1):
            if not capture.grab():
                break
            if number in wanted:
                ok, pixels = capture.retrieve()
                if not ok:
                    continue
                _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
                found.update(dict.fromkeys(wanted[number], data.tobytes()))
    except cv2.error as error:
        raise NVSError(f"{label}: the video cannot be decoded ({str(error).splitlines()[0]})") from error
    finally:
        capture.release()
    if not found:
        raise NVSError(f"{label}: the video has no frame at the times asked for")
    return found, rate
