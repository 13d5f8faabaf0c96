"""LaCT's and Blender's files from the text to the rays: the known camera, computed by hand in known_camera.py."""

from __future__ import annotations

import json
import math
from pathlib import Path

from known_camera import CX, CY, FX, FY, HEIGHT, OPENGL_C2W, W2C, WIDTH, check_rays, image

from data_tools.readers import open_scene


def test_lact(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    frame = {"file_path": "a.png", "w2c": W2C, "fx": FX, "fy": FY, "cx": CX, "cy": CY, "w": WIDTH, "h": HEIGHT}
    (tmp_path / "opencv_cameras.json").write_text(json.dumps({"frames": [frame]}))
    check_rays(open_scene(tmp_path, "lact"))


def test_blender(tmp_path: Path) -> None:
    """It has one focal length, and its principal point is the middle."""
    image(tmp_path / "train/r_0.png")
    frames = [{"file_path": "./train/r_0", "transform_matrix": OPENGL_C2W}]
    content = {"camera_angle_x": 2 * math.atan(WIDTH / 2 / FX), "frames": frames}
    (tmp_path / "transforms_train.json").write_text(json.dumps(content))
    check_rays(open_scene(tmp_path, "blender"), fy=FX, cx=WIDTH / 2, cy=HEIGHT / 2)
