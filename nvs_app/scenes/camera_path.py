"""Camera paths on disk: the JSON file that nerfstudio's viewer exports and `ns-render camera-path` reads.

    path = read_camera_path(Path("camera_path.json"))
    renderer.render(state, path.cameras)
    write_camera_path(Path("orbit.json"), CameraPath(orbit(cameras, 60), fps=30))

The file stores poses with OpenGL axes (+y up, -z forward), 16 numbers row by row, and the vertical field of view
in degrees; pixels are square and the principal point is the middle of the frame. Here poses are in OpenCV axes.
The world frame is the scene's own, that of its transforms.json. A path drawn in nerfstudio's viewer lives in the
frame that its dataparser made; `nvs_app.scenes.nerfstudio_frame` leads from one to the other.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.atomic_io import write_whole
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import LARGEST, Cameras, opencv_to_opengl, opengl_to_opencv

MAX_BYTES = 64 << 20  # a hundred thousand cameras
# What this module fills in itself; everything else in a file is kept in `extra`.
_OWN_KEYS = ("camera_path", "render_height", "render_width", "fps", "seconds", "keyframes", "camera_type")


@dataclass(frozen=True)
class CameraPath:
    """A path of cameras and what the file says about showing it.

    Attributes:
        cameras: [n] in the scene's own frame, OpenCV axes, poses float64, centred principal point and square pixels.
        fps: images a second.
        keyframes: the editor's own entries, kept as they are.
        extra: other top-level entries of the file (crop, smoothness, …), kept as they are.
    """

    cameras: Cameras
    fps: float = 24.0
    keyframes: list[Any] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Length of the video."""
        return len(self.cameras) / self.fps


