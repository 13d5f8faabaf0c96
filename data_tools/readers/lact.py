"""Scenes of the LaCT and Long-LRM releases: ``opencv_cameras.json``, a list of frames or an object with "frames".

Each frame has ``w2c`` (OpenCV axes), ``fx, fy, cx, cy`` in pixels of a ``w`` x ``h`` image, and ``file_path``.
"""

from __future__ import annotations

from pathlib import Path

from data_tools.readers.fields import (
    SceneBuilder,
    frame_places,
    image_path,
    inverse_rigid,
    load_json,
    scene_label,
)
from nvs_app.errors import NVSError
from nvs_app.scenes.scene import Scene


def read(path: Path) -> Scene:
    """Read an ``opencv_cameras.json``, given as the file or as its folder.

    Raises:
        NVSError: any malformed field or a missing picture.
    """
    path = path / "opencv_cameras.json" if path.is_dir() else path
    content, label = load_json(path), scene_label(path)
    if isinstance(content, dict) and "frames" not in content:
        raise NVSError(f"{label}: frames is missing")
    frames = content["frames"] if isinstance(content, dict) else content
    builder = SceneBuilder(path.parent)
    for place in frame_places(label, frames):
        picture = image_path(place, builder)
        c2w = inverse_rigid(place.pose("w2c"))
        fx, fy = place.number("fx", positive=True), place.number("fy", positive=True)
        intrinsics = (fx, fy, place.number("cx"), place.number("cy"))
        camera_hw = None
        if "w" in place.values or "h" in place.values:
            camera_hw = (place.number("h", positive=True), place.number("w", positive=True))
        builder.add(place, picture, c2w, intrinsics, camera_hw)
    return builder.build()
