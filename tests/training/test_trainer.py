"""Training end to end, at a size that takes seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from train_fakes import TINY_MODEL, fake_procedural, make_scene, records, tiny_config, train_three_steps

from nvs_app.distributed import StopSignals, World, free_port
from nvs_app.errors import NVSError
from nvs_app.model.checkpoint import load_checkpoint
from nvs_app.training import sources
from nvs_app.training import trainer as train
from nvs_app.training.config import TrainConfig
from nvs_app.training.config_file import write_options
from nvs_app.training.state import find_state, state_path
from nvs_app.training.trainer import Trainer

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]


@pytest.fixture(autouse=True)
def cheap_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sources, train):
        monkeypatch.setattr(module, "make_procedural", lambda plan, device, seed: fake_procedural)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (REPO, HERE, HERE.parent)))}


def start(config: TrainConfig) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nvs_app", "train", "--config", str(write_options(config))],
        cwd=REPO,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_loss_falls_and_the_checkpoint_loads(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "held_out")
    shown = make_scene(tmp_path / "shown")
    config = tiny_config(
        tmp_path / "run",
        steps=30,
        optimizer={"muon_lr": 1e-2, "adam_lr": 1e-2, "ema": 0.9},
        output={"log_every": 5},
        data={"sources": {str(shown): 1, "procedural": 0.001}},
        evaluation={"scenes": [scene], "context": 4, "procedural": 3},
    )
    summary = train.run(config)
    losses = [record["loss"] for record in records(config.out)]
    assert losses[-1] < 0.6 * losses[0]
    assert summary["steps"] == 30 and summary["stopped_by"] == "steps"
    assert set(summary["held_out_psnr"]["16x16"]) == {"held_out", "mean", "procedural"}
    model = load_checkpoint(config.out / "checkpoint")
    assert model.card["normalization"] == "auto" and model.card["train_image_hw"] == [16, 16]
    assert str(tmp_path) not in (config.out / "checkpoint" / "config.json").read_text()
    # A new run from these weights starts where this one ended, also with patches that v sees.
    for name, change in (("warm", {}), ("patches", {"value_patch_skip": "true"})):
        start_from = {"init": str(config.out / "checkpoint"), "config_override": change}
        warm = tiny_config(tmp_path / name, steps=1, model=start_from, data={"sources": {str(shown): 1}})
        train.run(warm)
        assert records(warm.out)[0]["loss"] < 0.6 * losses[0]
        assert load_checkpoint(warm.out / "checkpoint").config.value_patch_skip == bool(change)


def test_resume_continues_exactly(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene")
    options: dict[str, Any] = {
        "steps": 6,
        "data": {"sources": {"procedural": 2, str(scene): 1}},
        "views": {"resolutions": [(16, 16, 0), (24, 24, 0.6)], "scenes": {"16": 4, "24": 3}},
    }
    whole = tiny_config(tmp_path / "whole", **options)
    train.run(whole)
    parts = tiny_config(tmp_path / "parts", **options)
    assert train_three_steps(parts)["stopped_by"] == "SIGTERM"
    train.run(parts)
    first, second = records(whole.out), records(parts.out)
    assert [r["step"] for r in second] == [1, 2, 3, 4, 5, 6]
    for name in ("loss", "psnr", "grad_norm", "lr", "image_hw"):
        assert [r[name] for r in first] == [r[name] for r in second], name
    one, two = (torch.load(state_path(c.out), weights_only=True)["tensors"] for c in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_state_of_another_network_is_refused(tmp_path: Path) -> None:
    train.run(tiny_config(tmp_path, steps=1))
    other = {"config_override": TINY_MODEL | {"mlp_multiplier": "2"}}
    with pytest.raises(NVSError, match="another network"):
        train.run(tiny_config(tmp_path, steps=2, model=other))
    train.run(tiny_config(tmp_path, steps=2, model=other, resume="never"))
    state_path(tmp_path).write_bytes(b"half a file")
    with pytest.raises(NVSError, match="unreadable training state"):
        train.run(tiny_config(tmp_path, steps=3, model=other))
    assert find_state(tmp_path / "elsewhere") is None
    with pytest.raises(NVSError, match="--resume always"):
        train.run(tiny_config(tmp_path / "elsewhere", resume="always"))


def test_options_of_the_step(tmp_path: Path) -> None:
    """Activation checkpointing changes nothing but memory; bf16 runs on a CPU too."""
    plain = train.run(tiny_config(tmp_path / "a", steps=2))
    saved = train.run(tiny_config(tmp_path / "b", steps=2, model={"checkpointing": True}))
    assert plain["train_psnr"] == pytest.approx(saved["train_psnr"], abs=1e-4)
    changes = {"model": {"precision": "bf16"}, "loss": {"perceptual": 0.0}, "output": {"state": False}}
    half = train.run(tiny_config(tmp_path / "c", steps=2, **changes))
    assert half["train_psnr"] == pytest.approx(plain["train_psnr"], abs=0.3)
    assert find_state(tmp_path / "c") is None


def test_a_detail_head_is_trained_alone(tmp_path: Path) -> None:
    head = TINY_MODEL | {"detail_head": "features:8+groups:4+guide:16+volume:4+blend:8"}
    changes = {
        "model": {"config_override": head},
        "detail": {"lact_lr": 0.0},
        "loss": {"perceptual": 0.0},
        "views": {"resolutions": [(32, 32, 0)], "scenes": {"32": 1}},
    }
    trainer = Trainer(tiny_config(tmp_path / "head", **changes), World("cpu"), StopSignals())
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train_step(0.0)
    trainer.train_step(0.5)
    for model in (trainer.model, trainer.average_model):
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert changed and all(name.startswith("detail_head.") for name in changed)
    with pytest.raises(NVSError, match="no detail head"):
        train.run(tiny_config(tmp_path / "none", detail={"lact_lr": 0.5}))


class HostWaits(TorchDispatchMode):
    """Collects operations that would make the host wait for a GPU: reading a scalar, tensors from Python lists."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func)
        if (
            "_local_scalar_dense" in name
            or "nonzero" in name
            or ("lift_fresh" in name and isinstance(result, torch.Tensor) and result.dim() > 0)
        ):
            self.found.append(name)
        return result


