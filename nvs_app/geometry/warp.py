"""Where a pixel of one camera lies in another: projection of points at given depths, for sweeps and warps.

    rays = plane_rays(target.fxfycxcy, target.image_hw, (h, w))       # [n, 3, h, w], z = 1
    seen = project(rays, depth, relative_pose(target.c2w, source.c2w), source.fxfycxcy, source.image_hw)
    warped = F.grid_sample(photo, seen.grid, align_corners=False)

Depth is z along the target camera's forward axis, in the cameras' common frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NEAREST = 1e-3  # a point closer to the source camera's plane than this is not seen by it


class RelativePose(NamedTuple):
    """x_source = rotation @ x_target + translation, in camera axes: [n, k, 3, 3] and [n, k, 3]."""

    rotation: Tensor
    translation: Tensor


class Projection(NamedTuple):
    """Points of target pixels as k source cameras see them; axes [n, k, d, h, w].

    grid: [..., 2] in [-1, 1] over the source image, as `grid_sample` with align_corners=False takes it.
    depth: z in the source camera. valid: in front of it and inside its frame.
    cosine: of the angle between the two viewing rays. ratio: log of the distance from the source over that from the
    target; positive where the source saw the point from further away, that is coarser.
    """

    grid: Float[Tensor, "n k d h w 2"]
    depth: Float[Tensor, "n k d h w"]
    valid: Bool[Tensor, "n k d h w"]
    cosine: Float[Tensor, "n k d h w"]
    ratio: Float[Tensor, "n k d h w"]


def plane_rays(
    fxfycxcy: Float[Tensor, "n 4"], image_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> Float[Tensor, "n 3 h w"]:
    """Rays in camera axes with z = 1, through the centres of a grid of cells that covers the image evenly.

    fxfycxcy: in pixels of an image of `image_hw` = (height, width); grid_hw: cells, (h, w).
    """
    (height, width), (h, w) = image_hw, grid_hw
    columns = (torch.arange(w, device=fxfycxcy.device, dtype=fxfycxcy.dtype) + 0.5) * (width / w)
    rows = (torch.arange(h, device=fxfycxcy.device, dtype=fxfycxcy.dtype) + 0.5) * (height / h)
    fx, fy, cx, cy = fxfycxcy[:, :, None, None].unbind(1)
    x = ((columns - cx) / fx).expand(-1, h, -1)
    y = ((rows[:, None] - cy) / fy).expand(-1, -1, w)
    return torch.stack([x, y, torch.ones_like(x)], dim=1)


def relative_pose(target_c2w: Float[Tensor, "n 4 4"], source_c2w: Float[Tensor, "n k 4 4"]) -> RelativePose:
    """The pose of each target camera in the axes of its k source cameras."""
    inverse = source_c2w[..., :3, :3].transpose(-1, -2)
    # Sums, not matrix products: those could be rounded (TF32, autocast), and a pixel is a thousandth.
    rotation = (inverse[..., :, :, None] * target_c2w[:, None, None, :3, :3]).sum(-2)
    offset = target_c2w[:, None, :3, 3] - source_c2w[..., :3, 3]
    return RelativePose(rotation, (inverse * offset[..., None, :]).sum(-1))


def project(
    rays: Float[Tensor, "n 3 h w"],
    depth: Float[Tensor, "n d h w"],
    pose: RelativePose,
    fxfycxcy: Float[Tensor, "n k 4"],
    image_hw: tuple[int, int],
) -> Projection:
    """Project the points at `depth` on `rays` (`plane_rays`) into k source cameras.

    pose: of the target in the source cameras' axes. fxfycxcy, image_hw: of the source images, in pixels.
    Differentiable in `depth` through grid, depth, cosine and ratio.
    """
    turned = (pose.rotation[..., None, None] * rays[:, None, None]).sum(-3)  # [n, k, 3, h, w]
    shift = pose.translation[..., None, None, None]
    point = turned[:, :, :, None] * depth[:, None, None] + shift  # [n, k, 3, d, h, w]
    x, y, z = point.unbind(2)
    fx, fy, cx, cy = fxfycxcy[..., None, None, None].unbind(2)
    safe = z.clamp_min(NEAREST)
    u = (x / safe * fx + cx) * (2 / image_hw[1]) - 1
    v = (y / safe * fy + cy) * (2 / image_hw[0]) - 1
    valid = (z > NEAREST) & (u.abs() <= 1) & (v.abs() <= 1)
    # The second ray, in the same axes: from the target's eye, which lies at `shift`.
    own = point - shift
    to_source, to_target = (part.square().sum(2).clamp_min(1e-12) for part in (point, own))
    scale = (to_source * to_target).rsqrt()
    cosine = (point * own).sum(2) * scale
    ratio = 0.5 * (to_source / to_target).log()
    # Far outside, where nothing is sampled, numbers stay small.
    return Projection(torch.stack([u, v], -1).clamp(-2, 2), z, valid, cosine, ratio)
