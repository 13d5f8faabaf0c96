"""The child process that strangers' files are read in: its results, its walls, and what is left of it."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data_tools.readers import open_scene
from data_tools.readers.isolated import AT_ONCE, ProcessLimits, _helper, isolated
from nvs_app.errors import NVSError

MIB = 1 << 20


def children() -> list[str]:
    assert _helper._process is not None
    number = _helper._process.pid
    return Path(f"/proc/{number}/task/{number}/children").read_text().split()


def gone() -> bool:
    """Whether all children end soon."""
    for _ in range(100):
        if not children():
            return True
        time.sleep(0.05)
    return False


def test_a_scene_comes_back_whole(repo: Path) -> None:
    folder = repo / "examples" / "object_chair"
    here, there = open_scene(folder), isolated(open_scene, folder)
    assert there.image_paths == here.image_paths and there.notes == here.notes and there.name == here.name
    assert there.c2w.equal(here.c2w) and there.fxfycxcy.equal(here.fxfycxcy)


def test_a_relative_path_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isolated(os.getcwd) == str(tmp_path)


def test_a_refusal_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(NVSError, match=r"nothing: no such file or folder$"):
        isolated(open_scene, tmp_path / "nothing")


def test_memory_is_limited() -> None:
    assert len(isolated(bytes, 64 * MIB)) == 64 * MIB
    with pytest.raises(NVSError, match="a.zip: reading it takes more than 128 MB of memory"):
        isolated(bytes, 256 * MIB, limits=ProcessLimits(memory_bytes=128 * MIB), what="a.zip")
    with pytest.raises(NVSError, match="more than 128 MB"):
        isolated(np.ones, 64 * MIB, limits=ProcessLimits(memory_bytes=128 * MIB))


def test_time_is_limited_and_the_child_is_gone() -> None:
    with pytest.raises(NVSError, match="takes more than 1 s"):
        isolated(sum, range(10**12), limits=ProcessLimits(cpu_seconds=1))
    with pytest.raises(NVSError, match="not read within 1 s"):
        isolated(time.sleep, 3600, limits=ProcessLimits(wall_seconds=1))
    assert gone()


def test_a_crash_is_a_sentence(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(NVSError, match="its decoder ended with -6"):
        isolated(os.abort)
    with pytest.raises(NVSError, match=r"this file: cannot be read \(ZeroDivisionError\)"):
        isolated(divmod, 1, 0)
    assert "ZeroDivisionError" in capfd.readouterr().err  # a fault of ours is in the log


def test_calls_from_many_threads_wait_for_each_other() -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: isolated(os.getpid), range(12)))
        waiting = [pool.submit(isolated, time.sleep, 0.3) for _ in range(6)]
        most = 0
        while not all(future.done() for future in waiting):
            most = max(most, len(children()))
            time.sleep(0.02)
    assert len(set(numbers)) == 12 and os.getpid() not in numbers
    assert most <= AT_ONCE + 1  # one that is just being forgotten


def test_a_helper_that_died_is_started_again() -> None:
    first = isolated(os.getppid)
    os.kill(first, signal.SIGKILL)
    assert _helper._process is not None
    _helper._process.wait(10)
    assert isolated(os.getppid) != first
