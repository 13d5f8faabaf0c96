"""Where photos cover a scene, and paths that stay there: rings, arcs, sweeps along a wall, turns in place."""

from __future__ import annotations

import math

import pytest
import torch
from test_paths import posed, ring, wall

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.coverage import LEAST, covered_arc, covered_elevations
from nvs_app.geometry.layout import covered_views
from nvs_app.geometry.paths import orbit, spiral
from nvs_app.geometry.rotations import quaternion_to_matrix


def degrees(*values: float) -> torch.Tensor:
    return torch.deg2rad(torch.tensor(values, dtype=torch.float64))


def arc_of_cameras(first: float, last: float, views: int, low: float = 20.0, high: float = 40.0) -> Cameras:
    """On a sphere of radius 3 around the origin, elevations to and fro between two."""
    azimuth = torch.deg2rad(torch.linspace(first, last, views))
    elevation = torch.deg2rad(low + (high - low) * (torch.arange(views) % 3) / 2)
    flat = elevation.cos()
    eye = 3 * torch.stack([flat * azimuth.cos(), flat * azimuth.sin(), elevation.sin()], -1)
    return posed(eye, torch.zeros(3))


def directions(path: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Azimuths and elevations in degrees from the origin."""
    eye = path.c2w[:, :3, 3]
    return torch.rad2deg(torch.atan2(eye[:, 1], eye[:, 0])), torch.rad2deg(torch.asin(eye[:, 2] / eye.norm(dim=-1)))


def test_an_arc_is_what_the_largest_gaps_leave() -> None:
    for count in (4, 8, 60):
        assert covered_arc(torch.arange(count) * (2 * math.pi / count)).around
    three = covered_arc(degrees(0, 100, 230))  # gaps of 100, 130 and 130
    assert not three.around
    across = covered_arc(degrees(*range(150, 211, 5)))  # over the place where azimuths jump
    assert not across.around and across.half == pytest.approx(math.radians(27), abs=1e-9)
    assert abs(math.remainder(across.middle - math.pi, 2 * math.pi)) < 1e-9
    wide = covered_arc(degrees(*range(-120, 121, 10)))
    assert not wide.around and abs(wide.middle) < 1e-9 and wide.half == pytest.approx(math.radians(108))
    # Of two groups the one with more cameras; a single camera far from all others does not count.
    groups = covered_arc(degrees(*range(-20, 21, 4), 178, 184))
    assert abs(groups.middle) < 1e-9 and groups.half == pytest.approx(math.radians(18))
    assert covered_arc(degrees(40)).middle == pytest.approx(math.radians(40)) and covered_arc(degrees(40)).half == LEAST
    low, high = covered_elevations(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert (low, high) == (pytest.approx(math.radians(9)), pytest.approx(math.radians(80)))


@pytest.mark.parametrize(("first", "last"), [(0, 60), (100, 260), (-110, 110)])
@pytest.mark.parametrize("make", [orbit, spiral])
def test_paths_stay_on_the_arc_and_within_its_elevations(first: float, last: float, make) -> None:
    cameras = arc_of_cameras(first, last, 15)
    path = make(cameras, 48)
    azimuth, elevation = directions(path)
    off = torch.remainder(azimuth - 0.5 * (first + last) + 180, 360) - 180
    # The frame of a capture is found from it, and its up is off by some degrees.
    assert off.abs().max() < 0.5 * (last - first) + 5 and off.max() - off.min() > 0.6 * (last - first)
    assert elevation.min() > 20 - 6 and elevation.max() < 40 + 6
    if make is orbit:  # it begins beside a camera
        assert (path.c2w[0, :3, 3] - cameras.c2w[:, :3, 3]).norm(dim=-1).min() < 0.5


def test_an_orbit_of_a_dome_begins_beside_a_camera() -> None:
    generator = torch.Generator().manual_seed(2)
    eye = torch.nn.functional.normalize(torch.randn(60, 3, generator=generator), dim=-1)
    eye[:, 2] = eye[:, 2].abs()
    path = orbit(posed(2 * eye, torch.zeros(3)), 36)
    assert (path.c2w[0, :3, 3] - 2 * eye).norm(dim=-1).min() < 0.3


def test_what_is_covered_in_the_frame_of_the_scene() -> None:
    whole = covered_views(ring(12, elevation=30).c2w)
    assert whole.around and whole.elevation == (pytest.approx(30, abs=1), pytest.approx(30, abs=1))
    torch.testing.assert_close(whole.up, torch.tensor([0.0, 0, 1]), atol=1e-3, rtol=0)
    part = covered_views(arc_of_cameras(30, 110, 15).c2w)
    assert not part.around and 30 < part.half < 42
    towards = math.degrees(math.atan2(part.middle[1], part.middle[0]))
    assert abs(towards - 70) < 4 and abs(float(part.middle @ part.up)) < 1e-5
    assert 15 < part.elevation[0] < 25 and 35 < part.elevation[1] < 45
    # In front of a wall, walking along it and looking straight at it.
    eye = torch.stack([torch.linspace(-2, 2, 12), torch.zeros(12), torch.full((12,), 1.5)], -1)
    sweep = covered_views(posed(eye, eye + torch.tensor([0.0, 3.0, 0.0])).c2w)
    assert not sweep.around and sweep.middle[1] < -0.99 and 5 <= sweep.half < 45
    assert -5 < sweep.elevation[0] <= sweep.elevation[1] < 5
    at_a_point = covered_views(wall().c2w)
    assert not at_a_point.around and at_a_point.middle[1] < -0.95 and 5 <= at_a_point.half < 15
    # From the middle of a room: what counts is where the cameras look.
    angle = torch.arange(12) * (2 * math.pi / 12)
    out = torch.stack([angle.cos(), angle.sin(), 0 * angle], -1)
    assert covered_views(posed(0.3 * out, 3 * out).c2w).around
    single = covered_views(posed(torch.tensor([[2.0, 1.0, 1.0]]), torch.zeros(3)).c2w)
    assert not single.around and single.half == pytest.approx(5)
    with pytest.raises(NVSError, match="no cameras"):
        covered_views(torch.zeros(0, 4, 4))


def test_what_is_covered_follows_the_world() -> None:
    from nvs_app.geometry.normalize import SimilarityTransform

    cameras = arc_of_cameras(0, 90, 12)
    rotation = quaternion_to_matrix(torch.tensor([0.3, 0.5, -0.4, 0.7]))
    world = SimilarityTransform(torch.tensor(2.5), rotation, torch.tensor([1.0, -3.0, 2.0]))
    there, here = covered_views(world.apply_cameras(cameras).c2w), covered_views(cameras.c2w)
    axes = world.apply_points(torch.eye(3)) - world.apply_points(torch.zeros(3, 3))
    turn = torch.nn.functional.normalize(axes, dim=-1)
    torch.testing.assert_close(there.middle, here.middle @ turn, atol=2e-3, rtol=0)
    torch.testing.assert_close(there.up, here.up @ turn, atol=2e-3, rtol=0)
    assert there.half == pytest.approx(here.half, abs=0.2) and there.elevation == pytest.approx(here.elevation, abs=0.2)
