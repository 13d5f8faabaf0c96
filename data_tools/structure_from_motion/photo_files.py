"""Which files of an input are photos, what they are called, and which mask belongs to which.

found = find_photos([Path("scan")])
found.images, found.left_out        # depth maps, thumbnails and second copies are no photos
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from data_tools.readers import holds_scene
from data_tools.readers.archives import IMAGE_SUFFIXES, LITTER, open_image
from data_tools.readers.fields import first_few
from data_tools.readers.lookup import NO_PHOTOS, natural
from nvs_app.errors import NVSError, Refusal
from nvs_app.scenes.images import BROKEN

DEEP = (".png", ".tif", ".tiff")  # what depth maps of 16 bits are kept in
COPIES = re.compile(r"images_[248]")
DEPTH_NAME = re.compile(r"[._-]depth$", re.IGNORECASE)
# Cameras whose pictures of twice the width are whole spheres, where the picture itself does not say so.
PANORAMA = "a 360-degree panorama, cut it into perspective views first"
SPHERE_CAMERAS = re.compile(r"theta|insta360|gopro max|qoocam|xphase|360", re.IGNORECASE)


@dataclass
class PhotoFiles:
    """Photos in natural order of their names, and a line for each kind of file that was left out."""

    images: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def find_images(inputs: Sequence[Path], leave_out: Path | None = None) -> list[Path]:
    """The photos of :func:`find_photos` alone."""
    return find_photos(inputs, leave_out).images


def find_photos(inputs: Sequence[Path], leave_out: Path | None = None) -> PhotoFiles:
    """All photos in folders (searched within) and among listed files, in natural order of their names.

    Args:
        inputs: folders and files. Hidden folders, folders of depth maps, masks and their like, and folders inside that
            are scenes (as this project writes them) are not searched. Of a raw export of Polycam (``keyframes/``) the
            corrected photos are taken.
        leave_out: a folder whose images are not photos (masks).

    Raises:
        NVSError: an input that does not exist.
    """
    found: list[Path] = []
    other: dict[str, list[str]] = {}
    for path in inputs:
        if path.is_dir():
            # A link could show any file of this machine to whoever gets the scene.
            root = path.resolve()
            scenes = [mark.parent for name in ("transforms.json", ".sfm") for mark in path.rglob(name)]
            closed = [scene.resolve() for scene in scenes if scene.resolve() != root]
            closed += [leave_out.resolve()] if leave_out is not None else []
            inner = [p for p in path.rglob("*") if is_image_name(p) and not _hidden(p.relative_to(path))]
            real = {p: p.resolve() for p in inner}
            inner = [p for p in inner if real[p].is_relative_to(root)]
            inner = [p for p in inner if not any(map(real[p].is_relative_to, closed))]
            exports = _raw_exports(path)
            for image in sorted(inner, key=natural_key):
                if why := _no_photo(image, path, exports):
                    other.setdefault(why, []).append(image.relative_to(path).as_posix())
                else:
                    found.append(image)
        elif path.is_file():
            found.append(path)
        else:
            raise NVSError(f"{path}: no such file or folder", Refusal.NO_SCENE)
    found = list(dict.fromkeys(found))
    deep = [path for path in found if is_depth_map(path)]
    if deep and len(deep) < len(found):
        other["16-bit grey images, as depth maps are"] = [path.name for path in deep]
        found = [path for path in found if path not in set(deep)]
    return PhotoFiles(
        found, [f"{len(names)} images left out: {why} ({first_few(names)})" for why, names in other.items()]
    )


def refuse_depth_maps(images: Sequence[Path], label: str) -> None:
    """Raises NVSError where all images are 16-bit grey ones."""
    if images and all(map(is_depth_map, images)):
        why = "only 16-bit grey images, as depth maps are; give the photos (converted to 8 bits, if these are they)"
        raise NVSError(f"{label}: {why}", Refusal.NO_PHOTO)


def is_depth_map(path: Path) -> bool:
    """Whether a file is an image of one channel of 16 bits or more; False for what is no image."""
    if path.suffix.lower() not in DEEP:
        return False
    try:
        with open_image(path) as image:
            return image.mode in ("I", "F") or image.mode.startswith("I;16")
    except NVSError:
        return False


def is_panorama(image: Image.Image) -> bool:
    """Whether the header of a photo says that it is a panorama: by its XMP, or by its camera and a shape of 2:1."""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    text = xmp if isinstance(xmp, str) else bytes(xmp).decode("utf-8", "replace")
    if "GPano:" in text and "equirectangular" in text.lower():
        return True
    if image.width != 2 * image.height or image.format == "PNG":  # of a PNG, EXIF is known after its pixels alone
        return False
    try:
        exif = image.getexif()
    except BROKEN:
        return False
    return SPHERE_CAMERAS.search(f"{exif.get(0x010F, '')} {exif.get(0x0110, '')}") is not None


def check_photo(path: Path, label: str | None = None) -> tuple[int, int]:
    """The size (height, width) of a photo as stored, from its header. Raises NVSError for what is none."""
    with open_image(path, label) as image:
        if is_panorama(image):
            raise NVSError(f"{label or path.name}: {PANORAMA}", Refusal.PANORAMA)
        return image.height, image.width


def is_image_name(path: Path) -> bool:
    """A file that calls itself an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def natural_key(path: Path) -> list[Any]:
    """``img2`` before ``IMG10``: the order in which a camera numbers its photos."""
    return natural(str(path).lower())


