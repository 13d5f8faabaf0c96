"""Photos made ready for structure from motion: gathered, judged, turned upright, scaled, grouped by camera.

What is written are plain upright images with simple names, so that nothing after this step has to know about
EXIF, HEIC, transparency or the names that people give their files.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from data_tools.readers.archives import open_image
from data_tools.readers.isolated import ProcessLimits, isolated
from data_tools.structure_from_motion.photo_files import PANORAMA, is_panorama, labels, masks_of
from nvs_app.errors import NVSError, Refusal, first_line

# Without EXIF, and only as a start that is refined: the field of view of a phone's main camera.
DEFAULT_FOCAL = 0.85  # of the longer side
# Below this share of gradient energy an image of the size used here is out of focus or shaken (measured on photos
# blurred on purpose: sharp ones have 0.02 to 0.5).
BLURRED = 0.004
FLAT = 40.0  # variance of the grey values (0 to 255) below which there is nothing to see


@dataclass(frozen=True)
class Photo:
    """One prepared photo.

    Attributes:
        name: file name under ``images/`` of the work folder; JPEG, 8 bits.
        source: the name that the user knows.
        image_hw: upright size (height, width) as prepared.
        focal: in prepared pixels, from EXIF, or a default.
        has_focal: whether it is from EXIF.
        camera: photos of one number share their intrinsics.
        masked: whether ``masks/NAME.png`` holds its transparency.
        sharpness: variance of the Laplacian over the variance of the grey values, at up to 640 pixels.
        contrast: variance of the grey values, 0 to 255.
    """

    name: str
    source: str
    image_hw: tuple[int, int]
    focal: float
    has_focal: bool
    camera: int
    masked: bool
    sharpness: float
    contrast: float

    @property
    def fault(self) -> str | None:
        """What anyone can see to be wrong with the photo, or None."""
        if self.contrast < FLAT:
            return "nothing to see"
        return "blurred" if self.sharpness < BLURRED else None

    def to_json(self) -> dict[str, Any]:
        """Plain values, as :meth:`from_json` takes them."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Photo:
        """The inverse of :meth:`to_json`."""
        return Photo(**{**values, "image_hw": tuple(values["image_hw"])})


