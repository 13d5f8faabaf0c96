"""Rays of pixel centres, and the nine ray features that the network reads."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.geometry.cameras import Cameras


def pixel_rays(cameras: Cameras) -> tuple[Float[Tensor, "*b 3 h w"], Float[Tensor, "*b 3 h w"]]:
    """Rays through the pixel centres.

    Args:
        cameras: batch ``*b``; pixel (column i, row j) has its centre at (i + 0.5, j + 0.5).

    Returns:
        origins: camera positions in world units, the same for all pixels of a view (an expanded view: do not
            write into it).
        directions: unit vectors in the world frame, pointing into the scene.
    """
    height, width = cameras.image_hw
    c2w, fxfycxcy = cameras.c2w, cameras.fxfycxcy
    columns = torch.arange(width, dtype=c2w.dtype, device=c2w.device) + 0.5
    rows = torch.arange(height, dtype=c2w.dtype, device=c2w.device) + 0.5
    fx, fy, cx, cy = fxfycxcy[..., None, None, None].unbind(-4)  # each [*b, 1, 1, 1]
    x = (columns - cx) / fx  # [*b, 1, 1, w]
    y = (rows[:, None] - cy) / fy  # [*b, 1, h, 1]
    x, y = torch.broadcast_tensors(x, y)
    directions = torch.cat([x, y, torch.ones_like(x)], dim=-3).flatten(-2)  # [*b, 3, h * w]
    rotation = c2w[..., :3, :3]
    if c2w.device.type == "cpu":
        # A matrix product and a division, in this order, give the bits that the published model's rays have.
        with _exact(c2w):
            directions = rotation @ directions
    else:
        # On a GPU a product could be rounded to TF32 (set_float32_matmul_precision) or, by autocast, to bfloat16.
        right, down, forward = rotation[..., None].unbind(-2)
        directions = right * directions[..., 0:1, :] + down * directions[..., 1:2, :] + forward
    directions = directions.unflatten(-1, (height, width))
    directions = directions / directions.norm(dim=-3, keepdim=True)
    origins = c2w[..., :3, 3, None, None].expand_as(directions)
    return origins, directions


def ray_features(cameras: Cameras) -> Float[Tensor, "*b 9 h w"]:
    """Nine channels per pixel in this order: origin o, unit direction d, moment o x d (world frame)."""
    origins, directions = pixel_rays(cameras)
    with _exact(origins):
        moment = torch.linalg.cross(origins, directions, dim=-3)
    return torch.cat([origins, directions, moment], dim=-3)


def _exact(tensor: Tensor) -> AbstractContextManager:
    """No autocast: it would round products, and torch.linalg.cross fails under it."""
    kind = tensor.device.type
    # Not torch.amp.is_autocast_available: torch.compile of some versions cannot look into it, and leaves off there.
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)
