"""Depth maps fused: on surfaces that are known, with noise, with a view that is wrong, in a world that is moved."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from nvs_app.evaluation.gaussians import camera_matrices
from nvs_app.evaluation.metrics import psnr
from nvs_app.export.fusion import Surfels, agreed, edges, fuse, gradient
from nvs_app.export.glb import write_glb
from nvs_app.export.mesh import mesh_of
from nvs_app.export.rasterise import rasterization
from nvs_app.export.shading import harmonics, shaded
from nvs_app.export.splats import FILL_TOLERANCE, splats_of, thinned
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.geometry.rotations import quaternion_to_matrix

sys.path.insert(0, str(Path(__file__).parent))
from analytic import BALL, analytic_views, cameras, off_surface, pattern

PIXEL = 2.6 / 77  # how wide a pixel is where the cameras look


@pytest.fixture(scope="module")
def views():
    return analytic_views(cameras())


@pytest.fixture(scope="module")
def surfels(views) -> Surfels:
    return fuse(views)


def test_points_lie_on_the_surface_once(views, surfels: Surfels) -> None:
    known = int((views.depth > 0).sum())
    assert known / 6 < len(surfels) < known / 2  # each place is seen by several of the eight
    assert off_surface(surfels.points).median() < 0.001 and off_surface(surfels.points).quantile(0.99) < PIXEL / 2
    assert (surfels.colours - pattern(surfels.points)).abs().mean() < 0.01
    assert surfels.agreeing.min() >= 1 and (surfels.asked >= surfels.agreeing).all()
    # Both surfaces are there, and normals point outwards.
    ball = surfels.points[:, 2] > 0.1
    outward = torch.nn.functional.normalize(surfels.points[ball] - torch.tensor(BALL), dim=-1)
    assert ball.sum() > 300 and (~ball).sum() > 300
    assert (surfels.normals[ball] * outward).sum(-1).median() > 0.97
    assert surfels.normals[~ball, 2].median() > 0.999


def test_what_views_disagree_on_goes_and_noise_is_averaged(views) -> None:
    generator = torch.Generator().manual_seed(3)
    offset = torch.nn.functional.interpolate(torch.randn(8, 1, 8, 8, generator=generator), (64, 64), mode="bicubic")
    noisy = views.depth * (1 + 0.006 * offset[:, 0])
    wrong = replace(views, depth=noisy.clone())
    wrong.depth[0] *= 0.7  # a view that has everything hang in the air
    found = fuse(wrong)
    assert len(found) > 0.6 * len(fuse(views))
    alone = torch.cat([off_surface(fuse_nothing(replace(views, depth=noisy), view)) for view in range(8)])
    assert off_surface(found.points).median() < 0.7 * alone.median()
    assert off_surface(found.points).max() < 0.1  # nothing of what view 0 has is left, 0.3 times its distance away


def fuse_nothing(views, view: int) -> torch.Tensor:
    """The points of one view as they are."""
    from nvs_app.export.fusion import view_surfels

    return view_surfels(views, view, *views.depth[view].nonzero(as_tuple=True)).points


def test_more_is_kept_to_fill_and_single_views_can_be_asked_for(views) -> None:
    two = views[torch.tensor([0, 4])]  # opposite: the ball's sides are seen by one each
    few, all_of_it = fuse(two), fuse(two, fill=True)
    assert 0 < len(few) < 0.8 * len(all_of_it)
    assert off_surface(all_of_it.points).quantile(0.99) < PIXEL
    assert len(fuse(views[torch.tensor([0])])) > 0  # nobody else is there to ask
    assert not len(fuse(replace(two, depth=torch.zeros_like(two.depth))))


def test_a_world_that_is_moved_moves_the_result(views, surfels: Surfels) -> None:
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)))[0]
    world = SimilarityTransform(torch.tensor(300.0), turn * torch.det(turn).sign(), torch.tensor([1e3, -2e3, 500.0]))
    eyes = Cameras(world.apply_c2w(views.cameras.c2w), views.cameras.fxfycxcy, views.cameras.image_hw)
    moved = fuse(replace(views, cameras=eyes, depth=300 * views.depth))
    assert abs(len(moved) - len(surfels)) < 0.02 * len(surfels)  # ties at thresholds
    back = world.inverse().apply_points(moved.points)
    assert off_surface(back).median() < 0.001 and off_surface(back).quantile(0.99) < PIXEL / 2
    scales = splats_of(moved).scales.median(0).values / splats_of(surfels).scales.median(0).values
    assert torch.allclose(scales, torch.tensor(300.0), rtol=0.05)


def test_edges_and_slopes() -> None:
    depth = torch.full((1, 6, 6), 2.0)
    depth[:, :, 3:] = 3.0
    depth[:, 5] = 0.0
    found = edges(depth)
    assert found[0, :5, 2:4].all() and not found[0, :5, [0, 1, 4, 5]].any() and not found[0, 5].any()
    ramp = 2 + 0.1 * torch.arange(6.0).expand(6, 6)
    ramp[:, 4:] += 5
    across, down = gradient(ramp)
    assert torch.allclose(across, torch.tensor(0.1), atol=1e-5) and not down.any()


def test_splats_look_like_the_scene(views) -> None:
    """From where no view was taken."""
    surfels = fuse(views, fill=True, tolerance=FILL_TOLERANCE)
    splats = splats_of(surfels)
    axes, thinnest = quaternion_to_matrix(splats.quats), splats.scales.argmin(-1)[:, None, None]
    thin = axes.take_along_dim(thinnest, dim=2)[..., 0]
    assert (thin * surfels.normals).sum(-1).abs().median() > 0.99
    truth = analytic_views(cameras(8, start=0.39))[torch.arange(2)]
    numbers, white = (splats.means, splats.quats, splats.scales, splats.opacities, splats.colours), torch.ones(1, 3)
    w2c, lenses = camera_matrices(truth.cameras, torch.device("cpu"))
    for view in range(2):
        one = slice(view, view + 1)
        image = rasterization(*numbers, w2c[one], lenses[one], 64, 64, backgrounds=white)[0].movedim(-1, 1)
        assert psnr(image, truth.images[one]) > 18  # white alone has 7
    fewer = thinned(splats, 500)
    assert len(fewer) == 500 and thinned(splats, 10**6) is splats
    assert fewer.scales.median() > 1.5 * splats.scales.median()


def test_sheen_is_in_the_harmonics(views) -> None:
    """Where brightness changes with the direction, splats show it to a camera that was none of the photos'."""

    def sheen(seen):
        towards = seen.cameras.c2w[:, 0, 3] / 2.6  # by where the camera stands
        return replace(seen, images=(seen.images + 0.15 * towards[:, None, None, None]).clamp(0, 1))

    bright, truth = sheen(views), sheen(analytic_views(cameras(8, start=0.39))[torch.arange(2)])
    surfels = fuse(bright, fill=True, tolerance=FILL_TOLERANCE)
    splats = shaded(splats_of(surfels), surfels, bright)
    assert splats.harmonics is not None and splats.harmonics.shape == (len(surfels), 15, 3)
    one = shaded(splats_of(surfels), surfels, bright, degree=0)
    for view in range(2):
        camera = truth.cameras[view]
        away = torch.nn.functional.normalize(splats.means - camera.c2w[:3, 3], dim=-1)
        seen = splats.colours + (harmonics(away, 3)[:, 1:, None] * splats.harmonics).sum(1)
        wanted = pattern(splats.means) + 0.15 * camera.c2w[0, 3] / 2.6
        wrong, plain = ((colours - wanted).abs().mean(-1).median() for colours in (seen, one.colours))
        assert wrong < 0.03 and (view == 1 or wrong < 0.5 * plain)
    thinner = thinned(splats, 100)
    assert thinner.harmonics is not None and len(thinner.harmonics) == 100


