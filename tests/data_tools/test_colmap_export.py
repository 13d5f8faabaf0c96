"""The COLMAP export: our reader and pycolmap see the same rays, images and points; points are read or left out."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.cli import main
from data_tools.colmap_export import save_colmap
from data_tools.readers import open_scene
from data_tools.readers.points import Points, read_colmap_points, read_ply, scene_points
from data_tools.structure_from_motion.scene import write_ply
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import look_at
from nvs_app.geometry.rays import pixel_rays
from nvs_app.scenes.lens import Lens
from nvs_app.scenes.scene import Scene

LENSES = {
    "none": None,
    "OPENCV": Lens((30.0, 31.0, 20.5, 14.0), (-0.05, 0.01, 0.001, -0.002, 0.0)),
    "FULL_OPENCV": Lens((30.0, 31.0, 20.5, 14.0), (-0.05, 0.01, 0.0, 0.0, 0.003)),
    "OPENCV_FISHEYE": Lens((30.0, 31.0, 20.5, 14.0), (0.02, -0.01, 0.0, 0.0), "OPENCV_FISHEYE"),
    "FOV": Lens((30.0, 31.0, 20.5, 14.0), (0.3,), "FOV"),
    "BROWN4": Lens((30.0, 31.0, 20.5, 14.0), (-0.05, 0.0, 0.0, 0.0, 0.0, 0.002), "BROWN4"),
}
HEIGHT, WIDTH = 28, 40
ASCII = "format ascii 1.0\nelement vertex 2\nproperty double x\nproperty float y\nproperty float z\n"
BIG_ENDIAN = (
    "format binary_big_endian 1.0\ncomment hi\nelement vertex 2\nproperty float z\nproperty float y\n"
    "property float x\nelement face 0\nproperty list uchar int i\n"
)


def scene(folder: Path, count: int = 4, lens: Lens | None = None, names=None) -> Scene:
    folder.mkdir(parents=True)
    paths = []
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 255, (7, 10, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        paths.append(folder / (names[index] if names else f"view {index}.png"))
        Image.fromarray(pixels).save(paths[-1])
    angle = torch.arange(count) * 0.7
    eye = torch.stack((3 * angle.cos(), 3 * angle.sin(), 0.5 + angle), -1)
    c2w = look_at(eye, torch.zeros(count, 3), torch.tensor([0.0, 0, 1]).expand(count, 3))
    own = (30.0, 31.0, 20.5, 14.0) if lens is None else lens.pinhole((HEIGHT, WIDTH))
    sizes = torch.tensor([[HEIGHT, WIDTH]]).expand(count, 2).clone()
    lenses = (lens,) * count if lens else ()
    return Scene("made", folder, paths, c2w, torch.tensor([own] * count), sizes, [None] * count, lenses)


@pytest.mark.parametrize("name", LENSES)
def test_same_rays_and_pixels_here_and_in_pycolmap(tmp_path: Path, name: str) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    before = scene(tmp_path / "in", lens=LENSES[name])
    points = Points(np.float32([[0, 0, 0], [0.1, 0.2, 0.3]]), np.uint8([[1, 2, 3], [250, 251, 252]]))
    after = open_scene(save_colmap(before, tmp_path / "out", points), "colmap")
    for mine, theirs in zip(pixel_rays(before.cameras()), pixel_rays(after.cameras())):
        torch.testing.assert_close(mine.float(), theirs.float(), atol=2e-5, rtol=0)
    assert (before.load().images - after.load().images).abs().max() < (0.01 if name == "BROWN4" else 1e-6)

    model = pycolmap.Reconstruction(tmp_path / "out/sparse/0")
    assert len(model.images) == 4 and len(model.cameras) == 1 and len(model.points3D) == 2
    assert model.points3D[2].color.tolist() == [250, 251, 252]
    camera = model.cameras[1]
    assert camera.model.name == {"none": "PINHOLE", "BROWN4": "PINHOLE"}.get(name, name)
    assert (camera.width, camera.height) == (WIDTH, HEIGHT)
    for number, image in sorted(model.images.items()):
        c2w = image.cam_from_world().inverse().matrix()
        assert np.allclose(c2w, before.c2w[number - 1, :3].numpy(), atol=1e-5)
        # The scene's pinhole rays, seen by their camera, land where the lens puts them.
        pixel = camera.img_from_cam(np.array([[0.1, -0.05, 1.0]]))[0]
        lens = LENSES[name]
        if lens is None or name == "BROWN4":
            fx, fy, cx, cy = before.fxfycxcy[0].tolist()
            expected = [fx * 0.1 + cx, -fy * 0.05 + cy]
        else:
            expected = lens.project(np.array([[0.1, -0.05]]))[0]
        assert np.allclose(pixel, expected, atol=1e-3)
        assert (tmp_path / "out/images" / image.name).is_file() and " " not in image.name


def test_order_and_several_cameras_survive(tmp_path: Path) -> None:
    before = scene(tmp_path / "in", names=["10.png", "9.png", "b/1.png".replace("/", "ä"), "1.png"])
    focal = before.fxfycxcy.clone()
    focal[2:] *= 1.5
    before = Scene(before.name, before.root, before.image_paths, before.c2w, focal, before.image_hws, before.split)
    after = open_scene(save_colmap(before, tmp_path / "out"), "colmap")
    torch.testing.assert_close(after.fxfycxcy, focal)
    torch.testing.assert_close(after.c2w.float(), before.c2w, atol=1e-6, rtol=0)
    assert [path.name for path in after.image_paths][0] == "00000_10.png"
    assert torch.equal(before.load().images, after.load().images)


def test_points_travel_with_the_scene(tmp_path: Path) -> None:
    before = scene(tmp_path / "in")
    assert scene_points(before) is None
    xyz, rgb = np.float32([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), np.uint8([[9, 8, 7], [0, 0, 0], [255, 1, 2]])
    write_ply(tmp_path / "in/sparse.ply", xyz, rgb)
    found = scene_points(before)
    assert np.array_equal(found.xyz, xyz) and np.array_equal(found.rgb, rgb)
    (tmp_path / "in/sparse.ply").rename(tmp_path / "in/cloud.ply")
    before.save(tmp_path / "saved")
    exported = open_scene(save_colmap(before, tmp_path / "out", found), "colmap")
    again = scene_points(exported)
    assert np.array_equal(again.xyz, xyz) and np.array_equal(again.rgb, rgb)
    assert len(again.sample(2)) == 2 and again.sample(5) is again


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (ASCII, b"1 2 3\n4 5 6\n"),
        (BIG_ENDIAN, struct.pack(">6f", 3, 2, 1, 6, 5, 4)),
    ],
)
def test_ply_of_other_makers(tmp_path: Path, header: str, body: bytes) -> None:
    (tmp_path / "a.ply").write_bytes(f"ply\n{header}end_header\n".encode() + body)
    points = read_ply(tmp_path / "a.ply")
    assert points.xyz.tolist() == [[1, 2, 3], [4, 5, 6]] and (points.rgb == 128).all()


def test_broken_points_are_one_line_or_none(tmp_path: Path) -> None:
    before = scene(tmp_path / "in")
    write_ply(tmp_path / "in/sparse.ply", np.ones((3, 3), np.float32), np.ones((3, 3), np.uint8))
    good = (tmp_path / "in/sparse.ply").read_bytes()
    file = tmp_path / "in/sparse.ply"
    broken = [
        *(good[:n] for n in range(0, len(good), 7)),
        good.replace(b"vertex 3", b"vertex 99999999999999999999"),
        good.replace(b"vertex 3", b"vertex -3"),
        good.replace(b"float x", b"list uchar int x"),
        good.replace(b"float y", b"float x"),
        good.replace(b"binary_little_endian", b"secret"),
    ]
    for data in broken:
        file.write_bytes(data)
        with pytest.raises(NVSError) as caught:
            read_ply(file)
        assert "\n" not in str(caught.value)
        assert scene_points(before) is None
    save_colmap(before, tmp_path / "out", Points(np.ones((2, 3), np.float32), np.ones((2, 3), np.uint8)))
    whole = (tmp_path / "out/sparse/0/points3D.bin").read_bytes()
    for data in (*(whole[:n] for n in range(len(whole))), struct.pack("<Q", 2**63)):
        (tmp_path / "points3D.bin").write_bytes(data)
        with pytest.raises(NVSError, match="cut short|at most"):
            read_colmap_points(tmp_path / "points3D.bin")
    (tmp_path / "points3D.txt").write_text("# points\n1 1 2 3 4 5 6 0.5 1 2\n2 nan 2 3 4 5 6 0.5\n")
    assert read_colmap_points(tmp_path / "points3D.txt").xyz.tolist() == [[1, 2, 3]]


def test_points_outside_the_scene_are_not_read(tmp_path: Path) -> None:
    before = scene(tmp_path / "in")
    before.save(tmp_path / "in", copy_images=False)
    write_ply(tmp_path / "secret.ply", np.ones((3, 3), np.float32), np.ones((3, 3), np.uint8))
    text = (tmp_path / "in/transforms.json").read_text()
    for name in ("../secret.ply", str(tmp_path / "secret.ply"), "a\\u0000b"):
        (tmp_path / "in/transforms.json").write_text(text.replace("{", f'{{"ply_file_path": "{name}",', 1))
        assert scene_points(before) is None
    (tmp_path / "in/sparse.ply").symlink_to(tmp_path / "secret.ply")
    assert scene_points(before) is None


def test_convert_to_colmap(tmp_path: Path, capsys) -> None:
    scene(tmp_path / "in").save(tmp_path / "in", copy_images=False)
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--to", "colmap", "--max-views", "3"]) == 0
    assert "3 of 4 views kept" in capsys.readouterr().out
    assert len(open_scene(tmp_path / "out", "colmap")) == 3
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--to", "colmap"]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    (tmp_path / "in/view 2.png").unlink()
    with pytest.raises(NVSError):
        save_colmap(scene(tmp_path / "other").subset([0]), tmp_path / "out")


def test_nothing_is_left_after_a_missing_image(tmp_path: Path) -> None:
    before = scene(tmp_path / "in")
    before.image_paths[2].unlink()
    with pytest.raises(NVSError, match="the image is gone"):
        save_colmap(before, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
