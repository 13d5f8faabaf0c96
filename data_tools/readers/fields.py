"""Checked fields of camera files: every malformed value becomes one line that says where, what and what instead.

scene/transforms.json: frame 12 (images/012.png): transform_matrix is 3x4, expected 4x4
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch

from data_tools.readers.lookup import IMAGES, ImageFiles, one_line
from nvs_app.errors import NVSError, Refusal
from nvs_app.geometry.cameras import LARGEST
from nvs_app.scenes.images import Lens, image_header, same_shape
from nvs_app.scenes.scene import Scene

# Files rounded to three digits pass and are made orthonormal; a scaled or sheared matrix does not.
ROTATION_TOLERANCE = 0.02
MAX_VIEWS = 5000  # of a scene; of more, an even choice is taken

# What a frame may lack without the whole scene being refused, and how it is told.
LEFT_OUT = {
    Refusal.NO_IMAGE: "the image is not there",
    Refusal.BAD_IMAGE: "the image cannot be read",
    Refusal.NO_POSE: "the pose is absent, not finite or zero",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """A frame (or the top) of a camera file, for error messages and for reading its fields."""

    label: str
    values: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", one_line(self.label))

    @property
    def name(self) -> str:
        """What the frame is called where it is listed as left out: its image, else where it stands."""
        name = self.values.get("file_path")
        return name if isinstance(name, str) and name.strip() else self.label.rpartition(": ")[2]

    def fail(self, message: str, code: str = "") -> NoReturn:
        raise NVSError(f"{self.label}: {message}", code)

    def number(self, key: str, positive: bool = False) -> float:
        """A finite number; positive where asked."""
        if key not in self.values:
            self.fail(f"{key} is missing")
        value = self.values[key]
        kind = "a positive number" if positive else "a number"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(f"{key} is {shown(value)}, expected {kind}")
        if abs(value) > LARGEST or not math.isfinite(value) or (positive and value <= 1e-9):
            self.fail(f"{key} is {shown(value)}, expected {kind}")
        return float(value)

    def intrinsics(self) -> tuple[float, float, float, float]:
        """The numbers fx, fy, cx, cy."""
        fx, fy = self.number("fx", positive=True), self.number("fy", positive=True)
        return fx, fy, self.number("cx"), self.number("cy")

    def pose(self, key: str) -> tuple[np.ndarray, float]:
        """A rigid 4x4 matrix (float64) of a 3x4 or 4x4 one, and the scale of its 3x3 part, which is divided out there.

        The rotation is made exactly orthonormal if it is so nearly. A matrix that is absent, not finite or singular
        has the code NO_POSE, one that mirrors or shears BAD_POSE.
        """
        value = self.values.get(key)
        if value is None:
            self.fail(f"{key} is missing", Refusal.NO_POSE)
        rows = value if isinstance(value, list) else []
        if not rows or not all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows):
            self.fail(f"{key} is {_shape(value)}, expected 4x4", Refusal.BAD_POSE)
        if (len(rows), len(rows[0])) not in ((4, 4), (3, 4)):
            self.fail(f"{key} is {len(rows)}x{len(rows[0])}, expected 4x4", Refusal.BAD_POSE)
        for entry in (entry for row in rows for entry in row):
            if isinstance(entry, bool) or not isinstance(entry, (int, float)):
                self.fail(f"{key} holds {shown(entry)}, expected numbers", Refusal.BAD_POSE)
            if abs(entry) > LARGEST or not math.isfinite(entry):
                self.fail(f"{key} holds {shown(entry)}, expected finite numbers", Refusal.NO_POSE)
        matrix = np.eye(4)
        matrix[: len(rows)] = rows
        rotation = matrix[:3, :3]
        volume, longest = float(np.linalg.det(rotation)), float(np.linalg.norm(rotation))
        if abs(volume) <= 1e-9 * longest**3:
            self.fail(f"{key} is no rigid motion (its 3x3 part is singular), expected a rotation", Refusal.NO_POSE)
        if np.abs(matrix[3] - [0.0, 0.0, 0.0, 1.0]).max() > 1e-6:
            self.fail(f"{key} has the last row {matrix[3].tolist()}, expected [0, 0, 0, 1]", Refusal.BAD_POSE)
        if volume < 0:
            self.fail(
                f"{key} mirrors (the determinant of its 3x3 part is negative), expected a rotation", Refusal.BAD_POSE
            )
        scale = volume ** (1 / 3)
        error = np.abs(rotation @ rotation.T / scale**2 - np.eye(3)).max()
        if error > ROTATION_TOLERANCE:
            self.fail(f"{key} is no rigid motion (its 3x3 part is sheared), expected a rotation", Refusal.BAD_POSE)
        if abs(scale - 1.0) <= 0.5 * ROTATION_TOLERANCE:
            scale = 1.0  # rounding
        matrix[:3, :3] /= scale
        if max(error, abs(np.linalg.det(matrix[:3, :3]) - 1.0)) > 1e-5:
            left, _, right = np.linalg.svd(rotation)
            matrix[:3, :3] = left @ right
        return matrix, scale

    def pinhole(self, lens: Lens, image_hw: tuple[int, int]) -> tuple[float, float, float, float]:
        """What is left of a lens when its distortion is removed; refuses one that leaves nothing."""
        try:
            intrinsics = lens.pinhole(image_hw)
        except NVSError as error:
            self.fail(str(error), Refusal.BAD_CAMERA)
        if not all(math.isfinite(value) for value in intrinsics) or min(intrinsics[:2]) <= 0:
            self.fail(
                f"distortion {list(lens.coefficients)} cannot be removed, check k1, k2, k3, p1, p2", Refusal.BAD_CAMERA
            )
        return intrinsics


_WITHIN: ContextVar[Path | None] = ContextVar("the folder that no reader leaves", default=None)


@contextmanager
def kept_within(folder: Path | None) -> Iterator[None]:
    """Readers find images nowhere but in ``folder`` (None: as before), even where the camera file names others."""
    token = _WITHIN.set(folder or _WITHIN.get())
    try:
        yield
    finally:
        _WITHIN.reset(token)


def is_within(folder: Path) -> bool:
    """Whether readers may look into ``folder``, see :func:`kept_within`."""
    limit = _WITHIN.get()
    return limit is None or folder.resolve().is_relative_to(limit.resolve())


@dataclass
class SceneBuilder:
    """Collects checked frames and makes the Scene."""

    root: Path
    image_paths: list[Path] = field(default_factory=list)
    c2w: list[np.ndarray] = field(default_factory=list)
    fxfycxcy: list[tuple[float, ...]] = field(default_factory=list)
    image_hws: list[tuple[int, int]] = field(default_factory=list)
    split: list[str | None] = field(default_factory=list)
    lenses: list[Lens | None] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    orientations: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    name: str | None = None
    base: Path | None = None
    left_out: list[tuple[str, NVSError]] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base = self.base or self.root
        if not is_within(self.root):
            self.root = _WITHIN.get() or self.root
        self.files = ImageFiles(self.root, self.base)

    @contextmanager
    def frame(self, name: str) -> Iterator[None]:
        """Around a frame that is read: without its image or its pose it is left out; other faults refuse the scene."""
        try:
            yield
        except NVSError as error:
            if error.code not in LEFT_OUT:
                raise
            self.left_out.append((one_line(name, 80), error))

    def find_image(self, record: Record, name: str) -> Path:
        """The image that a camera file calls ``name``, see :mod:`data_tools.readers.lookup`."""
        found = self.files.find(name)
        if isinstance(found, Path):
            return found
        record.fail(*found)

    def pose(self, record: Record, key: str, world_to_camera: bool = False) -> np.ndarray:
        """:meth:`Record.pose` with its scale noted. A camera's position stays; of a world-to-camera matrix the
        translation is divided too, so that it does."""
        matrix, scale = record.pose(key)
        if scale != 1.0:
            self.scales.append(scale)
            matrix[:3, 3] /= scale if world_to_camera else 1.0
        return matrix

    def note(self, text: str) -> None:
        """Remember, once, what was assumed or left out."""
        if text not in self.notes:
            self.notes.append(text)

    def sampled(self, views: Sequence[T]) -> list[T]:
        """The views that are taken: all, or MAX_VIEWS of them, evenly spaced, with a note."""
        if len(views) <= MAX_VIEWS:
            return list(views)
        self.note(f"{len(views)} views: {MAX_VIEWS} of them taken, evenly spaced")
        return [views[index * len(views) // MAX_VIEWS] for index in range(MAX_VIEWS)]

    def inside(self, record: Record, path: Path) -> Path:
        """``path``, refused where it leads out of the scene's folder (by a link, say)."""
        found = Path(os.path.realpath(path))  # unlike Path.resolve it does not raise where links run in a circle
        if not found.is_relative_to(os.path.realpath(self.root)):
            record.fail(f"{path.name} leads out of the scene's folder; copy the image into it", Refusal.LEADS_OUT)
        if not found.is_file():
            record.fail(f"{path.name} is no file")  # a pipe, perhaps, whose reading would never end
        return found

    def add(
        self,
        record: Record,
        image_path: Path,
        c2w: np.ndarray,
        intrinsics: tuple[float, float, float, float],
        camera_hw: tuple[float, float] | None,
        split: str | None = None,
        coefficients: tuple[float, ...] | None = None,
        model: str = "OPENCV",
        data: bytes | None = None,
    ) -> None:
        """Add a frame whose ``intrinsics`` refer to ``camera_hw``; they are scaled to the stored image.

        Args:
            record: for error messages.
            image_path: the image file, or its name where ``data`` holds the bytes of the file.
            c2w: OpenCV axes, rigid.
            intrinsics: fx, fy, cx, cy in pixels of ``camera_hw``.
            camera_hw: the calibrated size (height, width); None means the stored image's.
            split: "train", "val", "test" or None.
            coefficients: of the lens ``model`` (see ``nvs_app.scenes.lens``); None for a pinhole.
            model: the lens model.
            data: the bytes of the image file where it is not on disk; for all frames of a scene or for none.
        """
        header = image_header(image_path, camera_hw, record.label, data)
        image_hw = header.image_hw
        if header.note:
            self.note(header.note)
        if camera_hw is not None:
            intrinsics = scale_intrinsics(record, intrinsics, camera_hw, image_hw)
        lens = None
        if coefficients is not None and (any(coefficients) or model != "OPENCV"):
            lens = Lens(intrinsics, coefficients, model)
            intrinsics = record.pinhole(lens, image_hw)
        if data is not None:
            self.encoded.append(data)
        self.image_paths.append(image_path)
        self.c2w.append(c2w)
        self.fxfycxcy.append(intrinsics)
        self.image_hws.append(image_hw)
        self.split.append(split)
        self.lenses.append(lens)
        self.orientations.append(header.orientation)

    def build(self) -> Scene:
        """The scene. Raises NVSError where no frame is left."""
        if not self.image_paths:
            raise self._nothing_left()
        self.notes += [*self.files.notes(), *self._summary()]
        return Scene(
            name=self.name or self.root.resolve().name,
            root=self.root,
            image_paths=self.image_paths,
            c2w=torch.from_numpy(np.stack(self.c2w)),
            fxfycxcy=torch.tensor(self.fxfycxcy, dtype=torch.float32),
            image_hws=torch.tensor(self.image_hws, dtype=torch.int64),
            split=self.split,
            lenses=tuple(self.lenses) if any(self.lenses) else (),
            encoded=tuple(self.encoded),
            orientations=tuple(self.orientations) if any(turned != 1 for turned in self.orientations) else (),
            notes=tuple(self.notes),
        )

    def _summary(self) -> Iterator[str]:
        """A note for each way in which frames were changed or left out."""
        if self.scales:
            low, high = min(self.scales), max(self.scales)
            shown = f"{low:.6g}" if high - low < 1e-3 * high else f"{low:.6g} to {high:.6g}"
            yield f"{len(self.scales)} rotations are scaled by {shown}; the scale is divided out"
        if turned := sum(orientation != 1 for orientation in self.orientations):
            yield f"{turned} images turned as their EXIF orientation says: their cameras are of the turned size"
        yield from self._lens_note()
        total = len(self.image_paths) + len(self.left_out)
        for code, why in LEFT_OUT.items():
            if names := [name for name, error in self.left_out if error.code == code]:
                yield f"{len(names)} of {total} frames left out: {why} ({first_few(names)})"

    def _lens_note(self) -> Iterator[str]:
        """Of each lens model, the fields of view before and after its distortion is removed, of the first view."""
        for model in dict.fromkeys(lens.model for lens in self.lenses if lens):
            index, lens = next((i, lens) for i, lens in enumerate(self.lenses) if lens and lens.model == model)
            yield lens.removal_words(self.image_hws[index])

    def _nothing_left(self) -> NVSError:
        if not self.left_out:
            return NVSError(f"{self.root.resolve().name}: holds no frame", Refusal.NO_IMAGE)
        first, count = self.left_out[0][1], len(self.left_out)
        others = f"; none of the {count} frames can be used" if count > 1 else ""
        return NVSError(f"{first}{others}", first.code)


