"""What the viewer shows of a view's geometry: depth in colours, parts that no photo shows, the point under a pixel.

views = renderer.render(state, camera, depth=True)
shown = depth_in_colours(views)          # OutputImage: image, and what its header says
shown = coverage(views)
surface_point(views, camera, (0.5, 0.5))  # [x, y, z] and depth, or None where there is no surface
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from nvs_app.geometry.cameras import Cameras
from nvs_app.rendering.views import RenderedViews

SURE = 0.5  # of `surface` and of `seen`: below, a pixel has no depth to speak of
ENDS = (0.02, 0.98)  # quantiles of the depth that the colours run between; a few wild pixels do not decide
VALUES = 32  # depths along the shorter side that go with a frame, for the value under the pointer
TINT, OPACITY = (0.91, 0.22, 0.86), 0.6  # of what no photo shows


@dataclass(frozen=True)
class OutputImage:
    """An image [3, h, w] in [0, 1] on the renderer's device, and facts for the header of its frame (JSON values)."""

    image: Float[Tensor, "3 h w"]
    facts: dict[str, Any] = field(default_factory=dict)


def sure(views: RenderedViews) -> Bool[Tensor, "v h w"]:
    """Which pixels show a surface that some photo shows, too."""
    return (views.surface >= SURE) & (views.seen >= SURE) & views.depth.isfinite() & (views.depth > 0)


def depth_in_colours(views: RenderedViews) -> OutputImage:
    """The first view's depth in the colours of "turbo", red near and blue far, by its logarithm; grey, with the image
    in it, where no depth is sure.

    Facts: "range": nearest and farthest in units of the scene's frame, null without any surface; "values": depths, rows
    of a grid of VALUES cells along the shorter side, null where none is sure.
    """
    known, depth, image = sure(views)[0], views.depth[0], views.images[0]
    grey = (0.15 + 0.35 * image.mean(0)).expand_as(image)
    if not bool(known.any()):
        return OutputImage(grey, {"range": None, "values": []})
    near, far = _ends(depth[known].log())
    share = ((depth.clamp_min(1e-9).log() - near) / max(far - near, 1e-6)).clamp(0, 1)
    colours = _turbo().to(image.device)[(255 * (1 - share)).round().long()].permute(2, 0, 1)
    reach = [float(np.exp(value)) for value in (near, far)]
    return OutputImage(torch.where(known, colours, grey), {"range": reach, "values": _values(depth, known)})


def coverage(views: RenderedViews) -> OutputImage:
    """The first view with a tint where no photo shows what it shows. Facts: "unseen": their share of the pixels."""
    image, unseen = views.images[0], views.seen[0] < SURE
    tint = image.new_tensor(TINT)[:, None, None]
    tinted = image + OPACITY * (tint - image)
    return OutputImage(torch.where(unseen, tinted, image), {"unseen": float(unseen.float().mean())})


def surface_point(
    views: RenderedViews, camera: Cameras, at: tuple[float, float]
) -> tuple[Float[Tensor, "3"], float] | None:
    """The surface under a place of the first view.

    Args:
        views: of one camera, with depth.
        camera: the same one [1], in the scene's frame.
        at: right and down, from (0, 0) at the top left corner to (1, 1).

    Returns:
        The point in the scene's frame and its depth, the median of the sure ones among the 3x3 pixels around; None
        where most of these are not sure.
    """
    height, width = camera.image_hw
    x, y = at[0] * width, at[1] * height
    column, row = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
    rows, columns = slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2)
    known = sure(views)[0, rows, columns]
    if int(known.sum()) * 2 <= known.numel():
        return None
    depth = views.depth[0, rows, columns][known].median().double().cpu()
    c2w, (fx, fy, cx, cy) = camera.c2w[0].double().cpu(), camera.fxfycxcy[0].double().tolist()
    ray = torch.tensor([(x - cx) / fx, (y - cy) / fy, 1.0], dtype=torch.float64)
    return (c2w[:3, :3] @ (ray * depth) + c2w[:3, 3]), float(depth)


def _ends(values: Tensor) -> tuple[float, float]:
    """The quantiles ENDS; torch's own takes 16 million values at most, and is slow on a million."""
    values = values[:: 1 + len(values) // 65536].float()
    low, high = torch.quantile(values, values.new_tensor(ENDS)).tolist()
    return low, high


def _values(depth: Float[Tensor, "h w"], known: Bool[Tensor, "h w"]) -> list[list[float | None]]:
    height, width = depth.shape
    cells = [max(1, round(VALUES * side / min(height, width))) for side in (height, width)]
    marked = torch.where(known, depth, torch.zeros_like(depth))
    found = F.interpolate(marked[None, None], cells, mode="nearest-exact")[0, 0].tolist()
    return [[float(f"{value:.4g}") if value > 0 else None for value in row] for row in found]


@functools.cache
def _turbo() -> Float[Tensor, "256 3"]:
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)
    return torch.from_numpy(np.ascontiguousarray(ramp[:, 0, ::-1])).float() / 255
