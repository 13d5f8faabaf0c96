"""A scene's folder with three images and no cameras yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from known_camera import image


@pytest.fixture
def scene_folder(tmp_path) -> Path:
    """`scene/images/000.png` to `002.png`, 16 x 12."""
    for index in range(3):
        image(tmp_path / f"scene/images/{index:03d}.png", value=40 * index + 10)
    return tmp_path / "scene"