def scene_root(folder: Path) -> Path:
    """Where the content of an unpacked archive lies: the folder itself, or the single one inside it, as is common."""
    for _ in range(8):
        inner = [path for path in folder.iterdir() if not path.name.startswith(".")]
        if holds_scene(folder) or len(inner) != 1 or not inner[0].is_dir():
            break
        folder = inner[0]
    return folder


def labels(images: Sequence[Path], inputs: Sequence[Path]) -> list[str]:
    """What each photo is called: its path below the folder that was given; with that folder's name (and number) where
    two are called alike."""
    folders = [path for path in inputs if path.is_dir()]
    homes = [next((n for n, folder in enumerate(folders) if path.is_relative_to(folder)), None) for path in images]
    own = [p.name if n is None else p.relative_to(folders[n]).as_posix() for p, n in zip(images, homes)]
    for more in (
        lambda path, n: path.parent.name if n is None else folders[n].resolve().name,
        lambda path, n: os.path.dirname(os.path.abspath(path)) if n is None else f"{n + 1}",
    ):
        counts = Counter(own)
        own = [f"{more(path, n)}/{name}" if counts[name] > 1 else name for path, n, name in zip(images, homes, own)]
    return own


def masks_of(masks: Path, images: Sequence[Path], names: Sequence[str]) -> list[Path | None]:
    """The mask of each photo: by the longest end of its path below the input that has one, at last by its name alone;
    None where there is none.

    Args:
        masks: the folder of masks.
        images, names: the photos, and what :func:`labels` calls them.

    Raises:
        NVSError: a mask fits two photos.
    """
    found: list[Path | None] = []
    used: dict[Path, str] = {}
    for image, name in zip(images, names):
        parts = Path(name).parent.parts
        places = (masks.joinpath(*parts[start:]) for start in range(len(parts) + 1))
        mask = next((file for place in places if (file := _mask_in(place, image)) is not None), None)
        if mask is not None and mask in used:
            what = f"{masks.name}/{mask.relative_to(masks).as_posix()} fits {used[mask]} and {name}"
            raise NVSError(f"{what}; put masks into folders named as the photos' are")
        if mask is not None:
            used[mask] = name
        found.append(mask)
    return found


def _mask_in(folder: Path, photo: Path) -> Path | None:
    names = (f"{photo.stem}.png", f"{photo.name}.png", photo.name, f"{photo.stem}.jpg")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _no_photo(image: Path, root: Path, exports: dict[Path, Path]) -> str:
    """Why an image below ``root`` is no photo, by the names of its folders and its own; empty where it is one."""
    at = image.relative_to(root)
    for number, part in enumerate(at.parts[:-1]):
        if NO_PHOTOS.fullmatch(part):
            return f"{part}/ holds no photos"
        if COPIES.fullmatch(part) and root.joinpath(*at.parts[:number], "images").is_dir():
            return f"{part}/ holds copies of images/"
    if DEPTH_NAME.search(image.stem):
        return "their names say depth"
    for folder, kept in exports.items():
        if image.is_relative_to(folder) and not image.is_relative_to(kept):
            return f"{kept.name}/ holds the photos"
    return ""


def _raw_exports(root: Path) -> dict[Path, Path]:
    """Raw exports of Polycam in a folder -> the folder of their photos: the corrected ones, where there are any."""
    found: dict[Path, Path] = {}
    for frames in [root, *root.rglob("keyframes")]:
        if frames.name == "keyframes" and any((frames / name).is_dir() for name in ("cameras", "corrected_cameras")):
            places = (frames / "corrected_images", frames / "images")
            kept = next(
                (place for place in places if place.is_dir() and any(map(is_image_name, place.iterdir()))), None
            )
            if kept is not None:
                found[frames if frames == root else frames.parent] = kept
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part in LITTER for part in path.parts)
