"""Scene and PosedImages in memory and on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.readers import open_scene
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.scenes.images import Lens
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.scene import Scene


def make_scene(folder: Path, sizes=((12, 16),) * 3, names=None, **fields) -> Scene:
    """Random images around the origin; RGBA where a name ends with a.png."""
    generator = np.random.default_rng(0)
    paths = []
    for index, (height, width) in enumerate(sizes):
        path = folder / (names[index] if names else f"images/{index}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    count = len(sizes)
    eye = torch.randn(count, 3)
    return Scene(
        name=folder.name,
        root=folder,
        image_paths=paths,
        c2w=look_at(eye, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])),
        fxfycxcy=torch.rand(count, 4) + torch.tensor([20.0, 20.0, 8.0, 6.0]),
        image_hws=torch.tensor(sizes),
        split=fields.pop("split", [None] * count),
        **fields,
    )


def same(first: Scene, second: Scene) -> bool:
    return (
        torch.equal(first.c2w, second.c2w)
        and torch.equal(first.fxfycxcy, second.fxfycxcy)
        and torch.equal(first.image_hws, second.image_hws)
        and first.split == second.split
        and first.lenses == second.lenses
        and [p.read_bytes() for p in first.image_paths] == [p.read_bytes() for p in second.image_paths]
    )


def test_load_order_sizes_and_native(tmp_path) -> None:
    scene = make_scene(tmp_path)
    assert len(scene) == scene.n == 3
    posed = scene.load([2, 0])
    assert posed.images.shape == (2, 3, 12, 16) and posed.cameras.image_hw == (12, 16)
    assert torch.equal(posed.cameras.c2w, scene.c2w[[2, 0]])
    first = np.asarray(Image.open(scene.image_paths[0]), dtype=np.float32) / 255
    torch.testing.assert_close(posed.images[1], torch.from_numpy(first).permute(2, 0, 1))
    small = scene.load(None, image_hw=(6, 6))
    assert small.images.shape == (3, 3, 6, 6)
    torch.testing.assert_close(small.images[0, :, 0, 0], posed.images[1, :, :2, 2:4].mean((1, 2)))
    torch.testing.assert_close(small.cameras.fxfycxcy, (scene.fxfycxcy - torch.tensor([0.0, 0, 2, 0])) / 2)
    assert torch.equal(scene.cameras([1, 2], (6, 6)).fxfycxcy, small.cameras.fxfycxcy[1:])


def test_load_inside_inference_mode(tmp_path) -> None:
    scene = make_scene(tmp_path)
    plain = scene.load([0, 1], (6, 6)).images
    with torch.inference_mode():
        assert torch.equal(scene.load([0, 1], (6, 6)).images, plain)


def test_load_refuses(tmp_path) -> None:
    scene = make_scene(tmp_path, sizes=((12, 16), (10, 16)))
    with pytest.raises(NVSError, match=r"images differ in size \(10x16, 12x16\), give image_hw"):
        scene.load([0, 1])
    assert scene.load([0, 1], (8, 8)).images.shape == (2, 3, 8, 8)
    for wrong in (-1, 2):
        with pytest.raises(NVSError, match=f"view {wrong} does not exist, expected 0 to 1"):
            scene.load([wrong])
    with pytest.raises(NVSError, match="no views"):
        scene.load([])
    scene.image_paths[1].unlink()
    with pytest.raises(NVSError, match=f"{scene.name}/images/1.png: no such file"):
        scene.load([1])
    Image.new("RGB", (9, 9)).save(scene.image_paths[0])
    with pytest.raises(NVSError, match="is 9x9, it was 16x12"):
        scene.load([0])


def test_save_reads_back_identical(tmp_path) -> None:
    scene = make_scene(tmp_path / "a", sizes=((12, 16), (12, 16), (9, 7)), split=["train", None, "test"])
    folder = scene.save(tmp_path / "deep" / "b")
    assert folder == tmp_path / "deep" / "b"
    again = open_scene(folder)
    assert again.name == "b" and same(scene, again)
    content = json.loads((folder / "transforms.json").read_text())
    assert content["train_filenames"] == ["images/0.png"] and content["test_filenames"] == ["images/2.png"]
    assert "fl_x" not in content and len(content["frames"]) == 3
    third = open_scene(again.save(tmp_path / "c"))
    assert same(scene, third)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["b"]  # no temporary folder is left


def test_save_shares_equal_intrinsics_and_keeps_lenses(tmp_path) -> None:
    lens = Lens((20.0, 21.0, 8.0, 6.0), (-0.1, 0.01, 0.001, 0.0, 0.0))
    scene = make_scene(tmp_path / "a", lenses=(lens,) * 3)
    pinhole = torch.tensor(lens.pinhole((12, 16))).expand(3, 4).clone()
    scene = Scene(**{**scene.__dict__, "fxfycxcy": pinhole})
    folder = scene.save(tmp_path / "b")
    content = json.loads((folder / "transforms.json").read_text())
    assert content["fl_x"] == 20 and content["k1"] == -0.1 and "fl_x" not in content["frames"][0]
    again = open_scene(folder)
    assert same(scene, again)
    assert torch.equal(again.load([1]).images, scene.load([1]).images)


def test_save_never_overwrites_nor_leaves_half(tmp_path) -> None:
    scene = make_scene(tmp_path / "a")
    (tmp_path / "b").mkdir()
    scene.save(tmp_path / "b")  # an empty folder is fine
    with pytest.raises(NVSError, match="exists and is not empty"):
        scene.save(tmp_path / "b")
    scene.image_paths[2].unlink()
    with pytest.raises(NVSError, match="the image is gone"):
        scene.save(tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_save_beside_its_images(tmp_path) -> None:
    scene = make_scene(tmp_path / "a")
    assert scene.save(tmp_path / "a", copy_images=False) == tmp_path / "a"
    assert same(scene, open_scene(tmp_path / "a"))
    scene.save(tmp_path / "a", copy_images=False)  # replaces the file
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["images", "transforms.json"]
    with pytest.raises(NVSError, match="lies outside of it"):
        scene.save(tmp_path / "b", copy_images=False)


def test_save_of_images_from_elsewhere(tmp_path) -> None:
    scene = make_scene(tmp_path, sizes=((4, 4),) * 2, names=["x/p.png", "y/p.png"])
    scene = Scene(**{**scene.__dict__, "root": tmp_path / "nowhere"})
    again = open_scene(scene.save(tmp_path / "b"))
    assert [p.name for p in again.image_paths] == ["00000_p.png", "00001_p.png"] and same(scene, again)


def test_posed_images(tmp_path) -> None:
    posed = make_scene(tmp_path).load()
    assert len(posed) == 3
    assert torch.equal(posed[[2, 0]].images, posed.images[[2, 0]])
    assert posed[1].images.shape == (3, 12, 16) and posed[:2].cameras.shape == (2,)
    bytes_ = PosedImages((posed.images * 255).to(torch.uint8), posed.cameras)
    assert bytes_.float().images.max() <= 1 and bytes_.float().images.dtype == torch.float32
    assert posed.to("cpu").images.device.type == "cpu"
    batch = PosedImages(posed.images[None], Cameras.stack([posed.cameras]))
    assert batch[..., 1].images.shape == (1, 3, 12, 16)
    with pytest.raises(ValueError, match="expected"):
        PosedImages(posed.images[:2], posed.cameras)


def test_posed_images_carry_depth(tmp_path) -> None:
    posed = make_scene(tmp_path).load()
    depth = torch.rand(3, 12, 16)
    posed = PosedImages(posed.images, posed.cameras, depth.half())
    assert torch.equal(posed[1:].depth, depth.half()[1:])
    assert torch.equal(posed[[2, 0]].depth, depth.half()[[2, 0]])
    assert posed[0].depth.shape == (12, 16) and posed.to("cpu").depth.dtype == torch.float16
    assert torch.equal(posed.float().depth, depth.half().float())
    batch = PosedImages(posed.images[None], Cameras.stack([posed.cameras]), depth[None])
    assert torch.equal(batch[..., 1].depth, depth[None, 1])
    with pytest.raises((ValueError, TypeError), match="depth"):
        PosedImages(posed.images, posed.cameras, depth[:2])
