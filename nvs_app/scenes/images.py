"""Reading one image file as float RGB: any bit depth, grey, palette, transparency, lens distortion.

The pixels are taken as they are stored: an EXIF rotation is not applied, because the cameras of a posed
image refer to the stored pixels.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nvs_app.errors import NVSError, Refusal
from nvs_app.scenes.lens import Lens

__all__ = ["MAX_PIXELS", "Lens", "image_size", "read_image", "to_uint8"]

# Refused from the file's header, before any memory is spent on pixels.
MAX_PIXELS = 100_000_000


# What people keep images in. Pillow would also try formats that run other programs (EPS) or old decoders.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF", "TGA", "DIB", "QOI")
# What decoders raise for broken data. SyntaxError: Pillow's word for a broken header.
BROKEN = (
    *(OSError, ValueError, SyntaxError, EOFError, OverflowError, IndexError, TypeError, KeyError),
    *(ZeroDivisionError, RuntimeError, MemoryError, struct.error, zlib.error, cv2.error),
)


def image_size(path: Path, label: str | None = None, data: bytes | None = None) -> tuple[int, int]:
    """(height, width) from the file's header alone.

    Args:
        path: the image file.
        label: what an error calls it; the path unless given.
        data: the bytes of the file, where it is not on disk.

    Raises:
        NVSError: no image that can be read, or one of more than 100 megapixels.
    """
    with _open(path, label or str(path), data) as image:
        return image.height, image.width


def read_image(
    path: Path,
    background: Sequence[float | int] = (1.0, 1.0, 1.0),
    lens: Lens | None = None,
    label: str | None = None,
    data: bytes | None = None,
) -> Float[Tensor, "3 h w"]:
    """Decode one image.

    Args:
        path: PNG, JPEG, WebP, TIFF, BMP and other formats (FORMATS); 8 or 16 bits, grey, palette or colour.
        background: colour behind transparent pixels, in [0, 1]. Mixed in the stored (sRGB) values, as NeRF does.
        lens: undistort with it.
        label: what an error calls the file; the path unless given.
        data: the bytes of the file, where it is not on disk.

    Returns:
        RGB, float32 in [0, 1], at the stored size.

    Raises:
        NVSError: the file cannot be decoded or has more than 100 megapixels.
    """
    label = label or str(path)
    pixels = _decode(path, label, data)
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:]
        pixels = pixels[:, :, :3] * alpha + np.asarray(background, dtype=np.float32) * (1.0 - alpha)
    if lens is not None:
        pixels = lens.undistort(pixels)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _open(path: Path, label: str, data: bytes | None = None) -> Image.Image:
    try:
        image = Image.open(path if data is None else io.BytesIO(data), formats=_formats())
    except FileNotFoundError as error:
        raise NVSError(f"{label}: no such file", Refusal.NO_IMAGE) from error
    except Image.DecompressionBombError as error:
        raise NVSError(f"{label}: more than 100 megapixels, make it smaller first", Refusal.BAD_IMAGE) from error
    except BROKEN as error:
        raise NVSError(f"{label}: not an image that can be read ({_reason(error)})", Refusal.BAD_IMAGE) from error
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}x{image.height}"
        image.close()
        raise NVSError(f"{label}: {size} is more than 100 megapixels, make it smaller first", Refusal.BAD_IMAGE)
    return image


def _formats() -> list[str]:
    """Those of FORMATS that this Pillow has, plug-ins included."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _decode(path: Path, label: str, data: bytes | None = None) -> np.ndarray:
    """Float32 [h, w, 3 or 4] in [0, 1]."""
    with _open(path, label, data) as image:
        try:
            if image.format in ("PNG", "TIFF") and image.mode not in ("P", "1", "LA", "CMYK"):
                pixels = _decode_deep(path, data)  # Pillow would cut 16-bit colour down to 8 bits
                if pixels is not None:
                    return pixels
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                values = np.asarray(image, dtype=np.float32)
                values = values if image.mode == "F" else values / 65535.0
                return np.repeat(values.clip(0.0, 1.0)[:, :, None], 3, axis=2)
            transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
            return np.asarray(image.convert("RGBA" if transparent else "RGB"), dtype=np.float32) / 255.0
        except BROKEN as error:
            raise NVSError(f"{label}: the image cannot be decoded ({_reason(error)})") from error


def _decode_deep(path: Path, data: bytes | None) -> np.ndarray | None:
    """OpenCV's reading of a PNG or TIFF at its full depth; None leaves the file to Pillow."""
    # IMREAD_UNCHANGED also leaves out the EXIF rotation.
    encoded = np.fromfile(path, dtype=np.uint8) if data is None else np.frombuffer(data, dtype=np.uint8)
    pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return None
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4):
        return None
    scale = np.float32(1.0 / (255 if pixels.dtype == np.uint8 else 65535))
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1) * scale, 3, axis=2)
    order = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(pixels, order) * scale


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def to_uint8(images: Float[Tensor, "*b c h w"]) -> Tensor:
    """Images as they are saved and shown: [*b, c, h, w] in [0, 1] -> uint8 [*b, h, w, c], rounded, not truncated."""
    return (images.detach().clamp(0, 1) * 255.0 + 0.5).to(torch.uint8).movedim(-3, -1).contiguous()