def test_a_step_does_not_wait_for_the_device(tmp_path: Path) -> None:
    trainer = Trainer(
        tiny_config(tmp_path, output={"log_every": 100}, data={"reuse": 1000.0}), World("cpu"), StopSignals()
    )
    trainer.train_step(0.0)
    with HostWaits() as waits:
        trainer.train_step(0.1)
    # One: the uniform number that draws the view counts, made on the host.
    assert len(waits.found) == 1, waits.found


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Averaged gradients of two halves of a batch are those of the whole batch."""
    import two_processes

    config = tiny_config(tmp_path / "run", steps=3, loss={"perceptual": 0.0})
    children, port = [], str(free_port())
    for rank in range(2):
        variables = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        command = [sys.executable, str(HERE / "two_processes.py"), str(config.out), str(tmp_path / "weights.pt")]
        children.append(subprocess.Popen(command, cwd=REPO, env=environment() | variables))
    alone = two_processes.train_steps(config, World("cpu"))
    assert [child.wait(120) for child in children] == [0, 0]
    together = torch.load(tmp_path / "weights.pt", weights_only=True)
    moved = (alone - Trainer(config, World("cpu"), StopSignals()).flat.data).norm()
    assert (together - alone).norm() < 2e-3 * moved


@pytest.mark.slow
def test_minutes_end_with_a_checkpoint(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene")
    config = tiny_config(
        tmp_path / "run",
        steps=0,
        minutes=0.25,
        data={"sources": {str(scene): 1}},
        evaluation={"scenes": [scene], "context": 4},
        output={"log_every": 20},
    )
    child = start(config)
    output, errors = child.communicate(timeout=100)
    assert child.returncode == 0, errors
    summary = json.loads(output.strip().splitlines()[-1])
    assert summary["stopped_by"] == "minutes"
    assert load_checkpoint(config.out / "checkpoint").card["steps"] == summary["steps"]


def test_signal_saves(tmp_path: Path) -> None:
    """Two processes started by the command itself; SIGTERM to the first ends both with a saved state."""
    scene = make_scene(tmp_path / "scene")
    config = tiny_config(tmp_path / "run", steps=100_000, data={"sources": {str(scene): 1}}, gpus=2)
    child = start(config)
    deadline = time.monotonic() + 60
    log = config.out / "train.jsonl"
    while time.monotonic() < deadline and not (log.exists() and len(records(config.out)) > 1):
        time.sleep(0.1)  # two steps: there is something to save
    child.send_signal(signal.SIGTERM)
    output, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    summary = json.loads(output.strip().splitlines()[-1])
    assert summary["stopped_by"] == "SIGTERM"
    assert load_checkpoint(config.out / "checkpoint").card["steps"] == summary["steps"] > 0
    assert state_path(config.out).is_file()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_ends_it_at_once(tmp_path: Path, how: signal.Signals) -> None:
    """Drawing a thousand scenes on a CPU takes minutes, in which there is nothing to save."""
    config = tiny_config(
        tmp_path / "run",
        views={"resolutions": [(64, 64, 0)], "scenes": {"64": 4}},
        data={"pool": 4096, "generate": 64},
    )
    child = start(config)
    assert child.stdout is not None
    assert "M parameters" in child.stdout.readline()  # what follows is the drawing
    child.send_signal(how)
    output, errors = child.communicate(timeout=60)
    assert child.returncode == 128 + how and "first step" not in output, errors
    assert "Traceback" not in errors and not (config.out / "checkpoint").exists()


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", data={"sources": {str(tmp_path / "nothing"): 1}})
    child = start(config)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 2
    assert errors.startswith("error: --data") and len(errors.strip().splitlines()) == 1
