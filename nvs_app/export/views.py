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
from nvs_app.scenes.images import to_uint8
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.scene import Scene

_FAR = 500.0  # times a scene's size away from the origin, float32 rounds to about a hundredth of a pixel
_SAME = 1e-5  # poses that differ by less are of the same photo
_FINER = 1.1  # times what was read: less is the same
_PIXELS = 2**26  # of all fine photos: 64 of 1024x1024, 200 MB


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


def fine_photos(scene: Scene | None, cameras: Cameras) -> PosedImages | None:
    """The photos that were read at these cameras [v], as fine as their files are, as uint8; None where they are no
    finer, and where not all are in the scene. cameras: in the scene's own frame.

    Of many, large photos (`_PIXELS` together) the copies are smaller.
    """
    if scene is None:
        return None
    poses = scene.c2w.double()
    apart = (poses[:, :3] - cameras.c2w.double()[:, None, :3]).abs().amax(dim=(2, 3))
    nearest = apart.min(dim=1)
    if not (nearest.values <= _SAME * (1 + poses[:, :3, 3].abs().max())).all():
        return None
    rows = nearest.indices.tolist()
    height, width = cameras.image_hw
    finer = (scene.image_hws[rows].double() / torch.tensor([height, width])).amin(dim=1).median().item()
    finer = min(finer, (_PIXELS / (len(rows) * height * width)) ** 0.5)
    if finer < _FINER:
        return None
    image_hw = (round(finer * height), round(finer * width))
    images = torch.empty(len(rows), 3, *image_hw, dtype=torch.uint8)
    for view, row in enumerate(rows):  # one by one: as float32 all of them would take four times the memory
        images[view] = to_uint8(scene.load([row], image_hw).images[0]).movedim(-1, 0)
    return PosedImages(images, scene.cameras(rows, image_hw))
