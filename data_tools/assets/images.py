"""Images of textures: judged by their headers, decoded, and shrunk to what the views can show."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from jaxtyping import UInt8

from data_tools.assets.asset import MAX_IMAGE_PIXELS, MAX_TEXELS
from nvs_app.errors import NVSError, first_line

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TGA", "GIF", "TIFF")
# What Pillow raises for broken data. SyntaxError: its word for a broken header.
BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, OverflowError, IndexError, TypeError, KeyError),
    *(ZeroDivisionError, MemoryError, struct.error, zlib.error),
)


class TextureImages:
    """The images of one asset, each decoded once; ``kept`` is the list that textures point into."""

    def __init__(self, max_side: int) -> None:
        self.max_side, self.texels = max_side, 0
        self.kept: list[UInt8[np.ndarray, "h w 4"]] = []
        self.numbers: dict[Any, int] = {}

    def add(self, key: Any, data: bytes, label: str) -> int:
        """The number of the image with these bytes, decoded at the first call with ``key``."""
        if key not in self.numbers:
            pixels = decode(data, label, self.max_side)
            self.texels += pixels.shape[0] * pixels.shape[1]
            if self.texels > MAX_TEXELS:
                raise NVSError(f"its textures have more than {MAX_TEXELS // 10**6} million pixels together")
            self.numbers[key] = len(self.kept)
            self.kept.append(pixels)
        return self.numbers[key]


def decode(data: bytes, label: str, max_side: int) -> UInt8[np.ndarray, "h w 4"]:
    """RGBA of a PNG, JPEG, WebP or another common format, its longer side at most ``max_side``.

    Raises:
        NVSError: KTX2 (Basis Universal) and other unknown formats, a false header, more than 100 megapixels.
    """
    from PIL import Image

    if data[:12] == b"\xabKTX 20\xbb\r\n\x1a\n":
        raise NVSError(f"{label}: a KTX2 (Basis Universal) image, which is not supported; use PNG, JPEG or WebP")
    # Sizes are looked at below; Pillow would only warn of what it takes for a bomb.
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_IMAGE_PIXELS or min(width, height) < 1:
                raise NVSError(f"{label}: {width}x{height} pixels, at most {MAX_IMAGE_PIXELS // 10**6} million")
            if image.format == "JPEG":
                image.draft(image.mode, (max_side, max_side))  # decodes at a fraction of the size, never below
            if image.mode.startswith("I") or image.mode == "F":  # 16 bits: Pillow would clip them to 8
                grey = np.asarray(image, dtype=np.float32)
                scale = 1.0 if image.mode == "F" else 1.0 / 257.0
                image_8 = Image.fromarray((grey * scale).clip(0, 255).astype(np.uint8))
            else:
                image_8 = image
            pixels = image_8.convert("RGBA")
    except Image.DecompressionBombError as error:
        raise NVSError(f"{label}: more than {MAX_IMAGE_PIXELS // 10**6} million pixels") from error
    except BROKEN as error:
        reason = first_line(error)
        if "cannot identify" in reason:
            reason = "not a PNG, JPEG or WebP"
        raise NVSError(f"{label}: the image cannot be decoded ({reason})") from error
    if max(pixels.size) > max_side:
        factor = max_side / max(pixels.size)
        size = (max(1, round(pixels.width * factor)), max(1, round(pixels.height * factor)))
        # Band by band: resized together, Pillow would lose the colour where alpha is 0, which opaque materials show.
        bands = [band.resize(size, Image.Resampling.BOX) for band in pixels.split()]
        pixels = Image.merge("RGBA", bands)
    return np.array(pixels, dtype=np.uint8)
