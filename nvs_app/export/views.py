"""The surfaces that a scene's own photos show: depth at the context cameras, in the scene's own frame.

views = surface_views(renderer, state)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class SurfaceViews:
    """Photos of a scene with the depth of what they show; on one device, in the frame of the cameras that were given.

    images: [v, 3, H, W] in [0, 1]. cameras: [v], OpenCV axes.
    depth: [v, H, W], z along the camera's forward axis; 0 where there is no surface or no photo shows it.
    uncertainty: [v, H, W], relative: the depth is off by this share of itself, one standard deviation.
    empty: [v, H, W], where a view looks past everything: sky, a plain background.
    """

    images: Float[Tensor, "v 3 h w"]
    cameras: Cameras
    depth: Float[Tensor, "v h w"]
    uncertainty: Float[Tensor, "v h w"]
    empty: Bool[Tensor, "v h w"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> SurfaceViews:
        """Some of the views."""
        parts = (self.depth, self.uncertainty, self.empty)
        return SurfaceViews(self.images[rows], self.cameras[rows], *(part[rows] for part in parts))

    @property
    def background(self) -> tuple[float, float, float] | None:
        """RGB in [0, 1] of a plain background that the photos' borders show; None where they show none."""
        median, plain = border_colour(self.images)
        red, green, blue = median.tolist()
        return (red, green, blue) if plain else None

    @staticmethod
    def of(images: Tensor, cameras: Cameras, rendered: RenderedViews) -> SurfaceViews:
        """Photos [v, 3, H, W] and the views rendered at their cameras."""
        cameras = cameras.to(torch.float32)
        return SurfaceViews(images, cameras, masked_depth(rendered), rendered.uncertainty, rendered.surface < SURE)


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
