"""Uploads opened without harm: zip and tar files unpacked within limits, images judged by their headers.

    folder = extract("upload.zip", "work/upload")       # all of it, or NVSError and nothing left behind
    with open_image("work/upload/a.jpg") as image: ...

An archive is refused as a whole when one entry leads out of the folder, is a link or a device, or breaks a limit.
Sizes written in an archive are not believed: the bytes that really come out are counted, those of headers and of
entries that are left out too.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image, UnidentifiedImageError

from nvs_app.errors import NVSError, Refusal, coded, first_line, whole_characters
from nvs_app.scenes.images import MAX_PIXELS, register_heif

# By content, never by name; anything else that Pillow could open (PostScript, old video formats) is not tried.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "HEIF", "AVIF", "TIFF", "BMP")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".tif", ".tiff", ".bmp")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")
CHUNK = 1 << 20
MIB = 1 << 20
# Of names and their like: what a tar file may hold between two files and in all, and a zip file at its end.
HEADER_BYTES, HEADERS_BYTES = MIB, 32 * MIB
UNPACKERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


@dataclass(frozen=True)
class Limits:
    """What an archive may hold.

    Attributes:
        files: entries, folders included.
        total_bytes, file_bytes: unpacked size of all, and of one file.
        ratio: unpacked over packed size, looked at beyond ``ratio_from`` unpacked bytes. Photos and video hardly
            compress; text reaches 20.
        path_length: characters of one name.
    """

    files: int = 20_000
    total_bytes: int = 16 * 1024 * MIB
    file_bytes: int = 4 * 1024 * MIB
    ratio: float = 100.0
    ratio_from: int = 16 * MIB
    path_length: int = 240


def is_archive(path: Path) -> bool:
    """Whether ``path`` is a file that begins or calls itself like a zip or tar file."""
    if not path.is_file():
        return False
    name = path.name.lower()
    if name.endswith((".zip", *TAR_SUFFIXES)):
        return True
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


@coded(Refusal.BROKEN_FILE)
def extract(archive: str | Path, folder: str | Path, limits: Limits | None = None) -> Path:
    """Unpack a zip or tar file into a new folder.

    Everything is unpacked under a temporary name and renamed at the end: the folder is absent or whole. Files get
    ordinary permissions whatever the archive says; the litter of macOS and Windows is left out.

    Args:
        archive: ``.zip``, or ``.tar`` with any of gzip, bzip2, xz.
        folder: where to unpack; must not exist.
        limits: see :class:`Limits`.

    Returns:
        The folder.

    Raises:
        NVSError: an absolute name or one with ``..``, a link, a device, an encrypted or damaged file, the same
            name twice, or a limit exceeded; one line names the entry.
    """
    archive, folder = Path(archive), Path(folder)
    limits = limits or Limits()
    if not archive.is_file():
        raise NVSError(f"{archive}: no such file")
    if folder.exists():
        raise NVSError(f"{folder}: exists already; choose another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        unpacker = _Unpacker(archive, temporary, limits)
        if zipfile.is_zipfile(archive):
            unpacker.unpack_zip()
        else:
            unpacker.unpack_tar()
        if not unpacker.written:
            raise NVSError(f"{archive.name}: holds no files")
        temporary.chmod(0o755)  # mkdtemp's own is 0700
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


class _Unpacker:
    """Counts what comes out of one archive."""

    def __init__(self, archive: Path, folder: Path, limits: Limits):
        self.archive, self.folder, self.limits = archive, folder, limits
        self.packed = max(1, archive.stat().st_size)
        self.entries = self.total = self.headers = self.header = 0
        self.in_file = False
        self.written: set[str] = set()

    def unpack_zip(self) -> None:
        # RuntimeError: a password; NotImplementedError: an unknown compression.
        errors = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError, OSError)
        if _directory_bytes(self.archive) > HEADERS_BYTES:
            self._fail("its list of entries is too long")
        with self._damage(errors), zipfile.ZipFile(self.archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    self._refuse(info.filename, "is a link or a device")
                if info.flag_bits & 0x1:
                    self._refuse(info.filename, "is encrypted; unpack it yourself first")
                target = self._accept(info.filename, info.file_size, info.is_dir())
                if target is not None:
                    with packed.open(info) as source:
                        self._write(info.filename, self._counted(source.read), target)

    def unpack_tar(self) -> None:
        errors = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, OSError)
        with self._damage(errors), self.archive.open("rb") as file:
            unpacker = UNPACKERS.get(file.read(2))
            file.seek(0)
            stream = unpacker(file) if unpacker else file
            # As a stream, one by one: whatever comes out passes `_tar_bytes`, and nothing is read twice.
            with tarfile.open(fileobj=_Reader(self._tar_bytes(stream.read)), mode="r|") as packed:  # type: ignore[call-overload]
                while True:
                    self.header, self.in_file = 0, False
                    info = packed.next()
                    packed.members = []  # tarfile keeps all; names may be long
                    if info is None:
                        return
                    self.headers += info.offset_data - info.offset
                    if self.headers > HEADERS_BYTES:
                        self._fail("the names of its entries are too long")
                    if not (info.isreg() or info.isdir()) or info.issparse():
                        self._refuse(info.name, "is a link or a device")
                    target = self._accept(info.name, info.size, info.isdir())
                    self.in_file = True
                    source = packed.extractfile(info)
                    if source is not None:
                        with source:
                            self._write(info.name, source.read, target)

    def _counted(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """``read``, that stops at the limits of all that comes out."""

        def counted(size: int) -> bytes:
            part = read(size)
            self.total += len(part)
            if self.total > self.limits.total_bytes:
                self._fail(f"more than {_shown(self.limits.total_bytes)} when unpacked; send fewer files")
            if self.total > self.limits.ratio_from and self.total > self.limits.ratio * self.packed:
                self._fail(f"unpacks to more than {self.limits.ratio:g} times its size: refused as a zip bomb")
            return part

        return counted

    def _tar_bytes(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """As `_counted`, with a limit of its own for what is no file's content."""
        counted = self._counted(read)

        def part_of(size: int) -> bytes:
            part = counted(size)
            if not self.in_file:
                self.header += len(part)
                if self.header > HEADER_BYTES:
                    self._fail("the name of an entry is too long")
            return part

        return part_of

    def _accept(self, name: str, size: int, is_folder: bool) -> Path | None:
        """Where the entry goes; None for folders and litter, which are not written."""
        self.entries += 1
        if self.entries > self.limits.files:
            self._fail(f"more than {self.limits.files} entries; send fewer files")
        if not name or "\0" in name or len(name) > self.limits.path_length:
            self._refuse(name, "has no usable name")
        name = _clean(name)
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        drive = ":" in name if os.name == "nt" else re.match(r"[A-Za-z]:[/\\]", name)
        if name.startswith(("/", "\\")) or drive:
            self._refuse(name, "has an absolute path")
        if ".." in parts:
            self._refuse(name, "leads out of its folder")
        if is_folder or not parts or parts[0] in LITTER or parts[-1] in LITTER or parts[-1].startswith("._"):
            return None
        if size > self.limits.file_bytes:
            self._refuse(name, f"is larger than {_shown(self.limits.file_bytes)} when unpacked")
        key = "/".join(parts)
        if key in self.written:
            self._refuse(name, "is there twice")
        self.written.add(key)
        return self.folder.joinpath(*parts)

    def _write(self, name: str, read: Callable[[int], bytes], target: Path | None) -> None:
        """Writes one entry; without a target it is only read."""
        if target is None:
            while read(CHUNK):
                pass
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("xb")
        except (FileExistsError, NotADirectoryError):
            self._refuse(name, "is there both as a file and as a folder")
        written = 0
        with file:
            while chunk := read(CHUNK):
                written += len(chunk)
                if written > self.limits.file_bytes:
                    self._refuse(name, f"is larger than {_shown(self.limits.file_bytes)} when unpacked")
                file.write(chunk)

    @contextmanager
    def _damage(self, errors: tuple[type[Exception], ...]) -> Iterator[None]:
        """Whatever the unpacking modules raise about a file becomes one line; a full disk says so."""
        try:
            yield
        except errors as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise NVSError(f"{self.archive.name}: not unpacked ({error.strerror})") from error
            raise NVSError(
                f"{self.archive.name}: not a zip or tar file that can be read ({first_line(error)})"
            ) from error

    def _refuse(self, name: str, reason: str) -> NoReturn:
        shown = ascii(name)[1:-1]
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        self._fail(f"the entry {shown} {reason}")

    def _fail(self, reason: str) -> NoReturn:
        raise NVSError(f"{self.archive.name}: {reason}")


