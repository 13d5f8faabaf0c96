"""Files that are whole or absent: written under a temporary name, renamed when done."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from nvs_app.errors import NVSError


@contextlib.contextmanager
def atomic_write(path: Path, shown: str = "") -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when the block ends well, else removed.

    A link is followed: what it leads to is replaced, not the link. A device or a pipe cannot be replaced by a file;
    its own name is given, and what is written goes there at once.

    Args:
        path: the file to be; missing folders above it are made.
        shown: what a message calls it; empty: its path.

    Raises:
        NVSError: the system refuses to write it.
    """
    temporary = None
    try:
        if is_stream(path):
            yield path
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        # Of this process and this call alone: threads of a server may write the same file.
        temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise NVSError(f"{shown or path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be none
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str, shown: str = "") -> None:
    """Writes a text file in UTF-8, line ends as given; see `atomic_write`."""
    with atomic_write(path, shown) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def is_stream(path: Path) -> bool:
    """Whether a path is there and no file or folder: a device, a pipe, a socket."""
    try:
        kind = path.stat().st_mode
    except OSError:  # nothing is there, or its name is too long
        return False
    return not stat.S_ISREG(kind) and not stat.S_ISDIR(kind)


@contextlib.contextmanager
def only_one(folder: Path, lock_name: str) -> Iterator[None]:
    """Keeps a second run out of a folder, which is made, where the system can lock files. Raises NVSError."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / lock_name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise NVSError(f"{folder}: another run works in this folder; wait for it") from error
        yield


def remove_left(folder: Path, before: str, after: str) -> None:
    """Removes the temporary files in a folder, named `before`, a process's number and `after`, of killed processes.

    `before` empty and `after` .tmp: all those of `atomic_write`.
    """
    named = re.escape(before) or r"\..+\."
    pattern = re.compile(named + r"(\d+)(?:\.[0-9a-f]{8})?" + re.escape(after))
    for left in folder.iterdir():
        found = pattern.fullmatch(left.name)
        if found and not process_lives(int(found[1])):
            with contextlib.suppress(OSError):
                left.unlink()


def process_lives(number: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