def scale_intrinsics(
    record: Record,
    intrinsics: tuple[float, float, float, float],
    camera_hw: tuple[float, float],
    image_hw: tuple[int, int],
) -> tuple[float, float, float, float]:
    """Intrinsics of the stored image, which may be a resized copy of the calibrated one."""
    (camera_h, camera_w), (height, width) = camera_hw, image_hw
    if not same_shape(image_hw, camera_hw):
        record.fail(
            f"the image is {width}x{height} but its camera {camera_w:g}x{camera_h:g}: another shape,"
            " so the camera cannot belong to it",
            Refusal.BAD_CAMERA,
        )
    fx, fy, cx, cy = intrinsics
    factor_x, factor_y = width / camera_w, height / camera_h
    return fx * factor_x, fy * factor_y, cx * factor_x, cy * factor_y


def scene_label(path: Path) -> str:
    """``scene/transforms.json``: the camera file with its folder's name."""
    return f"{path.resolve().parent.name}/{path.name}"


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder by name, in order; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if IMAGES.search(path.name) and not path.name.startswith("."))


def inverse_rigid(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a rigid 4x4 matrix."""
    inverse = np.eye(4)
    inverse[:3, :3] = matrix[:3, :3].T
    inverse[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return inverse


def rotation_rows(w: float, x: float, y: float, z: float) -> list[list[float]]:
    """The rotation matrix of a unit quaternion."""
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


def first_few(names: Sequence[str], most: int = 3) -> str:
    """``a, b, c and 7 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shown(value: Any) -> str:
    """A value in an error message: short, whatever it is."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _shape(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
        return "rows of " + ", ".join(str(len(row)) for row in value[:5]) + " numbers"
    return shown(value)
