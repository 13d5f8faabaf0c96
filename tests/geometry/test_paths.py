"""Camera paths: orbit, spiral, spline, capture; and the quaternions under them."""

from __future__ import annotations

import math

import pytest
import torch

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.geometry.paths import capture, focus_point, orbit, spiral, spline
from nvs_app.geometry.rotations import (
    conjugate,
    from_rotation_vector,
    matrix_to_quaternion,
    multiply,
    quaternion_to_matrix,
    rotation_vector,
    slerp,
    squad,
)

UP = torch.tensor([0.0, 0.0, 1.0])


def posed(eye: torch.Tensor, target: torch.Tensor, focal: float = 70.0, up: torch.Tensor = UP) -> Cameras:
    fxfycxcy = torch.tensor([focal, focal, 30.0, 20.0]).expand(len(eye), 4)
    return Cameras(look_at(eye, target, up), fxfycxcy, (48, 64))


def ring(views: int = 16, radius: float = 3.0, elevation: float = 30.0, center: float = 0.0) -> Cameras:
    angle = torch.arange(views) * (2 * math.pi / views)
    e = math.radians(elevation)
    eye = radius * torch.stack([math.cos(e) * angle.cos(), math.cos(e) * angle.sin(), angle * 0 + math.sin(e)], -1)
    return posed(eye + center, torch.full((3,), center))


def wall(views: int = 20, depth: float = 6.0) -> Cameras:
    """Cameras in a plane, 2 wide and 1 high, that look at a point ``depth`` in front."""
    generator = torch.Generator().manual_seed(1)
    eye = (torch.rand(views, 3, generator=generator) - 0.5) * torch.tensor([2.0, 0.05, 1.0])
    return posed(eye, torch.tensor([0.0, depth, 0.0]))


def check_path(path: Cameras, n: int) -> None:
    assert path.shape == (n,) and path.image_hw == (48, 64)
    rotation = path.c2w[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(n, 3, 3), atol=1e-5, rtol=0)
    assert (torch.linalg.det(rotation) > 0).all() and torch.isfinite(path.c2w).all()


def steps(path: Cameras, closed: bool = True) -> torch.Tensor:
    position = path.c2w[:, :3, 3]
    following = position.roll(-1, 0) if closed else position[1:]
    return (following - position[: len(following)]).norm(dim=-1)


# Quaternions


def test_quaternions_by_hand_and_back() -> None:
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # a quarter turn around z
    half = math.sqrt(0.5)
    torch.testing.assert_close(matrix_to_quaternion(quarter), torch.tensor([half, 0, 0, half]))
    # Half turns around each axis: where the naive formula divides by zero.
    for axis in range(3):
        turn = -torch.eye(3)
        turn[axis, axis] = 1
        torch.testing.assert_close(quaternion_to_matrix(matrix_to_quaternion(turn)), turn)
    rotations = torch.linalg.qr(torch.randn(200, 3, 3, dtype=torch.float64))[0]
    rotations = rotations * torch.linalg.det(rotations)[:, None, None]
    torch.testing.assert_close(quaternion_to_matrix(matrix_to_quaternion(rotations)), rotations)


def test_product_conjugate_log_exp() -> None:
    a, b = torch.nn.functional.normalize(torch.randn(2, 50, 4, dtype=torch.float64), dim=-1)
    torch.testing.assert_close(quaternion_to_matrix(multiply(a, b)), quaternion_to_matrix(a) @ quaternion_to_matrix(b))
    identity = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(50, 4)
    torch.testing.assert_close(multiply(a, conjugate(a)), identity)
    again = from_rotation_vector(rotation_vector(a))
    torch.testing.assert_close(quaternion_to_matrix(again), quaternion_to_matrix(a))
    assert (rotation_vector(a).norm(dim=-1) <= math.pi / 2 + 1e-9).all()
    torch.testing.assert_close(rotation_vector(identity), torch.zeros(50, 3, dtype=torch.float64))


def test_slerp_takes_the_shorter_way_at_constant_speed() -> None:
    first = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    for sign in (1, -1):  # q and -q are one rotation
        second = sign * from_rotation_vector(torch.tensor([0.0, 0, math.radians(40)], dtype=torch.float64))
        middle = quaternion_to_matrix(slerp(first, second, torch.tensor(0.25, dtype=torch.float64)))
        assert abs(math.degrees(math.atan2(middle[1, 0], middle[0, 0])) - 20) < 1e-9


