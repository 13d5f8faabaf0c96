"""Reading one image file as float RGB: any bit depth, grey, palette, transparency, lens distortion.

The pixels are taken as they are stored: an EXIF rotation is not applied, because the cameras of a posed image refer to
the stored pixels. Where the camera's own size fits only the turned image (programs that turn photos before they find
cameras), :func:`image_header` says how to turn it. Pillow and OpenCV turn TIFF files whether they are asked or not,
which is undone; HEIC files are stored upright.
"""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from nvs_app.errors import NVSError, Refusal, first_line
from nvs_app.scenes.lens import Lens

__all__ = ["MAX_PIXELS", "ImageHeader", "Lens", "image_header", "image_size", "read_image", "register_heif", "to_uint8"]

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
    return image_header(path, None, label, data).image_hw


@dataclass(frozen=True)
class ImageHeader:
    """What a file says before its pixels are read.

    Attributes:
        image_hw: (height, width), turned by ``orientation``.
        orientation: what is to be done to the stored pixels, an EXIF orientation; 1 is nothing.
        note: what of the picture is not kept, or taken for something; empty for an ordinary one.
    """

    image_hw: tuple[int, int]
    orientation: int = 1
    note: str = ""


def image_header(
    path: Path,
    camera_hw: Sequence[float | int] | None,
    label: str | None = None,
    data: bytes | None = None,
) -> ImageHeader:
    """The size of an image, turned where its camera's size (height, width) fits only the turned one.

    Arguments and errors as of :func:`image_size`.
    """
    with _open(path, label or str(path), data) as image:
        hw, note = (image.height, image.width), _depth_note(image)
        if image.format == "TIFF" and _orientation(image, path, data) >= 5:
            hw = hw[::-1]
        if camera_hw is not None and not same_shape(hw, camera_hw) and same_shape(hw[::-1], camera_hw):
            orientation = _orientation(image, path, data)
            if orientation >= 5:
                return ImageHeader(hw[::-1], orientation, note)
    return ImageHeader(hw, 1, note)


def same_shape(image_hw: Sequence[float | int], camera_hw: Sequence[float | int]) -> bool:
    """Whether one size is a resized copy of the other, up to rounding."""
    return abs((image_hw[1] / image_hw[0]) / (camera_hw[1] / camera_hw[0]) - 1.0) <= 0.02


def read_image(
    path: Path,
    background: Sequence[float | int] = (1.0, 1.0, 1.0),
    lens: Lens | None = None,
    label: str | None = None,
    data: bytes | None = None,
    orientation: int = 1,
) -> Float[Tensor, "3 h w"]:
    """Decode one image.

    Args:
        path: PNG, JPEG, WebP, TIFF, BMP and other formats (FORMATS); 8 or 16 bits, grey, palette or colour.
        background: colour behind transparent pixels, in [0, 1]. Mixed in the stored (sRGB) values, as NeRF does.
        lens: undistort with it.
        label: what an error calls the file; the path unless given.
        data: the bytes of the file, where it is not on disk.
        orientation: turn the pixels, as :func:`image_header` says; before the lens.

    Returns:
        RGB, float32 in [0, 1], at the stored size, or the turned one.

    Raises:
        NVSError: the file cannot be decoded or has more than 100 megapixels.
    """
    label = label or str(path)
    pixels = _turned(_decode(path, label, data), orientation)
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
    except UnidentifiedImageError as error:
        if _start(path, data)[4:8] == b"ftyp" and "HEIF" not in Image.OPEN:
            raise NVSError(
                f"{label}: reading HEIC needs the package pillow-heif; install it", Refusal.BAD_IMAGE
            ) from error
        raise NVSError(f"{label}: not an image that can be read ({first_line(error)})", Refusal.BAD_IMAGE) from error
    except BROKEN as error:
        raise NVSError(f"{label}: not an image that can be read ({first_line(error)})", Refusal.BAD_IMAGE) from error
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}x{image.height}"
        image.close()
        raise NVSError(f"{label}: {size} is more than 100 megapixels, make it smaller first", Refusal.BAD_IMAGE)
    return image


