"""What a video was made of, inside the file itself, where players pass over it: so that it moves along with the video.

    append_record(Path("orbit.mp4"), {"checkpoint": "NAME", "frames": 60})
    read_record(Path("orbit.mp4"))      # the same; None in a video that is not ours

In an mp4 it is a box of type `uuid` after all others (ISO/IEC 14496-12, 4.2 and 11.1), in a gif a comment extension
before the trailer (GIF89a, 24).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from uuid import UUID

_UUID = UUID("6b1f3c5e-2a64-4d0c-9a55-6e76735f6170").bytes
_NAME = b"nvs_app record 1"
_COMMENT = b"\x21\xfe" + bytes([len(_NAME)]) + _NAME
_TRAILER = b"\x3b"
_LARGEST = 65536


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Writes a record into a whole .mp4 or .gif that has none. Raises OSError; ValueError for a broken gif."""
    data = json.dumps(record).encode()
    with path.open("r+b") as file:
        if path.suffix.lower() == ".mp4":
            file.seek(0, os.SEEK_END)
            file.write((24 + len(data)).to_bytes(4, "big") + b"uuid" + _UUID + data)
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != _TRAILER:
            raise ValueError(f"{path}: no gif that ends")
        file.seek(-1, os.SEEK_END)
        parts = [data[start : start + 255] for start in range(0, len(data), 255)]
        file.write(_COMMENT + b"".join(bytes([len(part)]) + part for part in parts) + b"\0" + _TRAILER)


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of a video; None where there is none. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LARGEST))
        tail = file.read()
    start = tail.rfind(b"uuid" + _UUID)
    if start >= 0:
        data = tail[start + 20 :]
    elif (start := tail.rfind(_COMMENT)) >= 0:
        data, at = b"", start + len(_COMMENT)
        while at < len(tail) and tail[at]:
            data += tail[at + 1 : at + 1 + tail[at]]
            at += 1 + tail[at]
    else:
        return None
    try:
        record = json.loads(data)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
