"""Uploads that mean harm, or are merely broken: one line each, and nothing left on the disk."""

from __future__ import annotations

import io
import json
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from data_tools.readers.archives import Limits, extract, is_archive, open_image
from data_tools.readers.json_files import parse_json
from nvs_app.errors import NVSError


def make_zip(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as packed:
        for name, content in entries.items():
            packed.writestr(name, content)
    return path


def refused(archive: Path, words: str, limits: Limits | None = None) -> None:
    folder = archive.parent / "unpacked"
    with pytest.raises(NVSError, match=words) as caught:
        extract(archive, folder, limits)
    assert "\n" not in str(caught.value) and archive.name in str(caught.value)
    assert [path.name for path in archive.parent.iterdir()] == [archive.name], "something was left behind"


def test_a_plain_zip_is_unpacked_without_litter(tmp_path: Path) -> None:
    entries = {"a/1.jpg": b"one", "a/b/2.jpg": b"two", "__MACOSX/a/._1.jpg": b"x", "a/.DS_Store": b"x"}
    archive = make_zip(tmp_path / "up.zip", entries)
    folder = extract(archive, tmp_path / "out")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "a/1.jpg",
        "a/b/2.jpg",
    ]
    assert (folder / "a/1.jpg").read_bytes() == b"one"
    assert is_archive(archive) and not is_archive(folder)
    with pytest.raises(NVSError, match="exists already"):
        extract(archive, folder)


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "a/../../x.jpg", "..\\x.jpg", "C:\\x.jpg", "\\x.jpg"])
def test_a_zip_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    refused(make_zip(tmp_path / "up.zip", {"ok.jpg": b"fine", name: b"bad"}), "absolute path|leads out")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_zip_holds_files_only(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("link.jpg")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    archive = tmp_path / "up.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(info, "/etc/passwd")
    refused(archive, "link or a device")


def test_bombs_go_off_early(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "up.zip", {f"{i}.jpg": bytes(8 << 20) for i in range(4)})
    assert archive.stat().st_size < 100_000
    refused(archive, "zip bomb")
    refused(archive, "larger than 1 MiB", Limits(file_bytes=1 << 20))
    refused(archive, "more than 12 MiB", Limits(total_bytes=12 << 20))
    refused(archive, "more than 3 entries", Limits(files=3, ratio=1e9))


def test_a_size_that_lies_is_not_believed(tmp_path: Path) -> None:
    """The directory says ten bytes; what comes out is counted."""
    archive = make_zip(tmp_path / "up.zip", {"a.jpg": bytes(64 << 20)})
    data = bytearray(archive.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 10)
    archive.write_bytes(bytes(data))
    refused(archive, "cannot be read|can be read|larger|bomb", Limits(file_bytes=1 << 20))


def test_broken_zips(tmp_path: Path) -> None:
    whole = make_zip(tmp_path / "up.zip", {"a.jpg": bytes(range(256)) * 400}, zipfile.ZIP_STORED).read_bytes()
    for number, content in enumerate(
        [
            whole[: len(whole) // 2],
            b"",
            b"PK\x03\x04" + b"x" * 200,
            whole[:1000] + b"XXXX" + whole[1004:],
            b"hello",
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "up.zip").write_bytes(content)
        refused(folder / "up.zip", "can be read")
    folder = tmp_path / "empty"
    folder.mkdir()
    refused(make_zip(folder / "up.zip", {}), "holds no files")


def test_a_locked_zip_says_so(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "up.zip", {"a.jpg": b"text"})
    data = bytearray(archive.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(bytes(data))
    refused(archive, "encrypted")


def test_names_that_collide(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "up.zip", "w") as packed:
        packed.writestr("a.jpg", b"1")
        packed.writestr("a.jpg", b"2")
    refused(tmp_path / "up.zip", "there twice")
    folder = tmp_path / "other"
    folder.mkdir()
    refused(make_zip(folder / "up.zip", {"a": b"1", "a/b.jpg": b"2"}), "both as a file and as a folder")


def make_tar(path: Path, info: tarfile.TarInfo, content: bytes = b"") -> Path:
    info.size = len(content)
    with tarfile.open(path, "w:gz") as packed:
        packed.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_tar_holds_files_only(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    refused(make_tar(tmp_path / "up.tar.gz", info), "link or a device")


def test_tars(tmp_path: Path) -> None:
    for number, (name, content, words) in enumerate(
        [
            ("../a.jpg", b"x", "leads out"),
            ("/a.jpg", b"x", "absolute"),
            ("a.jpg", bytes(32 << 20), "zip bomb"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        refused(make_tar(folder / "up.tgz", tarfile.TarInfo(name), content), words)
    good = make_tar(tmp_path / "good.tar.gz", tarfile.TarInfo("d/a.jpg"), b"fine")
    assert (extract(good, tmp_path / "good") / "d/a.jpg").read_bytes() == b"fine"
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "up.tar.gz").write_bytes(good.read_bytes()[:-30])
    refused(cut / "up.tar.gz", "can be read")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    chunks = b"\x89PNG\r\n\x1a\n"
    for kind, body in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", b""),
        (b"IEND", b""),
    ):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return chunks


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_are_judged_by_their_headers(tmp_path: Path) -> None:
    image = tmp_path / "named.png"  # whatever its name
    Image.new("RGB", (40, 30)).save(image, format="JPEG")
    with open_image(image) as found:
        assert (found.format, found.size) == ("JPEG", (40, 30))
    for name, content, words in [
        ("huge.png", png_header(60_000, 60_000), "more than 100 megapixels"),
        ("wide.png", png_header(1_000_000, 101), "more than 100 megapixels"),
        ("text.jpg", b"this is text", "not an image"),
        ("empty.jpg", b"", "not an image"),
        ("script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
        ("cut.jpg", image.read_bytes()[:12], "not an image"),
        ("icon.png", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "not an image"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NVSError, match=words) as caught:
            open_image(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_heic_is_read(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 30))).save(tmp_path / "a.heic")
    with open_image(tmp_path / "a.heic") as found:
        assert (found.format, found.size) == ("HEIF", (64, 48))


def test_names_in_bytes_that_are_no_utf8_can_be_written(tmp_path: Path) -> None:
    """Of a tar that an old system packed: its bytes, read as Latin-1, in place of halves of characters."""
    archive = tmp_path / "up.tar"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as packed:
        info = tarfile.TarInfo("Stühle/Stuhl é.jpg")
        info.size = 4
        packed.addfile(info, io.BytesIO(b"fine"))
    folder = extract(archive, tmp_path / "out")
    (found,) = (path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    assert found == "Stühle/Stuhl é.jpg" and found.encode("utf-8")


def test_halves_of_characters_in_json_become_question_marks() -> None:
    found = parse_json("a.json", b'{"\\ud800": [{"file_path": "a\\uDfff.png", "same": "\\ud83d\\ude00"}]}')
    assert found == {"?": [{"file_path": "a?.png", "same": "\N{GRINNING FACE}"}]}
    json.dumps(found, ensure_ascii=False).encode("utf-8")