def _formats() -> list[str]:
    """Those of FORMATS that this Pillow has, plug-ins included."""
    register_heif()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def register_heif() -> bool:
    """Teach Pillow to read HEIC/HEIF; False where the package pillow-heif is not installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _start(path: Path, data: bytes | None) -> bytes:
    """The first bytes of a file; in HEIC they say how it is turned."""
    if data is not None:
        return data[:65536]
    with path.open("rb") as file:
        return file.read(65536)


# An EXIF orientation -> the one that undoes it.
_INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def _orientation(image: Image.Image, path: Path, data: bytes | None) -> int:
    """How the pixels of an unread image are turned, as an EXIF orientation: of TIFF already, of HEIC back to how the
    sensor saw them, of others to be upright. 1 for nonsense."""
    try:
        if image.format == "HEIF":
            stated = image.info.get("original_orientation")
            if turned := re.search(rb"\0\0\0\x09irot([\1\3])", _start(path, data)):  # quarters, anticlockwise
                stated = _INVERSE[stated] if stated in (5, 6, 7, 8) else 6 if turned[1] == b"\1" else 8
        else:
            stated = image.getexif().get(0x0112)
    except BROKEN:
        return 1
    return stated if type(stated) is int and stated in _INVERSE else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [h, w, ...] as an EXIF orientation asks for (Exif 2.3, 4.6.4 A)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if orientation in (3, 4, 7, 8) else 1, :: -1 if orientation in (2, 3, 6, 7) else 1]


def _depth_note(image: Image.Image) -> str:
    """What becomes of pixels that are no 8-bit ones of the usual range."""
    if image.mode == "F":
        return "images of floating-point numbers: taken as they are from 0 to 1, what is beyond is cut off"
    if image.mode == "I" or image.mode.startswith("I;16") or _raw_mode(image).endswith(("16B", "16L", "16N")):
        return "images of 16 bits: white at the largest value, read as sRGB like those of 8 bits"
    transfer = (image.info.get("nclx_profile") or {}).get("transfer_characteristics")
    if transfer in (16, 18):
        return f"HDR images ({'PQ' if transfer == 16 else 'HLG'}): read by their codes, so that they look flat"
    return ""


def _raw_mode(image: Image.Image) -> str:
    """How Pillow unpacks a file's pixels: "RGB;16B"."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0].args if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _decode(path: Path, label: str, data: bytes | None = None) -> np.ndarray:
    """Float32 [h, w, 3 or 4] in [0, 1]."""
    with _open(path, label, data) as image:
        undone = _INVERSE[_orientation(image, path, data)] if image.format == "TIFF" else 1
        try:
            if image.format in ("PNG", "TIFF") and image.mode not in ("P", "1", "LA", "CMYK"):
                pixels = _decode_deep(path, data)  # Pillow would cut 16-bit colour down to 8 bits
                if pixels is not None:
                    return _turned(pixels, undone)
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                values = np.asarray(image, dtype=np.float32)
                values = values if image.mode == "F" else values / 65535.0
                return _turned(np.repeat(values.clip(0.0, 1.0)[:, :, None], 3, axis=2), undone)
            transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
            pixels = np.asarray(image.convert("RGBA" if transparent else "RGB"), dtype=np.float32) / 255.0
            return _turned(pixels, undone)
        except BROKEN as error:
            raise NVSError(f"{label}: the image cannot be decoded ({first_line(error)})") from error


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


def data_uri(image: Image.Image, kind: str = "JPEG", **options: Any) -> str:
    """An image inside a page: a file of this kind, saved with Pillow's options, as text."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def to_uint8(images: Float[Tensor, "*b c h w"]) -> Tensor:
    """Images as they are saved and shown: [*b, c, h, w] in [0, 1] -> uint8 [*b, h, w, c], rounded, not truncated."""
    return (images.detach().clamp(0, 1) * 255.0 + 0.5).to(torch.uint8).movedim(-3, -1).contiguous()
