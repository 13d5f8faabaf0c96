"""`render` in child processes: what is there already, how far it is, what a kill leaves, broken videos."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
from cli_scenes import REPO, cli, start, write_scenes

from data_tools.readers import open_scene
from nvs_app.rendering.video import VideoWriter
from nvs_app.rendering.video_record import append_record, read_record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_scenes`; and `same`: other photos by the cameras of `one`."""
    folder = tmp_path_factory.mktemp("jobs")
    write_scenes(folder)
    one = open_scene(folder / "one")
    one.save(folder / "same")
    for path in open_scene(folder / "same").image_paths:
        iio.imwrite(path, iio.imread(path)[::-1])
    return folder


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_the_same_job_is_skipped_and_no_other(folder: Path, tmp_path: Path, here, suffix: str) -> None:
    video = tmp_path / f"orbit{suffix}"
    words = ("render", folder / "one", "--context", 3, "--frames", 2, "--out", video)
    out, err = here(*words)
    assert "encoding 3 views of 32x32 ..." in err and "rendering 2 images ..." in err
    assert len(list(iio.imiter(video, plugin="FFMPEG" if suffix == ".mp4" else "pillow"))) == 2
    before = video.read_bytes()
    out, err = here(*words)
    assert f"{video} is there, by the same command; skipped (--overwrite" in out and err == ""

    other = {"--checkpoint": ("detailed", "checkpoint, checkpoint_hash, context, rendering"), "--path": ("sway",)}
    other |= {"--context": (4, "context"), "--fps": (12, "fps"), "--image-hw": (16, 16, "cameras, image_hw, rendering")}
    for option, (value, *more) in other.items():
        said = more.pop() if more else "path, cameras"
        _, err = here(*words, option, value, *more, code=2)
        assert err.splitlines()[-1].endswith(f"rendered with another {said}; use another name or --overwrite")
    # Neither a checkpoint that is not there nor a device that is not there is passed over.
    assert "checkpoint absent: not found" in here(*words, "--checkpoint", "absent", code=2)[1]
    if not torch.cuda.is_available():
        assert "cuda" in here(*words, "--device", "cuda", code=2)[1]
    # Other photos by the same cameras.
    _, err = here("render", folder / "same", *words[2:], code=2)
    assert err.endswith("rendered with another context; use another name or --overwrite\n") and err.count("\n") == 1
    assert video.read_bytes() == before
    here("render", folder / "same", *words[2:], "--overwrite")
    assert video.read_bytes() != before


