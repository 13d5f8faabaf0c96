"""Files are whole or absent, and what stops a write is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvs_app.atomic_io import atomic_write, write_whole
from nvs_app.errors import NVSError


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.bin"
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists() and temporary.parent == path.parent
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole" and list(path.parent.iterdir()) == [path]


def test_what_was_there_stays_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "first\r\nline\n")
    assert path.read_bytes() == b"first\r\nline\n"
    with pytest.raises(KeyError), atomic_write(path) as temporary:
        temporary.write_text("second")
        raise KeyError
    assert path.read_bytes() == b"first\r\nline\n" and list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_write(path) as one, atomic_write(path) as two:
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]  # the outer block ends last


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")  # where a folder should be
    with pytest.raises(NVSError, match=r"^\S+file/a.txt: cannot be written \(File exists\)$"):
        write_whole(tmp_path / "file" / "a.txt", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NVSError, match=r"^--out there: cannot be written \(Is a directory\)$"):
        write_whole(tmp_path / "folder", "", "--out there")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
