"""Stand-ins for the trainer's tests: a procedural generator that costs nothing, a tiny scene folder, a tiny run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from image_scenes import image_scene

from nvs_app.distributed import StopSignals, World
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.scenes.posed import PosedImages
from nvs_app.training.config import TrainConfig
from nvs_app.training.config_file import dotted, make_config
from nvs_app.training.trainer import Trainer

TINY_MODEL = {"dim": "32", "blocks": "2", "attention_head_dim": "16", "rotary": "fast"}


def circle(n: int, radius: float = 2.0) -> torch.Tensor:
    """c2w of n cameras on a circle around the origin, looking at it: [n, 4, 4]."""
    angle = torch.arange(n) / n * 2 * math.pi
    eye = torch.stack([radius * angle.cos(), radius * angle.sin(), 0.5 + 0.2 * (3 * angle).sin()], -1)
    return look_at(eye, torch.zeros(n, 3), torch.tensor([0.0, 0.0, 1.0]).expand(n, 3))


def fake_procedural(indices: list[int], num_views: int, image_hw: tuple[int, int]) -> PosedImages:
    """Images whose colours depend on the scene's index and the camera; uint8."""
    height, width = image_hw
    c2w = circle(num_views).expand(len(indices), -1, -1, -1)
    intrinsics = torch.tensor([width, width, width / 2, height / 2], dtype=torch.float32)
    tint = torch.stack([torch.rand(3, generator=torch.Generator().manual_seed(i)) for i in indices])
    ramp = torch.linspace(0, 1, width)[None, :].expand(height, width)
    side = 0.5 + 0.25 * c2w[..., 0, 3]
    images = 0.5 * tint[:, None, :, None, None] + 0.25 * ramp + 0.12 * side[..., None, None, None]
    return PosedImages(
        (images.clamp(0, 1) * 255).to(torch.uint8),
        Cameras(c2w.contiguous(), intrinsics.expand(len(indices), num_views, 4).contiguous(), image_hw),
    )


def make_scene(folder: Path, views: int = 14, side: int = 16) -> Path:
    """A scene folder on disk whose images `fake_procedural` drew."""
    posed = fake_procedural([3], views, (side, side))
    images = list(posed.images[0].permute(0, 2, 3, 1).numpy())
    lens = (float(side), float(side), side / 2, side / 2)
    hidden = folder.with_name(folder.name + "_images")
    return image_scene(hidden, images, posed.cameras.c2w[0], lens, folder.name).save(folder)


def tiny_config(out: Path, **changes: Any) -> TrainConfig:
    """A run of some milliseconds a step; groups of options as dictionaries, which are merged into the tiny run's."""
    options: dict[str, Any] = {
        "out": out,
        "steps": 6,
        "device": "cpu",
        "gpus": 1,
        "model.config_override": TINY_MODEL,
        "views.resolutions": [(16, 16, 0)],
        "views.counts": [(4, 4, 1), (2, 6, 1)],
        "views.scenes": {"16": 4},
        "data.pool": 1,
        "data.pool_views": 10,
        "data.generate": 4,
        "data.reuse": 2.0,
        "schedule.warmup_steps": 3,
        "evaluation.procedural": 0,
        "output.export": "float32",
        "output.log_every": 1,
        "output.tensorboard": False,
    }
    return make_config(options | dotted(changes))


def train_three_steps(config: TrainConfig) -> dict[str, Any]:
    """A run that a signal stops after its third step; its summary."""
    signals = StopSignals()
    trainer = Trainer(config, World("cpu"), signals)
    step = trainer.train_step

    def stop_after_three(progress: float) -> None:
        step(progress)
        if trainer.step == 3:
            signals.received = "SIGTERM"

    trainer.train_step = stop_after_three  # type: ignore[method-assign]
    return trainer.train()


def records(out: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The records of one kind in a run's log."""
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]