class _Reader:
    """What tarfile takes for a file."""

    def __init__(self, read: Callable[[int], bytes]):
        self.read = read


def _clean(name: str) -> str:
    """A name that can be written anywhere: bytes that are no UTF-8, from old systems, are read as Latin-1."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeEncodeError:
        return whole_characters(name)


def _directory_bytes(archive: Path) -> int:
    """Size of a zip file's list of entries, which the zipfile module reads as a whole; 0 where there is none."""
    with archive.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 66_000))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or at + 16 > len(tail):
            return 0
        (found,) = struct.unpack_from("<I", tail, at + 12)
        locator = tail[at - 20 : at] if at >= 20 else b""
        if locator.startswith(b"PK\x06\x07"):
            file.seek(min(size, struct.unpack_from("<Q", locator, 8)[0]))
            record = file.read(56)
            if record.startswith(b"PK\x06\x06") and len(record) == 56:
                found = max(found if found != 0xFFFFFFFF else 0, struct.unpack_from("<Q", record, 40)[0])
    return found


@coded(Refusal.BAD_IMAGE)
def open_image(path: Path, label: str | None = None) -> Image.Image:
    """Pillow's image of a file, of which the header alone is read; the caller closes it.

    Args:
        path: the file; its name does not matter.
        label: what an error calls it; the file's name unless given.

    Raises:
        NVSError: no image of :data:`FORMATS`, or one of more than 100 megapixels.
    """
    label = label or path.name
    register_heif()
    Image.preinit()  # formats are named below before Pillow has met a file
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        image = Image.open(path, formats=formats)
    except FileNotFoundError as error:
        raise NVSError(f"{label}: no such file") from error
    except Image.DecompressionBombError as error:
        raise NVSError(f"{label}: more than 100 megapixels, make it smaller first") from error
    except UnidentifiedImageError as error:
        if _is_heif(path) and "HEIF" not in formats:
            raise NVSError(f"{label}: reading HEIC needs the package pillow-heif; install it") from error
        raise NVSError(f"{label}: not an image (its content is none of {', '.join(FORMATS)})") from error
    # SyntaxError: Pillow's word for a broken header; RuntimeError: libavif's.
    except (OSError, ValueError, SyntaxError, EOFError, RuntimeError) as error:
        raise NVSError(f"{label}: not an image that can be read ({first_line(error)})") from error
    if image.width * image.height > MAX_PIXELS or min(image.size) < 1:
        size = f"{image.width}x{image.height}"
        image.close()
        raise NVSError(f"{label}: {size} is more than 100 megapixels, make it smaller first")
    return image


def _is_heif(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(12)[4:8] == b"ftyp"


def _shown(count: int) -> str:
    return f"{count / MIB / 1024:g} GiB" if count >= 1024 * MIB else f"{count / MIB:g} MiB"
