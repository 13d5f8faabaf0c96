"""Camera paths: orbit, spiral, spline through keyframes, and the capture's own path.

    path = orbit(scene.cameras(image_hw=(256, 256)), 120)

Orbit and spiral are made for the capture at hand. Where the cameras stand around something, they go around it;
where they stand in front of something, they sway in front of it, within the extent of the capture; where they
look outwards (a room seen from its middle), they stay in the middle and turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at, rigid
from nvs_app.geometry.normalize import SimilarityTransform, normalize_context
from nvs_app.geometry.robust import camera_statistics, median
from nvs_app.geometry.rotations import matrix_to_quaternion, quaternion_to_matrix, squad

AROUND, FRONT, OUTWARD = "around", "front", "outward"


def focus_point(c2w: Float[Tensor, "v 4 4"]) -> Float[Tensor, "3"]:
    """The point that the cameras look at, in the world; always in front of them (of most, if they look apart).

    The point closest to the optical axes where they meet in front of the cameras; else, for parallel axes and
    single views, a point on the mean axis at a depth of twice the extent of the capture.
    """
    layout = _Layout.of(c2w)
    return layout.transform.inverse().apply_points(layout.target).to(c2w.dtype)


def orbit(
    cameras: Cameras,
    n: int,
    elevation: float | int | None = None,
    radius: float | int | None = None,
    turns: float | int = 1,
) -> Cameras:
    """A turntable: n cameras around the point that the capture looks at.

    Args:
        cameras: the capture (or its context views), in the scene's frame.
        n: number of cameras; the path closes, so that camera n would be camera 0 again.
        elevation: degrees above the horizon; the capture's median unless given.
        radius: distance from the focus in world units; the capture's median unless given.
        turns: how many times around (or to and fro); negative turns the other way.

    Returns:
        Cameras [n] with the capture's up, image_hw and median focal lengths, principal point in the middle. A
        capture that does not see its scene from all around gives a sway within its own extent instead of a circle.
    """
    _check_count(n)
    layout = _Layout.of(cameras.flatten().c2w)
    phase = _phases(n, cameras) * turns
    if radius is not None and radius <= 0:
        raise NVSError(f"orbit: radius is {radius}, expected a positive distance")
    if elevation is not None and not -90 <= elevation <= 90:
        raise NVSError(f"orbit: elevation is {elevation}, expected degrees from -90 to 90")
    reach = layout.radius if radius is None else float(radius) * layout.transform.scale
    azimuth, sway = layout.azimuth(phase)
    height = layout.elevation + sway * torch.cos(phase)
    if elevation is not None:
        height = torch.full_like(phase, math.radians(elevation))
    return layout.look(cameras, azimuth, height, reach)


def spiral(cameras: Cameras, n: int, turns: float | int = 2) -> Cameras:
    """A spiral that shows parallax: around the scene from the lowest to the highest elevation of the capture and
    back, or, for a capture from the front, circles in front of the scene within the extent of the capture.

    Args and result as for :func:`orbit`; the path closes for whole ``turns``.
    """
    _check_count(n)
    layout = _Layout.of(cameras.flatten().c2w)
    once = _phases(n, cameras)
    low, high = layout.elevation_range
    middle, half = 0.5 * (low + high), torch.clamp(0.5 * (high - low), min=math.radians(5.0))
    if layout.kind != FRONT:
        azimuth, _ = layout.azimuth(once * turns)
        return layout.look(cameras, azimuth, middle - half * torch.cos(once), layout.radius)
    # Circles in the plane of the mean camera, with a slow to and fro along its axis.
    side, height, depth = layout.front_extent
    x, y, z = side * torch.cos(once * turns), height * torch.sin(once * turns), depth * torch.sin(once)
    right, up, forward = layout.front_axes
    eye = layout.center + x[:, None] * right + y[:, None] * up + z[:, None] * forward
    return layout.view(cameras, eye, layout.target.expand_as(eye))


def spline(keyframes: Cameras, n: int, loop: bool = False) -> Cameras:
    """A smooth path through keyframes, equal times between them.

    Positions follow a Catmull-Rom spline, rotations squad on quaternions (the shorter way, never an average of
    matrices), focal lengths a spline of their logarithm, principal points a line.

    Args:
        keyframes: one camera or more, batch shape [k].
        n: number of cameras; without a loop the first and last are the first and last keyframe.
        loop: return to the first keyframe; camera n would be camera 0 again.

    Returns:
        Cameras [n]; where a camera falls on a keyframe it equals it up to rounding.
    """
    _check_count(n)
    keyframes = keyframes.flatten()
    count = len(keyframes)
    if loop and count > 1:
        index = torch.arange(n, dtype=torch.float64, device=keyframes.device) * (count / n)
    else:
        index = torch.linspace(0, max(count - 1, 0), n, dtype=torch.float64, device=keyframes.device)
    return spline_at(keyframes, index, loop)


def spline_at(keyframes: Cameras, index: Float[Tensor, "n"], loop: bool = False) -> Cameras:
    """The path of :func:`spline` at given places: whole numbers are keyframes, 1.5 is between the second and third.

    Args:
        keyframes: one camera or more, batch shape [k].
        index: float64, from 0 to k - 1, or to k (the first keyframe again) in a loop.
        loop: the last keyframe is followed by the first.
    """
    keyframes = keyframes.flatten()
    count = len(keyframes)
    if count == 0:
        raise NVSError("spline: no keyframes, expected one camera or more")
    loop = loop and count > 1
    c2w, fxfycxcy = keyframes.c2w.double(), keyframes.fxfycxcy.double()
    rotation = quaternion_to_matrix(squad(matrix_to_quaternion(c2w[:, :3, :3]), index, loop))
    position = _catmull_rom(c2w[:, :3, 3], index, loop)
    focal = _catmull_rom(fxfycxcy[:, :2].log(), index, loop).exp()
    center = _linear(fxfycxcy[:, 2:], index, loop)
    dtype = keyframes.c2w.dtype
    return Cameras(
        rigid(rotation, position).to(dtype), torch.cat([focal, center], dim=-1).to(dtype), keyframes.image_hw
    )


def capture(cameras: Cameras, n: int) -> Cameras:
    """The capture's own path as n cameras: a smooth path through its cameras in their order.

    Where the order jumps about (pictures numbered at random), each camera is followed by its nearest neighbour
    instead.
    """
    _check_count(n)
    cameras = cameras.flatten()
    position = cameras.c2w[:, :3, 3].double()
    given = (position[1:] - position[:-1]).norm(dim=-1).sum()
    order = _nearest_order(position)
    walked = position[order]
    if (walked[1:] - walked[:-1]).norm(dim=-1).sum() < 0.5 * given:
        cameras = cameras[order]
    return spline(cameras, n)


@dataclass(frozen=True)
class _Layout:
    """Where the cameras of a capture stand, in its normalised frame (z up, float64)."""

    transform: SimilarityTransform  # world -> normalised
    kind: str
    c2w: Tensor  # [v, 4, 4], wild cameras left out
    center: Tensor  # [3] mean position
    forward: Tensor  # [3] mean direction of view, unit length unless the directions cancel
    target: Tensor  # [3] what to look at

    @staticmethod
    def of(c2w: Tensor) -> _Layout:
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
            kind = AROUND if _largest_gap(position) < math.radians(120) else FRONT
        elif bool(mean_forward.norm() > 0.5):
            kind = FRONT
            target = center + mean_forward / mean_forward.norm() * _front_depth(c2w[believed], transform)
        else:
            kind, target = OUTWARD, center
        return _Layout(transform, kind, normal, center, _unit(mean_forward), target)

    @property
    def _offset(self) -> Tensor:
        return self.c2w[:, :3, 3] - self.target

    @property
    def _sight(self) -> Tensor:
        """From the target to the cameras; for a capture that looks outwards, against the directions of view."""
        return -self.c2w[:, :3, 2] if self.kind == OUTWARD else self._offset

    @property
    def radius(self) -> Tensor:
        # Turning in the middle of a room: on a circle small enough not to meet its walls.
        return median(self._offset.norm(dim=-1)) * (0.25 if self.kind == OUTWARD else 1.0)

    @property
    def elevation(self) -> Tensor:
        return median(_elevations(self._sight)).clamp(math.radians(-80), math.radians(80))

    @property
    def elevation_range(self) -> tuple[Tensor, Tensor]:
        low, high = torch.quantile(_elevations(self._sight), self._sight.new_tensor([0.1, 0.9]))
        return low.clamp_min(math.radians(-80)), high.clamp_max(math.radians(80))

    def azimuth(self, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Azimuths for phases (radians), and how far the elevation sways with them."""
        own = torch.atan2(self._sight[:, 1], self._sight[:, 0])
        if self.kind != FRONT:
            return own[0] + phase, phase.new_zeros(())
        middle = torch.atan2(self._sight[:, 1].mean(), self._sight[:, 0].mean())
        turned = torch.remainder(own - middle + math.pi, 2 * math.pi) - math.pi
        low, high = torch.quantile(turned, turned.new_tensor([0.05, 0.95]))
        smallest = math.radians(5.0)  # one view, or a few at one spot: a small sway shows depth
        side = (0.5 * (high - low)).clamp(smallest, math.pi / 2)
        bottom, top = self.elevation_range
        sway = (0.5 * (top - bottom)).clamp(0.4 * smallest, math.radians(30))
        return middle + 0.5 * (low + high) + side * torch.sin(phase), sway

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


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp_min(1e-9)


