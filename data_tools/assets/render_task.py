"""The per-asset function: one asset in, one scene folder out, whole or not at all.

It is the same in a local worker process and on a Ray cluster. What it needs comes in as a :class:`RenderTask` of plain
values, what it did goes out as a dictionary of plain values; a refusal is an answer, not an exception.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.assets.asset import Asset, normalise, read_limited
from data_tools.assets.cameras import asset_cameras
from nvs_app.errors import NVSError

RECORD = "asset.json"
PART = ".part"
"""Folders that are being written are named .NAME.<random>.part."""

# Answers. A refused asset is not tried again by a later run; the others may have had bad luck.
RENDERED, REFUSED, UNAVAILABLE, DIED, TIMEOUT = "rendered", "refused", "unavailable", "died", "timeout"


class FatalError(NVSError):
    """Nothing can be rendered or written here, whatever the asset: the run stops."""


@dataclass(frozen=True)
class RenderOptions:
    """How assets are rendered; what decides about the pixels.

    Attributes:
        views: images an asset.
        image_hw: (height, width).
        distance: of the cameras from the centre, in longest sides of the asset.
        fov: degrees along the shorter side; one lens an asset.
        seed: of the cameras.
        light: "uniform" or "unlit" (base colours as stored).
        cull: hide the back of single-sided surfaces.
        obj_up: "y" or "z": what an OBJ file's author took for up.
    """

    views: int = 32
    image_hw: tuple[int, int] = (512, 512)
    distance: tuple[float, float] = (1.7, 3.0)
    fov: tuple[float, float] = (30.0, 70.0)
    seed: int = 0
    light: str = "uniform"
    cull: bool = False
    obj_up: str = "y"

    def __post_init__(self) -> None:
        low, high = self.distance
        checks = (
            (1 <= self.views <= 10_000, f"--views {self.views}: expected 1 to 10000"),
            (
                min(self.image_hw) >= 8 and max(self.image_hw) <= 8192,
                f"--image-hw {self.image_hw}: expected 8 to 8192",
            ),
            (
                1.0 <= low <= high <= 100.0,
                f"--distance {low:g} {high:g}: expected 1 to 100, the nearer one first",
            ),
            (
                1.0 <= self.fov[0] <= self.fov[1] <= 150.0,
                f"--fov {self.fov}: expected 1 to 150 degrees, lower first",
            ),
            (self.light in ("uniform", "unlit"), f"--light {self.light}: expected uniform or unlit"),
            (self.obj_up in ("y", "z"), f"--up {self.obj_up}: expected y or z"),
        )
        for good, message in checks:
            if not good:
                raise NVSError(message)


@dataclass(frozen=True)
class RenderTask:
    """One asset.

    Attributes:
        key: its name for people, logs and seeds: the path below the folder that the user named, or the uid.
        name: of its scene folder under ``out``.
        path: the file, or "" for a uid that is not in the cache yet.
        root: nothing outside of this folder is read for it.
        uid, object_path: of Objaverse; "" for files.
    """

    key: str
    name: str
    path: str
    root: str
    out: str
    options: RenderOptions
    uid: str = ""
    object_path: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as :meth:`from_json` takes them."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> RenderTask:
        """The inverse of :meth:`to_json`."""
        options = dict(values["options"])
        for name in ("image_hw", "distance", "fov"):
            options[name] = tuple(options[name])
        return RenderTask(**{**values, "options": RenderOptions(**options)})


def finished(folder: Path) -> dict[str, Any] | None:
    """The record of a whole scene folder, or None."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and (folder / "transforms.json").is_file() else None


def render_asset(task: RenderTask, renderer: Any) -> dict[str, Any]:
    """Render one asset into its scene folder.

    Args:
        renderer: :class:`data_tools.assets.renderer.AssetRenderer` of the task's image size.

    Returns:
        asset, scene, status ("rendered", "refused" or "unavailable"), seconds, views, error, notes and more.

    Raises:
        FatalError: the output cannot be written.
    """
    started = time.perf_counter()
    answer: dict[str, Any] = {
        "asset": task.key,
        "scene": task.name,
        "status": RENDERED,
        "views": 0,
        "error": "",
    }
    folder = Path(task.out) / task.name
    done = finished(folder)
    if done is not None:  # by a worker that died before it could tell, or whose answer was lost
        return done
    try:
        path = Path(task.path) if task.path else fetch(task)
        data, asset = load_asset(task, path)
        answer["bytes"], answer["sha256"] = len(data), hashlib.sha256(data).hexdigest()
        centre, scale = normalise(asset)
        answer["triangles"], answer["notes"] = asset.triangles, asset.notes
        answer["centre"], answer["scale"] = centre, scale
        if up_axis(task, path) == "y":
            _turn_up(asset)
        _write(task, asset, renderer, folder, answer, started)
    except FatalError:
        raise
    except NVSError as error:
        answer.update(status=REFUSED, error=" ".join(str(error).split()), views=0)
    except Unavailable as error:
        answer.update(status=UNAVAILABLE, error=" ".join(str(error).split()))
    except MemoryError:
        answer.update(status=REFUSED, error="too large for this machine's memory")
    answer["seconds"] = round(time.perf_counter() - started, 3)
    return answer