def read_camera_path(path: Path | str) -> CameraPath:
    """Reads a nerfstudio camera path. Raises NVSError naming the file, the entry, and what was expected there."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise NVSError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so no camera path")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NVSError(f"{path}: cannot be read ({error.strerror or error}), expected a camera path JSON") from error
    except (ValueError, RecursionError) as error:  # RecursionError: lists within lists without end
        raise NVSError(f"{path}: not JSON ({error}), expected a nerfstudio camera path") from error
    entries = data.get("camera_path") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        raise NVSError(f'{path}: no "camera_path" list with a camera or more, expected a nerfstudio camera path')
    if str(data.get("camera_type", "perspective")).lower() not in ("perspective", "simple_pinhole", "pinhole"):
        raise NVSError(f"{path}: camera_type is {data['camera_type']!r}, only perspective paths can be rendered")
    height = parse_number(data, "render_height", f"{path}: ", minimum=1.0)
    width = parse_number(data, "render_width", f"{path}: ", minimum=1.0)

    c2w, focals = [], []
    for index, entry in enumerate(entries):
        where = f"{path}: camera {index}: "
        if not isinstance(entry, dict):
            raise NVSError(f"{where}{type(entry).__name__}, expected an object with camera_to_world and fov")
        c2w.append(parse_pose(entry.get("camera_to_world"), f"{where}camera_to_world"))
        fov = parse_number(entry, "fov", where, minimum=0.01, maximum=179.0)
        focals.append(0.5 * height / math.tan(math.radians(fov) / 2))
    fps = data.get("fps")
    fps = float(fps) if isinstance(fps, (int, float)) and 0 < fps <= 1000 else 24.0
    intrinsics = [[focal, focal, width / 2, height / 2] for focal in focals]
    cameras = Cameras(
        opengl_to_opencv(torch.stack(c2w)),
        torch.tensor(intrinsics, dtype=torch.float32),
        (round(height), round(width)),
    )
    keyframes = data.get("keyframes")
    return CameraPath(
        cameras,
        fps,
        keyframes if isinstance(keyframes, list) else [],
        {key: value for key, value in data.items() if key not in _OWN_KEYS},
    )


def write_camera_path(path: Path | str, camera_path: CameraPath) -> Path:
    """Writes a file that nerfstudio reads; to a temporary name first.

    The format knows one focal length and no principal point: the vertical field of view is kept, a principal point
    away from the middle is not.
    """
    path = Path(path)
    height, width = camera_path.cameras.image_hw
    poses = opencv_to_opengl(camera_path.cameras.c2w.detach().cpu().double())
    entries = [
        {
            "camera_to_world": pose.flatten().tolist(),
            "fov": math.degrees(2 * math.atan(0.5 * height / fy)),
            "aspect": width / height,
        }
        for pose, fy in zip(poses, camera_path.cameras.fxfycxcy[:, 1].tolist())
    ]
    data = {
        **camera_path.extra,
        "camera_type": "perspective",
        "render_height": height,
        "render_width": width,
        "fps": camera_path.fps,
        "seconds": camera_path.seconds,
        "keyframes": camera_path.keyframes,
        "camera_path": entries,
    }
    write_whole(path, json.dumps(data, indent=1))
    return path


def keyframes_along(cameras: Cameras, fps: float, count: int = 16) -> dict[str, Any]:
    """What lets nerfstudio's viewer edit a path that was not drawn in it ("Load Path"): keyframes, and their times.

    cameras: [n], OpenCV axes. fps: images a second. count: keyframes at most, evenly spaced along the path; the
        viewer's curve through them comes near to the path, the path itself stays as it is.

    Returns entries of the file: `keyframes`, and `default_fov` and `default_transition_sec` for `CameraPath.extra`.
    """
    total, height = len(cameras), cameras.image_hw[0]
    places = sorted({round(place) for place in torch.linspace(0, total - 1, min(count, total)).tolist()})
    poses = opencv_to_opengl(cameras.c2w.detach().cpu().double())
    fovs = [math.degrees(2 * math.atan(0.5 * height / cameras.fxfycxcy[place, 1].item())) for place in places]
    aspect = cameras.image_hw[1] / height
    return {
        "keyframes": [
            {"matrix": poses[place].flatten().tolist(), "fov": fov, "aspect": aspect}
            for place, fov in zip(places, fovs)
        ],
        "default_fov": fovs[0],
        "default_transition_sec": (total - 1) / max(1, len(places) - 1) / fps,
    }


def parse_pose(values: Any, where: str) -> Float[Tensor, "4 4"]:
    """A pose of a JSON file as a 4x4 matrix: 16 numbers in a row (or 12, or nested rows), row by row.

    Raises NVSError that starts with `where`, unless it is a rigid pose of finite numbers.
    """
    if isinstance(values, list) and values and isinstance(values[0], list):
        values = [number for row in values if isinstance(row, list) for number in row]
    if not isinstance(values, list) or len(values) not in (12, 16):
        count = len(values) if isinstance(values, list) else "no"
        raise NVSError(f"{where} has {count} numbers, expected 16 (4x4, row by row)")
    try:
        matrix = torch.tensor([float(number) for number in values], dtype=torch.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise NVSError(f"{where} holds something that is no number ({error})") from error
    if not bool((matrix.abs() <= LARGEST).all()):
        raise NVSError(f"{where} holds NaN, infinity, or a number beyond {LARGEST:g}")
    if len(values) == 12:
        matrix = torch.cat((matrix, matrix.new_zeros(4)))
    matrix = matrix.view(4, 4)
    matrix[3] = matrix.new_tensor([0.0, 0.0, 0.0, 1.0])
    rotation = matrix[:3, :3]
    if (
        not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-2)
        or torch.det(rotation) < 0
    ):
        raise NVSError(f"{where} does not hold a rotation (row by row, OpenGL axes)")
    return matrix


def parse_number(entry: dict[str, Any], key: str, where: str, minimum: float, maximum: float = 1e5) -> float:
    """A number of a JSON object, also one that is written as text. Raises NVSError that starts with `where`."""
    value = entry.get(key)
    if isinstance(value, str):  # the legacy viewer writes numbers as text
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not minimum <= value <= maximum:
        shown = repr(entry.get(key))
        shown = shown if len(shown) <= 40 else shown[:37] + "..."
        raise NVSError(f"{where}{key} is {shown}, expected a number from {minimum:g} to {maximum:g}")
    return float(value)
