"""Photos as the network takes them: cut to whole patches, and looked up as finely as views are rendered."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.state import SceneState


def photo_level(state: SceneState, cameras: Cameras) -> int:
    """How often photos are halved before views of `cameras` [1, v] look them up: much finer ones would flicker."""
    assert state.context is not None
    finer = float(state.context.cameras.fxfycxcy[0, :, 1].median() / cameras.fxfycxcy[0, :, 1].median())
    return max(0, min(3, round(math.log2(max(finer, 1e-3)))))


def cut(images: Tensor, cameras: Cameras, image_hw: tuple[int, int]) -> tuple[Tensor, Cameras]:
    """Cuts [v, 3, H, W] and its cameras evenly at all sides to `image_hw`."""
    height, width = images.shape[-2:]
    if tuple(cameras.image_hw) != (height, width):
        raise NVSError(f"encode: images are {height}x{width}, their cameras {cameras.image_hw}; resize both together")
    if image_hw == (height, width):
        return images, cameras
    top, left = (height - image_hw[0]) // 2, (width - image_hw[1]) // 2
    shift = cameras.fxfycxcy.new_tensor([0, 0, left, top])
    images = F.pad(images, (-left, left + image_hw[1] - width, -top, top + image_hw[0] - height))
    return images, Cameras(cameras.c2w, cameras.fxfycxcy - shift, image_hw)
