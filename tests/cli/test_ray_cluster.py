"""`render --ray` on a real cluster that starts on this machine: what one process does, to the byte.

`eval` hands its scenes out in the same way (test_spread).
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from cli_scenes import caller, images, start, write_scenes
from processes import QUICK_RAY, children

PATIENCE = 500  # seconds: other tests and programs may be busy


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_worker_is_killed_and_images_are_those_of_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "sitecustomize.py").write_text(QUICK_RAY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "quick"), os.environ.get("PYTHONPATH", "")]))
    write_scenes(tmp_path)
    here = caller(tmp_path, capsys, monkeypatch)
    scenes = [tmp_path / name for name in ("one", "two", "broken")]
    words = ("render", *scenes, "--frames", 12, "--context", 3, "--device", "cpu", "--out")
    here(*words, tmp_path / "alone", code=2)
    process = start(tmp_path, *words, tmp_path / "there", "--ray", "local", "--gpus", 2)
    killed = kill_one(process, "ray::render_task")
    out, err = process.communicate(timeout=PATIENCE)
    assert killed, f"no task was seen\n{out}\n{err}"
    assert process.returncode == 2 and "Traceback" not in err, f"{out}\n{err}"
    assert err.count("error: ") == 1 and "error: broken: " in err, err
    alone, there = (images(tmp_path / folder) for folder in ("alone", "there"))
    assert len(alone) == 24 and there == alone
    assert not list((tmp_path / "there").glob(".*.token"))


def kill_one(process, name: str) -> int | None:
    """Kills a process of this name below `process` as soon as there is one; its number, None where there is none."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        found = children(process.pid, name)
        if found:
            os.kill(found[0], signal.SIGKILL)
            return found[0]
        time.sleep(0.05)
    process.kill()
    return None
