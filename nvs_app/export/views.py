"""The surfaces that a scene's own photos show: depth at the context cameras, in the scene's own frame.

views = surface_views(renderer, state)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.evaluation.seed_points import border_colour
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.state import SceneState, context_cameras
from nvs_app.rendering.depth_files import SURE, masked_depth
from nvs_app.rendering.renderer import Renderer
from nvs_app.rendering.views import RenderedViews

_FAR = 500.0  # times a scene's size away from the origin, float32 rounds to about a hundredth of a pixel


@dataclass(frozen=True)
class SurfaceViews:
    """Photos of a scene with the depth of what they show; on one device, in the frame of the cameras that were given.

    images: [v, 3, H, W] in [0, 1]. cameras: [v], OpenCV axes, positions less `offset`.
    depth: [v, H, W], z along the camera's forward axis; 0 where there is no surface or no photo shows it.
    uncertainty: [v, H, W], relative: the depth is off by this share of itself, one standard deviation.
    empty: [v, H, W], where a view looks past everything: sky, a plain background.
    offset: to be added to all positions; other than 0 where the scene lies far from its frame's origin, as in map
        coordinates, whose last digits float32 does not hold.
    """

    images: Float[Tensor, "v 3 h w"]
    cameras: Cameras
    depth: Float[Tensor, "v h w"]
    uncertainty: Float[Tensor, "v h w"]
    empty: Bool[Tensor, "v h w"]
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> SurfaceViews:
        """Some of the views."""
        parts = {name: getattr(self, name)[rows] for name in ("images", "cameras", "depth", "uncertainty", "empty")}
        return replace(self, **parts)

    @property
    def background(self) -> tuple[float, float, float] | None:
        """RGB in [0, 1] of a plain background that the photos' borders show; None where they show none."""
        median, plain = border_colour(self.images)
        red, green, blue = median.tolist()
        return (red, green, blue) if plain else None

    @staticmethod
    def of(images: Tensor, cameras: Cameras, rendered: RenderedViews) -> SurfaceViews:
        """Photos [v, 3, H, W] and the views rendered at their cameras, whose poses are float64."""
        depth = masked_depth(rendered)
        offset = far_offset(cameras, float(depth.median()))
        c2w = cameras.c2w.double().clone()
        c2w[:, :3, 3] -= c2w.new_tensor(offset)
        near = replace(cameras, c2w=c2w).to(torch.float32)
        empty = rendered.surface < SURE
        return SurfaceViews(images, near, depth, rendered.uncertainty, empty, offset)


def far_offset(cameras: Cameras, depth: float = 0.0) -> tuple[float, float, float]:
    """What to subtract from positions so that float32 holds them: about their mean, in round numbers; 0 where the scene
    is not far from the origin. depth: a usual one, which tells the size of what few cameras see."""
    position = cameras.c2w[:, :3, 3].double()
    middle = position.mean(0)
    size = max(float((position - middle).norm(dim=-1).max()), depth)
    if float(middle.norm()) <= _FAR * size or size == 0:
        return (0.0, 0.0, 0.0)
    step = 10.0 ** math.ceil(math.log10(size))
    x, y, z = ((middle / step).round() * step).tolist()
    return (x, y, z)


def surface_views(renderer: Renderer, state: SceneState, progress: Callable[[int], None] | None = None) -> SurfaceViews:
    """The photos that a state holds, and their depth as the renderer sees it.

    progress: called with the number of views done so far; what it raises stops the work.

    Returns views on the CPU, of the size at which the photos were read. Raises NVSError for a state without photos or
    cameras, and where no detail head renders: it is what knows depth.
    """
    cameras = context_cameras(state)
    if state.context is None or cameras is None:
        raise NVSError(
            "export: the state holds no photos, it was encoded without a detail head; encode the scene again"
        )
    parts, done = [], 0
    for part in renderer.stream(state, cameras, depth=True):
        parts.append(part)
        done += len(part)
        if progress is not None:
            progress(done)
    photos = state.context.images[0].cpu()
    images = photos.float() / 255 if photos.dtype == torch.uint8 else photos.float()
    return SurfaceViews.of(images, cameras, RenderedViews.cat(parts))
