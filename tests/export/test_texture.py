"""Meshes with a texture: the colours of a scene that is known, charts that do not overlap, fine photos."""

from __future__ import annotations

import io
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from camera_rings import ring_c2w
from image_scenes import image_scene, noise
from PIL import Image

from nvs_app.errors import NVSError
from nvs_app.export.atlas import adjacent, pieces, unwrap
from nvs_app.export.glb import write_glb
from nvs_app.export.mesh import Mesh, mesh_of, raycaster, simplified
from nvs_app.export.texture import textured
from nvs_app.export.views import fine_photos
from nvs_app.scenes.posed import PosedImages

sys.path.insert(0, str(Path(__file__).parent))
from analytic import analytic_views, cameras, off_surface, pattern

pytest.importorskip("open3d", reason="open3d is not installed (make setup)")
PIXEL = 2.6 / 77  # how wide a pixel is where the cameras look
BAND = 3 * PIXEL


@pytest.fixture(scope="module")
def views():
    return analytic_views(cameras())


@pytest.fixture(scope="module")
def mesh(views) -> Mesh:
    return mesh_of(views)


def stripes(views):
    """The scene as photos of four times the size show it: with stripes finer than a pixel of `views`."""
    fine = analytic_views(cameras(side=256))
    bands = 0.3 * torch.sin(2 * np.pi * points_of(fine)[..., 0] / BAND)
    shown = fine.depth > 0
    return PosedImages((fine.images + (bands * shown)[:, None]).clamp(0, 1), fine.cameras)


def points_of(views) -> torch.Tensor:
    height, width = views.cameras.image_hw
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    fx, fy, cx, cy = views.cameras.fxfycxcy.unbind(-1)
    rays = torch.stack([(x - cx[:, None, None]) / fx[:, None, None], (y - cy[:, None, None]) / fy[:, None, None]], -1)
    local = torch.cat([rays, torch.ones_like(rays[..., :1])], -1) * views.depth[..., None]
    pose = views.cameras.c2w[:, None, None]
    return (pose[..., :3, :3] @ local[..., None])[..., 0] + pose[..., :3, 3]


