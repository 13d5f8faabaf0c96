"""Small copies of the benchmarks' data sets in their published layouts, with images that tell which view they are."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nvs_app.geometry.cameras import look_at, opencv_to_opengl


def image(path: Path, value: int = 0, hw: tuple[int, int] = (8, 8), alpha: bool = False) -> Path:
    """Stripes around a grey of `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*hw, 4 if alpha else 3), value, np.uint8)
    pixels[::2] = np.clip(pixels[::2].astype(int) + 25, 0, 255)
    if alpha:
        pixels[..., 3] = 255
    Image.fromarray(pixels).save(path)
    return path


def line(xs: Sequence[float]) -> torch.Tensor:
    """c2w of cameras at (x, 0, 0), all looking along z."""
    c2w = torch.eye(4).repeat(len(xs), 1, 1)
    c2w[:, 0, 3] = torch.tensor(xs)
    return c2w


def lact(folder: Path, c2w: torch.Tensor, names: Sequence[str], hw: tuple[int, int] = (8, 8)) -> Path:
    """`opencv_cameras.json` and images, frames in the order given."""
    frames = []
    for name, pose in zip(names, c2w.double()):
        image(folder / name, hw=hw)
        w2c = torch.linalg.inv(pose).tolist()
        frames.append({"file_path": name, "w": hw[1], "h": hw[0], "fx": 8.6, "fy": 8.6, "cx": hw[1] / 2,
                       "cy": hw[0] / 2, "w2c": w2c})  # fmt: skip
    (folder / "opencv_cameras.json").write_text(json.dumps(frames))
    return folder


def transforms(
    folder: Path, c2w: torch.Tensor, names: Sequence[str], hw: tuple[int, int] = (8, 8), stem: str = "transforms",
    suffix: str = "", **content: object,
) -> Path:  # fmt: skip
    """A nerfstudio or Blender camera file; images where `images_4` and its like are not asked for."""
    for index, name in enumerate(names):
        image(folder / f"{name}{suffix}", 7 * index % 230, hw, alpha=bool(suffix))
    poses = opencv_to_opengl(c2w).tolist()
    frames = [{"file_path": name, "transform_matrix": pose} for name, pose in zip(names, poses)]
    content = {"camera_angle_x": 0.8, **content, "frames": frames}
    (folder / f"{stem}.json").write_text(json.dumps(content))
    return folder


def gso_object(folder: Path, order: Sequence[int], turn: float = 0.0) -> Path:
    """16 azimuths at 0, 20, 40 and 60 degrees, 2.7 from the origin; file eEE_aAA.png is elevation EE, azimuth number
    AA. `order` permutes the 64 frames; `turn` (degrees) turns all of them about z."""
    eyes, names = [], []
    for elevation in (0, 20, 40, 60):
        for number in range(16):
            up, around = math.radians(elevation), math.radians(22.5 * number + turn)
            eyes.append([math.cos(up) * math.cos(around), math.cos(up) * math.sin(around), math.sin(up)])
            names.append(f"images/e{elevation:02d}_a{number:02d}.png")
    c2w = look_at(2.7 * torch.tensor(eyes), torch.zeros(64, 3), torch.tensor([0.0, 0, 1]).expand(64, 3))
    return lact(folder, c2w[list(order)], [names[index] for index in order])


RE10K_INTRINSICS = (0.5, 0.9, 0.5, 0.5)  # fx fy cx cy in units of width and height


def re10k_entry(key: str, count: int, hw: tuple[int, int] = (36, 64)) -> dict:
    """A scene of pixelSplat's chunks: the camera of frame i stands at x = i."""
    images, rows = [], []
    for index in range(count):
        stream = io.BytesIO()
        pixels = np.full((*hw, 3), 20 * index, np.uint8)
        pixels[:, : hw[1] // 2] += 9
        Image.fromarray(pixels).save(stream, "JPEG", quality=95)
        images.append(torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8))
        rows.append([*RE10K_INTRINSICS, 0, 0, 1, 0, 0, -float(index), 0, 1, 0, 0, 0, 0, 1, 0])
    return {
        "key": key,
        "url": "https://www.youtube.com/watch?v=x",
        "timestamps": torch.arange(count) * 33_000,
        "cameras": torch.tensor(rows),
        "images": images,
    }


def re10k_text(folder: Path, key: str, count: int, without: Sequence[int] = ()) -> None:
    """KEY.txt and its frames as files, some of them missing."""
    rows = []
    for index in range(count):
        numbers = [*RE10K_INTRINSICS, 0, 0, 1, 0, 0, -index, 0, 1, 0, 0, 0, 0, 1, 0]
        rows.append(" ".join(map(str, (33_000 * index, *numbers))))
        if index not in without:
            image(folder / key / f"{33_000 * index}.png", 20 * index, (36, 64))
    (folder / f"{key}.txt").write_text("\n".join(["https://www.youtube.com/watch?v=x", *rows]) + "\n")


def llff_scene(folder: Path, count: int) -> Path:
    """poses_bounds.npy: camera i at x = i, columns down, right, backwards, position, (height, width, focal)."""
    folder.mkdir(parents=True)
    rows = []
    for index in range(count):
        image(folder / f"images/IMG_{index:04d}.png")
        matrix = np.array([[0, 1, 0, index, 8], [1, 0, 0, 0, 8], [0, 0, -1, 0, 9]], dtype=np.float64)
        rows.append([*matrix.flatten(), 0.5, 9.0])
    np.save(folder / "poses_bounds.npy", np.array(rows))
    return folder


def colmap_scene(folder: Path, count: int, hw: tuple[int, int] = (48, 64)) -> Path:
    """mip-NeRF 360's layout with text files; COLMAP's ids run against the names."""
    lines = []
    for index in range(count):
        name = f"DSC{8000 + index}.png"
        image(folder / "images" / name, index, hw)
        lines.append(f"{count - index} 1 0 0 0 {-index} 0 0 1 {name}\n\n")
    (folder / "sparse/0").mkdir(parents=True)
    (folder / "sparse/0/cameras.txt").write_text(f"1 PINHOLE {hw[1]} {hw[0]} 60 60 {hw[1] / 2} {hw[0] / 2}\n")
    (folder / "sparse/0/images.txt").write_text("".join(reversed(lines)))
    return folder
