"""Points on the surfaces of a scene, found by comparing its context images: where a Gaussian splatting fit starts.

    points, colours = seed_points(context)

What structure from motion gives such a fit elsewhere. Each pixel of a grid looks along its ray for the depth at which
the nearest other views show the same small patch; those that find none, or show a plain background, give no point.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.rays import pixel_rays
from nvs_app.geometry.robust import camera_statistics
from nvs_app.scenes.posed import PosedImages

_DEPTHS = 96
_NEAR, _FAR = 0.25, 8.0  # in units of the distance that the cameras look at; evenly spaced in inverse depth
_VIEWS = 4  # other views that a patch is compared with
_WORST_MATCH = 0.12  # mean absolute difference of two patches that are taken for the same surface
_PLAIN = 0.03  # borders whose colours deviate less from their median show a plain background
_SCATTER = (0.6, 1.4)  # depths of scattered points, in the same units: not close to any camera


def viewing_distance(cameras: Cameras) -> float:
    """How far away what the cameras look at is, in world units; 1 where that cannot be told (a single camera)."""
    distance = float(camera_statistics(cameras.c2w.cpu()[None]).distance[0])
    return distance if distance > 1e-6 else 1.0


def border_colour(images: Float[Tensor, "v 3 h w"]) -> tuple[Float[Tensor, "3"], bool]:
    """Median colour of the images' borders, and whether they show hardly another one: a plain background."""
    edges = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], dim=-1)
    edges = edges.movedim(1, 0).flatten(1)
    median = edges.median(dim=1).values
    return median, bool((edges - median[:, None]).abs().mean() < _PLAIN)


def seed_points(context: PosedImages, count: int = 60_000) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Points in world units and their colours in [0, 1], on the device of the images; nothing random.

    context: images [v, 3, H, W], float in [0, 1].
    count: about how many pixels, of all images together, look for a point.
    May return no point: from a single view, or images that have nothing in common.
    """
    images, cameras = context.images, context.cameras.to(context.images.device, torch.float32)
    step = max(1, round((images[:, 0].numel() / count) ** 0.5))
    grid = (..., slice(step // 2, None, step), slice(step // 2, None, step))
    patches = _patches(images)
    background, plain = border_colour(images)
    distance = viewing_distance(cameras)
    points, colours = [images.new_zeros(0, 3)], [images.new_zeros(0, 3)]
    for view in range(len(context)):
        others = _neighbours(cameras, view)
        if not len(others):
            continue
        origins, directions = (part[grid].flatten(1) for part in pixel_rays(cameras[view]))
        patch, own = patches[view][grid].flatten(1), images[view][grid].flatten(1)
        if plain:
            shown = (own - background[:, None]).abs().amax(dim=0) > _PLAIN
            origins, directions, patch, own = (part[:, shown] for part in (origins, directions, patch, own))
        depth, found = _sweep(origins, directions, patch, patches[others], cameras[others], distance)
        points.append((origins + depth * directions).T[found])
        colours.append(own.T[found])
    return torch.cat(points), torch.cat(colours)


def scattered_points(
    context: PosedImages, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """`count` points at random depths on rays of random pixels, and these pixels' colours; arguments as above.

    generator: on the CPU.
    """
    device, cameras = context.images.device, context.cameras.to("cpu", torch.float32)
    sizes = (len(context), *cameras.image_hw)
    view, row, column = (torch.randint(size, (count,), generator=generator) for size in sizes)
    origins, directions = (part[view, :, row, column] for part in pixel_rays(cameras))
    near, far = _SCATTER
    depth = viewing_distance(cameras) * (near + (far - near) * torch.rand(count, 1, generator=generator))
    colours = context.images[view.to(device), :, row.to(device), column.to(device)]
    return (origins + depth * directions).to(context.images), colours


def _patches(images: Tensor) -> Tensor:
    """3x3 colours two pixels apart around each pixel of the slightly blurred images: [v, 27, h, w]."""
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    padded = F.pad(blurred, (2, 2, 2, 2), mode="replicate")
    return F.unfold(padded, 3, dilation=2).unflatten(-1, images.shape[-2:])


def _neighbours(cameras: Cameras, view: int) -> Tensor:
    """The views nearest to a view by position and direction, but for those from the very same place."""
    position, forward = cameras.c2w[:, :3, 3], cameras.c2w[:, :3, 2]
    distance = (position - position[view]).norm(dim=-1)
    spread = distance.mean().clamp_min(1e-9)
    cost = distance / spread + torch.acos((forward * forward[view]).sum(-1).clamp(-1, 1))
    cost = cost.masked_fill(distance < 1e-3 * spread, float("inf"))
    order = cost.argsort()
    return order[cost[order].isfinite()][:_VIEWS]


def _sweep(
    origins: Tensor, directions: Tensor, patch: Tensor, patches: Tensor, cameras: Cameras, distance: float
) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """The depth of each ray [3, n] at which the patches [k, 27, h, w] of other cameras differ least from its own
    [27, n], and whether they match there."""
    inverse = torch.linspace(1 / _FAR, 1 / _NEAR, _DEPTHS, device=patch.device) / distance
    w2c, (height, width) = cameras.w2c, cameras.image_hw
    focal, centre = cameras.fxfycxcy[:, :2, None], cameras.fxfycxcy[:, 2:, None]
    extent = patch.new_tensor([width, height])[:, None]
    costs = []
    for depth in inverse.reciprocal():
        local = w2c[:, :3, :3] @ (origins + depth * directions) + w2c[:, :3, 3:]
        z = local[:, 2]
        place = 2 * (local[:, :2] / z.clamp_min(1e-6)[:, None] * focal + centre) / extent - 1
        inside = (place.abs() < 1).all(dim=1) & (z > 1e-6)
        seen = F.grid_sample(
            patches, place.movedim(1, -1)[:, None], align_corners=False, padding_mode="border"
        )[:, :, 0]  # fmt: skip
        difference = (seen - patch).abs().mean(dim=1).masked_fill(~inside, 1.0)
        # The better half of the views: in the others something may stand in front.
        costs.append(difference.sort(dim=0).values[: (len(difference) + 1) // 2].mean(dim=0))
    best = torch.stack(costs).min(dim=0)
    return inverse[best.indices].reciprocal(), best.values < _WORST_MATCH
