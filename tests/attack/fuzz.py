"""Good files and messages, changed at random by a seed."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
ODD: list[Any] = [
    None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**400, "", "x", "\x00", "a" * 5000, "../../etc/passwd",
    "é\N{SNOWMAN}", [], [[]], {}, {"a": 1}, [None] * 50, "256x256", "0x0", 2**63, -(2**31), 1.5,
]  # fmt: skip


def samples(folder: Path, scene: Path, state: Path) -> dict[str, tuple[str, bytes]]:
    """One good file of each kind that can be brought: name and bytes."""
    images = {f"images/{path.name}": path.read_bytes() for path in sorted((scene / "images").iterdir())}
    cameras = (scene / "transforms.json").read_bytes()
    names = [name.removeprefix("images/") for name in images]
    models = "1 PINHOLE 40 40 45 45 20 20\n"
    placed = "".join(f"{i + 1} 1 0 0 0 {i} 0 3 1 {name}\n\n" for i, name in enumerate(names))
    colmap = {"sparse/0/cameras.txt": models.encode(), "sparse/0/images.txt": placed.encode(), **images}
    rows = np.tile(np.array([0, 1, 0, 0, 40, 1, 0, 0, 0, 40, 0, 0, -1, 0, 45, 1, 10], np.float64), (len(names), 1))
    bounds = io.BytesIO()
    np.save(bounds, rows)
    view = {"R": np.eye(3).tolist(), "T": [0, 0, 3], "focal_length": [2, 2], "principal_point": [0, 0]}
    frames = [
        {"sequence_name": "s", "image": {"path": f"c/s/images/{name}", "size": [40, 40]}, "viewpoint": view}
        for name in names
    ]  # fmt: skip
    co3d = {f"c/s/{name}": data for name, data in images.items()}
    co3d["c/frame_annotations.jgz"] = gzip.compress(json.dumps(frames).encode())
    chunk = io.BytesIO()
    photos = [torch.from_numpy(np.frombuffer(data, np.uint8).copy()) for data in images.values()]
    row = [1.1, 1.1, 0.5, 0.5, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3]
    torch.save([{"key": "k", "cameras": torch.tensor([row] * len(photos)), "images": photos}], chunk)
    head = (
        b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    points = {"transforms.json": cameras, "sparse.ply": head + b"0 0 1\n1 1 1\n", **images}
    heic = io.BytesIO()
    Image.new("RGB", (64, 64), "green").save(heic, "TIFF")
    video = folder / "video.mp4"
    return {
        "zip": ("scene.zip", zipped({"transforms.json": cameras, **images})),
        "points": ("points.zip", zipped(points)),
        "colmap": ("colmap.tar.gz", tarred(colmap, "gz")),
        "llff": ("llff.tar.bz2", tarred({"poses_bounds.npy": bounds.getvalue(), **images}, "bz2")),
        "co3d": ("co3d.zip", zipped(co3d)),
        "chunk": ("chunk.torch", chunk.getvalue()),
        "photos": ("photos.zip", zipped(images)),
        "photo": ("photo.png", images["images/0.png"]),
        "tiff": ("photo.tif", heic.getvalue()),
        "cameras": ("transforms.json", cameras),
        "state": ("state.safetensors", state.read_bytes()),
        "video": ("video.mp4", video.read_bytes()),
    }


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip file."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return data.getvalue()


def tarred(files: dict[str, bytes], packer: str) -> bytes:
    """A tar file packed by `packer`."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=f"w:{packer}") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return data.getvalue()


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A file with some bytes, places or a file inside of it changed."""
    if data[:2] == b"PK" and draw.random() < 0.7:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as packed:
                files = {info.filename: packed.read(info) for info in packed.infolist()}
        except (zipfile.BadZipFile, NotImplementedError):
            return scrambled(data, draw)
        name = draw.choice(sorted(files))
        way = draw.randrange(4)
        if way == 0:
            del files[name]
        elif way == 1:
            files[odd_name(draw)] = files.pop(name)
        elif way == 2 and name.endswith((".json", ".jgz")):
            text = gzip.decompress(files[name]) if name.endswith(".jgz") else files[name]
            changed = json.dumps(changed_value(json.loads(text), draw)).encode()
            files[name] = gzip.compress(changed) if name.endswith(".jgz") else changed
        else:
            files[name] = scrambled(files[name], draw)
        return zipped(files) if files else b"PK"
    return scrambled(data, draw)


def odd_name(draw: random.Random) -> str:
    """A name that archives should not have, or may."""
    names = [
        "../x.png",
        "/x.png",
        "a:b.png",
        "C:\\x.png",
        "x" * 300,
        "é.png",
        "\udce9.png",
        "images/.png",
        "a/b/c/d.png",
    ]
    return draw.choice(names).encode("utf-8", "replace").decode()


def scrambled(data: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, or numbers replaced."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 3, 30))):
        if not found:
            break
        at, way = draw.randrange(len(found)), draw.randrange(6)
        span = min(len(found) - at, draw.choice((1, 4, 64, 1024)))
        if way == 0:
            found[at] ^= 1 << draw.randrange(8)
        elif way == 1:
            del found[at : at + span]
        elif way == 2:
            found[at:at] = found[at : at + span]
        elif way == 3:
            found[at : at + span] = draw.randbytes(span)
        elif way == 4:
            found[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"1e99", b"NaN,"))
        elif draw.random() < 0.3:
            del found[at:]
    return bytes(found)


def changed_value(value: Any, draw: random.Random) -> Any:
    """JSON with one of its values replaced by an odd one."""
    if isinstance(value, (list, dict)) and value and draw.random() < 0.9:
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw.choice(keys)
        copy = dict(value) if isinstance(value, dict) else list(value)
        if draw.random() < 0.1:
            del copy[key]  # type: ignore[arg-type]
        else:
            copy[key] = changed_value(value[key], draw)  # type: ignore[index]
        return copy
    return draw.choice(ODD)


def messages(draw: random.Random, count: int) -> list[str]:
    """Messages of every kind for the viewer's socket, good ones with one value changed, or characters."""
    view = {"c2w": IDENTITY, "fov": 40, "hw": [16, 16]}
    keys = [{"c2w": IDENTITY, "fov": 40, "seconds": 1}] * 3
    timeline = {"keyframes": keys, "fps": 24, "loop": False, "image_hw": [64, 64]}
    preset = {"preset": "orbit", "seconds": 1, "fps": 10, "image_hw": [64, 64]}
    kinds: list[dict[str, Any]] = [
        {"type": "frame", "id": 1, **view, "format": "jpeg", "quality": 85, "show": "image", "auto": False},
        {"type": "frame", "id": 1, **view, "show": "depth", "quick": True, "small": True},
        {"type": "path", "id": 2, "spec": preset},
        {"type": "path", "id": 2, "spec": {**preset, "start": {"c2w": IDENTITY, "fov": 40}, "preset": "dolly zoom"}},
        {"type": "path", "id": 2, "spec": {"timeline": timeline}},
        {"type": "view", "id": 3, "index": 1},
        {"type": "point", "id": 4, **view, "at": [0.5, 0.5]},
        {"type": "ping"},
    ]  # fmt: skip
    found = []
    for _ in range(count):
        message = draw.choice(kinds)
        for _ in range(draw.choice((1, 1, 2))):
            message = changed_value(message, draw)
        text = json.dumps(message)
        if draw.random() < 0.2:
            letters = list(text)
            letters[draw.randrange(len(letters))] = draw.choice(['"', "[", "}", "\\ud800", "9" * 400, ""])
            text = "".join(letters)
        found.append(text)
    return found


def arguments(good: dict[str, list[Any]], draw: random.Random, count: int) -> list[tuple[str, list[Any]]]:
    """Calls of functions, each with one argument odd or changed within."""
    calls = []
    ways: list[Callable[[Any], Any]] = [lambda _: draw.choice(ODD), lambda value: changed_value(value, draw)]
    names = sorted(good)
    for number in range(count):
        name = names[number % len(names)]
        values = list(good[name])
        if values:
            at = draw.randrange(len(values))
            values[at] = draw.choice(ways)(values[at])
        calls.append((name, values))
    return calls
