"""Files that a version before the detail head wrote are read, and render as they did then (tests/golden/README.md)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.readers import open_scene
from nvs_app.cli import main
from nvs_app.model.checkpoint import load_checkpoint
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.images import to_uint8

OLD = Path(__file__).parent / "golden" / "before_detail_head"


def test_a_checkpoint_and_a_state_render_as_they_did() -> None:
    """The checkpoint's configuration has its names of then: key_length, patch_values, fast_start."""
    config = load_checkpoint(OLD / "checkpoint").config
    assert (config.qk_scale, config.value_patch_skip, config.share_initial_weights) == (2.0, True, True)
    scene = open_scene(Path(__file__).parent.parent / "examples" / "object_chair")
    renderer = Renderer.from_checkpoint(OLD / "checkpoint", "cpu", "fp32")
    then = np.asarray(Image.open(OLD / "image.png")).astype(int)
    images = renderer.render(SceneState.load(OLD / "state.safetensors"), scene.cameras([0], (32, 32)))
    assert then.std() > 5 and np.abs(to_uint8(images)[0].numpy().astype(int) - then).max() <= 1


def test_a_report_is_shown_and_compared(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It says "grids" and "mended", which are no more."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(OLD / "report.json", tmp_path / name)
    assert main(["report", str(tmp_path / "one")]) == 0
    assert "object_chair" in capfd.readouterr().out
    assert main(["report", "--compare", str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert capfd.readouterr().out
