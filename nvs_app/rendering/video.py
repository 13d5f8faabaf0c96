"""Rendered images on disk: mp4, gif, or a folder of PNG files. Nothing half-written ever has the final name.

with VideoWriter(Path("out.mp4"), fps=24) as video:
    for images in renderer.stream(state, cameras):
        video.add(images)
"""

from __future__ import annotations

import os
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


class VideoWriter:
    """Writes one mp4 (H.264, yuv420p) or gif file, chunk by chunk; the file appears when the block ends well.

    H.264 in yuv420p needs even sides: an odd last row or column is doubled, never rescaled. `record` says inside the
    file what it was made of, see `nvs_app.rendering.video_record`.
    """

    def __init__(self, path: Path, fps: float, record: dict[str, Any] | None = None):
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
        import imageio.v2 as imageio

        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            remove_left(self._target.parent, *self._names)
            if self.path.suffix.lower() == ".mp4":
                try:
                    import imageio_ffmpeg  # noqa: F401 - imageio's own message asks for an extra of itself
                except ModuleNotFoundError as error:
                    raise NVSError(
                        f"{self.path}: mp4 needs the package imageio-ffmpeg (pip install imageio-ffmpeg); "
                        "or write a .gif or a folder of PNG"
                    ) from error
                self._writer = imageio.get_writer(
                    self._partial,
                    format="FFMPEG",  # type: ignore[arg-type]
                    mode="I",
                    fps=self.fps,
                    codec="libx264",
                    pixelformat="yuv420p",
                    macro_block_size=1,  # imageio would rescale to multiples of 16
                    quality=None,
                    ffmpeg_log_level="error",
                    output_params=["-crf", "16", "-movflags", "+faststart"],
                )
            else:
                self._writer = imageio.get_writer(
                    self._partial,
                    format="GIF",
                    mode="I",
                    duration=1000.0 / self.fps,
                    loop=0,  # type: ignore[arg-type]
                )
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


def save_png(image: Float[Tensor, "3 h w"], path: Path) -> None:
    """Writes one image in [0, 1] as PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        Image.fromarray(to_uint8(image).cpu().numpy()).save(temporary, format="PNG")