def test_processes_of_torchrun_share_the_scenes(folder: Path, tmp_path: Path, here, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, name in enumerate(("one", "two")):
        monkeypatch.setenv("RANK", str(rank))
        out, _ = here("render", folder / "one", folder / "two", "--frames", 1, "--out", tmp_path / "{scene}.gif")
        assert out.startswith(f"{name}: ") and out.count("\n") == 1
        assert (tmp_path / "two.gif").is_file() == (name == "two") and (tmp_path / "one.gif").is_file()


def test_what_is_there_in_a_child_process(folder: Path, tmp_path: Path) -> None:
    """A file of another origin is left alone: one line, exit code 2."""
    video = tmp_path / "holiday.mp4"
    with VideoWriter(video, 10.0) as writer:
        writer.add(torch.rand(2, 3, 32, 32))
    before = video.read_bytes()
    out, err = cli(folder, "render", folder / "one", "--frames", 2, "--out", video, code=2)
    assert err == f"error: --out {video}: is there, and nothing says what of; use another name or --overwrite\n"
    assert out == "" and video.read_bytes() == before


def test_a_state_is_the_same_job_as_its_photos(folder: Path, tmp_path: Path, here) -> None:
    video, state = tmp_path / "capture.mp4", tmp_path / "one.safetensors"
    words = ("render", folder / "one", "--context", 3, "--path", "capture", "--frames", 2, "--out", video)
    here(*words, "--state", state)
    assert "skipped" in here(*words, "--state", state)[0]
    assert "skipped" in here(*words)[0]


def test_records(tmp_path: Path) -> None:
    """Inside both kinds of file, however long; players see the same frames."""
    record = {"checkpoint": "ä" * 300, "frames": 2}
    for name in ("a.mp4", "a.gif"):
        path = tmp_path / name
        with VideoWriter(path, 10.0) as writer:
            writer.add(torch.rand(3, 3, 32, 32))
        plugin = "FFMPEG" if name == "a.mp4" else "pillow"
        frames = iio.imread(path, plugin=plugin)
        assert read_record(path) is None
        append_record(path, record)
        assert read_record(path) == record
        assert (iio.imread(path, plugin=plugin) == frames).all()
    (tmp_path / "cut.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:-1])
    with pytest.raises(ValueError, match="no gif that ends"):
        append_record(tmp_path / "cut.gif", record)
    assert read_record(tmp_path / "cut.gif") == record


def partial(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if "partial" in path.name or path.name.endswith(".tmp")]


def wait_for(found, child: subprocess.Popen) -> None:
    deadline = time.monotonic() + 100
    while not found():
        assert child.poll() is None and time.monotonic() < deadline, child.communicate()
        time.sleep(0.05)


def test_terminated_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """A video that SIGTERM stops."""
    child = start(folder, "render", folder / "one", "--frames", 100000, "--out", tmp_path / "long.mp4")
    wait_for(lambda: partial(tmp_path), child)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 143 and err.endswith("terminated\n") and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_what_sigkill_leaves_goes_at_the_next_start(folder: Path, tmp_path: Path, here) -> None:
    out = tmp_path / "long.mp4"
    child = start(folder, "render", folder / "one", "--frames", 100000, "--out", out)
    wait_for(lambda: partial(tmp_path), child)
    child.kill()
    child.communicate(timeout=60)
    assert not out.exists() and partial(tmp_path)
    here("render", folder / "one", "--frames", 2, "--out", out)
    assert [path.name for path in tmp_path.iterdir()] == ["long.mp4"]

    # In a folder, as a kill within the writing of a file leaves it; that of a process that lives stays.
    images = tmp_path / "images"
    images.mkdir()
    left, busy = (images / f".0000{n}.png.{pid}.0123abcd.tmp" for n, pid in ((1, child.pid), (2, os.getpid())))
    left.touch()
    busy.touch()
    here("render", folder / "one", "--frames", 2, "--out", images)
    assert not left.exists() and busy.exists()


def test_progress_on_a_terminal_goes_to_stderr(folder: Path, tmp_path: Path) -> None:
    """A bar for each stage, by name; stdout has the result alone."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "NVS_CHECKPOINTS": str(folder / "checkpoints"), "TERM": "xterm", "COLUMNS": "100"}
    words = ["render", str(folder / "one"), "--context", "3", "--frames", "2", "--out", str(tmp_path / "x.gif")]
    child = subprocess.Popen(
        [sys.executable, "-m", "nvs_app", *words],
        cwd=REPO,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0 and out.count("\n") == 1
    for stage in ("encoding 3 views of 32x32", "one: rendering 2 images"):
        assert stage in shown.decode()
    assert "100%" in shown.decode()


@pytest.mark.parametrize("kind", ["no header", "cut", "overwritten"])
def test_a_broken_video_is_one_line_without_what_codecs_say(folder: Path, tmp_path: Path, kind: str) -> None:
    video = tmp_path / "walk.mp4"
    if kind == "no header":
        video.write_bytes(b"\0\0\0\x18ftypisom" + bytes(200))
    else:
        with VideoWriter(video, 10.0) as writer:
            writer.add(torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        data = bytearray(video.read_bytes())
        data[len(data) // 2 :] = b"" if kind == "cut" else data[len(data) // 2 + 2000 :]
        video.write_bytes(data)
    _, err = cli(folder, "render", video, "--out", tmp_path / "x.mp4", code=2)
    *stages, last = err.splitlines()
    assert last.startswith("error: walk.mp4: ")
    assert all(line.endswith(" ...") for line in stages), err
