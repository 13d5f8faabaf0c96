"""Shards from strangers: hostile and damaged tars are refused in one line, malformed samples are left out."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from data_tools.shards.read import read_shard
from nvs_app.errors import NVSError


def image(hw: tuple[int, int] = (4, 6)) -> bytes:
    return cv2.imencode(".png", np.zeros((*hw, 3), np.uint8))[1].tobytes()


def sample(key: str = "k", **changes: Any) -> dict[str, bytes]:
    eye = torch.eye(4).tolist()
    cameras = {"files": ["000.png", "001.png"], "c2w": [eye, eye], "fxfycxcy": [[5, 5, 3, 2.0]] * 2,
               "image_hw": [[4, 6], [4, 6]]}  # fmt: skip
    files = {f"{key}.cameras.json": json.dumps(cameras | changes).encode()}
    return files | {f"{key}.00{view}.png": image() for view in range(2)}


def write_tar(path: Path, files: dict[str, bytes], **fields: Any) -> Path:
    """`fields` change the header of the last member."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for number, (name, data) in enumerate(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in (fields if number == len(files) - 1 else {}).items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return path


def one_line(path: Path) -> str:
    with pytest.raises(NVSError) as caught:
        list(read_shard(str(path)))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))
    return str(caught.value)


def bomb(side: int = 60_000) -> bytes:
    """A PNG whose header says side x side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        ({"../k.000.png": b"x"}, {}, "relative name"),
        ({"/etc/k.000.png": b"x"}, {}, "relative name"),
        ({"a\\..\\k.000.png": b"x"}, {}, "relative name"),
        ({"a\nb.000.png": b"x"}, {}, "relative name"),
        ({"k.000.png": b""}, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a link"),
        ({"k.000.png": b""}, {"type": tarfile.LNKTYPE, "linkname": "k.001.png"}, "a link"),
        ({"k.000.png": b""}, {"type": tarfile.FIFOTYPE}, "a device"),
        ({"k.000.png": b""}, {"size": 1 << 40}, "at most 256 MiB"),
        ({"k.000.png": b"x" * 2000}, {"size": 9000}, "cut short"),
        ({"k.000.png": b""}, {"type": tarfile.XHDTYPE, "size": 1 << 30}, "extended header"),
    ],
)
def test_hostile_members_are_refused(files: dict, fields: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    try:
        write_tar(path, files, **fields)
    except OSError:  # tarfile notices that there are fewer bytes than the header says, once the header is written
        pass
    assert message in one_line(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c2w": [np.diag([1.0, 1, 1, 1]).tolist()] * 3}, "c2w is not of shape"),
        ({"c2w": [np.diag([1.0, 1, float("nan"), 1]).tolist()] * 2}, "not finite"),
        ({"c2w": [np.diag([1.0, 1, 0, 1]).tolist()] * 2}, "no rigid motion"),
        ({"c2w": [np.diag([1.0, 1, -1, 1]).tolist()] * 2}, "no rigid motion"),
        ({"fxfycxcy": [[5, 0, 3, 2.0]] * 2}, "focal length"),
        ({"fxfycxcy": [["5", 5, 3, 2.0]] * 2}, "numbers alone"),
        ({"fxfycxcy": [[10**400, 5, 3, 2]] * 2}, "numbers alone"),
        ({"image_hw": [[4, 6], [6, 4]]}, "of another size"),
        ({"files": ["000.png", "../../etc/passwd"]}, "is missing"),
        ({"files": []}, "no list"),
    ],
)
def test_malformed_cameras_are_refused_or_left_out(changes: dict, message: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "shard.tar", sample("bad", **changes) | sample("good"))
    assert message in one_line(path)
    told: list[str] = []
    assert [scene.name for scene in read_shard(str(path), told.append)] == ["good"]
    assert len(told) == 1 and message in told[0]


def test_malformed_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    whole = write_tar(path, sample("a") | sample("b")).read_bytes()
    assert len(list(read_shard(str(path)))) == 2
    deep = sample("k")
    deep["k.cameras.json"] = b"[" * 100_000
    for files, message in (
        (sample("k") | {"k.001.png": bomb()}, "100 megapixels"),
        (sample("k") | {"k.001.png": b"no image"}, "not an image"),
        ({"k.000.png": image()}, "no cameras.json"),
        (deep, "not valid JSON"),
    ):
        assert message in one_line(write_tar(path, files))
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            info = tarfile.TarInfo("k.000.png")
            tar.addfile(info)
    assert "there twice" in one_line(path)
    for data, message in (
        (b"", "cut short"),
        (os.urandom(2048), "not an uncompressed tar"),
        (whole[:700], "cut short"),
        (whole[: 512 * 4], "cut short"),  # between two members, without an end mark
        (whole[:1024] + b"?" + whole[1025:], "damaged"),
    ):
        path.write_bytes(data)
        assert message in one_line(path)
    path.unlink()
    one_line(path)
    os.mkfifo(path)
    assert "no file" in one_line(path)


def test_long_names_and_foreign_members(tmp_path: Path) -> None:
    key = "folder/" + "x" * 150
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "shard.tar", "w", format=form) as tar:
            for name, data in {**sample(key), f"{key}.caption.txt": b"a chair", "README": b"hello"}.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        [scene] = read_shard(str(tmp_path / "shard.tar"))
        assert len(scene) == 2 and scene.name == key
