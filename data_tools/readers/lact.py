"""Scenes of the LaCT and Long-LRM releases: ``opencv_cameras.json``, a list of frames or an object with "frames".

Each frame has ``w2c`` (OpenCV axes), ``fx, fy, cx, cy`` in pixels of a ``w`` x ``h`` image, and ``file_path``.
"""

from __future__ import annotations

from pathlib import Path

from data_tools.readers.fields import SceneBuilder, inverse_rigid, scene_label
from data_tools.readers.json_files import expect_images, frame_records, image_path, load_json
from nvs_app.errors import NVSError
from nvs_app.scenes.scene import Scene


def read(path: Path) -> Scene:
    """Read an ``opencv_cameras.json``, given as the file or as its folder.

    Raises:
        NVSError: any malformed field or a missing image.
    """
    path = path / "opencv_cameras.json" if path.is_dir() else path
    content, label = load_json(path), scene_label(path)
    if isinstance(content, dict) and "frames" not in content:
        raise NVSError(f"{label}: frames is missing")
    frames = content["frames"] if isinstance(content, dict) else content
    builder = SceneBuilder(path.parent)
    records = builder.sampled(frame_records(label, frames))
    expect_images(records, builder)
    for record in records:
        with builder.frame(record.name):
            image = image_path(record, builder)
            c2w = inverse_rigid(builder.pose(record, "w2c", world_to_camera=True))
            intrinsics, camera_hw = record.intrinsics(), None
            if "w" in record.values or "h" in record.values:
                camera_hw = (record.number("h", positive=True), record.number("w", positive=True))
            builder.add(record, image, c2w, intrinsics, camera_hw)
    return builder.build()
