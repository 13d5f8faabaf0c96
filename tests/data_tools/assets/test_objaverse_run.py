"""Whole runs: worker processes, bad assets, kills, resuming, Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import asset_files as files
import pytest
from processes import QUICK_RAY, children

from data_tools.assets.pool import run_pool
from data_tools.assets.render_task import RenderOptions
from data_tools.assets.run import Report, read_log, render_assets
from data_tools.assets.sources import find_assets, make_tasks
from data_tools.cli import main
from data_tools.readers import open_scene
from nvs_app.errors import NVSError

REPO = Path(__file__).parents[3]
SMALL = ["--views", "2", "--image-hw", "32", "32"]
OPTIONS = RenderOptions(views=2, image_hw=(32, 32))

# Put in front of the workers' path: assets of these names crash, hang or hog, as a driver or a decoder might.
SABOTAGE = """
import os, signal, time
try:
    from data_tools.assets import render_task
except ImportError:
    render_task = None
if render_task is not None:
    load = render_task.load_asset
    def load_asset(task, path):
        if "crash" in path.name or ("once" in path.name and not os.path.exists(str(path) + ".seen")):
            open(str(path) + ".seen", "w").close()
            os.kill(os.getpid(), signal.SIGSEGV)
        while "hang" in path.name:
            pass
        if "hog" in path.name:
            hoard = bytearray(b"x") * (500 << 20)
            time.sleep(60)
        if "slow" in path.name:
            time.sleep(0.1)
        return load(task, path)
    render_task.load_asset = load_asset
