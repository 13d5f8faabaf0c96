"""Camera paths: orbit, spiral, spline through keyframes, dolly zoom, and the capture's own path.

    path = orbit(scene.cameras(image_hw=(256, 256)), 120)

Orbit and spiral are made for the capture at hand. Where the cameras stand around something, they go around it;
where they stand in front of something, they sway in front of it, within the extent of the capture; where they
look outwards (a room seen from its middle), they stay in the middle and turn.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, rigid
from nvs_app.geometry.coverage import LEAST
from nvs_app.geometry.layout import FRONT, Layout
from nvs_app.geometry.rotations import matrix_to_quaternion, quaternion_to_matrix, squad

WIDE = math.radians(45)  # of half an arc: beyond, circles in the plane of the mean camera would leave it


def focus_point(c2w: Float[Tensor, "v 4 4"]) -> Float[Tensor, "3"]:
    """The point that the cameras look at, in the world; always in front of them (of most, if they look apart).

    The point closest to the optical axes where they meet in front of the cameras; else, for parallel axes and
    single views, a point on the mean axis at a depth of twice the extent of the capture.
    """
    layout = Layout.of(c2w)
    return layout.transform.inverse().apply_points(layout.target).to(c2w.dtype)


def orbit(
    cameras: Cameras,
    n: int,
    elevation: float | int | None = None,
    radius: float | int | None = None,
    turns: float | int = 1,
) -> Cameras:
    """n cameras around the point that the capture looks at.

    Args:
        cameras: the capture (or its context views), in the scene's frame.
        n: number of cameras; the path closes, so that camera n would be camera 0 again.
        elevation: degrees above the horizon; the capture's median unless given.
        radius: distance from the focus in world units; the capture's median unless given.
        turns: how many times around (or to and fro); negative turns the other way.

    Returns:
        Cameras [n] with the capture's up, image_hw and median focal lengths, principal point in the middle. A
        capture that does not see its scene from all around gives a sway within the arc that it covers instead of a
        circle. The path begins beside a camera of the capture.
    """
    _check_count(n)
    layout = Layout.of(cameras.flatten().c2w)
    phase = _phases(n, cameras) * turns
    if radius is not None and radius <= 0:
        raise NVSError(f"orbit: radius is {radius}, expected a positive distance")
    if elevation is not None and not -90 <= elevation <= 90:
        raise NVSError(f"orbit: elevation is {elevation}, expected degrees from -90 to 90")
    reach = layout.radius if radius is None else float(radius) * layout.transform.scale
    azimuth, height = layout.round(phase)
    if elevation is not None:
        height = torch.full_like(phase, math.radians(elevation))
    return layout.look(cameras, azimuth, height, reach)


def spiral(cameras: Cameras, n: int, turns: float | int = 2) -> Cameras:
    """A spiral that shows parallax: around the scene from the lowest to the highest elevation of the capture and
    back, or, for a capture from the front, circles in front of the scene within the extent of the capture.

    Args and result as for :func:`orbit`; the path closes for whole ``turns``.
    """
    _check_count(n)
    layout = Layout.of(cameras.flatten().c2w)
    once = _phases(n, cameras)
    low, high = layout.elevation_range
    middle, half = 0.5 * (low + high), max(0.5 * (high - low), LEAST)
    if layout.kind != FRONT or layout.arc.half > WIDE:
        azimuth = layout.azimuth(once * turns)
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


def spline_at(keyframes: Cameras, index: Float[Tensor, " n"], loop: bool = False) -> Cameras:
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
    lenses = torch.cat([focal, center], dim=-1).to(keyframes.fxfycxcy.dtype)
    return Cameras(rigid(rotation, position).to(keyframes.c2w.dtype), lenses, keyframes.image_hw)


def capture(cameras: Cameras, n: int) -> Cameras:
    """The capture's own path as n cameras: a smooth path through its cameras in their order.

    Where the order jumps about (images numbered at random), each camera is followed by its nearest neighbour
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


def dolly_zoom(start: Cameras, subject: Float[Tensor, "3"], n: int, strength: float | int = 2.0) -> Cameras:
    """From `start` away from the subject, back, towards it, and back, while the subject keeps its size.

    Args:
        start: one camera [1].
        subject: a point of the world; its depth before the camera is what counts.
        n: number of cameras; the path closes.
        strength: the largest over the smallest distance.

    Returns:
        Cameras [n]: they move along the line of sight of `start`, focal lengths in proportion to the distance.
    """
    _check_count(n)
    if not 1.0 <= strength <= 10.0:
        raise NVSError(f"dolly zoom: strength {strength:g}, expected 1 to 10")
    c2w, fxfycxcy = start.c2w[0].double(), start.fxfycxcy[0].double()
    eye, forward = c2w[:3, 3], c2w[:3, 2]
    offset = subject.double().to(eye.device) - eye
    depth = offset @ forward
    # Looking past the subject, or away from it: its distance serves as well as anything.
    depth = depth if bool(depth > 0.1 * offset.norm()) else offset.norm().clamp_min(1e-3)
    factor = torch.exp(0.5 * math.log(strength) * torch.sin(_phases(n, start)))
    poses = c2w.expand(n, 4, 4).clone()
    poses[:, :3, 3] = eye + ((1 - factor) * depth)[:, None] * forward
    lenses = fxfycxcy.expand(n, 4).clone()
    lenses[:, :2] *= factor[:, None]
    return Cameras(poses.to(start.c2w.dtype), lenses.to(start.fxfycxcy.dtype), start.image_hw)
