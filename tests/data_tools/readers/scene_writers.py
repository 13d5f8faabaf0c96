"""Small scenes of every format, written by hand to its published description, around the known camera."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import torch
from known_camera import C2W, CX, CY, FX, FY, HEIGHT, OPENGL_C2W, W2C, WIDTH, image, jpeg

W2C_ROWS = [value for row in W2C[:3] for value in row]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def rows(matrix) -> str:
    return "\n".join(" ".join(str(value) for value in row) for row in matrix) + "\n"


# Columns down, right, backwards, position, (height, width, focal).
LLFF_ROW = [0, 0, -1, 1, 12, 0, -1, 0, 2, 16, -1, 0, 0, 3, 20, 0.5, 9.0]


def llff(folder: Path, images: str = "images", count: int = 2, size=()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "poses_bounds.npy", np.array([LLFF_ROW] * count, dtype=np.float64))
    for index in range(count):
        image(folder / images / f"IMG_{index}.JPG", *size)
    return folder


RE10K = [FX / WIDTH, FY / HEIGHT, CX / WIDTH, CY / HEIGHT, 0, 0, *W2C_ROWS]


def re10k(path: Path, stamps=(100_000, 200_000, 400_000)) -> Path:
    lines = [" ".join(str(value) for value in (stamp, *RE10K)) for stamp in stamps]
    return write(path, "\n".join(["https://www.youtube.com/watch?v=x", *lines]) + "\n")


def chunk_entry(key: str, count: int = 2) -> dict:
    return {
        "key": key,
        "url": "https://www.youtube.com/watch?v=x",
        "timestamps": torch.arange(count) * 33_000,
        "cameras": torch.tensor([RE10K] * count, dtype=torch.float32),
        "images": [torch.frombuffer(bytearray(jpeg(20 * i)), dtype=torch.uint8) for i in range(count)],
    }


# Columns: the axes left, up and forward in the world; a row of world points times R, plus T.
CO3D_R, CO3D_T = [[0, 0, 1], [1, 0, 0], [0, 1, 0]], [-2, -3, -1]


def co3d_frame(sequence: str, number: int, **viewpoint) -> dict:
    return {
        "sequence_name": sequence,
        "frame_number": number,
        "image": {"path": f"apple/{sequence}/images/frame{number:06d}.jpg", "size": [HEIGHT, WIDTH]},
        "viewpoint": {"R": CO3D_R, "T": CO3D_T, **viewpoint},
    }


def co3d(root: Path, frames: list[dict]) -> Path:
    for frame in frames:
        image(root / frame["image"]["path"])
    (root / "apple/frame_annotations.jgz").write_bytes(gzip.compress(json.dumps(frames).encode()))
    return root / "apple"


BUNDLE_CAMERA = "20 0 0\n0 -1 0\n0 0 1\n-1 0 0\n2 -3 1\n"  # axes right, up, backwards
LEFT_OUT = "0 0 0\n" * 5


def bundle(folder: Path, text: str | None = None, images: str = "") -> Path:
    image(folder / images / "a.jpg")
    image(folder / images / "b.jpg")
    write(folder / "list.txt", "a.jpg 0 20.5\nb.jpg\n")
    text = f"# Bundle file v0.3\n2 1\n{BUNDLE_CAMERA}{LEFT_OUT}1 2 3\n" if text is None else text
    write(folder / ("bundle/bundle.out" if images else "bundle.out"), text)
    return folder


def nerfstudio(folder: Path, name: str = "images/a.png", matrix=OPENGL_C2W) -> Path:
    frames = [{"file_path": name, "transform_matrix": matrix}]
    write(folder / "transforms.json", json.dumps({"fl_x": FX, "fl_y": FY, "frames": frames}))
    image(folder / "images/a.png")
    return folder


def scannet(folder: Path) -> Path:
    write(folder / "pose/0.txt", rows(C2W))
    write(folder / "intrinsics.txt", "20 21 8 6\n")
    image(folder / "color/0.jpg")
    return folder


def mvsnet(folder: Path) -> Path:
    write(folder / "cams/00000000_cam.txt", f"extrinsic\n{rows(W2C)}\nintrinsic\n20 0 8\n0 21 6\n0 0 1\n")
    image(folder / "images/00000000.png")
    return folder


def colmap(folder: Path) -> Path:
    write(folder / "sparse/cameras.txt", "1 PINHOLE 16 12 20 21 8 6\n")
    write(folder / "sparse/images.txt", "1 1 0 0 0 0 0 0 1 a.png\n\n")
    image(folder / "images/a.png")
    return folder


def lact(folder: Path) -> Path:
    frame = {"file_path": "a.png", "w2c": W2C, "cx": 8, "cy": 6, "fx": 9, "fy": 9}
    write(folder / "opencv_cameras.json", json.dumps([frame]))
    image(folder / "a.png")
    return folder


def blender(folder: Path) -> Path:
    frames = [{"file_path": "./train/r_0", "transform_matrix": OPENGL_C2W}]
    write(folder / "transforms_train.json", json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    image(folder / "train/r_0.png")
    return folder


def real_estate(folder: Path) -> Path:
    re10k(folder / "abc.txt", (5,))
    image(folder / "abc/5.png")
    return folder


def apple(folder: Path) -> Path:
    return co3d(folder, [co3d_frame("1_2_3", 1, focal_length=[2, 2], principal_point=[0, 0])])


def polycam(folder: Path) -> Path:
    camera = {f"t_{row}{column}": OPENGL_C2W[row][column] for row in range(3) for column in range(4)}
    camera |= {"fx": FX, "fy": FY, "cx": CX, "cy": CY, "width": WIDTH, "height": HEIGHT}
    write(folder / "keyframes/corrected_cameras/7.json", json.dumps(camera))
    image(folder / "keyframes/corrected_images/7.jpg")
    return folder


def record3d(folder: Path) -> Path:
    k = [FX, 0, 0, 0, FY, 0, CX, CY, 1]  # by columns
    pose = [0.5, -0.5, -0.5, 0.5, 1, 2, 3]
    write(folder / "metadata.json", json.dumps({"poses": [pose], "K": k, "w": WIDTH, "h": HEIGHT}))
    image(folder / "rgb/0.jpg")
    return folder


WRITERS = {
    "nerfstudio": (nerfstudio, "images/a.png"),
    "lact": (lact, "a.png"),
    "blender": (blender, "train/r_0.png"),
    "colmap": (colmap, "images/a.png"),
    "llff": (lambda folder: llff(folder, count=1), "images/IMG_0.JPG"),
    "co3d": (apple, "apple/1_2_3/images/frame000001.jpg"),
    "mvsnet": (mvsnet, "images/00000000.png"),
    "bundler": (bundle, "a.jpg"),
    "frame_poses": (scannet, "color/0.jpg"),
    "polycam": (polycam, "keyframes/corrected_images/7.jpg"),
    "record3d": (record3d, "rgb/0.jpg"),
    "realestate10k": (real_estate, "abc/5.png"),
}
