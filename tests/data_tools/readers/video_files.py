"""Small videos whose code values are computed here, so that only their reading is tested."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

PATCHES = np.array([[200, 60, 40], [40, 160, 60], [60, 80, 200], [180, 180, 180]])
WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}  # of red and blue in luma


def codes(rgb: np.ndarray, matrix: int, bits: int = 8, full: bool = False) -> np.ndarray:
    """R'G'B' in [0, 1], [n, 3] -> code values of Y', Cb, Cr, [n, 3], as H.273 has them."""
    kr, kb = WEIGHTS[matrix]
    y = kr * rgb[:, 0] + (1 - kr - kb) * rgb[:, 1] + kb * rgb[:, 2]
    cb, cr = (rgb[:, 2] - y) / (2 * (1 - kb)), (rgb[:, 0] - y) / (2 * (1 - kr))
    if full:
        top = 2**bits - 1
        values = [y * top, cb * top + 2 ** (bits - 1), cr * top + 2 ** (bits - 1)]
    else:
        values = [(scale * part + shift) * 2 ** (bits - 8) for scale, part, shift in
                  ((219, y, 16), (224, cb, 128), (224, cr, 128))]  # fmt: skip
    return np.stack(values, axis=1).round().astype(np.uint16 if bits > 8 else np.uint8)


def stripes(values: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """Upright stripes of values [n, c] as planes [c, h, w]."""
    height, width = image_hw
    return np.tile(np.repeat(values, width // len(values), axis=0).T[:, None], (1, height, 1))


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    pix_fmt: str = "yuv444p",
    tags: tuple[int, int, int, int] = (2, 2, 2, 0),
    times: Sequence[int] | None = None,
    codec: str = "ffv1",
    aspect: Fraction | None = None,
    matrix: tuple[int, ...] | None = None,
) -> Path:
    """frames: planes Y', Cb, Cr, [3, h, w]; of the last two pixels are left out as `pix_fmt` has it.
    tags: primaries, transfer, matrix, range. times: milliseconds; 25 frames a second unless given.
    matrix: the display matrix, nine numbers."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        context = stream.codec_context
        height, width = frames[0].shape[-2:]
        context.height, context.width, context.pix_fmt = height, width, pix_fmt
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        context.time_base = Fraction(1, 1000)
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if matrix is not None:
            stream.set_display_matrix(list(matrix))
        for number, values in enumerate(frames):
            frame = av.VideoFrame(width, height, pix_fmt)
            for plane, part in zip(frame.planes, values):
                part = np.ascontiguousarray(part[:: height // plane.height, :: width // plane.width])
                rows = np.zeros((plane.height, plane.line_size), np.uint8)
                rows[:, : part[0].nbytes] = part.view(np.uint8)
                plane.update(rows.tobytes())
            frame.pts, frame.time_base = times[number] if times else 40 * number, Fraction(1, 1000)
            frame.color_range, frame.colorspace = tags[3], tags[2]
            frame.color_primaries, frame.color_trc = tags[:2]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
