"""Files are whole or absent, and what stops a write is told in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from nvs_app.atomic_io import atomic_write, is_stream, remove_left, write_whole
from nvs_app.errors import NVSError
from nvs_app.rendering.video import VideoWriter


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


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.txt").write_text("before")
    (tmp_path / "link.txt").symlink_to(tmp_path / "far" / "a.txt")
    (tmp_path / "new.txt").symlink_to("far/b.txt")  # leads to nothing yet
    write_whole(tmp_path / "link.txt", "after")
    write_whole(tmp_path / "new.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "new.txt").is_symlink()
    assert (tmp_path / "far" / "a.txt").read_text() == "after" and (tmp_path / "far" / "b.txt").read_text() == "new"
    (tmp_path / "video.gif").symlink_to(tmp_path / "far" / "video.gif")
    with VideoWriter(tmp_path / "video.gif", 10.0) as video:
        video.add(torch.rand(2, 3, 16, 16))
    assert (tmp_path / "video.gif").is_symlink() and (tmp_path / "far" / "video.gif").read_bytes().startswith(b"GIF")
    assert len(list(tmp_path.iterdir())) == 4 and len(list((tmp_path / "far").iterdir())) == 3


def test_pipes_and_devices_are_written_and_stay(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "through")
    reader.join(10)
    assert read == ["through"] and is_stream(pipe) and list(tmp_path.iterdir()) == [pipe]
    write_whole(Path("/dev/null"), "nowhere")
    assert is_stream(Path("/dev/null"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_device_is_one_line_and_stays() -> None:
    with pytest.raises(NVSError, match=r"^/dev/full: cannot be written \(No space left on device\)$"):
        write_whole(Path("/dev/full"), "x")
    assert is_stream(Path("/dev/full"))


def test_a_long_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NVSError, match="File name too long"):
        write_whole(tmp_path / ("n" * 300 + ".json"), "")
    with (
        pytest.raises(NVSError, match="File name too long"),
        VideoWriter(tmp_path / ("n" * 300 + ".gif"), 10.0) as video,
    ):
        video.add(torch.rand(1, 3, 16, 16))
    write_whole(tmp_path / ("n" * 250), "fits")
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    gone, mine = int(child.stdout), os.getpid()
    for number in (gone, mine):
        (tmp_path / f".video.{number}.partial.gif").write_bytes(b"half")
    (tmp_path / f".other.{gone}.partial.gif").write_bytes(b"half")
    with VideoWriter(tmp_path / "video.gif", 10.0) as video:
        video.add(torch.rand(1, 3, 16, 16))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".other.{gone}.partial.gif", "video.gif"]
    (tmp_path / f".video.{mine}.partial.gif").write_bytes(b"half")
    remove_left(tmp_path, ".video.", ".partial.gif")
    assert (tmp_path / f".video.{mine}.partial.gif").exists()
