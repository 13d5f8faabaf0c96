"""Frames of a video file: the one place that decodes videos (PyAV, FFmpeg's libraries).

    with open_video(Path("walk.mp4")) as video:
        for frame in video:
            frame.index, frame.seconds, frame.rgb()     # uint8 [h, w, 3], sRGB, upright, square pixels

Frames are told by when they are shown, not by a rate: phones record at one that varies. What the file says of its
colours (`video_colours`), of its rotation and of pixels that are no squares is done; `video.notes` tells what was
assumed or changed. A video is one file of a known container: FFmpeg would also open lists of other files and addresses.
"""

from __future__ import annotations

import io
import itertools
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools.readers.fields import scene_label
from data_tools.readers.video_colours import to_grey, to_srgb
from nvs_app.errors import NVSError, Refusal
from nvs_app.scenes.images import MAX_PIXELS

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi")
QUALITY = 95
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,asf,flv,mpeg,mpegts,ogg,gif,h264,hevc,mjpeg,m4v"
THREADS = 4  # of a decoder; each holds frames
# A time so little before a frame still means it: containers and lists of poses round, to milliseconds and worse.
EARLY, EARLY_SHARE = 0.01, 0.25  # s; of the time that the frame before is shown
NO_VIDEO = "not a video that can be read; convert it to mp4 (H.264)"


