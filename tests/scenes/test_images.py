"""Reading one image: depths, modes, transparency, EXIF, lens, limits."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from nvs_app.errors import NVSError
from nvs_app.scenes.images import Lens, image_header, image_size, read_image, register_heif


def test_rgb_and_size(tmp_path) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    for name in ("a.png", "a.bmp", "a.tiff"):
        Image.fromarray(pixels).save(tmp_path / name)
        assert image_size(tmp_path / name) == (4, 6)
        image = read_image(tmp_path / name)
        assert image.dtype == torch.float32
        torch.testing.assert_close(image, torch.from_numpy(pixels).permute(2, 0, 1) / 255.0)


def test_rgba_is_mixed_in_stored_values(tmp_path) -> None:
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0] = [[200, 100, 0, 0], [200, 100, 0, 255], [200, 100, 0, 51]]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    white = read_image(tmp_path / "a.png")
    color = torch.tensor([200, 100, 0]) / 255
    torch.testing.assert_close(white[:, 0, 0], torch.ones(3))
    torch.testing.assert_close(white[:, 0, 1], color)
    torch.testing.assert_close(white[:, 0, 2], 0.2 * color + 0.8)
    blue = read_image(tmp_path / "a.png", (0, 0, 0.5))
    torch.testing.assert_close(blue[:, 0, 0], torch.tensor([0, 0, 0.5]))


def test_grey_palette_and_sixteen_bits(tmp_path) -> None:
    grey = np.array([[0, 128, 255]], dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    torch.testing.assert_close(read_image(tmp_path / "grey.png")[1, 0], torch.tensor([0, 128, 255]) / 255)
    Image.fromarray(np.stack([grey, grey], -1), mode="LA").save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png")[0, 0, 0] == 1  # transparent: the white behind it
    palette = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)).quantize(2)
    palette.save(tmp_path / "p.png")
    torch.testing.assert_close(read_image(tmp_path / "p.png")[:, 0], torch.tensor([[1.0, 0], [0, 0], [0, 1]]))
    palette.save(tmp_path / "pt.png", transparency=palette.getpixel((0, 0)))
    torch.testing.assert_close(read_image(tmp_path / "pt.png")[:, 0], torch.tensor([[1.0, 0], [1, 0], [1, 1]]))
    deep = np.array([[[65535, 300, 0], [1, 2, 3]]], dtype=np.uint16)  # OpenCV writes it as BGR
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    torch.testing.assert_close(read_image(tmp_path / "deep.png")[:, 0, 0], torch.tensor([0, 300, 65535]) / 65535)
    deep_alpha = np.array([[[65535, 0, 0, 32768]]], dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deepa.png"), deep_alpha)
    torch.testing.assert_close(
        read_image(tmp_path / "deepa.png")[:, 0, 0], torch.tensor([0.5, 0.5, 1.0]), atol=1e-4, rtol=0
    )
    cv2.imwrite(str(tmp_path / "deepgrey.png"), np.array([[300, 65535]], dtype=np.uint16))
    torch.testing.assert_close(read_image(tmp_path / "deepgrey.png")[2, 0], torch.tensor([300, 65535]) / 65535)
    Image.fromarray(np.full((2, 2, 4), 0, dtype=np.uint8), mode="CMYK").save(tmp_path / "c.jpg")
    assert read_image(tmp_path / "c.jpg").min() > 0.95


TURNED = {  # EXIF orientation -> what of a stored image [h, w] is seen upright (Exif 2.3, 4.6.4 A)
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: np.rot90(a, 2), 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 3), 7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a),
}  # fmt: skip


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.avif", "deep.tif", "a.heic"])
def test_rotation_only_where_the_camera_is_of_the_turned_size(tmp_path, name) -> None:
    """Also where Pillow and OpenCV turn by themselves (TIFF), and where a file is stored upright (HEIC)."""
    path = tmp_path / name
    stored = np.zeros((32, 64, 3), dtype=np.uint8)
    stored[:16, :32], stored[16:, :32] = (255, 0, 0), (0, 0, 255)
    for orientation in (1, 3, 5, 6, 7, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        if name == "deep.tif":
            cv2.imwrite(str(path), stored[:, :, ::-1].astype(np.uint16) * 257, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
            data = bytearray(path.read_bytes())
            at = struct.unpack_from("<I", data, 4)[0] + 2
            while struct.unpack_from("<H", data, at)[0] != 284:  # planar configuration: 1 is what is assumed
                at += 12
            data[at : at + 12] = struct.pack("<HHIHH", 274, 3, 1, orientation, 0)
            path.write_bytes(data)
        else:
            Image.fromarray(stored).save(tmp_path / "stated.png", exif=exif)
            register_heif()
            how = (
                {"quality": 95}
                if name == "a.heic"
                else {"exif": exif}
                if name == "a.tif"
                else {"exif": exif, "quality": 95}
            )
            Image.open(tmp_path / "stated.png").save(path, **how)
        upright = TURNED[orientation](stored)
        plain = upright if name == "a.heic" else stored
        for wanted in {(32, 64), (64, 32)} if orientation >= 5 else {(32, 64)}:
            header = image_header(path, (2 * wanted[0], 2 * wanted[1]))
            assert header.image_hw == wanted
            image = read_image(path, orientation=header.orientation).movedim(0, 2).numpy()
            right = plain if wanted == plain.shape[:2] else stored if name == "a.heic" else upright
            assert image.shape == right.shape and np.abs(image - right / 255).mean() < 0.02, (orientation, wanted)
        assert image_size(path) == read_image(path).shape[1:] == plain.shape[:2]
        assert image_header(path, (40, 50)).orientation == 1  # fits neither


def test_images_of_other_kinds_are_told(tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), np.zeros((4, 4, 3), dtype=np.uint16))
    cv2.imwrite(str(tmp_path / "deep.tif"), np.zeros((4, 4, 3), dtype=np.uint16))
    Image.fromarray(np.array([[0.5, 7.0]], dtype=np.float32)).save(tmp_path / "float.tif")
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    assert "16 bits" in image_header(tmp_path / "deep.png", None).note
    assert "16 bits" in image_header(tmp_path / "deep.tif", None).note
    assert "floating-point" in image_header(tmp_path / "float.tif", None).note
    assert read_image(tmp_path / "float.tif")[0, 0].tolist() == [0.5, 1.0]
    assert image_header(tmp_path / "plain.png", None).note == ""


def test_errors_are_one_line(tmp_path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "cut.jpg")
    data = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    for name, expected in (
        ("text.png", "not an image"),
        ("empty.png", "not an image"),
        ("none.png", "no such file"),
        ("cut.jpg", "cannot be decoded"),
    ):
        with pytest.raises(NVSError, match=expected) as caught:
            read_image(tmp_path / name, label=f"scene/{name}")
        assert str(caught.value).startswith(f"scene/{name}: ") and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(20000, 6000), (40000, 40000)])
def test_huge_images_are_refused_from_their_header(tmp_path, size) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x"))
    for read in (image_size, read_image):
        with pytest.raises(NVSError, match="100 megapixels"):
            read(tmp_path / "a.png")


def test_undistortion_straightens_and_keeps_the_pinhole(tmp_path) -> None:
    """Draw dots where OpenCV's distortion puts 3D points; after reading they lie where the pinhole puts them."""
    lens = Lens((120.0, 118.0, 82.0, 58.5), (-0.2, 0.05, 0.002, -0.001, 0.0))
    matrix, _ = lens.matrices((120, 160))
    points = np.array([[-0.35, -0.25, 1.0], [0.4, 0.3, 1.0], [0.3, -0.3, 1.0], [0.0, 0.0, 1.0]])
    pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, np.array(lens.coefficients))
    y, x = np.mgrid[:120, :160]
    fx, fy, cx, cy = lens.pinhole((120, 160))
    for point, (px, py) in zip(points, pixels[:, 0]):
        dot = 255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8)
        Image.fromarray(dot.astype(np.uint8)).convert("RGB").save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png", lens=lens)[0].numpy()
        found = ((image * (x + 0.5)).sum() / image.sum(), (image * (y + 0.5)).sum() / image.sum())
        assert abs(found[0] - (fx * point[0] + cx)) < 0.15 and abs(found[1] - (fy * point[1] + cy)) < 0.15
