"""Options and helpers that several commands share."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from data_tools.cli.photos import stage_progress
from data_tools.structure_from_motion.photos import open_input
from nvs_app.errors import NVSError, reading, writing
from nvs_app.rendering.device import PRECISIONS
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import DEFAULT_VIEWS
from nvs_app.terminal import whole_number

TOLD_EVERY = 5.0  # seconds between two lines of a stage where stderr is no terminal


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--checkpoint, --device, --precision, --compile, --no-detail, --look-at, --threads."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--checkpoint",
        metavar="NAME",
        help="name in checkpoints/ or a folder (default: the only one there, or the one marked as default)",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    group.add_argument(
        "--precision",
        default="auto",
        choices=PRECISIONS,
        help="auto is bf16 on a GPU and on a CPU that is fast at it, else fp32 (default: auto)",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the network first: some seconds that pay on a GPU for many photos or views",
    )
    group.add_argument(
        "--no-detail",
        action="store_false",
        dest="detail",
        help="render with LaCT alone, without the checkpoint's detail head: for comparison",
    )
    group.add_argument(
        "--look-at",
        type=positive_int,
        metavar="N",
        help="input views that the detail head looks at for each rendered view (default: as the checkpoint says)",
    )
    group.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads (default: all cores)")


def add_context_options(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """--context (a tuple, or None, with `several`), --context-views, --mode, --seed."""
    group = parser.add_argument_group("context views")
    if several:
        text = "number of input views (default: 8); several as in 4,8,16 with --benchmark (default: its own)"
        group.add_argument("--context", type=counts, metavar="N[,N...]", help=text)
    else:
        text = f"number of input views (default: {DEFAULT_VIEWS}, or all but one)"
        group.add_argument("--context", type=positive_int, metavar="N", help=text)
    group.add_argument(
        "--context-views", type=indices, metavar="I,J,K", help="these input views, counted from 0, instead"
    )
    group.add_argument(
        "--mode",
        choices=("spread", "random"),
        default="spread",
        help="spread evenly over the cameras, or random with --seed (default: spread)",
    )
    group.add_argument("--seed", type=int, default=0, help="seed of the choice of views (default: 0)")


def load_renderer(args: argparse.Namespace) -> Renderer:
    """The renderer that the options of `add_model_options` ask for. Raises NVSError."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    renderer = Renderer.from_checkpoint(
        args.checkpoint, args.device, args.precision, args.compile, args.detail, args.look_at
    )
    if args.look_at is not None and not renderer.detail:
        raise NVSError(f"--look-at {args.look_at}: {no_detail(renderer)}")
    return renderer


def no_detail(renderer: Renderer) -> str:
    """Why no detail head renders the views."""
    if renderer.model.detail_head is not None:
        return "--no-detail switches the detail head off; leave one of the two out"
    return f"checkpoint {renderer.card.get('name') or '?'} has no detail head; choose another with --checkpoint"


def name_scenes(paths: Sequence[str]) -> dict[str, Path]:
    """A short unique name for each scene path: the folder's (or file's) own, with its parent's where two agree."""
    named: dict[str, Path] = {}
    for text in paths:
        path = Path(text)
        resolved = path.resolve()
        own = resolved.stem if resolved.suffix in (".json", ".zip") else resolved.name
        name = next(
            candidate
            for candidate in (own, f"{resolved.parent.name}_{own}", *(f"{own}-{i}" for i in range(2, 10000)))
            if candidate and candidate not in named
        )
        named[name] = path
    return named


def add_scene_option(parser: argparse.ArgumentParser) -> None:
    """--scene, of the commands that take SCENE."""
    parser.add_argument("--scene", metavar="NAME", help="the scene, where SCENE holds several (an error names them)")


def read_scene(path: Path, workdir: Path | None = None, key: str | None = None) -> Scene:
    """Opens a scene of any known format, or makes one of photos, a zip of photos or a video.

    Args:
        path: what the user named.
        workdir: where a scene made of photos is kept; beside the photos unless given.
        key: which scene, where there are several.

    Raises:
        NVSError: also for files that the system refuses to read.
    """
    with reading(path), stage_progress() as progress:
        scene = open_input(path, workdir, progress, key=key)
    for note in scene.notes:
        print(f"note: {note}", file=sys.stderr)
    return scene


def check_writable(option: str, path: Path | None) -> None:
    """Raises NVSError where a file of this name cannot be written: better said before the work than after it."""
    if path is None:
        return
    probe = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(f"{option} {path}"):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()


def stderr_progress() -> Progress:
    """Progress bars on stderr, so that stdout holds results only; they vanish when done. None into a file."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextlib.contextmanager
def stage(what: str, total: float | int = 1) -> Iterator[Callable[[float | int], None]]:
    """Tells on stderr how far a stage of the work is; yields what is to be called with how much of `total` is done.

    A bar that vanishes when done; where stderr is no terminal, a line when it begins and one every few seconds.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bars:
            task = bars.add_task(what, total=total)
            yield lambda done: bars.update(task, completed=done)
        return
    print(f"{what} ...", file=sys.stderr, flush=True)
    told = time.monotonic()

    def tell(done: float | int) -> None:
        nonlocal told
        if done < total and time.monotonic() - told >= TOLD_EVERY:
            told = time.monotonic()
            print(f"{what}: {100 * done / total:.0f} %", file=sys.stderr, flush=True)

    yield tell


positive_int = whole_number(1)
"""argparse type: an integer of 1 or more."""


def counts(text: str) -> tuple[int, ...]:
    """argparse type: `8` or `4,8,16`, ascending."""
    return tuple(sorted({positive_int(part) for part in text.split(",")}))


def positive_float(text: str) -> float:
    """argparse type: a number above 0."""
    return _checked(text, float, lambda value: 0 < value < 1e6, "a number above 0")


def field_of_view(text: str) -> float:
    """argparse type: degrees."""
    return _checked(text, float, lambda value: 1 <= value <= 170, "degrees from 1 to 170")


def indices(text: str) -> tuple[int, ...]:
    """argparse type: `0,5,9` or ranges as in `0-3,8`; no view twice."""
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.strip().partition("-")
            numbers += range(int(first), int(last or first) + 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected view numbers as in 0,5,9 or 0-3,8") from error
    if not numbers or len(set(numbers)) != len(numbers):
        raise argparse.ArgumentTypeError(f"{text!r}: expected view numbers, none of them twice")
    return tuple(numbers)


def _checked(text: str, kind: Callable, accept: Callable, expected: str):
    try:
        value = kind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}") from error
    if not accept(value):
        raise argparse.ArgumentTypeError(f"{text}: expected {expected}")
    return value
