"""A small scene on disk for the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nvs_app.engine.renderer import Renderer
from nvs_app.geometry.cameras import look_at
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.scenes.scene import Scene
from nvs_app.web.hub import Hub


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of 40x40 pixels on a circle, as a nerfstudio folder."""
    folder = tmp_path_factory.mktemp("scenes")
    pictures = folder / "pictures"
    pictures.mkdir()
    for index in range(6):
        colours = np.random.default_rng(index).integers(0, 255, (5, 5, 3), np.uint8)
        Image.fromarray(colours.repeat(8, 0).repeat(8, 1)).save(pictures / f"{index}.png")
    angle = torch.arange(6) * 1.0
    eye = torch.stack((3 * angle.cos(), 3 * angle.sin(), torch.ones(6)), -1)
    scene = Scene(
        "small scene",
        pictures,
        sorted(pictures.glob("*.png")),
        look_at(eye, torch.zeros(6, 3), torch.tensor([0.0, 0, 1]).expand(6, 3)),
        torch.tensor([45.0, 45.0, 20.0, 20.0]).expand(6, 4).clone(),
        torch.tensor([[40, 40]]).expand(6, 2).clone(),
        [None] * 6,
    )
    return scene.save(folder / "small scene")


@pytest.fixture
def hub(small_scene: Path) -> Iterator[Hub]:
    """Everything behind the page, with a tiny network and one example."""
    torch.manual_seed(0)
    model = LaCT(PRESETS["tiny"])
    model.card = {"name": "tiny", "hash": "0" * 64, "train_image_hw": [64, 64]}
    hub = Hub(Renderer(model, "cpu"), {"small scene": small_scene}, num_context=3)
    yield hub
    hub.close()
