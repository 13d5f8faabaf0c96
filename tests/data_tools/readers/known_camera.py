"""One camera whose rays are worked out by hand, and the images that go with it.

It stands at (1, 2, 3) and looks along the world's +x with +z up: right is -y, down is -z. Its focal lengths are 20
and 21 pixels, its principal point (8.5, 6.25), its image 16 wide and 12 high. The pixel in row 3 and column 10 has
its centre at (10.5, 3.5), so x = 2 / 20 and y = -2.75 / 21, and its ray runs along forward + x right + y down.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nvs_app.geometry.rays import pixel_rays
from nvs_app.scenes.scene import Scene

WIDTH, HEIGHT = 16, 12
FX, FY, CX, CY = 20.0, 21.0, 8.5, 6.25
C2W = [[0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 3], [0, 0, 0, 1]]
W2C = [[0, -1, 0, 2], [0, 0, -1, 3], [1, 0, 0, -1], [0, 0, 0, 1]]
OPENGL_C2W = [[0, 0, -1, 1], [-1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1]]
QUATERNION, TRANSLATION = (0.5, 0.5, -0.5, 0.5), (2.0, 3.0, -1.0)  # of W2C


def check_rays(scene: Scene, index: int = 0, fx=FX, fy=FY, cx=CX, cy=CY) -> None:
    """The view is the known camera, with the intrinsics given."""
    cameras = scene.cameras()
    origins, directions = pixel_rays(cameras[index])
    x, y = (10.5 - cx) / fx, (3.5 - cy) / fy
    direction = torch.tensor([1.0, -x, -y]) / (1 + x * x + y * y) ** 0.5
    torch.testing.assert_close(origins[:, 3, 10].float(), torch.tensor([1.0, 2, 3]), atol=1e-6, rtol=0)
    torch.testing.assert_close(directions[:, 3, 10].float(), direction, atol=1e-6, rtol=0)
    assert scene.load([index]).images.shape == (1, 3, *cameras.image_hw)


def image(path: Path, width: int = WIDTH, height: int = HEIGHT, value: int = 50) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, dtype=np.uint8)).save(path)
    return path


def jpeg(value: int = 50, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), value, dtype=np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def false_png(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG whose header claims a size that its few bytes do not hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"x" * 40)) + chunk(b"IEND", b"")
    )