def _elevations(offset: Tensor) -> Tensor:
    return torch.atan2(offset[:, 2], offset[:, :2].norm(dim=-1))


def _largest_gap(position: Tensor) -> float:
    """The largest angle around the z axis in which no camera stands."""
    azimuth = torch.atan2(position[:, 1], position[:, 0]).sort().values
    gaps = torch.cat([azimuth[1:] - azimuth[:-1], azimuth[:1] + 2 * math.pi - azimuth[-1:]])
    return float(gaps.max())


def _phases(n: int, cameras: Cameras) -> Tensor:
    return torch.arange(n, dtype=torch.float64, device=cameras.device) * (2 * math.pi / n)


def _check_count(n: int) -> None:
    if n < 1:
        raise NVSError(f"camera path: {n} frames asked for, expected 1 or more")


def _nearest_order(position: Tensor) -> list[int]:
    """All indices, each followed by the nearest one not yet visited, from the camera farthest from the middle."""
    current = int((position - position.mean(0)).norm(dim=-1).argmax())
    order, left = [current], torch.ones(len(position), dtype=torch.bool)
    left[current] = False
    while len(order) < len(position):
        distance = (position - position[order[-1]]).norm(dim=-1).cpu()
        order.append(int(distance.masked_fill(~left, math.inf).argmin()))
        left[order[-1]] = False
    return order


