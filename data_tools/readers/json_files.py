"""JSON of strangers: read within limits, in any of the encodings that people's programs write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_tools.readers.fields import scene_label
from nvs_app.errors import NVSError, whole_characters

MAX_JSON_BYTES = 64 << 20
# Each may become an object of a hundred bytes. A frame has about fifty.
MAX_JSON_VALUES = 4_000_000


def load_json(path: Path) -> Any:
    """The content of a JSON file of at most 64 MiB."""
    label = scene_label(path)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise NVSError(f"{label}: larger than {MAX_JSON_BYTES >> 20} MiB, so no camera file")
        return parse_json(label, path.read_bytes())
    except OSError as error:
        raise NVSError(f"{label}: cannot be read ({error.strerror or error})") from error
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
