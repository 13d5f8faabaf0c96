"""The benchmark of the viewer, with a tiny network: what it counts, and that it fails when a frame is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nvs_app.cli import main


def benchmark(*words: str) -> int:
    """Runs the command in a thread of its own: Playwright's event loop may live on in this one after other tests."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(main, ["benchmark-web", "--device", "cpu", *words]).result()


def test_it_drags_alone_and_in_company(
    checkpoints: Path, small_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--scene", str(small_scene), "--sizes", "64", "--frames", "5", "--visitors", "3", "--seconds", "4"]
    words += ["--visitor-size", "32", "--json", str(tmp_path / "figures.json")]
    assert benchmark("--checkpoint", str(checkpoints / "tiny"), *words) == 0
    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    alone, crowd = figures["64x64"], figures["visitors"]
    assert all(0 <= alone[f"{part}_ms"] < alone["total_ms"] for part in ("wait", "model", "pack", "line", "decode"))
    assert 0 < alone["model_ms"] < alone["total_ms"] <= alone["total_p95_ms"] and alone["rest_ms"] > 0
    assert crowd["errors"] == 0 and crowd["least"] > 0 and crowd["frames"] >= 3 * crowd["least"]
    assert "0 errors" in capsys.readouterr().out


def test_a_refused_frame_is_an_error(checkpoints: Path, small_scene: Path) -> None:
    words = ["--scene", str(small_scene), "--sizes", "64", "--frames", "1", "--visitors", "1", "--seconds", "1"]
    words += ["--visitor-size", "4096"]
    assert benchmark("--checkpoint", str(checkpoints / "tiny"), *words) == 1
