"""`render` and `eval` of many scenes on all GPUs of this machine (`--gpus`), or as tasks of a Ray cluster (`--ray`)."""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

from data_tools.ray_tasks import on_ray
from nvs_app.cli.common import load_renderer, positive_int
from nvs_app.distributed import process_count, processes
from nvs_app.evaluation.metrics import LPIPS
from nvs_app.model.checkpoint import default_checkpoint, find_checkpoint
from nvs_app.rendering.renderer import Renderer

MODEL = ("checkpoint", "device", "precision", "compile", "detail", "look_at", "threads")
T = TypeVar("T")
_KEPT: dict[tuple, Any] = {}  # in a Ray worker: its renderer, its LPIPS


def add_spread_options(parser: argparse.ArgumentParser) -> None:
    """--gpus, --ray."""
    group = parser.add_argument_group("many scenes")
    group.add_argument(
        "--gpus",
        type=positive_int,
        default=0,
        metavar="N",
        help="GPUs of this machine that share the scenes (default: all); on a CPU, processes (default: 1)",
    )
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="a task a scene on a Ray cluster that sees all files under the same paths: local, auto, host:port or"
        " ray://host:port",
    )


def on_gpus(args: argparse.Namespace, scenes: int, independent: bool = False) -> contextlib.AbstractContextManager:
    """This command in a process for each GPU, at most one a scene; see `processes`. Raises NVSError."""
    count = process_count(args.gpus, args.device, max(1, scenes))
    return processes(count, ["-m", "nvs_app", *args.words], independent)


def on_cluster(
    args: argparse.Namespace, function: Callable[..., Any], tasks: Iterable[tuple[T, tuple]], shared: Path | None
) -> Generator[tuple[T, Any], None, None]:
    """`function(args, *task)` in Ray workers, see `on_ray`. The paths in `tasks` are to be absolute."""
    there = copy.copy(args)
    there.checkpoint = str(find_checkpoint(args.checkpoint or default_checkpoint()).resolve())
    if hasattr(there, "lpips"):  # the variable is of this machine
        there.lpips = there.lpips or os.environ.get("NVS_LPIPS_WEIGHTS")
    for name in ("lpips", "side_by_side"):
        if getattr(there, name, None):
            setattr(there, name, Path(getattr(there, name)).absolute())
    named = ((name, (there, *arguments)) for name, arguments in tasks)
    yield from on_ray(function, named, args.ray, args.gpus or os.cpu_count() or 1, shared, args.device != "cpu")


def kept_renderer(args: argparse.Namespace) -> Renderer:
    """The renderer of a Ray worker, loaded once for all its scenes. Raises NVSError."""
    return _kept(tuple(getattr(args, name) for name in MODEL), lambda: load_renderer(args))


def kept_lpips(args: argparse.Namespace) -> LPIPS | None:
    """The LPIPS of a Ray worker, loaded once for all its scenes; None without weights. Raises NVSError."""
    return _kept(("lpips", args.lpips), lambda: LPIPS.find(args.lpips))


def _kept(key: tuple, load: Callable[[], T]) -> T:
    """What a command needs of this kind, loaded the first time. (A Ray worker serves one command.)"""
    if key not in _KEPT:
        _KEPT[key] = load()
    return _KEPT[key]