def test_squad_passes_through_its_keyframes_smoothly() -> None:
    keys = torch.nn.functional.normalize(torch.randn(5, 4, dtype=torch.float64) + torch.tensor([2.0, 0, 0, 0]), dim=-1)
    keys = keys * torch.tensor([1.0, -1, 1, -1, -1], dtype=torch.float64)[:, None]
    for loop, end in ((False, 4), (True, 5)):
        at = torch.arange(end + 1, dtype=torch.float64)
        expected = quaternion_to_matrix(keys[[*range(5), 0][: end + 1]])
        torch.testing.assert_close(quaternion_to_matrix(squad(keys, at, loop)), expected)
        fine = quaternion_to_matrix(squad(keys, torch.linspace(0, end, 2001, dtype=torch.float64), loop))
        speed = (fine[1:] - fine[:-1]).flatten(1).norm(dim=1)
        assert ((speed[1:] - speed[:-1]).abs() < 0.05 * speed.max()).all()  # no corner at a keyframe


# Orbit and spiral


@pytest.mark.parametrize("center", [0.0, 5.0])
def test_orbit_of_a_ring_is_the_ring(center: float) -> None:
    cameras = ring(16, radius=3, elevation=30, center=center)
    path = orbit(cameras, 32)
    check_path(path, 32)
    offset = path.c2w[:, :3, 3] - center
    torch.testing.assert_close(offset.norm(dim=-1), torch.full((32,), 3.0), atol=0.03, rtol=0)
    torch.testing.assert_close(offset[:, 2], torch.full((32,), 1.5), atol=0.03, rtol=0)
    # It starts where the capture starts, goes all the way around, in equal steps, and closes.
    assert (path.c2w[0, :3, 3] - cameras.c2w[0, :3, 3]).norm() < 0.05
    torch.testing.assert_close(steps(path), steps(path)[:1].expand(32), atol=1e-3, rtol=0)
    assert path.c2w[:, :3, 3].mean(0)[:2].sub(center).norm() < 0.05
    # All look at the centre, upright.
    looked = torch.nn.functional.cosine_similarity(path.c2w[:, :3, 2], -offset)
    assert (looked > 0.999).all()
    assert (-path.c2w[:, 2, 1] > 0.8).all() and (path.c2w[:, 2, 0].abs() < 0.01).all()
    torch.testing.assert_close(path.fxfycxcy[0], torch.tensor([70.0, 70, 32, 24]))


def test_orbit_options() -> None:
    path = orbit(ring(), 8, elevation=0, radius=5, turns=-1)
    offset = path.c2w[:, :3, 3]
    torch.testing.assert_close(offset.norm(dim=-1), torch.full((8,), 5.0), atol=0.02, rtol=0)
    assert offset[:, 2].abs().max() < 0.05
    assert offset[1, 1] < -0.1  # from +x clockwise
    with pytest.raises(NVSError, match="radius is 0"):
        orbit(ring(), 8, radius=0)
    with pytest.raises(NVSError, match="elevation is 100"):
        orbit(ring(), 8, elevation=100)
    with pytest.raises(NVSError, match="0 frames"):
        orbit(ring(), 0)


def test_orbit_ignores_a_wild_camera_and_takes_median_focals() -> None:
    cameras = ring(12)
    wild = posed(torch.tensor([[80.0, 10, 40]]), torch.tensor([100.0, 0, 0]), focal=900.0)
    path = orbit(Cameras.cat([cameras, wild]), 16)
    torch.testing.assert_close(path.c2w[:, :3, 3].norm(dim=-1), torch.full((16,), 3.0), atol=0.1, rtol=0)
    assert path.fxfycxcy[0, 0] == 70


@pytest.mark.parametrize("make", [orbit, spiral])
def test_paths_of_a_capture_from_the_front_stay_in_front(make) -> None:
    cameras = wall()
    path = make(cameras, 24)
    check_path(path, 24)
    position = path.c2w[:, :3, 3]
    low, high = cameras.c2w[:, :3, 3].amin(0) - 0.3, cameras.c2w[:, :3, 3].amax(0) + 0.3
    assert ((position > low) & (position < high)).all()
    assert position[:, 0].max() - position[:, 0].min() > 1  # and uses the width it has
    assert (path.c2w[:, 1, 2] > 0.9).all()
    assert steps(path).max() < 0.8  # also from the last to the first


def test_parallel_spreading_and_single_views_look_ahead() -> None:
    eye = wall().c2w[:, :3, 3]
    for target in (eye + torch.tensor([0.0, 3, 0]), eye * 1.3 + torch.tensor([0.0, 3, 0])):
        cameras = posed(eye, target)
        assert focus_point(cameras.c2w)[1] > 0.5
        for make in (orbit, spiral):
            path = make(cameras, 12)
            check_path(path, 12)
            assert (path.c2w[:, 1, 2] > 0.7).all() and path.c2w[:, :3, 3].norm(dim=-1).max() < 2
    single = posed(torch.tensor([[2.0, 1.0, 1.0]]), torch.zeros(3))
    torch.testing.assert_close(focus_point(single.c2w), torch.zeros(3), atol=1e-5, rtol=0)
    for make in (orbit, spiral):
        path = make(single, 12)
        check_path(path, 12)
        moved = (path.c2w[:, :3, 3] - single.c2w[0, :3, 3]).norm(dim=-1)
        assert 0.02 < moved.max() < 0.4


