"""Scenes from strangers: each trick is refused with one line that says where."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from known_camera import OPENGL_C2W, false_png, image, jpeg
from PIL import Image
from scene_writers import RE10K, WRITERS, chunk_entry, nerfstudio, write

from data_tools.readers import FORMATS, open_scene, open_scenes
from nvs_app.errors import NVSError
from nvs_app.scenes.images import image_size, read_image


def refused(path, message: str) -> None:
    with pytest.raises(NVSError, match=message) as caught:
        open_scene(path)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 800


# A missing image, in the words of each reader.
NO_FILE = (
    "does not exist|no such file|is no file|not an image|has 0 images|no image|none with its|has its image|no frames"
)


def test_every_format_is_here() -> None:
    assert set(WRITERS) | {"pixelsplat"} == set(FORMATS)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_images_that_are_none_of_the_scene(tmp_path, name) -> None:
    make, shown = WRITERS[name]
    scene_path = make(tmp_path / "scene")
    file = tmp_path / "scene" / shown
    assert len(open_scene(scene_path)) == 1 and len(open_scene(scene_path, name)) == 1
    whole = file.read_bytes()
    # A link to an image outside.
    secret = image(tmp_path / "secret.png")
    file.unlink()
    file.symlink_to(secret)
    refused(scene_path, "leads out of the scene's folder")
    # A link to nowhere, and to itself.
    for target in (tmp_path / "none", file):
        file.unlink()
        file.symlink_to(target)
        refused(scene_path, f"leads out|{NO_FILE}")
    file.unlink()
    # A pipe, whose reading would wait for ever.
    os.mkfifo(file)
    refused(scene_path, NO_FILE)
    file.unlink()
    # A header that claims 60,000 x 60,000 pixels; no image at all; an empty file.
    for data, message in (
        (false_png(), "100 megapixels"),
        (b"MZ\x90" * 50, "not an image"),
        (b"", "not an image"),
    ):
        file.write_bytes(data)
        refused(scene_path, message)
    # A header with a false size that is not too large is found when the pixels are read.
    file.write_bytes(whole[: len(whole) // 2 + 8])
    try:
        open_scene(scene_path).load()
    except NVSError as error:
        assert "\n" not in str(error)
    else:
        pytest.fail("half an image was read")
    file.unlink()
    refused(scene_path, NO_FILE)


@pytest.mark.parametrize(
    "name",
    [
        *("../secret.png", "images/../../secret.png", "..\\secret.png", "/etc/passwd"),
        *("a\0b", "x" * 5000, "images", "a\nb"),
    ],
)
def test_file_paths_that_lead_out(tmp_path, name) -> None:
    image(tmp_path / "secret.png")
    refused(nerfstudio(tmp_path / "scene", name), "leads out|does not exist|expected the name")


def test_a_folder_linked_out(tmp_path) -> None:
    folder = nerfstudio(tmp_path / "scene", "elsewhere/secret.png")
    image(tmp_path / "out/secret.png")
    (folder / "elsewhere").symlink_to(tmp_path / "out")
    refused(folder, "leads out of the scene's folder")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, 0.0])
def test_singular_cameras(tmp_path, value) -> None:
    matrix = [[value] * 4, *OPENGL_C2W[1:]]
    refused(nerfstudio(tmp_path / "scene", matrix=matrix), "finite numbers|no rigid motion")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_random_images_never_raise_anything_else(tmp_path) -> None:
    """Half-broken files of every kind, as files and as bytes."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (9, 7, 4), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000"):
        stream = io.BytesIO()
        Image.fromarray(pixels[:, :, :3]).save(stream, kind)
        whole = stream.getvalue()
        for _ in range(40):
            data = bytearray(whole)
            for at in generator.integers(0, len(data), 4):
                data[at] = generator.integers(0, 256)
            data = data[: generator.integers(1, len(data) + 1)]
            (tmp_path / "a.png").write_bytes(data)
            for call in (
                lambda: read_image(tmp_path / "a.png"),
                lambda d=bytes(data): image_size(Path("x"), None, d),
            ):
                try:
                    call()
                except NVSError as error:
                    assert "\n" not in str(error)


def test_postscript_is_never_run(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(NVSError, match="not an image"):
        read_image(tmp_path / "a.png")


# .torch chunks


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickles_in_chunks(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "000000.torch"
    torch.save([{**chunk_entry("a"), "url": Evil()}], file)
    refused(file, "more than plain tensors and lists")
    file.write_bytes(pickle.dumps([Evil()]))
    refused(file, "more than plain tensors|cut short")
    assert not (tmp_path / "pwned").exists()


def test_broken_chunks(tmp_path) -> None:
    file = tmp_path / "000000.torch"
    torch.save([chunk_entry("a")], file)
    whole = file.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 30):
        file.write_bytes(whole[:length])
        refused(file, "cut short or not a file of torch.save|more than plain tensors")
    with (
        zipfile.ZipFile(io.BytesIO(whole)) as source,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    refused(file, "compressed, which torch.save never does")
    good = chunk_entry("a")
    wide = torch.zeros(1, dtype=torch.uint8).expand(10**12)
    bad_row = torch.tensor([RE10K, RE10K])
    bad_row[:, 9] = float("nan")
    for change, message in (
        ({"cameras": torch.zeros(2, 17)}, r"cameras is float32 \[2, 17\], expected a tensor \[n, 18\]"),
        ({"cameras": [1, 2]}, "cameras is a list of 2"),
        ({"cameras": torch.zeros(2, 18)}, "frame 0: w2c is no rigid motion"),
        ({"images": good["images"][:1]}, "a list of 1 of images, 2 cameras"),
        ({"images": [torch.zeros(3, 4)] * 2}, r"its image is float32 \[3, 4\]"),
        ({"cameras": torch.zeros(2, 18).to_sparse()}, "cameras is float32"),
        ({"images": [torch.zeros(9, dtype=torch.uint8, device="meta")] * 2}, "its image is uint8"),
        ({"timestamps": torch.tensor([float("nan"), 1]), "cameras": bad_row}, "frame 000000: w2c holds NaN"),
        ({"images": [wide] * 2}, "claims 1000000000000 bytes"),
        ({"images": [torch.frombuffer(bytearray(false_png()), dtype=torch.uint8)] * 2}, "100 megapixels"),
        ({"images": [torch.zeros(50, dtype=torch.uint8)] * 2}, "not an image"),
        ({"key": "../../out"}, "the key '../../out' is no plain name"),
        ({"key": 3}, "the key '3' is no plain name"),
    ):
        torch.save([{**good, **change}], file)
        refused(file, message)
    for content in ({"a": 1}, [], [1, 2]):
        torch.save(content, file)
        refused(file, "expected a list of scenes")
    torch.save([good], file)
    for listed in ("../000000.torch", ["000000.torch"], 3):
        write(tmp_path / "index.json", json.dumps({"a": listed}))
        refused(tmp_path, "expected an object of scene keys")
    assert len(list(open_scenes(file))) == 1


def test_false_sizes_of_jpegs(tmp_path) -> None:
    """A JPEG whose header says 65,500 x 65,500."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65500, 65500)
    folder = nerfstudio(tmp_path / "scene")
    (folder / "images/a.png").write_bytes(data)
    refused(folder, "100 megapixels")
