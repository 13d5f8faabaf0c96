"""examples/notebook_style.py runs as it stands, on a tiny checkpoint and a small scene."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT


def test_the_notebook_runs(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = LaCT(PRESETS["tiny"])
    save_checkpoint(tmp_path / "checkpoints" / "tiny", model.state_dict(), PRESETS["tiny"], {"name": "tiny"})
    monkeypatch.setenv("NVS_CHECKPOINTS", str(tmp_path / "checkpoints"))
    code = (repo / "examples" / "notebook_style.py").read_text("utf-8")
    sizes = "VIEWS, SIZE, FRAMES = 8, (256, 256), 12"
    assert code.count("\n# %% ") == 7 and sizes in code
    code = code.replace(sizes, "VIEWS, SIZE, FRAMES = 3, (32, 32), 3")
    scene, out = repo / "examples" / "object_chair", tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["notebook_style.py", str(scene), str(out)])
    exec(compile(code, "notebook_style.py", "exec"), {"__name__": "__main__"})
    assert {"00000.png", "scene.safetensors", "orbit.mp4"} <= {path.name for path in out.iterdir()}
    printed = capsys.readouterr().out
    assert " dB" in printed and "a difference of 0.0" in printed