@dataclass
class Video:
    """An open video; iterate over it once.

    Attributes:
        label: what errors call it.
        image_hw: (height, width) of frames as they come out: upright, square pixels.
        frames: how many, as far as the file tells, else 0.
        rate: frames a second on average, as far as the file tells, else 30.
        notes: what was assumed or changed so far, a line each; colours count from the first ``rgb()`` on.
    """

    label: str
    image_hw: tuple[int, int]
    frames: int
    rate: float
    stored_hw: tuple[int, int]
    turn: Turn
    decoded: Iterator[tuple[float, Any]]
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[VideoFrame]:
        for index, (seconds, frame) in enumerate(self.decoded):
            yield VideoFrame(self, index, seconds, frame)

    def note(self, text: str) -> None:
        """Remember it once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True)
class VideoFrame:
    """A decoded frame: its number from the start, and when it is shown, in seconds from the start."""

    video: Video
    index: int
    seconds: float
    frame: Any

    def rgb(self) -> np.ndarray:
        """uint8 [h, w, 3], sRGB."""
        pixels, notes = to_srgb(self.frame, self.video.stored_hw)
        for note in notes:
            self.video.note(note)
        return np.ascontiguousarray(self.video.turn.apply(pixels))

    def grey(self) -> np.ndarray:
        """Brightness alone, uint8 [h, w]; cheaper than :meth:`rgb`."""
        return np.ascontiguousarray(self.video.turn.apply(to_grey(self.frame, self.video.stored_hw)))


@dataclass(frozen=True)
class Turn:
    """How stored frames are to be shown: rows and columns exchanged, then turned over."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @staticmethod
    def of(frame: Any) -> Turn:
        """From the display matrix (ISO/IEC 14496-12, 6.2.2) that a frame carries, rounded to right angles."""
        data = frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return Turn()
        # A pixel (x, y) is shown at (a x + c y, b x + d y).
        a, b, _, c, d = struct.unpack_from("<5i", bytes(data))
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return Turn(False, a < 0, d < 0)
        return Turn(True, c < 0, b < 0)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """[h, w, ...] -> [h, w, ...], or [w, h, ...] where they are exchanged."""
        pixels = pixels.swapaxes(0, 1) if self.transposed else pixels
        return pixels[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Open a video and decode its first frame.

    Raises:
        NVSError: no such file, no video that can be read, or frames of more than 100 megapixels. What is broken
            later on is left out, with a note.
    """
    import av

    label = path.name
    if not path.is_file():
        raise NVSError(f"{path}: no such file")
    try:
        # "file:" so that no name is taken for an address.
        container = av.open(
            f"file:{os.path.abspath(path)}",
            options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise NVSError(f"{label}: {NO_VIDEO}", Refusal.BROKEN_FILE) from error
    with container:
        yield _opened(container, label)


def _opened(container: Any, label: str) -> Video:
    import av

    streams = [each for each in container.streams.video if not each.disposition & av.stream.Disposition.attached_pic]
    if not streams or streams[0].codec_context is None or not streams[0].codec_context.width:
        raise NVSError(f"{label}: {NO_VIDEO}", Refusal.BROKEN_FILE)
    stream, context = streams[0], streams[0].codec_context
    _check_size(label, context.width, context.height)
    context.thread_type, context.thread_count = "AUTO", min(THREADS, os.cpu_count() or 1)
    context.options = {"max_pixels": str(MAX_PIXELS)}
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    rate = rate if 0.1 < rate < 1000 else 30.0
    length = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    count = stream.frames or round((length or (container.duration or 0) / av.time_base) * rate)
    video = Video(label, (1, 1), count if 0 < count < 10**7 else 0, rate, (1, 1), Turn(), iter(()))
    decoded = _decoded(container, stream, video)
    first = next(decoded, None)
    if first is None:
        raise NVSError(f"{label}: no frames that can be decoded; convert it to mp4 (H.264)", Refusal.BROKEN_FILE)
    frame, aspect = first[1], float(stream.sample_aspect_ratio or 1)
    aspect = aspect if 0.25 <= aspect <= 4.0 else 1.0
    video.turn, video.stored_hw = Turn.of(frame), (frame.height, max(1, round(frame.width * aspect)))
    video.image_hw = video.stored_hw[::-1] if video.turn.transposed else video.stored_hw
    _check_size(label, *video.image_hw)
    if aspect != 1.0:
        shown = f"{video.stored_hw[1]}x{video.stored_hw[0]}"
        video.note(f"pixels are no squares: frames of {frame.width}x{frame.height} brought to {shown}")
    if frame.interlaced_frame:
        video.note("interlaced: both fields of a frame are kept, and what moves fast has combs")
    video.decoded = itertools.chain([first], decoded)
    return video


def _check_size(label: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise NVSError(f"{label}: frames of {width}x{height} are more than 100 megapixels", Refusal.BAD_IMAGE)


def _decoded(container: Any, stream: Any, video: Video) -> Iterator[tuple[float, Any]]:
    """(seconds, frame) of all frames that can be decoded, in the order in which they are shown."""
    import av

    # Sound may begin before zero, to warm up its decoder; pictures are shown from zero on.
    start = max(0.0, (container.start_time or 0) / av.time_base)
    damaged, last, index = 0, -1.0, 0
    packets = container.demux(stream)
    while True:
        frames, last_call = [], False
        try:
            packet = next(packets, None)
            last_call = packet is None
            frames = stream.decode(packet)  # of None: what the decoder still holds
        except av.EOFError:
            break
        except (av.FFmpegError, OSError, ValueError):  # the file ends in the middle, say
            damaged += 1
        for frame in frames:
            if frame.is_corrupt:
                damaged += 1
                continue
            at = frame.pts if frame.pts is not None else frame.dts
            seconds = index / video.rate if at is None else float(at * frame.time_base) - start
            if index and seconds <= last:  # two frames at one time
                seconds = last + 1e-6
            yield seconds, frame
            last, index = seconds, index + 1
        if last_call:
            break
    if damaged:
        video.note(f"damaged frames left out: {damaged}")


def frames_at(path: Path, seconds: Sequence[float]) -> tuple[dict[float, bytes], list[str]]:
    """Decode a video once and keep the frames that are shown at ``seconds``.

    Args:
        path: a video file, of any frame rate, constant or not.
        seconds: times from its start, in any order.

    Returns:
        JPEG bytes for each time that the video has (others are absent), and what was assumed or changed.

    Raises:
        NVSError: no video that can be read, or no frame at any of the times.
    """
    label, waiting = scene_label(path), sorted(set(seconds), reverse=True)
    found: dict[float, bytes] = {}
    with open_video(path) as video:
        shown: VideoFrame | None = None
        for frame in video:
            _keep(shown, frame.seconds, waiting, found)
            shown = frame
            if not waiting:
                break
        if shown is not None:
            own = float((shown.frame.duration or 0) * shown.frame.time_base)
            _keep(shown, shown.seconds + max(own, 1.0 / video.rate), waiting, found)
    if not found:
        raise NVSError(f"{label}: the video has no frame at the times asked for", Refusal.NO_IMAGE)
    return found, video.notes


def _keep(frame: VideoFrame | None, until: float, waiting: list[float], found: dict[float, bytes]) -> None:
    """Takes the times of ``waiting`` (the earliest last) at which ``frame`` is shown, which ends at ``until``."""
    if frame is None:
        return
    times, early = [], min(EARLY, EARLY_SHARE * (until - frame.seconds))
    while waiting and waiting[-1] + early < until:
        times.append(waiting.pop())
    if times:
        stream = io.BytesIO()
        Image.fromarray(frame.rgb()).save(stream, "JPEG", quality=QUALITY)
        found.update(dict.fromkeys(times, stream.getvalue()))