def _around(count: int, index: Tensor, loop: bool) -> tuple[Tensor, Tensor]:
    """The keyframe before each index, and the fraction of the way to the next."""
    start = index.floor().long().clamp(0, count - 1 if loop else max(count - 2, 0))
    return start, (index - start)[:, None]


def _linear(values: Tensor, index: Tensor, loop: bool) -> Tensor:
    start, fraction = _around(len(values), index, loop)
    end = (start + 1) % len(values) if loop else (start + 1).clamp_max(len(values) - 1)
    return values[start] + fraction * (values[end] - values[start])


def _catmull_rom(values: Tensor, index: Tensor, loop: bool) -> Tensor:
    """Through all values with continuous velocity; the ends without a loop go on straight."""
    count = len(values)
    if count == 1:
        return values.expand(len(index), *values.shape[1:])
    if loop:
        padded = torch.cat([values[-1:], values, values[:2]])
    else:
        padded = torch.cat([2 * values[:1] - values[1:2], values, 2 * values[-1:] - values[-2:-1]])
    start, t = _around(count, index, loop)
    before, first, second, after = (padded[start + shift] for shift in range(4))
    slope, next_slope = 0.5 * (second - before), 0.5 * (after - first)
    t2, t3 = t * t, t * t * t
    return (
        (2 * t3 - 3 * t2 + 1) * first + (t3 - 2 * t2 + t) * slope + (3 * t2 - 2 * t3) * second + (t3 - t2) * next_slope
    )
