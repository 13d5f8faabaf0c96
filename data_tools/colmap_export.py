"""A scene as a COLMAP project: ``images/`` and ``sparse/0/{cameras,images,points3D}.bin``.

    save_colmap(open_scene("scenes/chair"), "colmap/chair")
    python -m data_tools convert scenes/chair colmap/chair --to colmap

Gaussian-splatting trainers, nerfstudio, COLMAP's own programs and our reader open it. The three files are written
here, in the layout that every version of COLMAP reads, so that pycolmap is not needed. Cameras keep the scene's
frame; lenses that COLMAP knows are written as they are and the image files copied byte for byte, others are
undistorted.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import torch

from data_tools.readers.colmap import COUNTS, MODELS
from data_tools.readers.points import Points, scene_points
from nvs_app.geometry.rotations import matrix_to_quaternion, quaternion_to_matrix
from nvs_app.scenes.lens import Lens
from nvs_app.scenes.scene import Scene, scene_folder

NUMBERS = {name: number for number, (name, _) in MODELS.items()}


def save_colmap(
    scene: Scene,
    folder: str | Path,
    points: Points | None = None,
) -> Path:
    """Write a scene as a COLMAP project.

    Everything is written under a temporary name and renamed at the end: the folder is either absent or whole.

    Args:
        scene: of any format.
        folder: absent or empty.
        points: sparse points in the scene's frame; those that lie beside the scene unless given. Their tracks are
            not known: each is written with none.

    Returns:
        The folder.

    Raises:
        NVSError: the folder is not empty, or an image is missing or broken.
    """
    folder = Path(folder)
    points = scene_points(scene) if points is None else points
    names = _image_names(scene)
    cameras: dict[tuple, int] = {}
    images = bytearray(struct.pack("<Q", len(scene)))
    with scene_folder(folder) as temporary:
        (temporary / "images").mkdir()
        (temporary / "sparse/0").mkdir(parents=True)
        for index, name in enumerate(names):
            camera = cameras.setdefault(_camera(scene, index), len(cameras) + 1)
            scene.save_image(index, temporary / "images" / name, _copied(scene, index))
            images += _image_entry(scene, index, camera, name)
        model = temporary / "sparse/0"
        (model / "cameras.bin").write_bytes(_cameras(cameras))
        (model / "images.bin").write_bytes(bytes(images))
        (model / "points3D.bin").write_bytes(_points(points))
    return folder


def _image_names(scene: Scene) -> list[str]:
    """Plain file names that sort in the order of the views."""
    names = [re.sub(r"[^A-Za-z0-9._-]+", "_", path.name) for path in scene.image_paths]
    if names != sorted(set(names)):
        names = [f"{index:05d}_{name}" for index, name in enumerate(names)]
    return [name if _copied(scene, index) else f"{Path(name).stem}.png" for index, name in enumerate(names)]


def _lens(scene: Scene, index: int) -> Lens | None:
    return scene.lenses[index] if scene.lenses else None


def _copied(scene: Scene, index: int) -> bool:
    """Whether the image's own bytes are written: it is not turned, and COLMAP has a model for its lens."""
    lens = _lens(scene, index)
    turned = scene.orientations and scene.orientations[index] != 1
    return not turned and (lens is None or _model(lens) is not None)


def _model(lens: Lens) -> tuple[str, tuple[float, ...]] | None:
    """COLMAP's name for a lens and the parameters after fx, fy, cx, cy."""
    given = lens.coefficients
    if lens.model == "OPENCV":
        given = (*given, *(0.0,) * (8 - len(given)))
        return ("OPENCV", given[:4]) if not any(given[4:]) else ("FULL_OPENCV", given)
    if lens.model in NUMBERS and COUNTS[lens.model] == 4 + len(given):
        return lens.model, given
    return None


def _camera(scene: Scene, index: int) -> tuple:
    """Model, height, width and parameters of one view's camera."""
    lens = _lens(scene, index)
    model = _model(lens) if lens is not None and _copied(scene, index) else None
    if lens is None or model is None:
        return "PINHOLE", *scene.image_hws[index].tolist(), *scene.fxfycxcy[index].double().tolist()
    return model[0], *scene.image_hws[index].tolist(), *lens.fxfycxcy, *model[1]


def _cameras(cameras: dict[tuple, int]) -> bytes:
    parts = [struct.pack("<Q", len(cameras))]
    for (model, height, width, *params), number in cameras.items():
        parts.append(struct.pack("<iiQQ", number, NUMBERS[model], width, height))
        parts.append(struct.pack(f"<{len(params)}d", *params))
    return b"".join(parts)


def _image_entry(scene: Scene, index: int, camera: int, name: str) -> bytes:
    c2w = scene.c2w[index].double()
    quaternion = matrix_to_quaternion(c2w[:3, :3].T)
    # With the rotation that the quaternion holds: float32 poses are orthonormal to seven digits only.
    translation = -(quaternion_to_matrix(quaternion) @ c2w[:3, 3])
    values = torch.cat([quaternion, translation]).tolist()
    return struct.pack("<i7di", index + 1, *values, camera) + name.encode("ascii") + b"\0" + struct.pack("<Q", 0)


def _points(points: Points | None) -> bytes:
    if points is None:
        return struct.pack("<Q", 0)
    layout = [("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("track", "<u8")]
    table = np.zeros(len(points), dtype=layout)
    table["id"] = np.arange(1, len(points) + 1)
    table["xyz"], table["rgb"] = points.xyz, points.rgb
    return struct.pack("<Q", len(points)) + table.tobytes()