"""


def make_assets(folder: Path, count: int, bad: int = 0, name: str = "a") -> list[str]:
    """``count`` files in sub-folders, the first ``bad`` of them broken in different ways; returns the broken keys."""
    broken = []
    for number in range(count):
        path = folder / f"{number % 3:03d}" / f"{name}{number:04d}.glb"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = files.random_glb(number)
        path.write_bytes(files.corrupt(data, number) if number < bad else data)
        if number < bad:
            broken.append(path.relative_to(folder).as_posix())
    return broken


@pytest.fixture
def sabotage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sabotage").mkdir()
    (tmp_path / "sabotage" / "sitecustomize.py").write_text(QUICK_RAY + SABOTAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "sabotage"))


def command(*arguments: Any) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "data_tools", "objaverse", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])},
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(path: Path, count: int, process: subprocess.Popen) -> None:
    """Until the log has ``count`` lines."""
    end = time.monotonic() + 400  # a cluster on a busy machine starts slowly
    while len(path.read_text().splitlines() if path.exists() else []) < count:
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)


def scenes(out: Path) -> dict[str, dict[str, bytes]]:
    """Every file of every scene folder, but the record with its times."""
    return {
        folder.name: {
            str(p.relative_to(folder)): p.read_bytes()
            for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name != "asset.json"
        }
        for folder in sorted(out.iterdir())
        if folder.is_dir()
    }


def check_whole(out: Path, count: int, broken: list[str]) -> None:
    """All assets are rendered once or failed once; each scene folder is whole; nothing else is left."""
    log = lines(out / "log.jsonl")
    per_asset = Counter(line["asset"] for line in log)
    assert set(per_asset.values()) == {1} and len(per_asset) == count
    assert sorted(line["asset"] for line in log if line["status"] == "refused") == sorted(broken)
    assert all(line["error"] for line in log if line["status"] != "rendered")
    folders = scenes(out)
    assert sorted(folders) == sorted(line["scene"] for line in log if line["status"] == "rendered")
    assert all(len(found) == 3 for found in folders.values())  # two views and transforms.json
    assert sorted(p.name for p in out.iterdir() if not p.is_dir()) == [".lock", "log.jsonl", "run.json"]


def test_a_run_and_the_same_with_one_worker(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    broken = make_assets(tmp_path / "in", 12, 4)
    inputs = [str(tmp_path / "in")]
    assert main(["objaverse", *inputs, str(tmp_path / "two"), *SMALL, "--workers", "2"]) == 1
    printed = capsys.readouterr()
    assert "12 assets: 8 rendered, 0 there already, 4 failed" in printed.out and "16 images in" in printed.out
    assert "an empty file" in printed.out and "images/s by " in printed.out
    check_whole(tmp_path / "two", 12, broken)
    report = render_assets(inputs, tmp_path / "one", OPTIONS, workers=1)
    assert (report.rendered, len(report.failed)) == (8, 4)
    assert scenes(tmp_path / "one") == scenes(tmp_path / "two")  # to the last bit
    scene = open_scene(tmp_path / "one" / "001__a0010")
    assert len(scene) == 2 and tuple(scene.load().images.shape) == (2, 3, 32, 32)

    again = render_assets(inputs, tmp_path / "one", OPTIONS)
    assert (again.rendered, again.present, len(again.failed), len(again.failed_before)) == (0, 8, 0, 4)
    retried = render_assets(inputs, tmp_path / "one", OPTIONS, retry_failed=True)
    assert (retried.present, len(retried.failed)) == (8, 4)
    with pytest.raises(NVSError, match="holds scenes with views 2, not 3"):
        render_assets(inputs, tmp_path / "one", RenderOptions(views=3, image_hw=(32, 32)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(NVSError, match="not empty"):
        render_assets(inputs, tmp_path / "full", OPTIONS)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_midway_and_resumed(tmp_path: Path, sabotage: None, how: signal.Signals) -> None:
    broken = make_assets(tmp_path / "in", 12, 3, "slow")
    arguments = (tmp_path / "in", tmp_path / "out", *SMALL, "--workers", "2")
    process = command(*arguments)
    wait_for(tmp_path / "out" / "log.jsonl", 4, process)
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how]
    if how != signal.SIGKILL:
        assert "the same command goes on" in err and "Traceback" not in err
        assert not list((tmp_path / "out").glob(".*.part"))
    assert 4 <= len(lines(tmp_path / "out" / "log.jsonl")) < 12
    # What a kill may leave: a half-written folder, a cut line, a folder that the log lacks.
    (tmp_path / "out" / ".x.123.part" / "images").mkdir(parents=True)
    log = tmp_path / "out" / "log.jsonl"
    log.write_text(log.read_text()[:-20])
    wait_until_free(tmp_path / "out")
    report = render_assets([str(tmp_path / "in")], tmp_path / "out", OPTIONS, workers=2)
    assert report.present + report.rendered == 9 and report.present >= 1 and report.rendered >= 1
    text = log.read_text().splitlines()
    assert sum(not line.endswith("}") for line in text) == 1
    log.write_text("".join(line + "\n" for line in text if line.endswith("}")))
    check_whole(tmp_path / "out", 12, broken)


def wait_until_free(out: Path) -> None:
    """Workers of a killed run are gone (they die with it) when the lock is free and no new file appears."""
    import fcntl

    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_a_crash_costs_one_asset(tmp_path: Path, sabotage: None, monkeypatch: pytest.MonkeyPatch) -> None:
    make_assets(tmp_path / "in", 6)
    for name in ("crash", "once"):
        (tmp_path / "in" / f"{name}.glb").write_bytes(files.plain_glb())
    report = render_assets([str(tmp_path / "in")], tmp_path / "out", OPTIONS, workers=2)
    assert report.rendered == 7
    assert report.failed == {"crash.glb": "the renderer died (SIGSEGV), 2 times"}
    statuses = {line["asset"]: line["status"] for line in lines(tmp_path / "out" / "log.jsonl")}
    assert (statuses["once.glb"], statuses["crash.glb"]) == ("rendered", "died")
    # Not the asset's own fault, for all we know: another run tries again.
    monkeypatch.delenv("PYTHONPATH")
    again = render_assets([str(tmp_path / "in")], tmp_path / "out", OPTIONS, workers=1)
    assert (again.present, again.rendered) == (7, 1)


@pytest.mark.parametrize(
    ("name", "timeout", "status", "error"),
    [
        ("hang", 1.0, "timeout", "took longer than 1 s"),
        ("hog", 60.0, "died", "took more than 0.4 GiB of memory"),
    ],
)
def test_hangs_and_hogs(tmp_path: Path, sabotage: None, name: str, timeout: float, status: str, error: str) -> None:
    (tmp_path / f"{name}.glb").write_bytes(files.plain_glb())
    tasks = make_tasks(find_assets([str(tmp_path / f"{name}.glb")], tmp_path), tmp_path / "o", OPTIONS)
    (answer,) = run_pool(tasks, (32, 32), 1, timeout, max_memory=400 << 20)
    assert (answer["status"], answer["error"]) == (status, error)


def test_only_one_run_in_a_folder(tmp_path: Path) -> None:
    import fcntl

    make_assets(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NVSError, match="another run"):
            render_assets([str(tmp_path / "in")], tmp_path / "out", OPTIONS)


def test_no_opengl_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    make_assets(tmp_path / "in", 2)
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "moderngl.py").write_text("def create_context(**k): raise Exception('libEGL.so: none')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    assert main(["objaverse", str(tmp_path / "in"), str(tmp_path / "out"), *SMALL]) == 2
    error = capsys.readouterr().err
    assert "no OpenGL 3.3 through EGL (libEGL.so: none)" in error and "apt-get install libegl1" in error
    assert not lines(tmp_path / "out" / "log.jsonl")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_forty_assets_on_ray_with_a_worker_killed(tmp_path: Path, sabotage: None) -> None:
    """A cluster of two workers; one is killed while it renders: nothing lost, nothing twice."""
    pytest.importorskip("ray")
    broken = make_assets(tmp_path / "in", 40, 2, "slow")
    process = command(tmp_path / "in", tmp_path / "out", *SMALL, "--workers", "2", "--ray", "local")
    wait_for(tmp_path / "out" / "log.jsonl", 6, process)
    workers = children(process.pid, "ray::render_task")
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 1, err
    assert "40 assets: 38 rendered, 0 there already, 2 failed" in out
    check_whole(tmp_path / "out", 40, broken)


def test_ray_address_where_nobody_is(tmp_path: Path) -> None:
    make_assets(tmp_path / "in", 1)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"):
        with pytest.raises(NVSError, match="no cluster there"):
            render_assets([str(tmp_path / "in")], tmp_path / "out", OPTIONS, ray=address)


def test_log_with_cut_lines(tmp_path: Path) -> None:
    text = '{"asset": "a", "status": "refused"}\n{"asset": "b", "st\n[]\n{"asset": "a", "status": "x"}\n'
    (tmp_path / "log").write_text(text)
    assert read_log(tmp_path / "log") == {"a": {"asset": "a", "status": "x"}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--views", "0"], "--views"),
        (["--fov", "200"], "--fov"),
        (["--fov", "1", "2", "3"], "--fov"),
        (["--distance", "3", "2"], "--distance"),
        (["--distance", "0.5", "2"], "--distance"),
        (["--image-hw", "4", "4"], "--image-hw"),
        (["--workers", "0"], "--workers"),
        (["--timeout", "0"], "--timeout"),
    ],
)
def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], words: str) -> None:
    make_assets(tmp_path / "in", 1)
    assert main(["objaverse", str(tmp_path / "in"), str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_the_summary_counts_kinds_and_keeps_numbers() -> None:
    failed = {"a": "glTF version 1, only 2", "b": "glTF version 1, only 2", "c": "17 bytes", "d": "4 bytes"}
    lines = Report(total=9, failed=failed, notes=["normal map left out: texture 3 has no image"]).lines()
    assert lines[2:] == [
        "      2  glTF version 1, only 2",
        "      2  17 bytes (and other numbers)",
        "      1  noted: normal map left out: texture 3 has no image",
    ]
