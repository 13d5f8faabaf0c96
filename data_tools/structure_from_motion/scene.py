"""From the result of structure from motion to a scene: pinhole images, up is up, the subject in the middle.

The frame: +z up, from the robust mean of the cameras' up vectors; the origin where the cameras look; +y the mean
direction of view made level; the mean camera at a distance of ``CAMERA_DISTANCE``. Cameras keep OpenCV's axes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from data_tools.structure_from_motion.job import SfMResult
from data_tools.structure_from_motion.prepare import Photo
from nvs_app.geometry.normalize import SimilarityTransform, normalize_context
from nvs_app.geometry.paths import focus_point
from nvs_app.scenes.scene import Scene

CAMERA_DISTANCE = 2.0  # as in object datasets, whose cameras stand 1.7 to 3.0 from an object in the unit cube


def upright_frame(c2w: Float[Tensor, "v 4 4"]) -> SimilarityTransform:
    """The transform from the frame of ``c2w`` to the one that the module describes, float64.

    Args:
        c2w: cameras of upright images (the top row of pixels is up), OpenCV axes, any frame and scale.
    """
    transform = normalize_context(c2w, "auto").to(torch.float64)
    focus = focus_point(transform.apply_c2w(c2w.double()))
    centred = SimilarityTransform(transform.scale.new_tensor(1.0), torch.eye(3, dtype=torch.float64), -focus)
    transform = centred.compose(transform)
    distance = transform.apply_c2w(c2w.double())[:, :3, 3].norm(dim=-1).median()
    factor = CAMERA_DISTANCE / distance.clamp_min(1e-9)
    enlarged = SimilarityTransform(factor, torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    return enlarged.compose(transform)


def write_scene(
    result: SfMResult,
    photos: Sequence[Photo],
    work: Path,
    folder: Path,
    name: str,
    tick: Callable[[int], None] | None = None,
) -> Scene:
    """Write undistorted images, ``transforms.json`` and ``sparse.ply`` into ``folder``.

    Args:
        result: cameras of some of the photos.
        photos: as prepared under ``work/images`` and ``work/masks``.
        work: the work folder.
        folder: created; what is in it is overwritten.
        name: of the scene.
        tick: called with the number of images written; may raise to stop.

    Returns:
        The scene as written.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    by_name = {photo.name: photo for photo in photos}
    chosen = [by_name[name] for name in result.registered]
    transform = upright_frame(torch.from_numpy(result.c2w))
    c2w = transform.apply_c2w(torch.from_numpy(result.c2w))

    def one(index: int) -> tuple[Path, list[float]]:
        return _undistort(chosen[index], result.lens[index], work, folder / "images")

    paths, intrinsics = [], []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for number, (path, fxfycxcy) in enumerate(pool.map(one, range(len(chosen)))):
            paths.append(path)
            intrinsics.append(fxfycxcy)
            if tick is not None:
                tick(number + 1)
    scene = Scene(
        name=name,
        root=folder,
        image_paths=paths,
        c2w=c2w,
        fxfycxcy=torch.tensor(intrinsics, dtype=torch.float32),
        image_hws=torch.tensor([photo.image_hw for photo in chosen]),
        split=[None] * len(chosen),
    )
    points = transform.apply_points(torch.from_numpy(result.xyz)).numpy()
    kept = result.track >= 3  # points seen in two photos only are mostly noise
    write_ply(folder / "sparse.ply", points[kept], result.rgb[kept])
    scene.save(folder, copy_images=False)
    return scene


def _undistort(photo: Photo, lens: np.ndarray, work: Path, folder: Path) -> tuple[Path, list[float]]:
    """One image as a pinhole camera sees it, cut to valid pixels; the size stays. Returns file and fxfycxcy."""
    focal, cx, cy, radial = (float(value) for value in lens)
    height, width = photo.image_hw
    pixels = np.asarray(Image.open(work / "images" / photo.name))
    # OpenCV puts the first pixel's centre at (0, 0), COLMAP and we at (0.5, 0.5).
    distorted = np.array([[focal, 0.0, cx - 0.5], [0.0, focal, cy - 0.5], [0.0, 0.0, 1.0]])
    coefficients = np.array([radial, 0.0, 0.0, 0.0])
    pinhole, _ = cv2.getOptimalNewCameraMatrix(distorted, coefficients, (width, height), 0.0)
    maps = cv2.initUndistortRectifyMap(distorted, coefficients, np.eye(3), pinhole, (width, height), cv2.CV_32FC1)

    def warp(image: np.ndarray) -> np.ndarray:
        return cv2.remap(image, *maps, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    pixels = warp(pixels)
    path = folder / photo.name
    if photo.masked:
        mask = warp(np.asarray(Image.open(work / "masks" / f"{photo.name}.png")))
        path = folder / f"{Path(photo.name).stem}.png"
        Image.fromarray(np.dstack([pixels, mask])).save(path)
    else:
        Image.fromarray(pixels).save(path, quality=95, subsampling=0)
    return path, [pinhole[0, 0], pinhole[1, 1], pinhole[0, 2] + 0.5, pinhole[1, 2] + 0.5]


def write_ply(path: Path, xyz: Float[np.ndarray, "n 3"], rgb: UInt8[np.ndarray, "n 3"]) -> None:
    """A coloured point cloud as binary PLY."""
    vertices = np.zeros(len(xyz), dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])  # packed, as the header below says
    vertices["xyz"], vertices["rgb"] = xyz, rgb
    fields = [f"property float {axis}" for axis in "xyz"]
    fields += [f"property uchar {color}" for color in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}", *fields, "end_header\n"]
    path.write_bytes("\n".join(header).encode() + vertices.tobytes())
