"""A server to attack, with a tiny network, and scenes to bring."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nvs_app.geometry.cameras import look_at
from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.scenes.scene import Scene

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "web"))


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of 40x40 pixels on a circle, as a nerfstudio folder."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "images").mkdir()
    paths = [folder / "images" / f"{index}.png" for index in range(6)]
    for index, path in enumerate(paths):
        colours = np.random.default_rng(index).integers(0, 255, (5, 5, 3), np.uint8)
        Image.fromarray(colours.repeat(8, 0).repeat(8, 1)).save(path)
    angle = torch.arange(6) * 1.0
    eye = torch.stack((3 * angle.cos(), 3 * angle.sin(), torch.ones(6)), -1)
    c2w = look_at(eye, torch.zeros(6, 3), torch.tensor([0.0, 0, 1]).expand(6, 3))
    lens = torch.tensor([45.0, 45.0, 20.0, 20.0]).expand(6, 4).clone()
    hws = torch.tensor([[40, 40]]).expand(6, 2).clone()
    return Scene("small scene", folder, paths, c2w, lens, hws, [None] * 6).save(folder / "small_scene")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    config = PRESETS["tiny"]
    card = {"train_image_hw": [64, 64], "name": "tiny", "default": True, "summary": "the tiny one"}
    save_checkpoint(folder / "tiny", LaCT(config).state_dict(), config, card)
    return folder
