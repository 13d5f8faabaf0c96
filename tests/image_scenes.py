"""Scenes of a few small images, for tests of any part."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from nvs_app.scenes.scene import Scene


def image_scene(
    folder: Path,
    images: Iterable[UInt8[np.ndarray, "h w 3"]],
    c2w: Float[Tensor, "n 4 4"],
    fxfycxcy: tuple[float, float, float, float],
    name: str | None = None,
) -> Scene:
    """A scene of images of one size and one lens, which are written to ``folder`` as 000.png, 001.png, ...

    name: of the scene; None: the folder's.
    """
    folder.mkdir(parents=True)
    paths, sizes = [], []
    for index, pixels in enumerate(images):
        paths.append(folder / f"{index:03d}.png")
        sizes.append(pixels.shape[:2])
        Image.fromarray(pixels).save(paths[-1])
    intrinsics = torch.tensor(fxfycxcy).expand(len(paths), 4).clone()
    return Scene(name or folder.name, folder, paths, c2w, intrinsics, torch.tensor(sizes), [None] * len(paths))


def noise(count: int, image_hw: tuple[int, int]) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Images of random pixels, the same in every run."""
    return [np.random.default_rng(index).integers(0, 255, (*image_hw, 3), np.uint8) for index in range(count)]
