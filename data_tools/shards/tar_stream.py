"""Tar files read from front to back, from disk or over http(s), without trusting what they say.

    for name, data in members("https://host/shard-000000.tar", wanted=lambda name: name.endswith(".jpg")): ...

Why not the `webdataset` package: it is one more package for the machines that train, its shard order and shuffle
buffer cannot be started in the middle as a function of the step, and it runs `pipe:` addresses as commands. Why not
`tarfile`'s own loop: it takes a damaged header in the middle for the end, so scenes would be missing in silence.
"""

from __future__ import annotations

import contextlib
import http.client
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, Protocol, runtime_checkable
from urllib.parse import urlsplit, urlunsplit

from nvs_app.errors import NVSError, reading

BLOCK = 512
MAX_MEMBER_BYTES = 256 << 20
MAX_HEADER_BYTES = 64 << 10  # of a long name or a pax record
MAX_MEMBERS = 2_000_000
ATTEMPTS = 5
SECONDS = 30.0  # without an answer
# What a connection raises. IncompleteRead and its like are no OSErrors.
CONNECTION = (OSError, http.client.HTTPException)


@runtime_checkable
class Stream(Protocol):
    """What can be read and closed."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def is_http(url: str) -> bool:
    """Whether it is read over http or https."""
    return url.startswith(("http://", "https://"))


def shown(url: str) -> str:
    """A path or address for messages: without password and query, which may hold a key; printable."""
    if is_http(url):
        parts = urlsplit(url)
        url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return "".join(character if character.isprintable() else "?" for character in url)[:300]


def open_stream(url: str) -> Stream:
    """Bytes of a local file or an http(s) address. Raises NVSError."""
    if is_http(url):
        return _HttpStream(url)
    with reading(shown(url)):
        path = Path(url)
        if path.exists() and not path.is_file():
            raise NVSError(f"{shown(url)}: no file")  # a pipe would never end
        return path.open("rb")


class _HttpStream:
    """An address read from front to back; a connection that breaks is taken up where it broke."""

    def __init__(self, url: str) -> None:
        self.url, self.position, self.end = url, 0, -1
        self.answer: http.client.HTTPResponse | None = None
        self.failures = 0

    def _connect(self) -> http.client.HTTPResponse:
        headers = {"User-Agent": "nvs-app", "Accept-Encoding": "identity"}
        if self.position:
            headers["Range"] = f"bytes={self.position}-"
        answer = urllib.request.urlopen(urllib.request.Request(self.url, headers=headers), timeout=SECONDS)
        length = answer.headers.get("Content-Length", "")
        begins = self.position if answer.status == 206 else 0
        if length.isdigit():
            self.end = begins + int(length)
        skip = self.position - begins  # a server that knows no ranges starts anew
        while skip and (passed := answer.read(min(skip, 1 << 20))):
            skip -= len(passed)
        return answer

    def read(self, size: int, /) -> bytes:
        while True:
            try:
                if self.answer is None:
                    self.answer = self._connect()
                data = self.answer.read(size)
                if not data and self.position < self.end:
                    raise ConnectionError(f"connection lost after {self.position} of {self.end} bytes")
            except CONNECTION as error:
                self._failed(error)
                continue
            self.position += len(data)
            self.failures = 0 if data else self.failures
            return data

    def _failed(self, error: Exception) -> None:
        self.close()
        self.failures += 1
        refused = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 429)
        if refused or self.failures >= ATTEMPTS:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise NVSError(f"{shown(self.url)}: cannot be read ({reason})") from error
        time.sleep(0.2 * 3**self.failures)

    def close(self) -> None:
        if self.answer is not None:
            self.answer.close()
        self.answer = None


def read_all(url: str, limit: int) -> bytes:
    """A whole small file. Raises NVSError where it is longer than `limit` bytes."""
    parts, total = [], 0
    with contextlib.closing(open_stream(url)) as stream, reading(shown(url)):
        while data := stream.read(1 << 16):
            parts.append(data)
            total += len(data)
            if total > limit:
                raise NVSError(f"{shown(url)}: more than {limit >> 20} MiB")
    return b"".join(parts)


def members(url: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
    """The files of an uncompressed tar in their order: (name, bytes), or (name, None) where it is not wanted.

    Raises:
        NVSError: it cannot be read, is no tar, is cut short or damaged, or holds a link, a device, a sparse file, a
            name that is absolute or has ``..``, a file of more than 256 MiB; one line with the shard and the member.
    """
    with contextlib.closing(open_stream(url)) as stream, reading(shown(url)):
        yield from _TarReader(stream, shown(url)).members(wanted)


class _TarReader:
    """One pass over a tar."""

    def __init__(self, stream: Stream, label: str) -> None:
        self.stream, self.label, self.count = stream, label, 0

    def fail(self, message: str) -> NoReturn:
        raise NVSError(f"{self.label}: {message}")

    def take(self, size: int, keep: bool = True) -> bytes:
        """The next `size` bytes and the padding after them."""
        padded, parts = -(-size // BLOCK) * BLOCK, []
        while padded:
            data = self.stream.read(min(padded, 1 << 20))
            if not data:
                self.fail("cut short, fetch or write it again")
            padded -= len(data)
            if keep:
                parts.append(data)
        return b"".join(parts)[:size]

    def header(self) -> tarfile.TarInfo | None:
        block = self.take(BLOCK)
        if not any(block):
            return None
        self.count += 1
        if self.count > MAX_MEMBERS:
            self.fail(f"more than {MAX_MEMBERS} members")
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            what = "damaged (a header's checksum is wrong)" if self.count > 1 else "not an uncompressed tar"
            raise NVSError(f"{self.label}: {what}") from error

    def members(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | None]]:
        renamed: dict[str, str] = {}  # what the last extended header says of the next member
        while (info := self.header()) is not None:
            if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
                if not 0 <= info.size <= MAX_HEADER_BYTES:
                    self.fail(f"an extended header of {info.size} bytes")
                data = self.take(info.size)
                if info.type == tarfile.GNUTYPE_LONGNAME:
                    renamed["path"] = data.split(b"\0")[0].decode("utf-8", "replace")
                elif info.type == tarfile.XHDTYPE:
                    renamed |= self.pax(data)
                continue
            name, size = renamed.get("path", info.name), info.size
            if "size" in renamed:
                size = int(renamed["size"]) if renamed["size"].isdecimal() and len(renamed["size"]) < 20 else -1
            sparse = any(key.startswith("GNU.sparse") for key in renamed)
            renamed = {}
            self.check_name(name)
            if info.type == tarfile.DIRTYPE:
                continue
            if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or sparse:
                self.fail(f"{shown(name)} is a link, a device or a sparse file, expected plain files")
            if not 0 <= size <= MAX_MEMBER_BYTES:
                self.fail(f"{shown(name)} is of {size} bytes, expected at most {MAX_MEMBER_BYTES >> 20} MiB")
            keep = wanted(name)
            data = self.take(size, keep)
            yield name, data if keep else None

    def check_name(self, name: str) -> None:
        parts = name.rstrip("/").split("/")
        hidden = "\\" in name or not name.isprintable() or len(name) > 1000
        if hidden or name.startswith("/") or ".." in parts or ":" in parts[0] or not parts[-1]:
            self.fail(f"a member is named {shown(name)!r}, expected a relative name without '..'")

    def pax(self, data: bytes) -> dict[str, str]:
        """Records `LENGTH KEY=VALUE\\n`."""
        records: dict[str, str] = {}
        while data:
            length, _, _ = data.partition(b" ")
            end = int(length) if length.isdigit() and len(length) < 8 else 0
            record = data[len(length) + 1 : end]
            if end <= len(length) + 1 or end > len(data) or not record.endswith(b"\n") or b"=" not in record:
                self.fail("damaged (a pax header is malformed)")
            key, _, value = record[:-1].partition(b"=")
            records[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
            data = data[end:]
        return records
