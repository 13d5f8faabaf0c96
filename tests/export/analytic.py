"""A scene whose depth is known: a striped ball on a disc, seen by cameras on a circle. Nothing is learned here."""

from __future__ import annotations

import torch
from camera_rings import ring_cameras

from nvs_app.export.views import SurfaceViews
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.rays import pixel_rays

BALL, RADIUS, DISC = (0.0, 0.0, 0.5), 0.5, 1.2


def cameras(count: int = 8, side: int = 64, start: float = 0.0) -> Cameras:
    """Around the ball and above it."""
    lens = (1.2 * side, 1.25 * side, side / 2 + 1, side / 2 - 2)
    return ring_cameras(count, (side, side), lens, radius=2.6, height=1.4, start=start, centre=(0.0, 0.0, 0.3))


def analytic_views(eyes: Cameras) -> SurfaceViews:
    """What cameras see, on white."""
    origin, ray = (part.movedim(1, -1).double() for part in pixel_rays(eyes))
    away = origin - torch.tensor(BALL, dtype=torch.float64)
    half, rest = (away * ray).sum(-1), away.square().sum(-1) - RADIUS**2
    root = half.square() - rest
    ball = torch.where(root > 0, -half - root.clamp_min(0).sqrt(), torch.inf)
    floor = torch.where(ray[..., 2] < 0, -origin[..., 2] / ray[..., 2], torch.inf)
    place = origin + ray * floor.nan_to_num(posinf=0)[..., None]
    floor = torch.where(place[..., :2].norm(dim=-1) < DISC, floor, torch.inf)
    reach = torch.minimum(ball, floor)
    shown = reach.isfinite()
    point = origin + ray * torch.where(shown, reach, 0.0)[..., None]
    depth = torch.where(shown, reach, 0.0) * (ray * eyes.c2w[:, None, None, :3, 2].double()).sum(-1)
    images = torch.where(shown[..., None], pattern(point), 1.0).movedim(-1, 1).float()
    unsure = torch.full(depth.shape, 0.005)
    return SurfaceViews(images, eyes, depth.float(), unsure, ~shown)


def pattern(point: torch.Tensor) -> torch.Tensor:
    """Smooth colours [..., 3], nowhere the same twice."""
    x, y, z = point.unbind(-1)
    waves = [torch.sin(4 * x + 2 * y), torch.sin(5 * y - 3 * z), torch.sin(4 * z + 3 * x - 2 * y)]
    return 0.5 + 0.35 * torch.stack(waves, dim=-1)


def off_surface(points: torch.Tensor) -> torch.Tensor:
    """Distance of points [n, 3] from the nearest surface."""
    points = points.double()
    ball = ((points - torch.tensor(BALL, dtype=torch.float64)).norm(dim=-1) - RADIUS).abs()
    beyond = (points[:, :2].norm(dim=-1) - DISC).clamp_min(0)
    return torch.minimum(ball, (points[:, 2].square() + beyond.square()).sqrt())
