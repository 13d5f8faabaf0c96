"""The normalisation from context cameras: presets, symmetry, equivariance, robustness."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.geometry.normalize import SimilarityTransform, normalize_context
from nvs_app.geometry.robust import camera_statistics, median, solve3

UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def random_rotation(*shape: int) -> torch.Tensor:
    rotation, _ = torch.linalg.qr(torch.randn(*shape, 3, 3, dtype=torch.float64))
    return rotation * torch.linalg.det(rotation)[..., None, None].sign()


def random_similarity(*shape: int) -> SimilarityTransform:
    return SimilarityTransform(
        torch.exp(torch.randn(shape, dtype=torch.float64)),
        random_rotation(*shape),
        torch.randn(*shape, 3, dtype=torch.float64) * 5,
    )


def captures(views: int = 12) -> dict[str, torch.Tensor]:
    """One capture of each kind, [v, 4, 4], each without a symmetry that would leave its heading open."""
    generator = torch.Generator().manual_seed(3)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    angle = torch.linspace(0, 4.5, views, dtype=torch.float64)
    ring = torch.stack([2.5 * angle.cos(), 2.5 * angle.sin(), 0.5 + rand(views)], dim=-1)
    dome = torch.nn.functional.normalize(randn(views, 3), dim=-1).abs() * torch.tensor([2.0, -2, 2])
    wall = randn(views, 3) * torch.tensor([1.0, 0.1, 0.5])
    walk = torch.stack([torch.linspace(-3, 3, views, dtype=torch.float64), 0.2 * randn(views), 0.1 * randn(views)], -1)
    ahead = walk + torch.stack([rand(views) + 0.5, randn(views), 0.2 * randn(views)], -1)
    return {
        "ring": look_at(ring, 0.05 * randn(views, 3), UP),
        "dome": look_at(dome, 0.05 * randn(views, 3), UP),
        "front": look_at(wall, wall + torch.tensor([0.0, 4, 0]) - 0.6 * wall, UP),
        "spreading": look_at(wall, wall * 1.5 + torch.tensor([0.0, 4, 0]), UP),
        "walk": look_at(walk, ahead, UP),
    }


def normalised(c2w: torch.Tensor, preset: str = "auto") -> torch.Tensor:
    return normalize_context(c2w, preset).to(torch.float64).apply_c2w(c2w)


def test_similarity_inverse_compose_and_points() -> None:
    first, second = random_similarity(4), random_similarity(4)
    points = torch.randn(4, 7, 2, 3, dtype=torch.float64)
    moved = first.apply_points(points)
    by_hand = first.scale[2] * first.rotation[2] @ points[2, 5, 1] + first.translation[2]
    torch.testing.assert_close(moved[2, 5, 1], by_hand)
    torch.testing.assert_close(first.inverse().apply_points(moved), points)
    both = second.compose(first)
    torch.testing.assert_close(both.apply_points(points), second.apply_points(moved))
    same = first.compose(first.inverse())
    torch.testing.assert_close(same.scale, torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(same.translation, torch.zeros(4, 3, dtype=torch.float64))
    identity = SimilarityTransform.identity((4,)).to(torch.float64)
    torch.testing.assert_close(identity.apply_points(points), points)
    single = first[1]
    torch.testing.assert_close(single.apply_points(points[1, 0, 0]), moved[1, 0, 0])


def test_similarity_moves_cameras_with_their_points() -> None:
    """A point keeps its direction in the camera, and its distance scales."""
    transform = random_similarity(2)
    c2w = look_at(torch.randn(2, 5, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), UP)
    cameras = Cameras(c2w, torch.rand(2, 5, 4, dtype=torch.float64), (8, 8))
    moved = transform.apply_cameras(cameras)
    assert torch.equal(moved.fxfycxcy, cameras.fxfycxcy) and moved.image_hw == (8, 8)
    rotation = moved.c2w[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(2, 5, 3, 3))
    point = torch.randn(2, 1, 3, dtype=torch.float64)

    def local(cameras: Cameras, point: torch.Tensor) -> torch.Tensor:
        return (cameras.w2c[..., :3, :3] @ point[..., None])[..., 0] + cameras.w2c[..., :3, 3]

    torch.testing.assert_close(
        local(moved, transform.apply_points(point)), transform.scale[:, None, None] * local(cameras, point)
    )


def test_small_helpers() -> None:
    assert median(torch.tensor([3.0, 1.0, 2.0])) == 2 and median(torch.tensor([4.0, 1.0, 2.0, 9.0])) == 3
    matrix = torch.randn(5, 3, 3, dtype=torch.float64)
    matrix = matrix @ matrix.mT
    vector = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(solve3(matrix, vector), torch.linalg.solve(matrix, vector))


@pytest.mark.parametrize("kind", ["ring", "dome", "front", "spreading", "walk"])
def test_mean_distance_one_and_up(kind: str) -> None:
    c2w = captures()[kind]
    result = normalised(c2w)
    weight = camera_statistics(c2w).weight
    torch.testing.assert_close(
        (result[:, :3, 3].norm(dim=-1) * weight).sum(), torch.tensor(1.0, dtype=torch.float64), atol=1e-5, rtol=0
    )
    # Plain means agree too: nothing is left out of a capture without outliers.
    assert 0.8 < result[:, :3, 3].norm(dim=-1).mean() < 1.25
    up = normalize_context(c2w).rotation[2].double()
    assert up @ UP > 0.99
    forward = result[:, :3, 2].mean(0)
    assert forward[1] > 0 and abs(forward[0]) < 0.5 * forward[1] + 0.05


def test_where_the_focus_goes() -> None:
    found = {kind: camera_statistics(c2w).focus for kind, c2w in captures(24).items()}
    assert found["ring"].norm() < 0.05 and found["dome"].norm() < 0.1
    # Axes that meet in front: well in front of the wall. Axes that spread apart: among the cameras.
    assert found["front"][1] > 3
    assert found["spreading"].norm() < 1
    assert found["walk"].norm() < 2.5


def test_level_up_from_cameras_that_look_down_from_one_side() -> None:
    """The plain mean of the up vectors leans 60 degrees here."""
    angle = torch.linspace(-0.5, 0.5, 6, dtype=torch.float64)
    eye = torch.stack([angle.cos(), angle.sin(), 1.732 * torch.ones(6, dtype=torch.float64)], -1)
    c2w = look_at(eye, torch.zeros(3, dtype=torch.float64), UP)
    assert -c2w[:, 2, 1].mean() < 0.52
    assert normalize_context(c2w).rotation[2, 2] > 0.93


@pytest.mark.parametrize("preset", ["auto", "scene"])
@pytest.mark.parametrize("kind", ["ring", "dome", "front", "spreading", "walk"])
def test_any_similarity_of_the_world_gives_the_same_cameras(kind: str, preset: str) -> None:
    c2w = captures()[kind]
    expected = normalised(c2w, preset)
    worlds = random_similarity(6)
    moved = worlds.apply_c2w(c2w.expand(6, -1, -1, -1))
    result = normalised(moved, preset)
    torch.testing.assert_close(result, expected.expand_as(result), atol=2e-5, rtol=0)


@pytest.mark.parametrize("preset", ["auto", "scene"])
def test_the_order_of_views_does_not_matter(preset: str) -> None:
    for c2w in captures().values():
        first, second = normalize_context(c2w, preset), normalize_context(c2w[torch.randperm(len(c2w))], preset)
        for field in ("scale", "rotation", "translation"):
            torch.testing.assert_close(getattr(first, field), getattr(second, field), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("distance", [0.0, 8.0, 100.0, 1e5])
@pytest.mark.parametrize("views", [4, 8, 16])
def test_one_wild_camera_hardly_matters(views: int, distance: float) -> None:
    """With and without a camera of any orientation, in the middle of the others or far away.

    Tolerances are generous where a camera's share is large: a majority of three cannot say much.
    """
    tolerance = {4: 0.5, 8: 0.3, 16: 0.1}[views]
    for kind, c2w in captures(views - 1).items():
        # Three views of these stand or look apart so much that a fourth among them is none too many.
        if views == 4 and (kind == "walk" or (distance == 0 and kind in ("dome", "spreading"))):
            continue
        clean = normalize_context(c2w)
        statistics = camera_statistics(c2w)
        direction = torch.tensor([0.6, -0.5, 0.62], dtype=torch.float64)
        wild = torch.eye(4, dtype=torch.float64)
        wild[:3, :3] = random_rotation()
        wild[:3, 3] = statistics.center + distance * statistics.spread * direction
        with_wild = normalize_context(torch.cat([c2w, wild[None]]))
        label = f"{kind}, {views} views, {distance}"
        assert abs((with_wild.scale / clean.scale).log()) < tolerance, label
        focus, other = clean.inverse().translation, with_wild.inverse().translation
        assert (focus - other).norm() * clean.scale < tolerance, label
        assert (clean.rotation[2] @ with_wild.rotation[2]) > (0.8 if distance == 0 else 0.97), label


def test_continuous_in_the_cameras() -> None:
    """Small steps of a camera from its place to far away make small steps of the result."""
    c2w = captures(6)["ring"].expand(400, -1, -1, -1).clone()
    c2w[:, 0, :3, 3] += torch.linspace(0, 12, 400, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.2, 0.1])
    transform = normalize_context(c2w)
    steps = transform.scale[1:] / transform.scale[:-1]
    assert (steps - 1).abs().max() < 0.02
    assert (transform.rotation[1:] - transform.rotation[:-1]).abs().max() < 0.03
    assert (transform.translation[1:] - transform.translation[:-1]).abs().max() < 0.05


def test_single_view_parallel_views_and_coincident_views() -> None:
    c2w = look_at(torch.tensor([2.0, 1.0, 1.5]), torch.zeros(3), UP.float())
    transform = normalize_context(c2w[None])
    result = transform.apply_c2w(c2w[None])[0].float()
    assert transform.scale == 1
    torch.testing.assert_close(result[:3, 3], torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(result[:3, 2], torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(-result[:3, 1], torch.tensor([0.0, 0, 1]), atol=1e-6, rtol=0)
    turned = look_at(torch.zeros(5, 3), torch.randn(5, 3), UP.float())
    assert normalize_context(turned).scale == 1
    eye = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]])
    parallel = look_at(eye, eye + torch.tensor([0.0, 3, 0]), UP.float())
    transform = normalize_context(parallel)
    torch.testing.assert_close(transform.scale.float(), torch.tensor(2**0.5), atol=1e-3, rtol=0)
    # All in one plane: the focus is in its middle.
    torch.testing.assert_close(transform.inverse().translation.float(), torch.tensor([0.5, 0, 0.5]), atol=1e-2, rtol=0)


def test_nothing_is_nan_in_degenerate_captures() -> None:
    down = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))  # looks straight down
    ring = torch.stack([torch.eye(4)] * 4)
    for quarter in range(4):  # looking along z with four rolls: up cancels
        angle = torch.tensor(quarter * torch.pi / 2)
        ring[quarter, :2, :2] = torch.stack(
            [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
        )
    opposite = torch.stack([torch.eye(4), torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))])
    upside = torch.stack([torch.eye(4), torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))])
    for c2w in (down[None], ring, opposite, upside, torch.eye(4)[None]):
        for preset in ("auto", "scene"):
            transform = normalize_context(c2w, preset)
            assert torch.isfinite(transform.apply_c2w(c2w)).all()
            rotation = transform.rotation.float()
            torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3), atol=1e-6, rtol=0)
            torch.testing.assert_close(torch.linalg.det(rotation), torch.tensor(1.0), atol=1e-6, rtol=0)


def test_scene_preset_is_the_mean_pose_with_largest_coordinate_one() -> None:
    c2w = captures()["front"]
    result = normalised(c2w, "scene")
    assert abs(result[:, :3, 3].abs().max() - 1) < 1e-6
    torch.testing.assert_close(result[:, :3, 3].mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
    forward, down = result[:, :3, 2].mean(0), result[:, :3, 1].mean(0)
    assert (forward / forward.norm() - UP).abs().max() < 1e-6  # the mean camera looks along its own +z
    # The mean of the down vectors lies in the plane of the mean camera's down and forward.
    assert abs(down[0]) < 1e-6 and down[1] > 0.9
    # The plain recipe of the release, written out with matrices.
    middle = c2w[:, :3, 3].mean(0)
    ahead = torch.nn.functional.normalize(c2w[:, :3, 2].mean(0), dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(c2w[:, :3, 1].mean(0), ahead), dim=0)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3] = torch.stack([right, torch.linalg.cross(ahead, right), ahead, middle], dim=1)
    expected = torch.linalg.inv(pose) @ c2w
    expected[:, :3, 3] /= expected[:, :3, 3].abs().max()
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", ["object", "none"])
def test_identity_presets(preset: str) -> None:
    c2w = captures()["ring"].float().expand(2, 3, -1, -1, -1)
    transform = normalize_context(c2w, preset)
    assert transform.shape == (2, 3)
    assert torch.equal(transform.apply_c2w(c2w), c2w)


def test_batches_equal_single_scenes() -> None:
    batch = torch.stack(list(captures(7).values())).float().reshape(5, 1, 7, 4, 4)
    for preset in ("auto", "scene"):
        together = normalize_context(batch, preset)
        assert together.shape == (5, 1) and together.scale.dtype == torch.float64
        for index in range(5):
            alone = normalize_context(batch[index, 0], preset)
            torch.testing.assert_close(together[index, 0].rotation, alone.rotation)
            torch.testing.assert_close(together[index, 0].translation, alone.translation)


def test_unknown_preset() -> None:
    with pytest.raises(NVSError, match="'best': unknown, expected one of auto, object, scene, none"):
        normalize_context(torch.eye(4)[None], "best")


@pytest.mark.parametrize("preset", ["auto", "scene", "object"])
def test_nothing_waits_for_the_device(preset: str) -> None:
    """Training calls it on every batch: few operations, none that reads a value back or copies one over."""
    seen: list[str] = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    c2w = captures()["ring"].float().expand(4, -1, -1, -1)
    with Record():
        normalize_context(c2w, preset)
    waiting = ("_local_scalar_dense", "nonzero", "lift_fresh", "is_nonzero", "masked_select", "index.Tensor")
    assert not [name for name in seen if any(word in name for word in waiting)]
    assert len(seen) < 900
