"""Chunks of pixelSplat and its followers: ``000000.torch``, many scenes of RealEstate10K or ACID in one file.

A chunk is a list of dicts: ``key``, ``url``, ``timestamps`` [n], ``cameras`` [n, 18] (see ``re10k``) and ``images``,
n byte tensors, each a JPEG file. It is read without running any code of the file (``weights_only``).
"""

from __future__ import annotations

import pickle
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

import torch
from torch import Tensor

from data_tools.readers.fields import Record, SceneBuilder, scene_label
from data_tools.readers.json_files import load_json
from data_tools.readers.re10k import add_row
from nvs_app.errors import NVSError, first_line
from nvs_app.scenes.scene import Scene

MAX_IMAGE_BYTES = 256 << 20


def recognise(path: Path) -> bool:
    return bool(_files(path))


def keys(path: Path) -> list[str]:
    """The scenes of a chunk, or of all chunks of a folder (by its ``index.json`` where it has one)."""
    return list(_index(path))


def read(path: Path, key: str | None = None) -> Scene:
    """Read the scene ``key`` of a chunk or of a folder of chunks; its only scene where no key is given.

    Raises:
        NVSError: a file that holds anything but plain tensors, lists and numbers, a malformed scene.
    """
    index = _index(path)
    key = next(iter(index)) if key is None else key
    file = index[key]
    entry = next((entry for entry in _load(file) if entry.get("key") == key), None)
    label = f"{scene_label(file)}: scene {key}"
    if entry is None:
        raise NVSError(f"{label}: not in this chunk, though index.json says so")
    cameras, images, stamps = entry.get("cameras"), entry.get("images"), entry.get("timestamps")
    if not _is_plain(cameras) or cameras.ndim != 2 or cameras.shape[1] != 18:
        raise NVSError(f"{label}: cameras is {_told(cameras)}, expected a tensor [n, 18]")
    if not isinstance(images, list) or len(images) != len(cameras) or not images:
        raise NVSError(f"{label}: {_told(images)} of images, {len(cameras)} cameras; expected as many")
    names: list[str] = [f"{number:06d}" for number in range(len(images))]
    if _is_plain(stamps) and stamps.dtype in (torch.int64, torch.int32) and stamps.shape == (len(images),):
        if len(stamps.unique()) == len(images):
            names = [str(int(stamp)) for stamp in stamps.tolist()]
    builder = SceneBuilder(file.parent / file.stem / key, name=key)
    for name, row, image in builder.sampled(list(zip(names, cameras.double().tolist(), images))):
        record = Record(f"{label}: frame {name}", {})
        with builder.frame(name):
            data = _bytes(record, image)
            suffix = ".png" if data.startswith(b"\x89PNG") else ".jpg"
            add_row(builder, record, builder.root / "images" / f"{name}{suffix}", row, data)
    return builder.build()


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.glob("*.torch") if file.is_file())
    return [path] if path.suffix.lower() == ".torch" else []


def _index(path: Path) -> dict[str, Path]:
    """The chunk of each key."""
    listed = path / "index.json"
    if path.is_dir() and listed.is_file():
        content = load_json(listed)
        known = {file.name: file for file in _files(path)}
        if not isinstance(content, dict) or not all(
            isinstance(value, str) and value in known for value in content.values()
        ):
            raise NVSError(f"{scene_label(listed)}: expected an object of scene keys and names of .torch files here")
        return {_checked(scene_label(listed), key): known[value] for key, value in content.items()}
    return {_checked(scene_label(file), entry.get("key")): file for file in _files(path) for entry in _load(file)}


def _checked(label: str, key: Any) -> str:
    """Keys become names of folders."""
    if not isinstance(key, str) or not key or key.startswith(".") or any(c in key for c in "/\\\0\n") or len(key) > 200:
        raise NVSError(f"{label}: the key {str(key)[:40]!r} is no plain name")
    return key


def _load(path: Path) -> list[dict]:
    status = path.stat()
    return _load_cached(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)  # all scenes of a chunk are usually read one after the other
def _load_cached(path: Path, changed: int, size: int) -> list[dict]:
    label = scene_label(path)

    def fail(reason: str) -> NoReturn:
        raise NVSError(f"{label}: {reason}")

    try:
        # Older files, plain pickles, can claim tensors larger than themselves; no chunk is one.
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > size:
            fail("its parts are compressed, which torch.save never does; refused")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NVSError(
            f"{label}: holds more than plain tensors and lists (code in a pickle, perhaps); refused"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError,
            MemoryError, zipfile.BadZipFile) as error:  # fmt: skip
        raise NVSError(f"{label}: cut short or not a file of torch.save ({first_line(error, 120)})") from error
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        fail(f"holds {_told(content)}, expected a list of scenes")
    return content


def _bytes(record: Record, image: Any) -> bytes:
    if not _is_plain(image) or image.dtype != torch.uint8 or image.ndim != 1:
        record.fail(f"its image is {_told(image)}, expected the bytes of a JPEG file")
    # A tensor can claim more elements than its file holds (stride 0).
    if image.numel() > min(MAX_IMAGE_BYTES, image.untyped_storage().nbytes()):
        record.fail(f"its image claims {image.numel()} bytes, more than there are")
    return image.numpy().tobytes()


def _is_plain(value: Any) -> TypeGuard[Tensor]:
    """Whether it is a dense tensor of real numbers with memory behind it."""
    dense = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return dense and not value.is_quantized and not value.is_complex()


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__
