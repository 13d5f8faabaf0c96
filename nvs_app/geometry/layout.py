"""Where the cameras of a capture stand around what they look at: the ground that paths are made on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.geometry.coverage import LEAST, Arc, azimuths, covered_arc, covered_elevations, elevations
from nvs_app.geometry.normalize import SimilarityTransform, normalize_context
from nvs_app.geometry.robust import camera_statistics, median

AROUND, FRONT, OUTWARD = "around", "front", "outward"


@dataclass(frozen=True)
class Layout:
    """Where the cameras of a capture stand, in its normalised frame (z up, float64)."""

    transform: SimilarityTransform  # world -> normalised
    kind: str
    c2w: Tensor  # [v, 4, 4], wild cameras left out
    center: Tensor  # [3] mean position
    forward: Tensor  # [3] mean direction of view, unit length unless the directions cancel
    target: Tensor  # [3] what to look at

    @staticmethod
    def of(c2w: Tensor) -> Layout:
        if len(c2w) == 0:
            raise NVSError("camera path: the capture has no cameras")
        transform = normalize_context(c2w).to(torch.float64)
        statistics = camera_statistics(c2w)
        believed = statistics.weight > 0.1 * statistics.weight.max()
        normal = transform.apply_c2w(c2w.double()[believed])
        position, forward = normal[:, :3, 3], normal[:, :3, 2]
        distance = position.norm(dim=-1)
        # How much the cameras look at the origin: 1 toward it, -1 away from it.
        toward = (-(position * forward).sum(-1) / distance.clamp_min(1e-9)).mean()
        mean_forward = forward.mean(0)
        center = position.mean(0)
        target = torch.zeros_like(center)
        if bool(toward > 0.5):
            kind = AROUND if covered_arc(azimuths(position)).around else FRONT
        elif bool(mean_forward.norm() > 0.5):
            kind = FRONT
            target = center + mean_forward / mean_forward.norm() * _front_depth(c2w[believed], transform)
        else:
            kind, target = OUTWARD, center
        return Layout(transform, kind, normal, center, _unit(mean_forward), target)

    @property
    def offset(self) -> Tensor:
        return self.c2w[:, :3, 3] - self.target

    @property
    def sight(self) -> Tensor:
        """From the target to the cameras; for a capture that looks outwards, against the directions of view."""
        return -self.c2w[:, :3, 2] if self.kind == OUTWARD else self.offset

    @property
    def radius(self) -> Tensor:
        # Turning in the middle of a room: on a circle small enough not to meet its walls.
        return median(self.offset.norm(dim=-1)) * (0.25 if self.kind == OUTWARD else 1.0)

    @property
    def arc(self) -> Arc:
        """The azimuths that the capture covers."""
        return covered_arc(azimuths(self.sight))

    @property
    def elevation(self) -> Tensor:
        return median(elevations(self.sight)).clamp(math.radians(-80), math.radians(80))

    @property
    def elevation_range(self) -> tuple[float, float]:
        return covered_elevations(self.sight)

    def azimuth(self, phase: Tensor, start: int = 0) -> Tensor:
        """Azimuths for phases (radians): all around from that of camera `start`, or to and fro on the arc that is
        covered, from its middle."""
        arc = self.arc
        if arc.around:
            return azimuths(self.sight)[start] + phase
        return arc.middle + arc.half * torch.sin(phase)

    def round(self, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Azimuths and elevations of a closed path that begins beside a camera of the capture, for phases from 0 to
        2 pi: a circle at the median elevation, or an ellipse within the arc and the elevations that are covered."""
        own, heights = azimuths(self.sight), elevations(self.sight)
        arc = self.arc
        if arc.around:
            off = (heights - self.elevation).abs() + (self.offset.norm(dim=-1) / self.radius).log().abs()
            return self.azimuth(phase, _first_least(off)), self.elevation.expand_as(phase)
        low, high = self.elevation_range
        sway = min(max(0.5 * (high - low), 0.4 * LEAST), math.radians(30))
        turned = torch.remainder(own - arc.middle + math.pi, 2 * math.pi) - math.pi
        starts = torch.asin((turned / arc.half).clamp(-1, 1))
        off = (heights - 0.5 * (low + high) - sway * torch.cos(starts)).abs() + (turned.abs() - arc.half).clamp_min(0)
        phase = phase + starts[_first_least(off)]
        return self.azimuth(phase), 0.5 * (low + high) + sway * torch.cos(phase)

    @property
    def front_axes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Right, up and forward of the mean camera."""
        up = self.center.new_tensor([0.0, 0.0, 1.0])
        pose = look_at(self.center, self.target, up)
        return pose[:3, 0], -pose[:3, 1], pose[:3, 2]

    @property
    def front_extent(self) -> tuple[Tensor, Tensor, Tensor]:
        """Half extents of the capture along the mean camera's axes; at least a little, to show depth."""
        offset = self.c2w[:, :3, 3] - self.center
        depth = (self.target - self.center).norm()
        extents = [torch.quantile((offset * axis).sum(-1).abs(), 0.8) for axis in self.front_axes]
        least = 0.05 * depth
        return (
            torch.minimum(torch.maximum(extents[0], least), depth),
            torch.minimum(torch.maximum(extents[1], 0.6 * least), depth),
            # Forward only as far as stays well behind the target.
            torch.minimum(extents[2], 0.3 * depth),
        )

    def look(self, cameras: Cameras, azimuth: Tensor, elevation: Tensor, radius: Tensor) -> Cameras:
        """Cameras on a sphere around the target that look at it, or, OUTWARD, on the other side and beyond it."""
        elevation = elevation.expand_as(azimuth)
        flat = torch.cos(elevation)
        ray = torch.stack([flat * torch.cos(azimuth), flat * torch.sin(azimuth), torch.sin(elevation)], dim=-1)
        if self.kind == OUTWARD:
            level = ray * ray.new_tensor([1.0, 1.0, 0.0])
            eye = self.target - radius * level
            return self.view(cameras, eye, eye - ray)
        return self.view(cameras, self.target + radius * ray, self.target.expand_as(ray))

    def view(self, cameras: Cameras, eye: Tensor, target: Tensor) -> Cameras:
        """Cameras in the world from points of the normalised frame, with the capture's median focal lengths."""
        c2w = self.transform.inverse().apply_c2w(look_at(eye, target, eye.new_tensor([0.0, 0.0, 1.0])))
        height, width = cameras.image_hw
        focal = median(cameras.flatten().fxfycxcy[:, :2].T)
        fxfycxcy = torch.cat([focal, focal.new_tensor([0.5 * width, 0.5 * height])])
        return Cameras(c2w.to(cameras.c2w.dtype), fxfycxcy.expand(len(c2w), 4).clone(), (height, width))


