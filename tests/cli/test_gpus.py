"""`eval --gpus 2` and `render --gpus 2`, which start a second process (on a CPU, as on GPUs): what one process does."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_scenes import caller, cli, figures, images, write_scenes


@pytest.mark.timeout(900)  # of a busy machine: torch is imported four times
def test_two_processes_measure_and_render_what_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scenes(tmp_path)
    here = caller(tmp_path, capsys, monkeypatch)
    scenes = [tmp_path / name for name in ("one", "two", "broken")]

    words = ("eval", *scenes, "--context", 3, "--image-hw", 32, 32, "--device", "cpu", "--json")
    here(*words, tmp_path / "one.json", code=2)  # 2: a scene cannot be read
    out, err = cli(tmp_path, *words, tmp_path / "two.json", "--gpus", 2, code=2)
    assert out.count("overall") == 1 and err.count("error: ") == 1, "the first process alone reports"
    one, two = (figures(tmp_path / name) for name in ("one.json", "two.json"))
    assert two == one and two["order"] == ["one", "two"] and list(two["failed"]) == ["broken"]

    words = ("render", *scenes, "--frames", 2, "--context", 3, "--device", "cpu", "--out")
    here(*words, tmp_path / "alone", code=2)
    _, err = cli(tmp_path, *words, tmp_path / "both", "--gpus", 2, code=2)
    assert err.count("error: ") == 1 and "error: broken: " in err
    alone, both = (images(tmp_path / folder) for folder in ("alone", "both"))
    assert len(alone) == 4 and both == alone
