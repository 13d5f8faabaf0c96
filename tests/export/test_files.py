"""Points and splats on disk, as readers that are not ours find them; refinement on a CPU; the page in a browser."""

from __future__ import annotations

import struct
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from nvs_app.errors import NVSError
from nvs_app.evaluation.gaussians import camera_matrices
from nvs_app.export.files import write_points, write_splats
from nvs_app.export.fusion import Surfels, fuse
from nvs_app.export.html import first_look, viewer_script, write_html
from nvs_app.export.rasterise import rasterization
from nvs_app.export.refine import hold_out, refine
from nvs_app.export.shading import shaded
from nvs_app.export.splats import Splats, splats_of
from nvs_app.export.views import far_offset
from nvs_app.geometry.cameras import Cameras

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
import plain_gsplat
from analytic import analytic_views, cameras

SH0 = 0.28209479177387814


@pytest.fixture(scope="module")
def surfels() -> Surfels:
    return fuse(analytic_views(cameras(6, 40)))


@pytest.fixture(scope="module")
def splats(surfels: Surfels) -> Splats:
    return splats_of(surfels)


def test_points_as_others_read_them(surfels: Surfels, tmp_path: Path) -> None:
    open3d = pytest.importorskip("open3d", reason="open3d is not installed (make setup)")
    file = write_points(tmp_path / "points.ply", surfels)
    cloud = open3d.io.read_point_cloud(str(file))
    assert np.allclose(np.asarray(cloud.points), surfels.points, atol=1e-6)
    assert np.allclose(np.asarray(cloud.normals), surfels.normals, atol=1e-6)
    assert np.abs(np.asarray(cloud.colors) - surfels.colours.numpy()).max() < 0.6 / 255
    plain = trimesh.load(file)
    assert np.allclose(plain.vertices, surfels.points, atol=1e-6) and len(plain.colors) == len(surfels)


def test_far_from_the_origin_no_digit_is_lost(surfels: Surfels, splats: Splats, tmp_path: Path) -> None:
    place = (456_700.0, 5_432_100.0, 210.0)
    far = Cameras(cameras(6, 40).c2w.double(), cameras(6, 40).fxfycxcy, (40, 40))
    far.c2w[:, :3, 3] += torch.tensor(place, dtype=torch.float64) + 0.123
    offset = far_offset(far)
    assert np.abs(np.array(offset) - place).max() < 10 and far_offset(cameras(6, 40)) == (0, 0, 0)
    plain = trimesh.load(write_points(tmp_path / "points.ply", surfels, place))
    assert np.abs(plain.vertices - place - surfels.points.numpy()).max() < 1e-6
    file = write_splats(tmp_path / "s.ply", splats, place)
    assert b"comment offset 456700 5432100 210\n" in file.read_bytes()[:200]
    assert len(trimesh.load(file).vertices) == len(splats)


def test_colours_that_change_are_in_the_file_of_splats(splats: Splats, tmp_path: Path) -> None:
    rest = torch.randn(len(splats), 15, 3, generator=torch.Generator().manual_seed(0))
    file = write_splats(tmp_path / "s.ply", replace(splats, harmonics=rest))
    rows = trimesh.load(file).metadata["_ply_raw"]["vertex"]["data"]
    assert sum(name.startswith("f_rest_") for name in rows.dtype.names) == 45
    for channel in range(3):  # all of red first, as the original has them
        assert np.allclose(np.asarray(rows[f"f_rest_{15 * channel + 4}"]).reshape(-1), rest[:, 4, channel])


