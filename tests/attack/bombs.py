"""Small files that ask for much: each function writes one and returns its path."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

MIB = 1 << 20
EYE = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def photo() -> bytes:
    """A small PNG."""
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, "PNG")
    return data.getvalue()


def many_frames(folder: Path, count: int = 30_000) -> Path:
    """A zip of one photo that so many frames name."""
    frame = json.dumps({"file_path": "a.png", "transform_matrix": EYE})
    text = '{"fl_x": 8, "w": 8, "h": 8, "frames": [' + ",".join([frame] * count) + "]}"
    path = folder / "frames.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.png", photo())
        packed.writestr("transforms.json", text)
    return path


def empty_objects(folder: Path, count: int = 5_000_000) -> Path:
    """A zip of a camera file that becomes gigabytes of objects."""
    path = folder / "objects.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("transforms.json", '{"frames": [' + "{}," * count + "{}]}")
    return path


def deep_lists(folder: Path) -> Path:
    """JSON of brackets."""
    path = folder / "transforms.json"
    path.write_text('{"frames": ' + "[" * 100_000)
    return path


def large_json(folder: Path) -> Path:
    """A camera file beyond its limit, that takes no room on the disk."""
    path = folder / "transforms.json"
    with path.open("wb") as file:
        file.truncate(65 * MIB)
    return path


def packed_annotations(folder: Path, size: int = 200 * MIB) -> Path:
    """CO3D's gzipped JSON, blanks mostly."""
    scene = folder / "category"
    scene.mkdir()
    with gzip.open(scene / "frame_annotations.jgz", "wb", 9) as file:
        for _ in range(size // MIB):
            file.write(b" " * MIB)
        file.write(b"[]")
    return scene


def long_name(folder: Path, size: int = 200 * MIB) -> Path:
    """A tar file whose entry has GNU's long name, of so many bytes."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, size
    path = folder / "name.tar.gz"
    with gzip.open(path, "wb", 9) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(size // MIB):
            file.write(b"a" * MIB)
        file.write(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    return path


def many_long_names(folder: Path, count: int = 70, size: int = MIB // 2) -> Path:
    """A tar file of empty entries that all have long names in the PAX manner."""
    path = folder / "names.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as packed:
        for number in range(count):
            info = tarfile.TarInfo(f"{number}.txt")
            info.pax_headers = {"comment": "a" * size}
            packed.addfile(info)
    return path


def skipped_entries(folder: Path, size: int = 400 * MIB) -> Path:
    """A tar file of litter, which is not written."""
    packer, path = bz2.BZ2Compressor(9), folder / "litter.tar.bz2"
    info = tarfile.TarInfo("__MACOSX/a.png")
    info.size = size
    with path.open("wb") as file:
        file.write(packer.compress(info.tobuf()))
        zeros = bytes(MIB)
        for _ in range(size // MIB):
            file.write(packer.compress(zeros))
        data = photo()
        info = tarfile.TarInfo("a.png")
        info.size = len(data)
        file.write(packer.compress(info.tobuf() + data.ljust(512, b"\0") + bytes(1024)))
        file.write(packer.flush())
    return path


def long_directory(folder: Path, count: int = 800_000) -> Path:
    """A zip file that is nothing but a list of entries."""
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    path, size = folder / "directory.zip", count * len(entry)
    end = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 20, 20, 0, 0, count, count, size, 0)
    locator = struct.pack("<IIQI", 0x07064B50, 0, size, 1)
    last = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(entry * count + end + locator + last)
    return path


def ascii_points(folder: Path, count: int = 400_000) -> Path:
    """A PLY file of words."""
    path = folder / "sparse.ply"
    head = f"ply\nformat ascii 1.0\nelement vertex {count}\nproperty float x\nproperty float y\nproperty float z\n"
    path.write_text(head + "end_header\n" + "0.12345678 0.12345678 0.12345678\n" * count)
    return path


def tall_photos(folder: Path) -> Path:
    """Photos of one pixel's width, and some that only begin like AVIF and HEIC."""
    path = folder / "tall.zip"
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (5000, 1, 3), np.uint8)).save(data, "PNG")
    with zipfile.ZipFile(path, "w") as packed:
        for number in range(4):
            packed.writestr(f"{number}.png", data.getvalue())
        for kind in ("avif", "heic", "mif1"):
            packed.writestr(f"{kind}.heic", struct.pack(">I", 24) + b"ftyp" + kind.encode() + bytes(4096))
    return path