def prepare_photos(
    images: Sequence[Path],
    folder: Path,
    max_size: int,
    masks: Path | None = None,
    tick: Callable[[int], None] | None = None,
    inputs: Sequence[Path] = (),
    apart: ProcessLimits | None = None,
) -> tuple[list[Photo], dict[str, str]]:
    """Write upright copies of at most ``max_size`` pixels on their longer side under ``folder/images``.

    Args:
        images: the files; each is checked by its content.
        folder: the work folder.
        max_size: longer side, pixels.
        masks: a folder with an image for each photo, in folders as theirs or all in one; white is the subject.
            Without it, the photos' own transparency, if any, is the mask.
        tick: called with the number of photos done; may raise to stop.
        inputs: the folders that the images were found in, unless given the one that holds all; below them their paths
            are their names.
        apart: each photo is decoded in a child process within these limits; None: in this process.

    Returns:
        The photos in the order given, and for each file that is no photo its name and what is wrong.

    Raises:
        NVSError: a mask fits two photos.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    inputs = inputs or [Path(os.path.commonpath([path.parent for path in images]))] if images else []
    names, sources = _simple_names(images), labels(images, inputs)
    mask_files = masks_of(masks, images, sources) if masks is not None else [None] * len(images)
    skipped: dict[str, str] = {}

    def one(index: int) -> tuple[tuple, dict[str, Any]] | None:
        try:
            if masks is not None and mask_files[index] is None:
                raise NVSError(f"{sources[index]}: no mask in {masks}, expected {Path(sources[index]).stem}.png")
            args = (images[index], names[index], sources[index], folder, max_size, mask_files[index])
            return _prepare(*args) if apart is None else isolated(_prepare, *args, limits=apart, what=sources[index])
        except NVSError as error:
            skipped[sources[index]] = str(error).split(": ", 1)[-1]
            return None

    photos: list[Photo] = []
    cameras: dict[tuple, int] = {}
    workers = min(4, os.cpu_count() or 1) if apart is None else 1  # others' files are read beside these
    with ThreadPoolExecutor(workers) as pool:
        for number, result in enumerate(pool.map(one, range(len(images)))):
            if result is not None:
                key, values = result
                photos.append(Photo(camera=cameras.setdefault(key, len(cameras)), **values))
            if tick is not None:
                tick(number + 1)
    return photos, skipped


def _prepare(
    path: Path, name: str, source: str, folder: Path, max_size: int, mask: Path | None
) -> tuple[tuple, dict[str, Any]]:
    """Writes one photo; returns what its camera is recognised by, and the fields of its Photo."""
    with open_image(path) as image:
        if is_panorama(image):
            raise NVSError(f"{source}: {PANORAMA}", Refusal.PANORAMA)
        try:
            exif = image.getexif()
            stored_size = image.size
            if image.format == "JPEG":
                image.draft(image.mode, (max_size, max_size))  # decodes at a fraction of the size, never below
            turned = ImageOps.exif_transpose(image)
            turned.thumbnail((max_size, max_size), Image.Resampling.LANCZOS, reducing_gap=3.0)
            rgb, alpha = _channels(turned)
        except (OSError, ValueError, SyntaxError, EOFError, RuntimeError) as error:
            raise NVSError(f"{path.name}: the image cannot be decoded ({first_line(error)})") from error
    height, width = rgb.shape[:2]
    if mask is not None:
        alpha = _read_mask(mask, f"{mask.parent.name}/{mask.name}", (height, width))
    Image.fromarray(rgb).save(folder / "images" / name, quality=95, subsampling=0)
    if alpha is not None:
        Image.fromarray(alpha).save(folder / "masks" / f"{name}.png")
    focal35, what = _exif_camera(exif, stored_size)
    longer = max(height, width)
    focal = longer * (focal35 / 36.0 if focal35 else DEFAULT_FOCAL)
    sharpness, contrast = measure_sharpness(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
    values = {
        "name": name,
        "source": source,
        "image_hw": (height, width),
        "focal": focal,
        "has_focal": focal35 is not None,
        "masked": alpha is not None,
        "sharpness": sharpness,
        "contrast": contrast,
    }
    return (*what, height, width), values


def _channels(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """uint8 RGB on white, and the alpha channel where it says anything."""
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = (np.asarray(image, dtype=np.float32) / 257.0).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2), None
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return np.asarray(image.convert("RGB")), None
    rgba = np.asarray(image.convert("RGBA"))
    alpha = rgba[:, :, 3]
    share = alpha[:, :, None].astype(np.float32) / 255.0
    rgb = rgba[:, :, :3] * share + 255.0 * (1.0 - share)
    return rgb.round().astype(np.uint8), None if alpha.min() == 255 else alpha.copy()


def _read_mask(mask: Path, label: str, image_hw: tuple[int, int]) -> np.ndarray:
    with open_image(mask, label) as image:
        try:
            grey = image.getchannel("A") if image.mode in ("RGBA", "LA") else image.convert("L")
            grey = ImageOps.exif_transpose(grey)
            return np.asarray(grey.resize((image_hw[1], image_hw[0]), Image.Resampling.BILINEAR))
        except (OSError, ValueError, SyntaxError) as error:
            raise NVSError(f"{label}: the mask cannot be decoded") from error


def _exif_camera(exif: Image.Exif, stored_size: tuple[int, int]) -> tuple[float | None, tuple]:
    """The focal length as on 36 mm film (of the longer side), and what tells this camera from others."""
    detail = exif.get_ifd(0x8769)
    focal = _number(detail.get(0x920A))  # mm
    focal35 = _number(detail.get(0xA405))
    density, unit = _number(detail.get(0xA20E)), detail.get(0xA210, 2)  # sensor pixels a unit
    if focal35 is None and focal and density and unit in (2, 3):
        sensor = max(stored_size) / density * (25.4 if unit == 2 else 10.0)  # mm
        focal35 = 36.0 * focal / sensor
    if focal35 is not None and not 5.0 <= focal35 <= 2000.0:
        focal35 = None
    digital_zoom = _number(detail.get(0xA404))
    return focal35, (str(exif.get(0x010F)), str(exif.get(0x0110)), focal, focal35, digital_zoom)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def measure_sharpness(grey: np.ndarray) -> tuple[float, float]:
    """(variance of the Laplacian over variance, variance) of a grey uint8 image, at up to 640 pixels."""
    factor = 640.0 / max(grey.shape)
    if factor < 1.0 <= factor * min(grey.shape):  # a strip of a few pixels would vanish
        grey = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    contrast = float(grey.astype(np.float32).var())
    return float(cv2.Laplacian(grey, cv2.CV_32F).var()) / max(contrast, 1e-6), contrast


def _simple_names(images: Sequence[Path]) -> list[str]:
    names: list[str] = []
    for path in images:
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem)[:60].strip("._") or "photo"
        name = f"{stem}.jpg"
        names.append(name if name not in names else f"{stem}_{len(names):05d}.jpg")
    return names
