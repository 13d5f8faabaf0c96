"""`eval` of several scenes in the processes of torchrun: the figures of one process, to the last digit."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_scenes import caller, figures, start, write_scenes

from nvs_app.distributed import free_port


def test_two_processes_report_what_one_does(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scenes(tmp_path)
    here = caller(tmp_path, capsys, monkeypatch)
    scenes = [tmp_path / name for name in ("one", "two", "broken")]
    words = ("eval", *scenes, "--context", 3, "--image-hw", 32, 32, "--device", "cpu", "--precision", "fp32", "--json")
    here(*words, tmp_path / "alone.json", code=2)  # 2: a scene cannot be read

    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in shared.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "1")
    other = start(tmp_path, *words, tmp_path / "other.json")
    monkeypatch.setenv("RANK", "0")
    out, err = here(*words, tmp_path / "both.json", code=2)
    said, _ = other.communicate(timeout=400)
    assert other.returncode == 0 and said == "", "the second process reports nothing"
    assert "one" in out and "two" in out and "broken" in err
    assert not (tmp_path / "other.json").exists()

    alone, both = (figures(tmp_path / name) for name in ("alone.json", "both.json"))
    assert both == alone and both["order"] == ["one", "two"] and list(both["failed"]) == ["broken"]
