"""A scene: image files with their cameras, on disk and in memory.

scene = open_scene("captures/chair")                    # data_tools.readers
context = scene.load([0, 8, 16], image_hw=(256, 256))   # PosedImages
scene.save("scenes/chair")                              # a nerfstudio transforms.json beside its images
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nvs_app.atomic_io import atomic_write
from nvs_app.errors import NVSError, writing
from nvs_app.geometry.cameras import Cameras, crop_resize, crop_resize_cameras, opencv_to_opengl
from nvs_app.scenes.images import Lens, read_image
from nvs_app.scenes.posed import PosedImages

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Scene:
    """Posed images whose pixels stay on disk until :meth:`load`.

    Attributes:
        name: for people and file names.
        root: the folder of the scene.
        image_paths: n image files.
        c2w: OpenCV axes, float64 on the CPU, since map coordinates need it; world units of the capture.
        fxfycxcy: pinhole intrinsics in pixels of the stored image (after undistortion, if any).
        image_hws: stored sizes (height, width), of turned images after that.
        split: "train", "val", "test" or None for each view.
        lenses: lens distortion of each view, removed when loading; empty where no view has any.
        encoded: the bytes of each image file where they are not on disk (a frame of a video, of an archive);
            empty otherwise. The image paths are then only names.
        orientations: how each stored image is turned before anything else, an EXIF orientation (1: not at all), since
            its camera is that of the turned image; empty where none is.
        notes: what the reader assumed or left out, a line each, for people.
    """

    name: str
    root: Path
    image_paths: list[Path]
    c2w: Float[Tensor, "n 4 4"]
    fxfycxcy: Float[Tensor, "n 4"]
    image_hws: Int[Tensor, "n 2"]
    split: list[str | None]
    lenses: tuple[Lens | None, ...] = ()
    encoded: tuple[bytes, ...] = ()
    orientations: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.image_paths)
        counts = (len(self.c2w), len(self.fxfycxcy), len(self.image_hws), len(self.split), len(self.lenses) or n)
        counts = (*counts, len(self.encoded) or n, len(self.orientations) or n)
        if n == 0 or any(count != n for count in counts):
            what = "cameras, sizes, splits, lenses, bytes, orientations"
            raise ValueError(f"Scene {self.name}: {n} image paths, but {counts} {what}")

    def __len__(self) -> int:
        return len(self.image_paths)

    @property
    def n(self) -> int:
        """The number of views."""
        return len(self.image_paths)

    def cameras(self, indices: Sequence[int] | None = None, image_hw: tuple[int, int] | None = None) -> Cameras:
        """The cameras that :meth:`load` would return, batch shape [v], without reading any image."""
        views = [self._camera(index) for index in self._checked(indices)]
        if image_hw is not None:
            views = [crop_resize_cameras(camera, image_hw) for camera in views]
        self._check_sizes(views)
        return Cameras.stack(views)

    def load(
        self,
        indices: Sequence[int] | None = None,
        image_hw: tuple[int, int] | None = None,
        background: Sequence[float | int] = (1.0, 1.0, 1.0),
    ) -> PosedImages:
        """Read views with their cameras, cropped and resized together.

        Args:
            indices: view indices, in any order; all views unless given.
            image_hw: (height, width) wanted: a centred crop, see ``crop_resize``. None keeps the stored size,
                which must then be the same for all views read.
            background: RGB in [0, 1] behind transparent pixels.

        Returns:
            Float32 RGB in [0, 1], [v, 3, H, W], and cameras [v], poses float64, on the CPU, in the scene's own frame.

        Raises:
            NVSError: an index out of range, sizes that differ, an image that is missing or broken.
        """
        indices = self._checked(indices)
        cameras = self.cameras(indices, image_hw)
        images = torch.empty(len(indices), 3, *cameras.image_hw)
        inference = torch.is_inference_mode_enabled()  # a mode of each thread: those below must be in the caller's

        def read(slot: int) -> None:
            index = indices[slot]
            image = self.read(index, background)
            camera = self._camera(index)
            if tuple(image.shape[-2:]) != camera.image_hw:
                raise NVSError(
                    f"{self._label(index)}: the image is {image.shape[-1]}x{image.shape[-2]}, it was"
                    f" {camera.image_hw[1]}x{camera.image_hw[0]} when the scene was opened; open it again"
                )
            with torch.inference_mode(inference):
                images[slot], _ = crop_resize(image, camera, cameras.image_hw)

        # Decoding releases the interpreter's lock; each thread holds one full-size image at a time.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for _ in pool.map(read, range(len(indices))):
                pass
        return PosedImages(images, cameras)

    def read(self, index: int, background: Sequence[float | int] = (1.0, 1.0, 1.0)) -> Float[Tensor, "3 h w"]:
        """One image as its pinhole camera sees it: turned, undistorted, float32 RGB in [0, 1] at the stored size.
        Raises NVSError where it is missing or broken."""
        lens = self.lenses[index] if self.lenses else None
        data = self.encoded[index] if self.encoded else None
        orientation = self.orientations[index] if self.orientations else 1
        return read_image(self.image_paths[index], background, lens, self._label(index), data, orientation)

    def copies(self, index: int) -> bool:
        """Whether an image may be saved as the bytes it has: not where it is turned, or has a lens that a
        transforms.json cannot hold."""
        turned = self.orientations and self.orientations[index] != 1
        return not turned and _keeps_lens(self.lenses[index] if self.lenses else None)

    def subset(self, indices: Sequence[int]) -> Scene:
        """The scene of some of the views, in the order given.

        Raises:
            NVSError: no index, or one out of range.
        """
        chosen = self._checked(indices)
        return replace(
            self,
            image_paths=[self.image_paths[i] for i in chosen],
            c2w=self.c2w[chosen],
            fxfycxcy=self.fxfycxcy[chosen],
            image_hws=self.image_hws[chosen],
            split=[self.split[i] for i in chosen],
            lenses=tuple(self.lenses[i] for i in chosen) if self.lenses else (),
            encoded=tuple(self.encoded[i] for i in chosen) if self.encoded else (),
            orientations=tuple(self.orientations[i] for i in chosen) if self.orientations else (),
        )

    def save(self, folder: str | Path, copy_images: bool = True) -> Path:
        """Write the scene as a nerfstudio ``transforms.json`` and its images; it reads back identical.

        Everything is written under a temporary name and renamed at the end, so that a folder is either absent
        or whole. The image files are copied byte for byte, with the coefficients of OpenCV's distortion; a
        image with any other lens, or one that is to be turned, is written as it is read, as a PNG (transparency on
        white).

        Args:
            folder: where to write; with ``copy_images`` it must not exist yet, or be empty.
            copy_images: False writes only the ``transforms.json`` (replacing one); the images must then lie
                inside ``folder`` already.

        Returns:
            The folder.
        """
        folder = Path(folder)
        if not copy_images:
            return self._save_beside(folder)
        names = self._copy_names()
        with scene_folder(folder) as temporary:
            for index, name in enumerate(names):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                self.save_image(index, temporary / name, self.copies(index))
            _write_json(temporary / "transforms.json", self._transforms(names))
        return folder

    def save_image(self, index: int, path: Path, copy: bool) -> None:
        """Write one image, as the bytes it has or as it is read."""
        if not copy:
            pixels = self.read(index)
            rows = (pixels * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
            if not cv2.imwrite(str(path), np.ascontiguousarray(rows[:, :, ::-1])):
                raise NVSError(f"{path}: cannot be written")
        elif self.encoded:
            path.write_bytes(self.encoded[index])
        else:
            shutil.copyfile(self.image_paths[index], path)

    def _save_beside(self, folder: Path) -> Path:
        if self.encoded or not all(map(self.copies, range(len(self)))):
            raise NVSError(f"{folder}: images must be extracted, turned or undistorted; save with copy_images=True")
        names = []
        for path in self.image_paths:
            name = inside(path, folder)
            if name is None:
                raise NVSError(f"{folder}: {path} lies outside of it; save with copy_images=True")
            names.append(name)
        with atomic_write(folder / "transforms.json") as temporary:
            _write_json(temporary, self._transforms(names))
        return folder

    def _checked(self, indices: Sequence[int] | None) -> list[int]:
        checked = list(range(len(self))) if indices is None else [int(index) for index in indices]
        if not checked:
            raise NVSError(f"scene {self.name}: no views asked for")
        for index in checked:
            if not 0 <= index < len(self):
                raise NVSError(f"scene {self.name}: view {index} does not exist, expected 0 to {len(self) - 1}")
        return checked

    def _check_sizes(self, views: list[Cameras]) -> None:
        sizes = sorted({camera.image_hw for camera in views})
        if len(sizes) > 1:
            shown = ", ".join(f"{height}x{width}" for height, width in sizes[:4])
            raise NVSError(f"scene {self.name}: images differ in size ({shown}), give image_hw (height width)")

    def _camera(self, index: int) -> Cameras:
        height, width = self.image_hws[index].tolist()
        return Cameras(self.c2w[index], self.fxfycxcy[index], (height, width))

    def _label(self, index: int) -> str:
        name = inside(self.image_paths[index], self.root)
        return f"{self.name}/{name}" if name else str(self.image_paths[index])

    def _copy_names(self) -> list[str]:
        """Where each image goes under the saved folder: as under the root, else images/."""
        names = [
            inside(path, self.root) or f"images/{index:05d}_{path.name}" for index, path in enumerate(self.image_paths)
        ]
        return [
            name if self.copies(index) else f"images/{index:05d}_{Path(name).stem}.png"
            for index, name in enumerate(names)
        ]

    def _transforms(self, names: list[str]) -> dict:
        """The content of a nerfstudio transforms.json whose frames have the file paths ``names``."""
        poses = opencv_to_opengl(self.c2w).tolist()
        frames = []
        for index, name in enumerate(names):
            frame = {"file_path": name, **self._intrinsics(index), "transform_matrix": poses[index]}
            frames.append(frame)
        shared = {k: v for k, v in self._intrinsics(0).items() if all(f.get(k) == v for f in frames)}
        content: dict = {"camera_model": "OPENCV"}
        # All or nothing: nerfstudio takes a value from the top or from the frames, not some of each.
        if len(shared) == len(self._intrinsics(0)) and all(len(f) == len(frames[0]) for f in frames):
            content.update(shared)
            frames = [{k: v for k, v in frame.items() if k not in shared} for frame in frames]
        content["frames"] = frames
        for split in SPLITS:
            listed = [name for name, own in zip(names, self.split) if own == split]
            if listed:
                content[f"{split}_filenames"] = listed
        if "test_filenames" in content:  # nerfstudio validates on "val" while it trains, and stops without it
            content.setdefault("val_filenames", content["test_filenames"])
        return content

    def _intrinsics(self, index: int) -> dict[str, float | int]:
        lens = self.lenses[index] if self.lenses and self.copies(index) else None
        fx, fy, cx, cy = lens.fxfycxcy if lens else self.fxfycxcy[index].tolist()
        height, width = self.image_hws[index].tolist()
        values = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height}
        if lens:
            values.update(zip(("k1", "k2", "p1", "p2", "k3"), lens.coefficients))
        return values


@contextlib.contextmanager
def scene_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write a scene to, which becomes `folder`, absent or empty, when the block ends well; else
    it is removed. Raises NVSError, also for images that are gone."""
    check_empty(folder)
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    with writing(folder):
        temporary.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        os.replace(temporary, folder)
    except FileNotFoundError as error:
        raise NVSError(f"{error.filename}: the image is gone; nothing was saved in {folder}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_empty(folder: Path) -> None:
    """Raises NVSError where something is in a folder that is to be written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise NVSError(f"{folder}: exists and is not empty; choose another folder or remove it")


def _keeps_lens(lens: Lens | None) -> bool:
    """Whether a transforms.json of type OPENCV can hold it."""
    return lens is None or (lens.model == "OPENCV" and len(lens.coefficients) <= 5)


def inside(path: Path, folder: Path) -> str | None:
    """``path`` relative to ``folder`` with forward slashes, or None where it lies elsewhere."""
    path, folder = path.resolve(), folder.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