def test_splats_as_others_read_them(splats: Splats, tmp_path: Path) -> None:
    rows = trimesh.load(write_splats(tmp_path / "s.ply", splats)).metadata["_ply_raw"]["vertex"]["data"]
    columns = {name: np.asarray(rows[name]).reshape(-1) for name in rows.dtype.names}
    assert np.allclose(np.stack([columns[axis] for axis in "xyz"], 1), splats.means, atol=1e-6)
    scales = np.exp(np.stack([columns[f"scale_{axis}"] for axis in range(3)], 1))
    assert np.allclose(scales, splats.scales, rtol=1e-4)
    quats = np.stack([columns[f"rot_{axis}"] for axis in range(4)], 1)
    assert np.allclose(quats, splats.quats, atol=1e-6) and np.allclose(np.linalg.norm(quats, axis=1), 1, atol=1e-4)
    colours = 0.5 + SH0 * np.stack([columns[f"f_dc_{channel}"] for channel in range(3)], 1)
    assert np.allclose(colours, splats.colours, atol=1e-5)
    assert np.allclose(1 / (1 + np.exp(-columns["opacity"])), splats.opacities, atol=1e-5)

    data = write_splats(tmp_path / "s.splat", splats).read_bytes()
    assert len(data) == 32 * len(splats)
    x, y, z, *sizes, red, green, blue, alpha, w, i, j, k = struct.unpack("<6f8B", data[:32])
    row = int((splats.means - torch.tensor([x, y, z])).norm(dim=-1).argmin())
    assert np.allclose(sizes, splats.scales[row])
    assert np.abs(np.array([red, green, blue]) / 255 - splats.colours[row].numpy()).max() < 0.6 / 255
    assert abs(alpha / 255 - float(splats.opacities[row])) < 0.6 / 255
    assert np.abs((np.array([w, i, j, k]) - 128) / 128 - splats.quats[row].numpy()).max() < 0.01
    with pytest.raises(NVSError, match=r"\.ply or \.splat"):
        write_splats(tmp_path / "s.obj", splats)
    assert {path.name for path in tmp_path.iterdir()} == {"s.ply", "s.splat"}


def numbers(splats: Splats) -> list[torch.Tensor]:
    """As `rasterization` takes them; the colours of all directions."""
    return [splats.means, splats.quats, splats.scales, splats.opacities, splats.colours]


def test_plain_torch_draws_as_gsplat_does(splats: Splats) -> None:
    """Pictures and gradients, against every Gaussian at every pixel."""
    w2c, lenses = camera_matrices(cameras(6, 40), torch.device("cpu"))
    weight = torch.randn(1, 40, 40, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for draw in (plain_gsplat.rasterization, rasterization):
        values = [part.clone().requires_grad_() for part in numbers(splats[::2])]
        image, cover, _ = draw(*values, w2c[:1], lenses[:1], 40, 40, packed=False, backgrounds=torch.ones(1, 3))
        (image * weight).sum().backward()
        found.append([image, cover, *(part.grad for part in values)])
    wanted, own = found
    assert (own[0] - wanted[0]).abs().max() < 0.003 and (own[1] - wanted[1]).abs().max() < 0.003
    for name, one, other in zip(("means", "quats", "scales", "opacities", "colours"), own[2:], wanted[2:]):
        assert (one - other).norm() < 0.1 * other.norm(), name  # what hardly any light reaches is left out


@pytest.mark.parametrize("gpu", [False, True])
def test_refinement_gains_on_held_out_views(splats: Splats, monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    module = types.ModuleType("gsplat")
    module.rasterization, module.DefaultStrategy = plain_gsplat.rasterization, plain_gsplat.DefaultStrategy
    monkeypatch.setitem(sys.modules, "gsplat", module)
    monkeypatch.setattr("nvs_app.export.refine.gsplat_missing", lambda device: None if gpu else "it needs a GPU")
    train, held = hold_out(analytic_views(cameras(6, 20)))
    assert len(train) == 5 and len(held) == 1
    surfels = fuse(train, fill=True)
    start = shaded(splats_of(surfels), surfels, train, 0 if gpu else 3)
    ticks = iter(range(10**6))
    done = refine(start, train, held, 60, torch.device("cpu"), clock=lambda: float(next(ticks)))
    assert done.after > done.before and done.steps >= 10 and done.held == 1
    assert not torch.equal(done.splats.colours, start.colours)
    assert gpu == (done.splats.harmonics is None)
    # Nothing that helps: what was there stays.
    stopped = refine(start, train, held, 0, torch.device("cpu"))
    assert stopped.splats is start and stopped.steps == 0 and stopped.after == stopped.before


def test_the_page_holds_everything(splats: Splats, tmp_path: Path) -> None:
    look = first_look(cameras(6, 40), (1.0, 1.0, 1.0))
    text = write_html(tmp_path / "chair.html", splats, look, 'a "chair" </title> `${x}`').read_text("utf-8")
    assert "Copyright (c) 2023 Dylan Ebert" in text and "default-src 'none'" in text
    assert "</title> `" not in text and "export {" not in viewer_script() and "sourceMappingURL" not in text