class Unavailable(Exception):
    """An asset that could not be fetched now; it may be another time."""


def load_asset(task: RenderTask, path: Path) -> tuple[bytes, Asset]:
    """The file's bytes and what is in it. Raises NVSError."""
    from data_tools.assets.gltf import read_gltf
    from data_tools.assets.obj import read_obj

    try:
        if not path.is_file():  # a pipe would never end
            raise NVSError("no such file" if not path.exists() else "no plain file")
        data = read_limited(path)
    except OSError as error:
        raise NVSError(f"cannot be read ({error.strerror or error})") from error
    if not data:
        raise NVSError("an empty file")
    # More than four texels a pixel cannot be seen.
    max_texture = min(4096, max(1024, 4 * max(task.options.image_hw)))
    reader = read_obj if path.suffix.lower() == ".obj" else read_gltf
    return data, reader(path, data, Path(task.root), max_texture)


def up_axis(task: RenderTask, path: Path) -> str:
    """The asset's up axis: glTF's is +y, an OBJ's is what the user says."""
    return task.options.obj_up if path.suffix.lower() == ".obj" else "y"


def _turn_up(asset: Asset) -> None:
    """From the asset's axes (+y up) to the scene's (+z up): (x, y, z) becomes (x, -z, y), in place."""
    mirror = np.array([1.0, -1.0, 1.0], dtype=np.float32)
    for part in asset.parts:
        part.positions = np.ascontiguousarray(part.positions[:, [0, 2, 1]] * mirror)
        if part.normals is not None:
            part.normals = np.ascontiguousarray(part.normals[:, [0, 2, 1]] * mirror)


def _write(task: RenderTask, asset: Asset, renderer: Any, folder: Path, answer: dict[str, Any], started: float) -> None:
    """Draw the views and put the scene folder in place."""
    options = task.options
    c2w, fxfycxcy = asset_cameras(
        options.seed, task.key, options.views, options.distance, options.fov, options.image_hw
    )
    temporary = folder.parent / f".{task.name}.{uuid.uuid4().hex[:12]}{PART}"
    try:
        (temporary / "images").mkdir(parents=True)
        coverage = 0.0
        with renderer.load(asset, options.light == "unlit", options.cull) as model:
            for view in range(options.views):
                rgba = renderer.draw(model, c2w[view], fxfycxcy)
                coverage = max(coverage, float((rgba[..., 3] > 127).mean()))
                write_png(temporary / "images" / f"{view:04d}.png", rgba)
        if coverage < 1e-4:
            raise NVSError("nothing to see in any view (too thin or transparent)")
        (temporary / "transforms.json").write_text(transforms(c2w, fxfycxcy, options.image_hw), encoding="utf-8")
        answer.update(views=options.views, seconds=round(time.perf_counter() - started, 3), renderer=renderer.name)
        (temporary / RECORD).write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
        try:
            os.rename(temporary, folder)
        except OSError:
            done = finished(folder)
            if done is None:
                raise
            answer.update(done)  # a second worker was given the same asset and was first
    except OSError as error:
        raise FatalError(f"{error.filename or folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_png(path: Path, rgba: np.ndarray) -> None:
    """uint8 [h, w, 4]. Raises OSError."""
    import cv2

    done, data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_PNG_COMPRESSION, 4])
    if not done:
        raise OSError(0, "PNG could not be encoded", str(path))
    path.write_bytes(data.tobytes())


def transforms(c2w: np.ndarray, fxfycxcy: np.ndarray, image_hw: tuple[int, int]) -> str:
    """A nerfstudio transforms.json (OpenGL axes) of views images/0000.png and on."""
    (fx, fy, cx, cy), (height, width) = fxfycxcy.tolist(), image_hw
    poses = (c2w * np.array([1.0, -1.0, -1.0, 1.0])).tolist()
    frames = [{"file_path": f"images/{view:04d}.png", "transform_matrix": pose} for view, pose in enumerate(poses)]
    head = {"camera_model": "OPENCV", "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height}
    return json.dumps({**head, "frames": frames}, indent=1) + "\n"


def fetch(task: RenderTask) -> Path:
    """The file of an Objaverse uid, downloaded by the ``objaverse`` package into its cache where it is not there.

    Raises:
        Unavailable: it cannot be downloaded now.
    """
    import socket
    import urllib.error
    from http.client import HTTPException

    import objaverse

    socket.setdefaulttimeout(60.0)
    # The package reads its index of 800,000 paths at each call; the run has read it already.
    objaverse._load_object_paths = lambda: {task.uid: task.object_path}
    try:
        return Path(objaverse.load_objects([task.uid])[task.uid])
    except (urllib.error.URLError, HTTPException, OSError, KeyError) as error:
        raise Unavailable(f"cannot be downloaded ({error})") from error