def read_back(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points on a file's mesh, as trimesh reads it, and the colours that its texture has there."""
    (geometry,) = trimesh.load(file, process=False).geometry.values()
    assert geometry.visual.kind == "texture"
    image = np.asarray(geometry.visual.material.baseColorTexture.convert("RGB")) / 255
    random = np.random.default_rng(0)
    share = random.dirichlet([1, 1, 1], 4000)[..., None]
    faces = geometry.faces[random.choice(len(geometry.faces), 4000, p=geometry.area_faces / geometry.area)]
    u, v = (geometry.visual.uv[faces] * share).sum(1).T
    assert u.min() > 0 and u.max() < 1 and v.min() > 0 and v.max() < 1
    rows, columns = ((1 - v) * image.shape[0]).astype(int), (u * image.shape[1]).astype(int)  # trimesh has v upwards
    return (geometry.vertices[faces] * share).sum(1), image[rows, columns]


def test_a_texture_has_the_colours_of_the_surface(views, mesh: Mesh, tmp_path: Path) -> None:
    found = textured(mesh, views)
    assert found.texture is not None and max(found.texture.image.shape) <= 1024
    points, colours = read_back(write_glb(tmp_path / "mesh.glb", found))
    assert np.abs(colours - pattern(torch.from_numpy(points)).numpy()).mean() < 0.02
    assert np.quantile(off_surface(torch.from_numpy(points)).numpy(), 0.95) < PIXEL


def test_photos_finer_than_depth_give_finer_textures(views, mesh: Mesh, tmp_path: Path) -> None:
    """As far as the surface lies where it should: on the flat ground."""
    photos = stripes(views)
    coarse = torch.nn.functional.avg_pool2d(photos.images, 4)
    wrong = []
    for own, finer in ((coarse, None), (views.images, photos)):
        points, colours = read_back(write_glb(tmp_path / "mesh.glb", textured(mesh, replace(views, images=own), finer)))
        flat = (points[:, 2] < 0.02) & (np.linalg.norm(points[:, :2], axis=1) < 1)
        bands = 0.3 * np.sin(2 * np.pi * points[flat, :1] / BAND)
        wanted = (pattern(torch.from_numpy(points[flat])).numpy() + bands).clip(0, 1)
        wrong.append(np.abs(colours[flat] - wanted).mean())
    assert wrong[1] < 0.5 * wrong[0]


def test_photos_in_a_far_world_are_found_too(views, mesh: Mesh) -> None:
    place = torch.tensor([4e5, 5e6, 200.0], dtype=torch.float64)
    c2w = views.cameras.c2w.double().clone()
    c2w[:, :3, 3] += place
    far = PosedImages(views.images, replace(views.cameras, c2w=c2w))
    found = textured(mesh, replace(views, offset=tuple(place.tolist())), far).texture
    own = textured(mesh, views).texture
    assert found is not None and own is not None and found.image.shape == own.image.shape
    assert np.abs(found.image.astype(float) - own.image).mean() < 0.5


def test_the_file_is_what_the_format_says(views, mesh: Mesh, tmp_path: Path) -> None:
    found = textured(mesh, views, most=256)
    data = write_glb(tmp_path / "mesh.glb", found).read_bytes()
    assert struct.unpack("<4sII", data[:12]) == (b"glTF", 2, len(data))
    size = struct.unpack("<I", data[12:16])[0]
    text, body = json.loads(data[20 : 20 + size]), data[28 + size :]
    assert len(body) == text["buffers"][0]["byteLength"] and size % 4 == 0 and len(body) % 4 == 0
    assert set(text["meshes"][0]["primitives"][0]["attributes"]) == {"POSITION", "NORMAL", "TEXCOORD_0"}
    region = text["bufferViews"][text["images"][0]["bufferView"]]
    image = Image.open(io.BytesIO(body[region["byteOffset"] :][: region["byteLength"]]))
    assert image.format == "JPEG" and max(image.size) <= 256
    for accessor in text["accessors"]:
        assert text["bufferViews"][accessor["bufferView"]]["byteOffset"] % 4 == 0
    assert text["accessors"][0]["max"] == found.vertices.max(0).tolist()


def test_charts_do_not_overlap_and_shrink_to_fit(mesh: Mesh) -> None:
    density = np.full(len(mesh.triangles), 3 / PIXEL)
    atlas = unwrap(mesh.vertices, mesh.triangles, density, 4096)
    assert np.array_equal(mesh.vertices[atlas.source[atlas.triangles]], mesh.vertices[mesh.triangles])
    (height, width), (x, y) = atlas.size, atlas.place.T
    assert x.min() > 2 and y.min() > 2 and x.max() < width - 2 and y.max() < height - 2
    scene, core = raycaster(np.c_[atlas.place, np.zeros(len(x))], atlas.triangles)
    rows, columns = np.mgrid[:height, :width].astype(np.float32) + 0.5
    rays = np.stack([columns, rows, *np.broadcast_arrays(rows * 0 + 1, 0, 0, -1)], axis=-1).astype(np.float32)
    hits = scene.count_intersections(core.Tensor(rays)).numpy()
    assert (hits > 1).sum() < 0.005 * (hits > 0).sum()
    # As many texels as were asked for: on a surface of that area, so many.
    corners = mesh.vertices[mesh.triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    assert abs((hits > 0).sum() / (area * (3 / PIXEL) ** 2) - 1) < 0.1
    small = unwrap(mesh.vertices, mesh.triangles, density, 256)
    assert max(small.size) <= 256 < max(atlas.size)
    with pytest.raises(NVSError, match="pieces do not fit into 16x16"):
        unwrap(mesh.vertices, mesh.triangles, density, 16)


def test_connected_pieces() -> None:
    triangles = np.array([[0, 1, 2], [2, 1, 3], [3, 4, 5], [5, 4, 6], [2, 3, 7]])
    pairs = adjacent(triangles)
    assert {tuple(sorted(pair)) for pair in pairs.T.tolist()} == {(0, 1), (1, 4), (2, 3)}
    assert pieces(pairs, torch.zeros(5, dtype=torch.long)).tolist() == [0, 0, 1, 1, 0]
    assert pieces(pairs, torch.tensor([0, 0, 0, 1, 1])).tolist() == [0, 0, 1, 2, 3]
    long = np.stack([np.arange(999), np.arange(1, 1000), np.arange(2, 1001)], axis=1)  # a strip
    assert not pieces(adjacent(long), torch.zeros(999, dtype=torch.long)).any()


def test_a_simpler_mesh_has_the_same_shape(mesh: Mesh) -> None:
    found = simplified(mesh, 0.25)
    assert len(found.triangles) <= 0.26 * len(mesh.triangles)
    assert off_surface(torch.from_numpy(found.vertices)).quantile(0.95) < PIXEL
    assert np.allclose(np.linalg.norm(found.normals, axis=1), 1, atol=1e-4)


def test_fine_photos_are_those_of_the_cameras(tmp_path: Path) -> None:
    scene = image_scene(tmp_path / "scene", noise(4, (48, 64)), ring_c2w(4, step=0.2), (60.0, 60.0, 32.0, 24.0))
    read = scene.load([2, 0], (24, 24)).cameras  # a square in the middle, half as fine
    found = fine_photos(scene, read)
    assert found is not None and found.images.dtype == torch.uint8 and found.cameras.image_hw == (48, 48)
    assert torch.equal(found.images, (scene.load([2, 0], (48, 48)).images * 255).round().to(torch.uint8))
    assert torch.allclose(found.cameras.fxfycxcy, 2 * read.fxfycxcy) and torch.equal(found.cameras.c2w, read.c2w)
    assert fine_photos(scene, scene.load([0], (48, 48)).cameras) is None  # as fine as the files
    moved = replace(read, c2w=read.c2w + 0.01)
    assert fine_photos(scene, moved) is None and fine_photos(None, read) is None