def test_a_mesh_lies_on_the_surface(views, tmp_path: Path) -> None:
    open3d = pytest.importorskip("open3d", reason="open3d is not installed (make setup)")
    mesh = mesh_of(views)
    assert len(mesh.triangles) > 1000
    assert off_surface(torch.from_numpy(mesh.vertices)).quantile(0.95) < PIXEL
    assert np.abs(mesh.colours - pattern(torch.from_numpy(mesh.vertices)).numpy()).mean() < 0.02
    ball = mesh.vertices[:, 2] > 0.2
    outward = mesh.vertices[ball] - np.array(BALL, np.float32)
    assert np.median((mesh.normals[ball] * outward).sum(1) / np.linalg.norm(outward, axis=1)) > 0.95
    place = (456_700.0, 5_432_100.0, 210.0)
    far = trimesh.load(write_glb(tmp_path / "far.glb", mesh, place), force="mesh", process=False)
    assert np.allclose(far.vertices - place, mesh.vertices, atol=1e-5)
    file = write_glb(tmp_path / "mesh.glb", mesh)
    plain = trimesh.load(file, force="mesh", process=False)
    assert np.array_equal(plain.faces, mesh.triangles) and np.allclose(plain.vertices, mesh.vertices, atol=1e-6)
    (geometry,) = trimesh.load(file, process=False).geometry.values()
    assert geometry.visual.vertex_attributes["color"].shape == (len(mesh.vertices), 4)
    # As the format has them, colours are linear.
    read = open3d.io.read_triangle_mesh(str(file))
    order, own = (np.lexsort(np.asarray(part).round(5).T) for part in (read.vertices, mesh.vertices))
    colours = mesh.colours[own]
    bright = colours > 0.05
    assert bright.any()
    linear = ((colours + 0.055) / 1.055) ** 2.4
    wrong = np.abs(np.asarray(read.vertex_colors)[order] - linear)[bright]
    assert np.quantile(wrong, 0.95) < 0.005  # some vertices share a place, and sort at will


def test_agreed_depth_is_that_of_the_surface(views) -> None:
    found = agreed(views)
    kept = found.depth > 0
    assert kept.sum() > 0.7 * (views.depth > 0).sum() and not (kept & (views.depth == 0)).any()
    assert ((found.depth - views.depth).abs()[kept] / views.depth[kept]).quantile(0.99) < 0.01
