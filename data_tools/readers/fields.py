"""Checked fields of camera files: every malformed value becomes one line that says where, what and what instead.

scene/transforms.json: frame 12 (images/012.png): transform_matrix is 3x4, expected 4x4
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch

from nvs_app.errors import NVSError, whole_characters
from nvs_app.scenes.images import Lens, image_size
from nvs_app.scenes.scene import Scene

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG", ".JPEG")
# Files rounded to three digits pass and are made orthonormal; a scaled or sheared matrix does not.
ROTATION_TOLERANCE = 0.02
# Beyond this a float32 camera has no meaning left.
LARGEST = 1e15
MAX_VIEWS = 5000  # of a scene; of more, an even choice is taken
MAX_JSON_BYTES = 64 << 20
# Each may become an object of a hundred bytes. A frame has about fifty.
MAX_JSON_VALUES = 4_000_000

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """A frame (or the top) of a camera file, for error messages and for reading its fields."""

    label: str
    values: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", one_line(self.label))

    def fail(self, message: str) -> NoReturn:
        raise NVSError(f"{self.label}: {message}")

    def number(self, key: str, positive: bool = False) -> float:
        """A finite number; positive where asked."""
        if key not in self.values:
            self.fail(f"{key} is missing")
        value = self.values[key]
        kind = "a positive number" if positive else "a number"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(f"{key} is {_shown(value)}, expected {kind}")
        if abs(value) > LARGEST or not math.isfinite(value) or (positive and value <= 1e-9):
            self.fail(f"{key} is {_shown(value)}, expected {kind}")
        return float(value)

    def pose(self, key: str) -> np.ndarray:
        """A 4x4 rigid matrix, float64; the rotation is made exactly orthonormal if it is so nearly."""
        if key not in self.values:
            self.fail(f"{key} is missing")
        value = self.values[key]
        rows = value if isinstance(value, list) else []
        if not rows or not all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows):
            self.fail(f"{key} is {_shape(value)}, expected 4x4")
        if (len(rows), len(rows[0])) != (4, 4):
            self.fail(f"{key} is {len(rows)}x{len(rows[0])}, expected 4x4")
        for entry in (entry for row in rows for entry in row):
            if isinstance(entry, bool) or not isinstance(entry, (int, float)):
                self.fail(f"{key} holds {_shown(entry)}, expected numbers")
            if abs(entry) > LARGEST or not math.isfinite(entry):
                self.fail(f"{key} holds {_shown(entry)}, expected finite numbers")
        matrix = np.array(rows, dtype=np.float64)
        if np.abs(matrix[3] - [0.0, 0.0, 0.0, 1.0]).max() > 1e-6:
            self.fail(f"{key} has the last row {matrix[3].tolist()}, expected [0, 0, 0, 1]")
        rotation = matrix[:3, :3]
        error = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if error > ROTATION_TOLERANCE:
            self.fail(f"{key} is no rigid motion (its 3x3 part is singular, scaled or sheared), expected a rotation")
        if np.linalg.det(rotation) < 0:
            self.fail(f"{key} mirrors (the determinant of its 3x3 part is -1), expected a rotation")
        if error > 1e-5:
            left, _, right = np.linalg.svd(rotation)
            matrix[:3, :3] = left @ right
        return matrix

    def pinhole(self, lens: Lens, image_hw: tuple[int, int]) -> tuple[float, float, float, float]:
        """What is left of a lens when its distortion is removed; refuses one that leaves nothing."""
        try:
            intrinsics = lens.pinhole(image_hw)
        except NVSError as error:
            self.fail(str(error))
        if not all(math.isfinite(value) for value in intrinsics) or min(intrinsics[:2]) <= 0:
            self.fail(f"distortion {list(lens.coefficients)} cannot be removed, check k1, k2, k3, p1, p2")
        return intrinsics


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
    notes: list[str] = field(default_factory=list)
    name: str | None = None

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
            record.fail(f"{path.name} leads out of the scene's folder; copy the image into it")
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
            place: for error messages.
            image_path: the image file, or its name where ``data`` holds the bytes of the file.
            c2w: OpenCV axes, rigid.
            intrinsics: fx, fy, cx, cy in pixels of ``camera_hw``.
            camera_hw: the calibrated size (height, width); None means the stored image's.
            split: "train", "val", "test" or None.
            coefficients: of the lens ``model`` (see ``nvs_app.scenes.lens``); None for a pinhole.
            model: the lens model.
            data: the bytes of the image file where it is not on disk; for all frames of a scene or for none.
        """
        image_hw = image_size(image_path, record.label, data)
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

    def build(self) -> Scene:
        return Scene(
            name=self.name or self.root.resolve().name,
            root=self.root,
            image_paths=self.image_paths,
            c2w=torch.from_numpy(np.stack(self.c2w).astype(np.float32)),
            fxfycxcy=torch.tensor(self.fxfycxcy, dtype=torch.float32),
            image_hws=torch.tensor(self.image_hws, dtype=torch.int64),
            split=self.split,
            lenses=tuple(self.lenses) if any(self.lenses) else (),
            encoded=tuple(self.encoded),
            notes=tuple(self.notes),
        )


