"""Files that are whole or absent: written under a temporary name, renamed when done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nvs_app.errors import NVSError


@contextlib.contextmanager
def atomic_write(path: Path, shown: str = "") -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when the block ends well, else removed.

    Args:
        path: the file to be; missing folders above it are made.
        shown: what a message calls it; empty: its path.

    Raises:
        NVSError: the system refuses to write it.
    """
    # Of this process and this call alone: threads of a server may write the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise NVSError(f"{shown or path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be none
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str, shown: str = "") -> None:
    """Writes a text file in UTF-8, line ends as given; see `atomic_write`."""
    with atomic_write(path, shown) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