def test_orbit_of_a_capture_that_looks_outwards_turns_in_place() -> None:
    angle = torch.arange(12) * (2 * math.pi / 12)
    eye = torch.stack([angle.cos(), angle.sin(), 0 * angle], -1)
    path = orbit(posed(eye, 3 * eye), 24)
    check_path(path, 24)
    assert path.c2w[:, :3, 3].norm(dim=-1).max() < 0.5
    seen = path.c2w[:, :3, 2] @ posed(eye, 3 * eye).c2w[:, :3, 2].T
    assert (seen.amax(0) > 0.95).all()  # each direction of the capture comes by


def test_spiral_of_a_dome_visits_its_elevations() -> None:
    eye = torch.nn.functional.normalize(torch.randn(60, 3), dim=-1)
    eye[:, 2] = eye[:, 2].abs()
    path = spiral(posed(2 * eye, torch.zeros(3)), 60)
    check_path(path, 60)
    elevation = torch.rad2deg(torch.asin(path.c2w[:, 2, 3] / path.c2w[:, :3, 3].norm(dim=-1)))
    assert elevation.min() < 15 and elevation.max() > 45
    assert steps(path).max() < 0.6


def test_paths_follow_the_world() -> None:
    """A turned, scaled and moved capture has the turned, scaled and moved path."""
    from nvs_app.geometry.normalize import SimilarityTransform

    eye = wall().c2w[:, :3, 3]
    front = posed(eye, torch.tensor([0.3, 4.0, 0.1]))
    arc = posed(ring().c2w[:7, :3, 3], torch.tensor([0.1, 0.0, 0.05]))
    rotation = quaternion_to_matrix(torch.tensor([0.3, 0.5, -0.4, 0.7]))
    world = SimilarityTransform(torch.tensor(2.5), rotation, torch.tensor([1.0, -3.0, 2.0]))
    for cameras in (front, arc):
        for make in (orbit, spiral, capture):
            expected = world.apply_cameras(make(cameras, 9))
            torch.testing.assert_close(make(world.apply_cameras(cameras), 9).c2w, expected.c2w, atol=2e-3, rtol=0)


# Spline and capture


def test_spline_hits_its_keyframes() -> None:
    keyframes = ring(5)
    fxfycxcy = keyframes.fxfycxcy.clone()
    fxfycxcy[:, :2] *= torch.tensor([1.0, 2, 1, 0.5, 1])[:, None]
    keyframes = Cameras(keyframes.c2w, fxfycxcy, keyframes.image_hw)
    path = spline(keyframes, 17)
    check_path(path, 17)
    torch.testing.assert_close(path.c2w[::4], keyframes.c2w, atol=1e-5, rtol=0)
    torch.testing.assert_close(path.fxfycxcy[::4], keyframes.fxfycxcy)
    loop = spline(keyframes, 20, loop=True)
    torch.testing.assert_close(loop.c2w[::4], keyframes.c2w, atol=1e-5, rtol=0)
    assert steps(loop).max() < 2 * steps(loop).min()


def test_spline_of_two_is_slerp_and_log_focal() -> None:
    first, second = torch.eye(4), torch.eye(4)
    angle = math.radians(80)
    second[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    second[:3, 3] = torch.tensor([4.0, 0, 0])
    fxfycxcy = torch.tensor([[10.0, 10, 5, 5], [40.0, 40, 7, 9]])
    path = spline(Cameras(torch.stack([first, second]), fxfycxcy, (48, 64)), 3)
    middle = path.c2w[1]
    assert abs(math.degrees(math.atan2(middle[1, 0], middle[0, 0])) - 40) < 1e-3
    torch.testing.assert_close(middle[:3, 3], torch.tensor([2.0, 0, 0]))
    torch.testing.assert_close(path.fxfycxcy[1], torch.tensor([20.0, 20, 6, 7]))


def test_spline_of_one_keyframe_stands_still() -> None:
    camera = ring(3)[:1]
    for loop in (False, True):
        path = spline(camera, 4, loop=loop)
        torch.testing.assert_close(path.c2w, camera.c2w.expand(4, 4, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(spline(ring(4), 1).c2w[0], ring(4).c2w[0], atol=1e-6, rtol=0)


def test_capture_follows_its_order_or_the_nearest() -> None:
    cameras = ring(24)
    path = capture(cameras, 24)
    torch.testing.assert_close(path.c2w, cameras.c2w, atol=1e-5, rtol=0)
    shuffled = cameras[torch.randperm(24).tolist()]
    along = steps(capture(shuffled, 47), closed=False)
    assert along.max() < 0.8  # neighbours of the ring are 0.68 apart, random ones about 3
