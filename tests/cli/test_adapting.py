"""`--adapt` on the command line: kept in the scene file, held-out views unseen, Ctrl-C keeps the best."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from cli_scenes import start

from nvs_app.model.state import SceneState


def test_render_adapts_once_and_the_file_keeps_it(folder: Path, here, tmp_path: Path) -> None:
    file = tmp_path / "scene.safetensors"
    words = ("--checkpoint", "detailed", "--frames", 1, "--image-hw", 32, 32, "--state", file)
    here("render", folder / "one", *words, "--context", 5, "--out", tmp_path / "plain")
    assert "adapted" not in SceneState.load(file).meta
    # The photos that the file holds are enough.
    _, err = here("render", *words, "--adapt", 1.5, "--out", tmp_path / "sharp")
    assert "adapted in" in err or "not adapted" in err
    facts = json.loads(SceneState.load(file).meta["adapted"])
    assert facts["asked"] == 1.5 and facts["stopping_views"] == [2] and facts["steps"] > 0
    out, err = here("render", *words, "--adapt", 1.5, "--out", tmp_path / "sharp")
    assert "by the same command; skipped" in out
    _, err = here("render", *words, "--adapt", 1.5, "--out", tmp_path / "again")
    assert "adapting" not in err  # the file was adapted for as long before
    _, err = here("render", *words, "--out", tmp_path / "plain", code=2)
    assert "adapted; use another folder" in err


def test_eval_reports_what_adapting_did(folder: Path, here, tmp_path: Path) -> None:
    report = tmp_path / "eval.json"
    here("eval", folder / "one", "--context", 4, "--image-hw", 32, 32, "--adapt", 0.5, "--json", report)
    scene = json.loads(report.read_text())["scenes"]["one"]
    adapted = scene["adapted"]
    assert adapted["psnr_after"] >= adapted["psnr_before"]
    gain = (adapted["psnr_after"] - adapted["psnr_before"]) / adapted["seconds"]
    assert adapted["gain_per_second"] == pytest.approx(gain, abs=0.01)
    assert len(scene["views"]) == 2 and len(scene["context"]) == 4
    _, err = here("eval", folder / "one", "--context", 3, "--image-hw", 32, 32, "--adapt", 0.5, code=2)
    assert "3 input views, expected 4 or more" in err
    _, err = here("eval", "--benchmark", "procedural", "--adapt", 5, code=2)
    assert "--adapt 5: of scenes, not of a benchmark" in err


def test_an_interrupt_keeps_the_best_and_goes_on(folder: Path, tmp_path: Path) -> None:
    words = ("--context", 5, "--frames", 1, "--image-hw", 32, 32, "--adapt", 600, "--out", tmp_path / "out")
    child = start(folder, "render", folder / "one", *words)
    assert child.stderr is not None
    for line in child.stderr:
        if "adapting, 600 s at most" in line:
            child.send_signal(signal.SIGINT)
            break
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert "adapted" in err and "in 600 s" not in err
    assert "1 images" in out and (tmp_path / "out" / "00000.png").is_file()
