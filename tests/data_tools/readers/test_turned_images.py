"""Posed photos that are stored turned, and of formats that phones and Metashape write."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.colmap_export import save_colmap
from data_tools.readers import open_scene
from data_tools.shards.samples import ShardOptions, make_sample


def posed(folder: Path, camera_hw: tuple[int, int], suffix: str = "jpg", orientation: int = 6, **more: float) -> Path:
    """Three photos of 64x48 whose top left quarter, as stored, is white; their EXIF says that they are turned."""
    (folder / "images").mkdir(parents=True)
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    frames = []
    for number in range(3):
        name = f"images/{number}.{suffix}"
        Image.fromarray(stored).save(folder / name, exif=exif, quality=95)
        pose = np.eye(4)
        pose[0, 3] = number
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    height, width = camera_hw
    content = {"fl_x": 60.0, "cx": 20.0, "cy": 40.0, "w": width, "h": height, **more, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("lens", [{}, {"k1": 0.01}])
def test_turned_where_the_camera_is(tmp_path: Path, lens: dict[str, float]) -> None:
    scene = open_scene(posed(tmp_path / "s", (64, 48), **lens))
    assert scene.image_hws[0].tolist() == [64, 48] and scene.orientations == (6, 6, 6)
    assert "3 images turned as their EXIF orientation says" in " ".join(scene.notes)
    images = scene.load().images
    assert images.shape == (3, 3, 64, 48) and images[0, :, 8, 40].min() > 0.9 and images[0, :, 8, 8].max() < 0.1
    assert scene.subset([1]).load().images[0].equal(images[1])
    # Whatever is written has no need to be turned, and looks the same.
    for again in (open_scene(scene.save(tmp_path / "n")), open_scene(save_colmap(scene, tmp_path / "c"))):
        assert not again.orientations and again.image_hws[0].tolist() == [64, 48]
        torch.testing.assert_close(again.load().images, images, atol=2 / 255, rtol=0)
        torch.testing.assert_close(again.fxfycxcy, scene.fxfycxcy)
    sample = make_sample(scene, ShardOptions(quality=0))
    assert json.loads(next(iter(sample.values())))["image_hw"][0] == [64, 48]
    assert Image.open(io.BytesIO(sample["000.png"])).size == (48, 64)


def test_as_stored_where_the_camera_is(tmp_path: Path) -> None:
    scene = open_scene(posed(tmp_path / "s", (96, 128)))
    assert scene.image_hws[0].tolist() == [48, 64] and not scene.orientations and not scene.notes
    assert scene.load().images[0, :, 8, 8].min() > 0.9


def test_phones_formats_open_whatever_was_imported(tmp_path: Path) -> None:
    """In a new process, where nothing has taught Pillow about HEIC."""
    pillow_heif = pytest.importorskip("pillow_heif")
    for suffix in ("HEIC", "tif", "avif"):
        folder = posed(tmp_path / suffix, (48, 64), "avif" if suffix == "HEIC" else suffix, 1)
        if suffix == "HEIC":
            for file in sorted((folder / "images").iterdir()):
                pillow_heif.from_pillow(Image.open(file)).save(file.with_suffix(".HEIC"), quality=95)
                file.unlink()
            text = (folder / "transforms.json").read_text()
            (folder / "transforms.json").write_text(text.replace(".avif", ".HEIC"))
    code = (
        "import sys\nfrom data_tools.readers import open_scene\n"
        "for path in sys.argv[1:]: print(round(float(open_scene(path).load([2]).images[0, :, :20, :28].min()), 1))"
    )
    call = [sys.executable, "-c", code, *(str(tmp_path / suffix) for suffix in ("HEIC", "tif", "avif"))]
    done = subprocess.run(call, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.split() == ["1.0", "1.0", "1.0"]
