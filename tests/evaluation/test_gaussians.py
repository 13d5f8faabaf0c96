"""The Gaussian splatting baseline on a CPU, a plain rasteriser in gsplat's place; and the points it starts from."""

from __future__ import annotations

import math
import sys
import types
from pathlib import Path

import pytest
import torch

from data_tools.readers import open_scene
from nvs_app.evaluation.baselines import nearest_views
from nvs_app.evaluation.gaussians import _neighbour_distance, camera_matrices, fit_gsplat
from nvs_app.evaluation.metrics import psnr
from nvs_app.evaluation.seed_points import border_colour, scattered_points, seed_points, viewing_distance
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.geometry.rays import pixel_rays
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.views import choose_views

sys.path.insert(0, str(Path(__file__).parent))
import plain_gsplat


def floor_pattern(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Colours [3, ...] of a floor: smooth, and nowhere the same twice."""
    waves = [torch.sin(3.1 * x + 1.7 * y) + torch.sin(7 * y - 2 * x), torch.sin(5.3 * x * y + 2) + torch.sin(4 * x),
             torch.sin(6 * x - 5 * y) + torch.sin(2.2 * y * y + x)]  # fmt: skip
    return 0.5 + 0.22 * torch.stack(waves)


def floor(count: int = 6, image_hw: tuple[int, int] = (40, 56)) -> PosedImages:
    """Views of the plane z = 0 from around and above."""
    angles = 0.35 * torch.arange(count, dtype=torch.float32)
    eyes = torch.stack([1.6 * angles.cos(), 1.6 * angles.sin(), 2 + 0.3 * (3 * angles).sin()], dim=-1)
    c2w = look_at(eyes, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    height, width = image_hw
    intrinsics = torch.tensor([60.0, 58.0, width / 2 + 1, height / 2 - 2]).expand(count, 4)
    cameras = Cameras(c2w, intrinsics, image_hw)
    origins, directions = pixel_rays(cameras)
    hit = origins - directions * (origins[:, 2:] / directions[:, 2:])
    return PosedImages(floor_pattern(hit[:, 0], hit[:, 1]).movedim(0, 1).clamp(0, 1), cameras)


def test_points_lie_on_the_surface() -> None:
    scene = floor()
    points, colours = seed_points(scene)
    distance = viewing_distance(scene.cameras)
    assert len(points) > 0.5 * scene.images[:, 0].numel()
    assert points[:, 2].abs().median() < 0.02 * distance
    assert (points[:, 2].abs() < 0.1 * distance).float().mean() > 0.9
    own = floor_pattern(points[:, 0], points[:, 1]).T
    assert (colours - own).abs().mean() < 0.06
    fewer, _ = seed_points(scene, 2000)
    assert 600 < len(fewer) < 2600
    again, _ = seed_points(scene)
    assert torch.equal(points, again)


def test_nothing_in_common_gives_no_point() -> None:
    alone = floor(1)
    assert seed_points(alone)[0].shape == (0, 3) and viewing_distance(alone.cameras) == 1.0
    points, colours = scattered_points(alone, 50, torch.Generator().manual_seed(3))
    local = points @ alone.cameras.w2c[0, :3, :3].T + alone.cameras.w2c[0, :3, 3]
    assert points.shape == colours.shape == (50, 3) and 0.3 < local[:, 2].min() and local[:, 2].max() < 1.4
    apart = floor(4)
    noise = PosedImages(torch.rand(4, 3, 40, 56).round(), apart.cameras)
    assert len(seed_points(noise)[0]) < 0.15 * noise.images[:, 0].numel()


def test_a_plain_background_has_no_points(repo: Path) -> None:
    scene = open_scene(repo / "examples" / "object_chair")
    context = scene.load(choose_views(scene, 8).context, (64, 64)).float()
    colour, plain = border_colour(context.images)
    assert plain and torch.allclose(colour, torch.ones(3), atol=0.01)
    points, colours = seed_points(context)
    assert len(points) > 1000 and (colours < 0.971).any(dim=1).all()
    assert points.norm(dim=1).quantile(0.9) < 0.6 * viewing_distance(context.cameras)  # on the object, not before it
    assert not border_colour(floor().images)[1]


def test_neighbour_distances_by_hand() -> None:
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [7, 0, 0]]) + 1000
    expected = torch.tensor([(1 + 3 + 7) / 3, (1 + 2 + 6) / 3, (2 + 3 + 4) / 3, (4 + 6 + 7) / 3])
    torch.testing.assert_close(_neighbour_distance(line), expected)


def test_gaussians_are_drawn_where_our_cameras_see_them() -> None:
    """Matrices, quaternions and pixel centres as gsplat has them: a dot is where the ray of its pixel goes."""
    cameras = floor(3).cameras
    origins, directions = pixel_rays(cameras)
    w2c, intrinsics = camera_matrices(cameras, torch.device("cpu"))
    for view, row, column in ((0, 7, 12), (1, 20, 40), (2, 33, 5)):
        point = origins[view, :, row, column] + 1.5 * directions[view, :, row, column]
        image, opacity, _ = plain_gsplat.rasterization(
            point[None], torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.005), torch.ones(1) * 0.9,
            torch.tensor([[0.2, 0.4, 0.8]]), w2c[view : view + 1], intrinsics[view : view + 1], 56, 40,
            backgrounds=torch.ones(1, 3),
        )  # fmt: skip
        assert divmod(int(opacity.argmax()), 56) == (row, column)
        assert opacity.max() == pytest.approx(0.9, abs=1e-4)
        torch.testing.assert_close(image[0, row, column], 0.9 * torch.tensor([0.2, 0.4, 0.8]) + 0.1, atol=1e-4, rtol=0)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gsplat", plain_gsplat)


def test_a_fit_draws_held_out_views(plain: None, repo: Path) -> None:
    """Far better than the nearest view, which the fit from a fog of points was not."""
    scene = open_scene(repo / "examples" / "object_chair")
    split = choose_views(scene, 8, max_targets=4)
    context, target = (scene.load(rows, (24, 24)).float() for rows in (split.context, split.target))
    nearest = context.images[nearest_views(context.cameras.c2w, target.cameras.c2w)]
    before = [tensor.clone() for tensor in (context.images, context.cameras.c2w)]
    with torch.no_grad():  # as a benchmark calls it
        renders = fit_gsplat(context, target.cameras, steps=50)
    assert renders.shape == (4, 3, 24, 24) and 0 <= renders.min() and renders.max() <= 1 and not renders.requires_grad
    assert psnr(renders, target.images).mean() > psnr(nearest, target.images).mean() + 4
    assert all(torch.equal(a, b) for a, b in zip(before, (context.images, context.cameras.c2w)))


def test_gsplats_own_strategy_adds_and_removes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is installed; its rasteriser needs a GPU."""
    strategies = pytest.importorskip("gsplat.strategy")
    counts: list[int] = []

    def rasterization(means, *arguments, **options):
        counts.append(len(means))
        return plain_gsplat.rasterization(means, *arguments, **options)

    fake = types.SimpleNamespace(rasterization=rasterization, DefaultStrategy=strategies.DefaultStrategy)
    monkeypatch.setitem(sys.modules, "gsplat", fake)
    scene = floor(3, (14, 18))
    renders = fit_gsplat(scene, scene.cameras, steps=210)
    assert len(set(counts)) > 1 and (psnr(renders, scene.images) > 20).all()


def test_a_single_view_is_fitted_too(plain: None) -> None:
    alone = floor(1, (24, 24))
    renders = fit_gsplat(alone, alone.cameras, steps=60, seed=1)
    assert math.isfinite(renders.sum()) and psnr(renders, alone.images).item() > 15