def scale_intrinsics(
    record: Record,
    intrinsics: tuple[float, float, float, float],
    camera_hw: tuple[float, float],
    image_hw: tuple[int, int],
) -> tuple[float, float, float, float]:
    """Intrinsics of the stored image, which may be a resized copy of the calibrated one."""
    (camera_h, camera_w), (height, width) = camera_hw, image_hw
    if abs((width / height) / (camera_w / camera_h) - 1.0) > 0.02:
        record.fail(
            f"the image is {width}x{height} but its camera {camera_w:g}x{camera_h:g}: another shape,"
            " so the camera cannot belong to it"
        )
    fx, fy, cx, cy = intrinsics
    factor_x, factor_y = width / camera_w, height / camera_h
    return fx * factor_x, fy * factor_y, cx * factor_x, cy * factor_y


def scene_label(path: Path) -> str:
    """``scene/transforms.json``: the camera file with its folder's name."""
    return f"{path.resolve().parent.name}/{path.name}"


def load_json(path: Path) -> Any:
    """The content of a JSON file of at most 64 MiB."""
    label = scene_label(path)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise NVSError(f"{label}: larger than {MAX_JSON_BYTES >> 20} MiB, so no camera file")
        return parse_json(label, path.read_bytes())
    except OSError as error:
        raise NVSError(f"{label}: cannot be read ({error.strerror or error})") from error
    except json.JSONDecodeError as error:
        raise NVSError(f"{label}: not valid JSON ({error.msg} in line {error.lineno})") from error
    except (ValueError, RecursionError) as error:
        raise NVSError(f"{label}: not valid JSON ({type(error).__name__})") from error


def parse_json(label: str, data: bytes, most: int = MAX_JSON_VALUES) -> Any:
    """What JSON bytes hold; refused before it is parsed where its values would fill the memory.

    Names that no file can have (halves of characters) get a question mark. Raises NVSError, and ValueError and
    RecursionError where the bytes are no JSON."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > most:
        raise NVSError(f"{label}: holds more than {most:,} values, so no camera file")
    content = json.loads(data.decode("utf-8-sig"))
    return _whole_characters(content) if b"\\ud" in data or b"\\uD" in data else content


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, list):
        return [_whole_characters(entry) for entry in value]
    if isinstance(value, dict):
        return {whole_characters(key): _whole_characters(entry) for key, entry in value.items()}
    return value


def frame_records(label: str, frames: Any, what: str = "frames") -> list[Record]:
    """One Place for each frame; refuses anything but a list of one object or more."""
    if not isinstance(frames, list):
        raise NVSError(f"{label}: {what} is {_shown(frames)}, expected a list")
    if not frames:
        raise NVSError(f"{label}: {what} is empty, expected one frame or more")
    records = []
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise NVSError(f"{label}: frame {index} is {_shown(frame)}, expected an object")
        name = frame.get("file_path")
        records.append(Record(f"{label}: frame {index}" + (f" ({name})" if isinstance(name, str) else ""), frame))
    return records


def image_path(record: Record, builder: SceneBuilder) -> Path:
    """The image that a frame's ``file_path`` names, see :func:`find_image`."""
    name = record.values.get("file_path")
    if name is None:
        record.fail("file_path is missing")
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        record.fail(f"file_path is {_shown(name)}, expected the name of an image file")
    return find_image(record, builder, name)


def find_image(record: Record, builder: SceneBuilder, name: str) -> Path:
    """An image inside the scene's folder: ``name``, with a known suffix added where it has none.

    Where ``images/`` lacks it, the same name in a down-scaled copy ``images_2/``, ``images_4/`` or ``images_8/``
    is taken and noted; :meth:`SceneBuilder.add` scales the intrinsics.
    """
    root = Path(os.path.realpath(builder.root))
    if "\0" in name:
        record.fail("the image's name holds a zero byte")
    for candidate in dict.fromkeys((name, name.replace("\\", "/"))):
        if path := _inside(record, root, candidate, ("", *SUFFIXES)):
            return path
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if "images" in parts[:-1]:
        at = parts.index("images")
        for factor in (2, 4, 8):
            smaller = PurePosixPath(*parts[:at], f"images_{factor}", *parts[at + 1 :])
            stem = smaller.with_suffix("")
            if path := _inside(record, root, str(smaller), ("",)) or _inside(record, root, str(stem), SUFFIXES):
                builder.note(f"images missing in images/ read from images_{factor}/, intrinsics scaled to them")
                return path
    record.fail("the image file does not exist")


def _inside(record: Record, root: Path, name: str, suffixes: tuple[str, ...]) -> Path | None:
    for suffix in suffixes:
        path = Path(os.path.realpath(root / f"{name}{suffix}"))
        # Also for links: a scene that came from elsewhere must not show files of this machine.
        if not path.is_relative_to(root):
            record.fail("file_path leads out of the scene's folder; copy the image into it")
        try:
            if path.is_file():
                return path
        except OSError:  # a name too long for the file system
            return None
    return None


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder by name, in order; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    known = {suffix.lower() for suffix in SUFFIXES}
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in known and not path.name.startswith("."))


def inverse_rigid(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a rigid 4x4 matrix."""
    inverse = np.eye(4)
    inverse[:3, :3] = matrix[:3, :3].T
    inverse[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return inverse


def one_line(text: str, longest: int = 300) -> str:
    """``text`` from a stranger's file as part of a message: one line, printable, not too long."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= longest else f"{text[: longest // 2]}...{text[-longest // 2 :]}"


def _shown(value: Any) -> str:
    """A value in an error message: short, whatever it is."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _shape(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
        return "rows of " + ", ".join(str(len(row)) for row in value[:5]) + " numbers"
    return _shown(value)
