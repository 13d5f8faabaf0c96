"""The working size: pictures smaller than it are enlarged before the network reads them, and drawn enlarged.

    hw = enlarged_hw((128, 128), working_side=192, patch=8)          # (192, 192)
    images, cameras = enlarge(images, cameras, hw)                   # what the network reads
    pictures = reduce(decode(state, asked.scaled_to(hw)), asked.image_hw)

A token covers patch x patch pixels whatever the size of the picture, so that in a small picture each one has to hold
more of the scene. Enlarging adds no information; it gives the network more tokens for the same rays. Pixels and
cameras change together: every pixel keeps the ray through its centre.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras

MOST = 2  # times a side is enlarged at most (up to one patch more, so that patches are whole)


def enlarged_hw(image_hw: tuple[int, int], working_side: int, patch: int) -> tuple[int, int]:
    """The size at which the network handles pictures of `image_hw` = (height, width), in pixels.

    Pictures whose shorter side is below `working_side` grow by the one factor min(MOST, working_side / shorter side),
    each side rounded up to whole patches; any other size is returned as it is, whole patches or not.
    """
    shorter = min(image_hw)
    if working_side <= shorter:
        return (image_hw[0], image_hw[1])
    wanted = min(working_side, MOST * shorter)
    # In whole numbers: 192 / 128 * 128 must not become a little more than 192, and then another patch.
    height, width = (-(-side * wanted // (shorter * patch)) * patch for side in image_hw)
    return (height, width)


def enlarge(
    images: Float[Tensor, "v 3 h w"], cameras: Cameras, image_hw: tuple[int, int]
) -> tuple[Float[Tensor, "v 3 h2 w2"], Cameras]:
    """Pictures in [0, 1] with their cameras [v] resized to `image_hw`, which is not smaller, each axis by its own
    factor; bicubic, clamped to [0, 1]. No pixel is cut off. The very same objects where the size is theirs already."""
    if tuple(images.shape[-2:]) == tuple(image_hw):
        return images, cameras
    # With antialias the cubic has a = -0.5, which keeps straight ramps straight; without, -0.75.
    images = F.interpolate(images, image_hw, mode="bicubic", align_corners=False, antialias=True)
    return images.clamp(0, 1), cameras.scaled_to(image_hw)


def reduce(images: Float[Tensor, "v 3 h w"], image_hw: tuple[int, int]) -> Float[Tensor, "v 3 h2 w2"]:
    """Drawn pictures in [0, 1] made smaller to `image_hw`: bicubic over the area of the new pixels (antialiased),
    clamped to [0, 1]. The very same tensor where the size is its own already."""
    if tuple(images.shape[-2:]) == tuple(image_hw):
        return images
    return F.interpolate(images, image_hw, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)


def checked_working_side(value: Any) -> int:
    """A working side that somebody asked for. Raises NVSError unless it is a whole number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise NVSError(f"working side: {value!r}, expected 0 (pictures as they are given) or a number of pixels")
    return value


def working_side_of(card: dict[str, Any]) -> int:
    """The "working_side" of a checkpoint's card; 0 where it has none, or none that makes sense."""
    value = card.get("working_side", 0)
    return value if type(value) is int and value >= 0 else 0
