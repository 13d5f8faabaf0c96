"""Reading the numbers of text files, with one line for each thing that can be wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_tools.readers.fields import scene_label
from nvs_app.errors import NVSError, reading

# Poses of a hundred thousand images are smaller. COLMAP's lists also hold every point of every image: see `lines_of`.
MAX_BYTES = 64 << 20
MAX_LINE = 1 << 20


def load_text(path: Path) -> str:
    """The content of a text file; ASCII control bytes mean that it is none."""
    return load_bytes(path).decode("utf-8-sig", errors="surrogateescape")


def load_bytes(path: Path) -> bytes:
    """The content of a camera file of at most 64 MiB."""
    label = scene_label(path)
    with reading(label):
        if path.stat().st_size > MAX_BYTES:
            raise NVSError(f"{label}: larger than {MAX_BYTES >> 20} MiB, so no camera file")
        return path.read_bytes()


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file of any size, one at a time; what a line has beyond 1 MiB is left out.

    Bytes that are no UTF-8 become lone surrogates, see :mod:`data_tools.readers.lookup`."""
    with reading(scene_label(path)), path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        while line := file.readline(MAX_LINE):
            yield line.rstrip("\n")
            while len(line) == MAX_LINE and not line.endswith("\n"):
                line = file.readline(MAX_LINE)


def floats(label: str, words: Sequence[str], count: int | None = None) -> list[float]:
    """The numbers that ``words`` spell, NaN and infinite ones included; ``count`` of them where it is given."""
    if count is not None and len(words) != count:
        raise NVSError(f"{label}: {len(words)} numbers, expected {count}")
    try:
        return [float(word) for word in words]
    except ValueError:
        wrong = next(word for word in words if not _is_number(word))
        raise NVSError(f"{label}: {wrong[:40]!r} where a number was expected") from None


def integer(label: str, word: str) -> int:
    """The integer that ``word`` spells."""
    try:
        return int(word)
    except ValueError:
        raise NVSError(f"{label}: {word[:40]!r} where an integer was expected") from None


def load_matrix(path: Path, shapes: Sequence[tuple[int, int]]) -> np.ndarray:
    """A matrix of one of ``shapes``, one row a line, from a text file."""
    label = scene_label(path)
    lines = [line.replace(",", " ").split() for line in load_text(path).splitlines()]
    rows = [floats(label, words) for words in lines if words and not words[0].startswith("#")]
    shape = (len(rows), len(rows[0]) if rows else 0)
    if shape not in shapes or any(len(row) != shape[1] for row in rows):
        wanted = " or ".join(f"{height}x{width}" for height, width in shapes)
        raise NVSError(f"{label}: holds {shape[0]}x{shape[1]} numbers, expected {wanted}")
    return np.array(rows, dtype=np.float64)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
