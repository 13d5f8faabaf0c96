"""What a training run gives: held-out figures, saved states, the exported checkpoint, the summary.

OUT/train.jsonl    log                  OUT/NAME/       the weight average as a checkpoint
OUT/state.pt       to resume            OUT/train.json      the options
OUT/tensorboard
"""

from __future__ import annotations

import itertools
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nvs_app.distributed import World
from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.lact import LaCT
from nvs_app.rendering.device import device_name
from nvs_app.rendering.plan import LaCTResolution
from nvs_app.rendering.renderer import Renderer
from nvs_app.training.config import TrainConfig
from nvs_app.training.config_file import plain
from nvs_app.training.held_out import HeldOut
from nvs_app.training.log import TrainLog
from nvs_app.training.optim import FlatParameters
from nvs_app.training.schedule import TrainingClock
from nvs_app.training.state import save_state

FIRST_SAVE_SECONDS = 30.0  # an early save measures how long one takes, and a killed run leaves something


@dataclass(frozen=True)
class Counters:
    """Where a run stands: steps and tokens (all processes together) so far, processes in a row, progress."""

    step: int
    tokens: int
    processes: int
    progress: float


@dataclass(eq=False)
class RunOutput:
    """Evaluates, saves and ends a run. Its methods may be called by every process; only process 0 acts."""

    config: TrainConfig
    world: World
    clock: TrainingClock
    log: TrainLog
    held_out: HeldOut | None
    average_model: LaCT
    flat: FlatParameters
    tensors: dict[str, Tensor]
    precision: str

    def __post_init__(self) -> None:
        self.figures: dict[str, dict[str, float]] = {}  # held-out PSNR by size and scene
        self.spent = 0.0  # seconds of evaluations and saves since the first step
        self.next_eval = self.next_save = math.inf

    def say(self, text: str) -> None:
        print(f"[{self.clock.age():6.1f}s] {text}", flush=True)

    def start(self) -> None:
        """The first step is done: evaluations and saves are due from now on."""
        now = self.clock.age()
        self.next_eval = now + self._every(self.config.evaluation.minutes)
        self.next_save = now + min(FIRST_SAVE_SECONDS, self._every(self.config.output.save_minutes))

    @staticmethod
    def _every(minutes: float) -> float:
        return 60 * minutes if minutes else math.inf

    def due(self) -> tuple[bool, bool]:
        """(time to evaluate, time to save)."""
        now = self.clock.age()
        return now >= self.next_eval, now >= self.next_save

    def _took(self, began: float) -> float:
        seconds = time.perf_counter() - began
        self.log.exclude(seconds)
        self.spent += seconds
        return seconds

    def evaluate(self, counters: Counters, sizes: list[tuple[int, int]]) -> None:
        """Held-out PSNR of the weight average at the given sizes (height, width)."""
        if self.world.is_main and self.held_out:
            began = time.perf_counter()
            scales = dict.fromkeys(self.config.detail.lact_scales) if self.average_model.detail_head else [1.0]
            for image_hw, scale in itertools.product(dict.fromkeys(sizes), scales):
                lact = LaCTResolution.exactly(scale)
                renderer = Renderer(self.average_model, self.world.device, self.precision, lact=lact)
                figures = self.held_out.evaluate(renderer, image_hw)
                name = "x".join(map(str, image_hw)) + ("" if scale == 1 else f" LaCT x{scale:g}")
                self.figures[name] = figures
                text = "  ".join(f"{name} {value:.2f}" for name, value in figures.items())
                self.say(f"held out at {name}, step {counters.step}: PSNR {text}")
                record = {
                    "step": counters.step,
                    "image_hw": list(image_hw),
                    "lact_scale": scale,
                    "elapsed": self.clock.wall(),
                }
                self.log.write("eval", {**record, **{f"psnr {name}": value for name, value in figures.items()}})
            self.clock.evaluating = max(self.clock.evaluating, self._took(began))
        self.next_eval = self.clock.age() + self._every(self.config.evaluation.minutes)

    def save(self, counters: Counters) -> None:
        """Export the weight average and write the state."""
        if self.world.is_main:
            began = time.perf_counter()
            self.config.out.mkdir(parents=True, exist_ok=True)
            self.export(counters)
            if self.config.output.state:
                saved = {
                    "step": counters.step,
                    "tokens": counters.tokens,
                    "processes": counters.processes,
                    "wall": self.clock.wall(),
                    "trained": self.clock.trained(),
                }
                save_state(self.config.out, self.average_model.config, self.flat, self.tensors, saved)
            seconds = self._took(began)
            self.clock.saving = max(self.clock.saving, seconds)
            self.say(f"saved step {counters.step} in {seconds:.1f} s")
        self.next_save = self.clock.age() + self._every(self.config.output.save_minutes)

    def export(self, counters: Counters) -> None:
        """Write the weight average as a checkpoint to OUT/NAME."""
        save_checkpoint(
            self.config.out / self.config.name,
            self.average_model.state_dict(),
            self.average_model.config,
            self.card(counters),
            dtype=self.config.output.export,
        )

    def sizes_reached(self, counters: Counters) -> list[tuple[int, int]]:
        """Sizes (height, width) that the run has trained at so far."""
        return list(dict.fromkeys(s.image_hw for s in self.config.stages if s.begins <= counters.progress))

    def card(self, counters: Counters) -> dict[str, Any]:
        """What the checkpoint says of itself; paths by their last part only."""
        options = plain(self.config)
        options["out"] = self.config.out.name
        options["model"]["init"] = Path(self.config.model.init).name
        options["data"]["sources"] = {Path(name).name: share for name, share in self.config.plan.shares.items()}
        options["evaluation"]["scenes"] = [path.name for path in self.config.evaluation.scenes]
        for group, name in (("data", "assets"), ("loss", "lpips_file")):
            if options[group][name]:
                options[group][name] = Path(options[group][name]).name
        sizes = [list(image_hw) for image_hw in self.sizes_reached(counters)]
        return {
            "normalization": "auto",
            "train_image_hw": sizes[-1],
            "trained_image_hws": sizes,
            "steps": counters.step,
            "tokens": counters.tokens,
            "train_seconds": round(self.clock.trained(), 1),
            "wall_seconds": round(self.clock.wall(), 1),
            "device": f"{self.world.size} x {device_name(self.world.device)}",
            "parameters": sum(parameter.numel() for parameter in self.average_model.parameters()),
            "held_out_psnr": self.figures,
            "options": options,
        }

    def finish(self, counters: Counters, stop: str, changed: bool, measured: dict[str, Any]) -> dict[str, Any]:
        """Save, evaluate when there is time, write the figures into the checkpoint, print the summary.

        changed: whether there is anything new to save; measured: figures of the loop for the summary.
        """
        train_seconds = self.clock.trained()
        if changed or not (self.config.out / self.config.name / "config.json").exists():
            self.save(counters)  # first of all: whatever comes after may be cut short
        if stop in ("steps", "minutes") and self.clock.left() > 1.2 * self.clock.evaluating + self.clock.saving:
            self.evaluate(counters, self.sizes_reached(counters))
            if self.world.is_main and changed and self.clock.left() > 1.5 * self.clock.saving:
                self.export(counters)
        cuda = self.world.device.type == "cuda"
        summary: dict[str, Any] = {
            "stopped_by": stop,
            "steps": counters.step,
            "tokens": counters.tokens,
            "seconds": round(self.clock.wall(), 1),
            "train_seconds": round(train_seconds, 1),
            **measured,
            "held_out_psnr": self.figures,
            "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
            "checkpoint": str(self.config.out / self.config.name),
        }
        self.log.write("summary", {"step": counters.step, **summary})
        self.log.close()
        if self.world.is_main:
            print(json.dumps(summary), flush=True)
        return summary
