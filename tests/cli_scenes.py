"""For the tests of the command line: small scenes, tiny checkpoints, and child processes that run commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from camera_rings import ring_c2w
from image_scenes import image_scene, noise

from nvs_app.cli import main
from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.config import PRESETS, LaCTConfig
from nvs_app.model.detail import DetailHeadConfig
from nvs_app.model.lact import LaCT

REPO = Path(__file__).resolve().parent.parent
HEAD = DetailHeadConfig(features=8, groups=4, guide=16, volume=4, blend=8, planes=4, fine_planes=3)
WITH_HEAD = LaCTConfig(dim=32, blocks=2, attention_head_dim=16, detail_head=HEAD)


def write_scenes(folder: Path) -> None:
    """Two small scenes, a broken one, and two tiny checkpoints of random weights: one with a detail head."""
    torch.manual_seed(0)
    card = {"normalization": "auto", "train_image_hw": [32, 32], "lact_resolution": {"least": 16}}
    config = PRESETS["tiny"]
    card["default"] = True
    save_checkpoint(folder / "checkpoints" / "tiny", LaCT(config).state_dict(), config, card)
    card["default"] = False
    model = LaCT(WITH_HEAD)
    with torch.no_grad():  # what begins at zero is moved away from it, so that images are not all grey
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    save_checkpoint(folder / "checkpoints" / "detailed", model.state_dict(), WITH_HEAD, card)
    for first, name in enumerate(("one", "two")):
        photos, lens = folder / "photos" / name, (50.0, 50.0, 24.0, 18.0)
        image_scene(photos, noise(12, (36, 48))[first::2], ring_c2w(6, step=1.0), lens).save(folder / name)
    (folder / "broken").mkdir()
    (folder / "broken" / "transforms.json").write_text('{"frames": [{"file_path": "a.png"}]}')


def start(folder: Path, *words: object) -> subprocess.Popen:
    """A command in a child process that knows these checkpoints only."""
    environment = {**os.environ, "NVS_CHECKPOINTS": str(folder / "checkpoints"), "OMP_NUM_THREADS": "1"}
    environment.pop("NVS_LPIPS_WEIGHTS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "nvs_app", *map(str, words)],
        cwd=REPO,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def cli(folder: Path, *words: object, code: int = 0) -> tuple[str, str]:
    """Runs a command to its end, and expects this exit code; what it printed."""
    child = start(folder, *words)
    out, err = child.communicate(timeout=400)  # it ends by itself; the machine may be busy
    assert child.returncode == code, f"exit {child.returncode}\n{out}\n{err}"
    assert "Traceback" not in err
    return out, err


def images(folder: Path) -> dict[str, bytes]:
    """The images below a folder, by their path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def figures(report: Path) -> dict[str, Any]:
    """What reports of `eval` of the same scenes must agree in to the digit; times are not of it."""
    values = json.loads(report.read_text())
    names = ("psnr", "ssim", "sharpness", "views", "baselines", "context", "target")
    scenes = {name: {key: scene[key] for key in names} for name, scene in values["scenes"].items()}
    return {"order": list(scenes), "scenes": scenes, "overall": values["overall"], "failed": values["failed"]}


def caller(folder: Path, capsys, monkeypatch) -> Callable[..., tuple[str, str]]:
    """As `cli`, but in this process: a child spends two seconds on importing torch."""
    monkeypatch.setenv("NVS_CHECKPOINTS", str(folder / "checkpoints"))
    monkeypatch.delenv("NVS_LPIPS_WEIGHTS", raising=False)

    def run(*words: object, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        try:
            found = main([str(word) for word in words])
        except SystemExit as exit_:  # argparse ends the process itself
            found = exit_.code
        out, err = capsys.readouterr()
        assert found == code, f"exit {found}\n{out}\n{err}"
        return out, err

    return run
