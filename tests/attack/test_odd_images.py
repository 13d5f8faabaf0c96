"""Photos of an odd shape, and broken ones of every format: skipped or refused in one line by whatever reads images."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.readers.archives import open_image
from data_tools.structure_from_motion.prepare import measure_sharpness, prepare_photos
from nvs_app.errors import NVSError
from nvs_app.scenes.images import read_image, register_heif

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIF", "GIF", "BMP", "JPEG2000")


@pytest.mark.parametrize("hw", [(5000, 1), (1, 5000), (1, 1), (3, 12_000)])
def test_strips_and_dots(hw: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 255, (*hw, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    with open_image(path) as image:
        assert image.size == hw[::-1] and read_image(path).shape[1:] == hw
    assert all(np.isfinite(measure_sharpness(pixels[:, :, 0])))
    photos, skipped = prepare_photos([path], tmp_path / "work", 1600)
    assert len(photos) == 1 and not skipped


@pytest.mark.parametrize("form", FORMATS)
def test_broken_images(form: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    register_heif()
    data, draw = io.BytesIO(), random.Random(request.config.getoption("--attack-seed"))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(data, form)
    for number in range(request.config.getoption("--attacks")):
        broken = bytearray(data.getvalue())
        for _ in range(draw.choice((1, 3, 30))):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        del broken[draw.choice((len(broken), draw.randrange(1, len(broken)))) :]
        path = tmp_path / f"{number}.heic"
        path.write_bytes(broken)
        for read in (lambda path: open_image(path).close(), read_image):
            try:
                read(path)
            except NVSError as error:
                assert "\n" not in str(error)
        photos, skipped = prepare_photos([path], tmp_path / "work", 800)
        assert len(photos) + len(skipped) == 1
