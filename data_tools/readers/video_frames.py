"""Frames of a video file at given times, as JPEG bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2

from data_tools.readers.fields import scene_label
from nvs_app.errors import NVSError

QUALITY = 95
# FFmpeg would also open lists of other files and addresses under the name of a video.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,flv,mpeg,mpegts,ogg,gif,h264,hevc,mjpeg,m4v"


def open_video(path: Path) -> cv2.VideoCapture:
    """A video that FFmpeg, and no other of OpenCV's readers, opens as a single file of a known container."""
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"protocol_whitelist;file|format_whitelist;{CONTAINERS}"
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)


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
    capture = open_video(path)
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
