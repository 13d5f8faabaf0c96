"""Rendered images on disk: mp4, gif, or a folder of PNG files. Nothing half-written ever has the final name.

with VideoWriter(Path("out.mp4"), fps=24) as video:
    for images in renderer.stream(state, cameras):
        video.add(images)
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nvs_app.atomic_io import atomic_write, is_stream, remove_left
from nvs_app.errors import NVSError
from nvs_app.rendering.video_record import append_record
from nvs_app.scenes.images import to_uint8

VIDEO_SUFFIXES = (".mp4", ".gif")
BT709, LIMITED, FULL = 1, 1, 2  # code points of ITU-T H.273
BILINEAR_EXACT = 0x2 | 0x40000  # swscale's: for the colours of four pixels that become one's, exactly rounded


class VideoWriter:
    """Writes one mp4 (H.264, yuv420p) or gif file, chunk by chunk; the file appears when the block ends well.

    An mp4 has the colours of HD video, BT.709 at limited range, whatever its size, and says so: players take untagged
    ones for one thing or the other. yuv420p needs even sides: an odd last row or column is doubled, never rescaled.
    `record` says inside the file what it was made of, see `nvs_app.rendering.video_record`.
    """

    def __init__(self, path: Path, fps: float | int, record: dict[str, Any] | None = None):
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise NVSError(f"{path}: expected a name that ends in {' or '.join(VIDEO_SUFFIXES)}")
        self.path = path
        self.fps = fps
        self.record = record
        # The suffix stays at the end: the encoder goes by it.
        self._target = path if is_stream(path) else Path(os.path.realpath(path))  # links are followed
        self._names = f".{path.stem[:200]}.", f".partial{path.suffix.lower()}"
        self._partial = path
        if not is_stream(path):
            self._partial = self._target.with_name(f"{self._names[0]}{os.getpid()}{self._names[1]}")
        self._writer: Any = None

    def __enter__(self) -> VideoWriter:
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            remove_left(self._target.parent, *self._names)
            if self.path.suffix.lower() == ".mp4":
                self._writer = _Mp4(self._partial, self.fps)
            else:
                import imageio.v2 as imageio

                self._writer = imageio.get_writer(
                    self._partial,
                    format="GIF",
                    mode="I",
                    duration=1000.0 / self.fps,
                    loop=0,  # type: ignore[arg-type]
                )
        except ModuleNotFoundError as error:
            raise NVSError(
                f"{self.path}: needs the package {error.name} (pip install {error.name}); or write a folder of PNG"
            ) from error
        except OSError as error:
            raise NVSError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        return self

    def add(self, images: Float[Tensor, "n 3 h w"]) -> None:
        """Appends images [n, 3, H, W] in [0, 1]."""
        if self.path.suffix.lower() == ".mp4":
            height, width = images.shape[-2:]
            images = F.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
        try:
            for frame in to_uint8(images).cpu().numpy():
                self._writer.append_data(np.ascontiguousarray(frame))
        except OSError as error:
            raise NVSError(f"{self.path}: writing failed ({error.strerror or error})") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
            if kind is None and self._partial != self._target:
                if self.record is not None:
                    append_record(self._partial, self.record)
                os.replace(self._partial, self._target)
        except OSError as failure:
            if kind is None:
                raise NVSError(f"{self.path}: cannot be written ({failure.strerror or failure})") from failure
        finally:
            if self._partial != self._target:
                self._partial.unlink(missing_ok=True)


class _Mp4:
    """An mp4 file by PyAV. Errors are OSError."""

    def __init__(self, path: Path, fps: float | int):
        import av

        # A pipe cannot be gone back in: its index comes in parts.
        flags = "frag_keyframe+empty_moov" if is_stream(path) else "faststart"
        self._rate = Fraction(fps).limit_denominator(1001)
        self._container = av.open(f"file:{path}", "w", format="mp4", options={"movflags": flags})
        self._stream: Any = None
        self._count = 0

    def append_data(self, pixels: np.ndarray) -> None:
        """One frame, uint8 RGB [h, w, 3], even sides."""
        import av

        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": "16"})
            context = self._stream.codec_context
            context.height, context.width, context.pix_fmt = *pixels.shape[:2], "yuv420p"
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(
            format="yuv420p",
            dst_colorspace=BT709,
            src_color_range=FULL,
            dst_color_range=LIMITED,
            interpolation=BILINEAR_EXACT,
        )
        frame.pts, frame.time_base = self._count, 1 / self._rate
        self._count += 1
        self._mux(frame)

    def close(self) -> None:
        try:
            if self._stream is not None:
                self._mux(None)
        finally:
            self._container.close()

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def save_png(image: Float[Tensor, "3 h w"], path: Path) -> None:
    """Writes one image in [0, 1] as PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        Image.fromarray(to_uint8(image).cpu().numpy()).save(temporary, format="PNG")
