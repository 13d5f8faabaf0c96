"""The world frame in which nerfstudio shows a scene, and the way to it from the scene's own.

    frame = read_frame(Path("outputs/chair/nerfacto/2026-01-01_000000"))
    cameras = to_scene(frame, read_camera_path("drawn_in_its_viewer.json").cameras)

nerfstudio's dataparsers turn, centre and scale the cameras before anything else sees them. A run keeps what they did
in `dataparser_transforms.json`: x' = scale * (transform @ x), where x are coordinates of the capture. A scene that
`ns-process-data` wrote was turned before (`applied_transform` of its transforms.json); what is given here leads from
the coordinates of transforms.json, in which this project reads a scene.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.atomic_io import write_whole
from nvs_app.errors import NVSError, reading
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import SimilarityTransform

FRAME_FILE = "scene_frame.json"  # written by our method beside config.yml: from transforms.json's coordinates
DATAPARSER_FILE = "dataparser_transforms.json"  # written by any method: from the capture's coordinates
_COLMAP_APPLIED = [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0]]


def frame_of(transform: Float[Tensor, "3 4"], scale: float, data: Path | None = None) -> SimilarityTransform:
    """The way from a scene's own frame to nerfstudio's.

    Args:
        transform: a dataparser's `dataparser_transform`: rotation and shift before scaling.
        scale: its `dataparser_scale`.
        data: the scene's folder or its transforms.json, to take its `applied_transform` and `applied_scale` out;
            None where there is no such file.

    Returns:
        float64, batch shape ().

    Raises:
        NVSError: no rotation, or an impossible scale.
    """
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3] = transform.double()
    applied, applied_scale = _applied(data)
    matrix = matrix @ torch.linalg.inv(applied)
    scale = float(scale) / applied_scale
    rotation = matrix[:3, :3]
    orthonormal = torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-3)
    if not orthonormal or torch.det(rotation) < 0 or not 0 < scale < float("inf"):
        raise NVSError(f"nerfstudio's frame: scale {scale:g} and {rotation.tolist()} are no similarity")
    return SimilarityTransform(torch.tensor(scale, dtype=torch.float64), rotation, scale * matrix[:3, 3])


def read_frame(path: Path, data: Path | None = None) -> SimilarityTransform:
    """The frame of a nerfstudio run, float64, batch shape ().

    Args:
        path: the run's folder, its config.yml, or the JSON file itself.
        data: the scene, as in :func:`frame_of`; used for files of other methods only.

    Raises:
        NVSError: no such file, or one of another kind.
    """
    folder = path.parent if path.suffix == ".yml" else path
    candidates = [folder / FRAME_FILE, folder / DATAPARSER_FILE] if folder.is_dir() else [path]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None or path.suffix == ".yml" and not path.is_file():
        raise NVSError(
            f"{path}: no nerfstudio frame there, expected the folder of a run, or its {FRAME_FILE} or {DATAPARSER_FILE}"
        )
    content = _object(file)
    try:
        transform = torch.tensor(content["transform"], dtype=torch.float64)
        scale = float(content["scale"])
        if transform.shape != (3, 4):
            raise ValueError(f"transform is {tuple(transform.shape)}, expected 3 rows of 4 numbers")
    except (KeyError, TypeError, ValueError) as error:
        raise NVSError(f"{file}: not a nerfstudio frame ({error})") from error
    return frame_of(transform, scale, None if file.name == FRAME_FILE else data)


def write_frame(path: Path, frame: SimilarityTransform) -> Path:
    """Writes a frame (batch shape ()) so that :func:`read_frame` reads it; to a temporary name first."""
    shift = (frame.translation / frame.scale).tolist()
    rows = [[*row, shift[index]] for index, row in enumerate(frame.rotation.tolist())]
    write_whole(path, json.dumps({"transform": rows, "scale": float(frame.scale)}, indent=1) + "\n")
    return path


def to_scene(frame: SimilarityTransform, cameras: Cameras) -> Cameras:
    """Cameras in nerfstudio's frame -> in the scene's own, float64; as they are where the two frames are one.

    The one way for `ns-render` and for `python -m nvs_app render`, so that both draw the same pixels: poses are rounded
    to float32 first, which nerfstudio's are. (Its own frame is near the origin: that costs nothing.)
    """
    if is_identity(frame):
        return cameras
    return _moved(frame.inverse(), replace(cameras, c2w=cameras.c2w.float()))


def to_nerfstudio(frame: SimilarityTransform, cameras: Cameras) -> Cameras:
    """The inverse of :func:`to_scene`."""
    return cameras if is_identity(frame) else _moved(frame, cameras)


def _moved(transform: SimilarityTransform, cameras: Cameras) -> Cameras:
    transform = transform.to("cpu", torch.float64)
    return replace(cameras, c2w=transform.apply_c2w(cameras.c2w.cpu().double()))


def is_identity(frame: SimilarityTransform) -> bool:
    """Whether a frame (batch shape ()) is exactly the scene's own."""
    same = frame.scale == 1 and not frame.translation.any()
    return bool(same and torch.equal(frame.rotation, torch.eye(3, dtype=frame.rotation.dtype)))


def _applied(data: Path | None) -> tuple[Tensor, float]:
    """What was done to the capture's coordinates before they were written to transforms.json: 4x4, and a scale."""
    matrix = torch.eye(4, dtype=torch.float64)
    if data is None:
        return matrix, 1.0
    file = data if data.suffix == ".json" else data / "transforms.json"
    if not file.is_file():
        return matrix, 1.0
    content = _object(file)
    # nerfstudio assumes this turn where COLMAP's model lies beside and the file does not say.
    assumed = _COLMAP_APPLIED if (data / "colmap" / "sparse" / "0").exists() else None
    rows = content.get("applied_transform", assumed)
    try:
        if rows is not None:
            matrix[:3] = torch.tensor(rows, dtype=torch.float64)
        return matrix, float(content.get("applied_scale", 1.0))
    except (TypeError, ValueError, RuntimeError) as error:
        raise NVSError(f"{file}: applied_transform is no 3x4 matrix, or applied_scale no number ({error})") from error


def _object(file: Path) -> dict[str, Any]:
    try:
        with reading(file):
            content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise NVSError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise NVSError(f"{file}: expected a JSON object")
    return content
