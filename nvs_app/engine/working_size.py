"""The working size: pictures smaller than it are enlarged before the network reads them, and drawn enlarged.

    hw = enlarged_hw((128, 128), working_side=192, patch=8)          # (192, 192)
    images, cameras = enlarge(images, cameras, hw)                   # what the network reads
    pictures = reduce(decode(state, asked.scaled_to(hw)), asked.image_hw)

A token covers patch x patch pixels whatever the size of the picture, so that in a small picture each one has to hold
more of the scene. Enlarging adds no information; it gives the network more tokens for the same rays. Pixels and
cameras change together: every pixel keeps the ray through its centre.

What was written finely is not read well by coarse tokens: a chair written from 256x256 and drawn at 128x128 comes out
in blocks (22.3 dB; drawn at 256x256 and reduced 24.8). So drawings are made as finely as the context was written.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.state import SceneState

MOST = 2  # times a side is enlarged at most (up to one patch more, so that patches are whole)
COARSER = 1.25  # drawing with pixels so many times the angle of the written ones costs nothing that one could see


def enlarged_hw(
    image_hw: tuple[int, int], working_side: int, patch: int, finer: float = 1.0
) -> tuple[int, int]:
    """The size at which the network handles pictures of `image_hw` = (height, width), in pixels.

    Pictures whose shorter side is below `working_side` grow by the one factor min(MOST, working_side / shorter side),
    each side rounded up to whole patches; any other size is returned as it is, whole patches or not.

    finer: for a drawing, how many times as many pixels an angle had when the context was written; above COARSER the
        picture grows by at least this factor, up to MOST.
    """
    shorter = min(image_hw)
    working_side = max(working_side, round(finer * shorter) if finer > COARSER else 0)
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


def written_focal(state: SceneState) -> float:
    """The vertical focal length in pixels (median over the views) of the pictures as they were written into a state;
    0 where the state, of an older version, does not tell."""
    try:
        focal = float(state.meta.get("written_focal", 0))
    except ValueError:
        return 0.0
    return focal if math.isfinite(focal) and focal > 0 else 0.0


def finer_than(state: SceneState, cameras: Cameras) -> float:
    """How many times as many pixels an angle had in the pictures that the state was written from as in those of
    `cameras` [v]: the ratio of the median vertical focal lengths. 1 where the state does not tell."""
    return (written_focal(state) / float(cameras.fxfycxcy[:, 1].median())) or 1.0


def checked_working_side(value: Any) -> int:
    """A working side that somebody asked for. Raises NVSError unless it is a whole number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise NVSError(f"working side: {value!r}, expected 0 (pictures as they are given) or a number of pixels")
    return value


def working_side_of(card: dict[str, Any]) -> int:
    """The "working_side" of a checkpoint's card; 0 where it has none, or none that makes sense."""
    value = card.get("working_side", 0)
    return value if type(value) is int and value >= 0 else 0
