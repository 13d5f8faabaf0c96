"""What counts as a photo, what it is called, and which mask is its."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data_tools.structure_from_motion.photo_files import (
    check_photo,
    find_images,
    find_photos,
    labels,
    masks_of,
    refuse_depth_maps,
)
from data_tools.structure_from_motion.prepare import prepare_photos
from data_tools.structure_from_motion.report import PhotoOptions, input_key
from nvs_app.errors import NVSError, Refusal

XMP = b'<x:xmpmeta><rdf:Description GPano:ProjectionType="equirectangular"/></x:xmpmeta>'


def photo(path: Path, size: tuple[int, int] = (8, 8), **saved) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **saved)
    return path


def depth(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), 1500, np.uint16)).save(path)
    return path


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images([folder])]


def test_a_raw_export_gives_each_photo_once(tmp_path: Path) -> None:
    export = tmp_path / "poly"
    for stamp in ("1", "2"):
        for kind in ("images", "corrected_images"):
            photo(export / f"keyframes/{kind}/{stamp}.jpg")
        depth(export / f"keyframes/depth/{stamp}.png")
    (export / "keyframes/cameras").mkdir()
    photo(export / "thumbnail.jpg")
    assert len(find_images([tmp_path])) == len(find_images([export / "keyframes"])) == 2
    assert names(export) == ["keyframes/corrected_images/1.jpg", "keyframes/corrected_images/2.jpg"]
    told = find_photos([export]).left_out
    assert any(line.startswith("2 images left out: depth/ holds no photos (") for line in told)
    assert any(line.startswith("3 images left out: corrected_images/ holds the photos (") for line in told)


def test_copies_and_maps_beside_the_photos(tmp_path: Path) -> None:
    for name in (
        "images/1.jpg",
        "images_2/1.jpg",
        "images_8/1.jpg",
        "images/1.depth.png",
        "Masks/1.png",
        "b/images_4/1.jpg",
    ):
        photo(tmp_path / "up" / name)
    assert names(tmp_path) == ["up/b/images_4/1.jpg", "up/images/1.jpg"]
    assert len(find_photos([tmp_path]).left_out) == 4


def test_depth_maps_are_no_photos(tmp_path: Path) -> None:
    for number in range(3):
        depth(tmp_path / f"{number}d.png")
    with pytest.raises(NVSError, match="only 16-bit grey images, as depth maps are") as caught:
        refuse_depth_maps(find_images([tmp_path]), "scan")
    assert caught.value.code == Refusal.NO_PHOTO
    photo(tmp_path / "a.png")
    found = find_photos([tmp_path])
    assert [path.name for path in found.images] == ["a.png"]
    assert found.left_out == ["3 images left out: 16-bit grey images, as depth maps are (0d.png, 1d.png, 2d.png)"]


def test_panoramas_are_refused(tmp_path: Path) -> None:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "RICOH", "RICOH THETA Z1"
    sphere = [
        photo(tmp_path / "a.jpg", (16, 8), xmp=XMP),
        photo(tmp_path / "b.png", (16, 8), pnginfo=text),
        photo(tmp_path / "c.jpg", (16, 8), exif=exif),
    ]
    plain = [photo(tmp_path / "d.jpg", (16, 8)), photo(tmp_path / "e.jpg", (8, 8), exif=exif)]
    for path in sphere:
        with pytest.raises(NVSError, match="a 360-degree panorama, cut it into perspective views") as caught:
            check_photo(path)
        assert caught.value.code == Refusal.PANORAMA
    photos, skipped = prepare_photos([*sphere, *plain], tmp_path / "work", 64)
    assert [p.source for p in photos] == ["d.jpg", "e.jpg"] and set(skipped) == {"a.jpg", "b.png", "c.jpg"}


def test_photos_are_called_by_their_path(tmp_path: Path) -> None:
    inputs = [tmp_path / "x/scan", tmp_path / "y/scan", tmp_path / "z"]
    for folder in inputs:
        photo(folder / "left/1.jpg")
    alone = [photo(tmp_path / "p/2.jpg"), photo(tmp_path / "q/2.jpg")]
    assert labels(find_images(inputs[:1]), inputs[:1]) == ["left/1.jpg"]
    assert labels(find_images(inputs), inputs) == ["1/scan/left/1.jpg", "2/scan/left/1.jpg", "z/left/1.jpg"]
    assert labels(alone, alone) == ["p/2.jpg", "q/2.jpg"]
    bad = tmp_path / "z/left/bad.jpg"
    bad.write_bytes(b"none")
    photos, skipped = prepare_photos(find_images([inputs[2]]), tmp_path / "work", 64, inputs=[inputs[2]])
    assert [p.source for p in photos] == ["left/1.jpg"] and set(skipped) == {"left/bad.jpg"}
    key = input_key([inputs[2]], PhotoOptions())
    (tmp_path / "z/left").rename(tmp_path / "z/right")
    assert input_key([inputs[2]], PhotoOptions()) != key


def test_masks_by_path_and_by_name(tmp_path: Path) -> None:
    images = [photo(tmp_path / f"photos/{side}/1.jpg") for side in ("left", "right")]
    called = labels(images, [tmp_path / "photos"])
    own = [photo(tmp_path / f"masks/{side}/1.png") for side in ("left", "right")]
    assert masks_of(tmp_path / "masks", images, called) == own
    own[1].unlink()
    assert masks_of(tmp_path / "masks", images, called) == [own[0], None]
    flat = photo(tmp_path / "masks/1.jpg.png")
    assert masks_of(tmp_path / "masks", images, called) == [own[0], flat]
    own[0].unlink()
    with pytest.raises(NVSError, match="masks/1.jpg.png fits left/1.jpg and right/1.jpg; put masks into folders"):
        prepare_photos(images, tmp_path / "work", 64, tmp_path / "masks")
    photo(tmp_path / "masks/left/1.png")
    photos, skipped = prepare_photos(images, tmp_path / "work", 64, tmp_path / "masks")
    assert [p.source for p in photos] == ["left/1.jpg", "right/1.jpg"] and all(p.masked for p in photos) and not skipped
    assert len({p.name for p in photos}) == 2
