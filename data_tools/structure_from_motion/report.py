"""What a run from images to a scene is asked, and what it answers: see `photos`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.structure_from_motion.photo_files import find_images
from data_tools.structure_from_motion.prepare import Photo
from data_tools.structure_from_motion.video import DEFAULT_FRAMES, is_video
from nvs_app.errors import NVSError


@dataclass(frozen=True)
class PhotoOptions:
    """How images become a scene.

    Attributes:
        max_size: longer side of the images, pixels; None: 1600, less for more than 80 photos.
        frames: frames taken of a video.
        masks: folder with a mask for each photo, white is the subject: the images become transparent elsewhere
            and render on white. Photos that are transparent themselves need none.
    """

    max_size: int | None = None
    frames: int = DEFAULT_FRAMES
    masks: Path | None = None

    def __post_init__(self) -> None:
        if self.max_size is not None and not 64 <= self.max_size <= 8192:
            raise NVSError(f"max size {self.max_size}: expected 64 to 8192 pixels")
        if not 3 <= self.frames <= 1000:
            raise NVSError(f"frames {self.frames}: expected 3 to 1000")
        if self.masks is not None and not self.masks.is_dir():
            raise NVSError(f"masks {self.masks}: no such folder")


@dataclass(frozen=True)
class PhotoReport:
    """What was found; also written as ``report.json``.

    Attributes:
        folder: the scene.
        registered: names of the photos that have cameras, as the user knows them.
        unregistered: name -> why it has none.
        skipped: files that are no photos -> why.
        points: sparse points. reprojection_error: mean, pixels of the images as used.
        strategy: how pairs of photos were chosen. cameras: what was assumed about the lenses.
        seconds: by stage. key: of the input and options. notes: what was assumed, changed or left out on the way.
    """

    folder: str
    registered: list[str]
    unregistered: dict[str, str]
    skipped: dict[str, str]
    points: int
    reprojection_error: float
    strategy: str
    cameras: str
    seconds: dict[str, float] = field(default_factory=dict)
    key: str = ""
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report for people."""
        count = len(self.registered) + len(self.unregistered)
        total = sum(self.seconds.values())
        found = [
            (
                f"{self.folder}: {len(self.registered)} of {count} photos have cameras, {self.points} points,"
                f" {self.reprojection_error:.2f} px mean error, {total:.0f} s"
            ),
            f"{self.cameras}; {self.strategy}",
            *self.notes,
        ]
        found += [f"no camera for {name}: {why}" for name, why in self.unregistered.items()]
        return found + [f"not used {name}: {why}" for name, why in self.skipped.items()]


def input_key(paths: Sequence[Path], options: PhotoOptions) -> str:
    """A digest of the input files (names, sizes, times of change) and the options that matter."""
    listed: list[tuple[str, Path]] = []
    for path in (*paths, *([options.masks] if options.masks else [])):
        if not path.exists():
            raise NVSError(f"{path}: no such file or folder")
        if path.is_dir():
            found = find_images([path], options.masks if path != options.masks else None)
            found += sorted(p for p in path.rglob("*") if is_video(p))
            listed += [(p.relative_to(path).as_posix(), p) for p in found]
        else:
            listed.append((path.name, path))
    facts = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in listed]
    text = json.dumps([facts, options.max_size, options.frames, options.masks is not None])
    return hashlib.sha256(text.encode()).hexdigest()


def camera_words(photos: Sequence[Photo]) -> str:
    """What was assumed about the lenses."""
    count = len({photo.camera for photo in photos})
    known = sum(photo.has_focal for photo in photos)
    of = "one camera" if count == 1 else f"{count} cameras (by EXIF and size)"
    focal = "focal length from EXIF, refined" if known == len(photos) else "no EXIF, focal length estimated"
    return f"{of}, {focal if known in (0, len(photos)) else f'focal length from EXIF in {known} photos, refined'}"
