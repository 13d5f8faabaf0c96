"""`python -m nvs_app train --out RUN [options]`: train a network (see nvs_app/training/trainer.py).

On a machine with several GPUs this starts one process for each by itself; under torchrun it takes part in the run
that torchrun set up. The last line of output is a JSON summary.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from nvs_app.training.config import TrainConfig, field_help

TYPES = {"int": int, "float": float, "str": str, "Path": Path}


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """The options of `train`: one for each field of TrainConfig."""
    parser = subparsers.add_parser(
        "train",
        help="train a model (also under torchrun)",
        description="Train a network from procedural scenes, scene folders, or a mix, and export a checkpoint. "
        "Give --minutes (whole wall-clock) or --steps. Run again with the same --out to resume.",
    )
    texts = field_help(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        option, kind = "--" + field.name.replace("_", "-"), str(field.type)
        text = texts[field.name].replace("%", "%%")
        if field.default is dataclasses.MISSING:
            parser.add_argument(option, type=TYPES[kind], required=True, help=text)
        elif kind == "bool":
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=field.default, help=text)
        else:
            text += "" if field.default == "" else f" (default {field.default})".replace("%", "%%")
            parser.add_argument(option, type=TYPES[kind], default=field.default, help=text)
    return parser


def to_arguments(config: TrainConfig) -> list[str]:
    """The command line that gives this configuration."""
    arguments = ["train"]
    for field in dataclasses.fields(config):
        option, value = field.name.replace("_", "-"), getattr(config, field.name)
        if isinstance(value, bool):
            arguments.append(f"--{option}" if value else f"--no-{option}")
        else:
            arguments.append(f"--{option}={value}")
    return arguments


def run(args: argparse.Namespace) -> int:
    """Train; starts the other processes of this machine when there are several devices and no torchrun."""
    config = TrainConfig(**{field.name: getattr(args, field.name) for field in dataclasses.fields(TrainConfig)})
    # Compiled kernels outlive the run; a machine that cleans its temporary folder keeps them too.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "nvs_app" / "inductor"))
    import torch

    from nvs_app.distributed import start_workers, under_torchrun
    from nvs_app.training.trainer import run as train

    if under_torchrun():
        train(config)
        return 0
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    count = config.gpus or (1 if on_cpu or ":" in config.device else torch.cuda.device_count())
    if not on_cpu and count > torch.cuda.device_count():
        from nvs_app.errors import NVSError

        raise NVSError(f"--gpus {count}: this machine has {torch.cuda.device_count()}")
    if count == 1:
        train(config)
        return 0
    workers = start_workers(count, ["-m", "nvs_app", *to_arguments(config)])
    failed = True
    try:
        train(config)
        failed = False
    finally:
        workers.finish(failed)
    return 0