def _front_depth(c2w: Tensor, transform: SimilarityTransform) -> Tensor:
    """How far in front of parallel cameras to look, in normalised units.

    Twice the extent of the capture; a capture of one point has no extent, and then the world's origin is taken
    for what it looks at, if that lies in front, else a depth of one unit.
    """
    position, forward = c2w[:, :3, 3].double(), c2w[:, :3, 2].double()
    extent = (position - position.mean(0)).norm(dim=-1).mean()
    to_origin = -(position * forward).sum(-1).mean()
    scale = transform.scale
    if bool(extent * scale > 1e-3):
        return 2 * extent * scale
    return torch.where(to_origin > 1e-3, to_origin, torch.ones_like(to_origin)) * scale


def _first_least(values: Tensor) -> int:
    """The first of the least values; what differs by rounding only counts as equal."""
    return int((values <= values.min() + 0.01).nonzero()[0, 0])


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp_min(1e-9)


@dataclass(frozen=True)
class CoveredViews:
    """From where photos show a scene, in its own frame.

    around: from all sides; else within `half` degrees of `middle` (unit vector from the focus, square to `up`).
    elevation: lowest and highest in degrees above the plane square to `up`.
    outward: photos look outwards from the middle; then directions are those that they look from, not where they stand.
    """

    around: bool
    middle: Float[Tensor, "3"]
    half: float
    up: Float[Tensor, "3"]
    elevation: tuple[float, float]
    outward: bool = False


def covered_views(c2w: Float[Tensor, "v 4 4"]) -> CoveredViews:
    """From where a capture of cameras [v] shows its scene. Raises NVSError without cameras."""
    layout = Layout.of(c2w)
    arc, (low, high) = layout.arc, layout.elevation_range
    ahead = layout.center.new_tensor([[math.cos(arc.middle), math.sin(arc.middle), 0.0], [0.0, 0.0, 1.0]])
    back = layout.transform.inverse()
    world = (back.apply_points(ahead) - back.apply_points(torch.zeros_like(ahead))).to(c2w.dtype)
    middle, up = torch.nn.functional.normalize(world, dim=-1)
    degrees = (math.degrees(low), math.degrees(high))
    return CoveredViews(arc.around, middle, math.degrees(arc.half), up, degrees, layout.kind == OUTWARD)
