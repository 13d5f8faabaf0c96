"""JSON of strangers: read within limits, in any of the encodings that people's programs write; and its frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_tools.readers.fields import Record, SceneBuilder, scene_label, shown
from data_tools.readers.text import load_bytes
from nvs_app.errors import NVSError, Refusal, whole_characters

# Each may become an object of a hundred bytes. A frame has about fifty.
MAX_JSON_VALUES = 4_000_000


def load_json(path: Path) -> Any:
    """The content of a JSON file of at most 64 MiB."""
    label = scene_label(path)
    try:
        return parse_json(label, load_bytes(path))
    except json.JSONDecodeError as error:
        raise NVSError(f"{label}: not valid JSON ({error.msg} in line {error.lineno})") from error
    except (ValueError, RecursionError) as error:
        raise NVSError(f"{label}: not valid JSON ({type(error).__name__})") from error


def parse_json(label: str, data: bytes, most: int = MAX_JSON_VALUES) -> Any:
    """What JSON bytes hold; refused before it is parsed where its values would fill the memory.

    Bytes that are no UTF-8 become lone surrogates, see :mod:`data_tools.readers.lookup`.
    Names that no file can have (halves of characters) get a question mark. Raises NVSError, and ValueError and
    RecursionError where the bytes are no JSON."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > most:
        raise NVSError(f"{label}: holds more than {most:,} values, so no camera file")
    # UTF-16 is what a redirect of PowerShell writes; bytes of a code page stay as they are, for file names.
    content = json.loads(data.decode(json.detect_encoding(data), "surrogateescape"))
    return _whole_characters(content) if b"\\ud" in data or b"\\uD" in data else content


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, list):
        return [_whole_characters(entry) for entry in value]
    if isinstance(value, dict):
        return {whole_characters(key): _whole_characters(entry) for key, entry in value.items()}
    return value


def frame_records(label: str, frames: Any, empty: bool = False) -> list[Record]:
    """One Record for each frame; refuses anything but a list of objects, and an ``empty`` one unless told."""
    if not isinstance(frames, list):
        raise NVSError(f"{label}: frames is {shown(frames)}, expected a list")
    if not frames and not empty:
        raise NVSError(f"{label}: frames is empty, expected one frame or more")
    records = []
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise NVSError(f"{label}: frame {index} is {shown(frame)}, expected an object")
        name = frame.get("file_path")
        records.append(Record(f"{label}: frame {index}" + (f" ({name})" if isinstance(name, str) else ""), frame))
    return records


def expect_images(records: Sequence[Record], builder: SceneBuilder) -> None:
    """Looks for the images of all frames, see :class:`data_tools.readers.lookup.ImageFiles`."""
    names = (record.values.get("file_path") for record in records)
    builder.files.expect([name.strip() for name in names if isinstance(name, str) and name.strip()])


def image_path(record: Record, builder: SceneBuilder) -> Path:
    """The image that a frame's ``file_path`` names."""
    name = record.values.get("file_path")
    if name is None or (isinstance(name, str) and not name.strip()):
        record.fail("file_path is missing", Refusal.NO_IMAGE)
    if not isinstance(name, str) or "\0" in name:
        record.fail(f"file_path is {shown(name)}, expected the name of an image file")
    return builder.find_image(record, name.strip())
