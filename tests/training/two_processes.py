"""One process of test_trainer.test_two_processes_equal_one: `python two_processes.py OUT WEIGHTS`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch
from train_fakes import fake_procedural, tiny_config

from nvs_app.distributed import StopSignals, World
from nvs_app.training import sources
from nvs_app.training import trainer as train
from nvs_app.training.config import TrainConfig
from nvs_app.training.sampling import Augmentation, make_examples, step_generator
from nvs_app.training.trainer import Trainer


def train_steps(config: TrainConfig, world: World, steps: int = 3) -> torch.Tensor:
    """Weights after some steps on a fixed batch of 4 scenes, of which each process takes its share."""
    trainer = Trainer(config, world, StopSignals())
    for step in range(steps):
        posed = fake_procedural(list(range(4 * step, 4 * step + 4)), 8, (16, 16))
        examples = make_examples(posed, 4, Augmentation(), step_generator(0, 0, 0, "cpu"))
        share = slice(world.rank, None, world.size)
        values = {field.name: getattr(examples, field.name) for field in dataclasses.fields(examples)}
        mine = {name: value[share] for name, value in values.items() if value is not None}  # depth is not known here
        trainer.backward(dataclasses.replace(examples, **mine))
        world.average_(trainer.flat.grad)
        trainer.optimizer.step(1.0)
        trainer.flat.zero_grad()
    return trainer.flat.data.clone()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for module in (sources, train):
        module.make_procedural = lambda plan, device, seed: fake_procedural
    place = World("cpu")
    weights = train_steps(tiny_config(Path(sys.argv[1]), loss={"perceptual": 0.0}), place)
    if place.is_main:
        torch.save(weights, sys.argv[2])
    place.close()
