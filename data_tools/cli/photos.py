"""`photos`: images without cameras become a scene.

python -m data_tools photos INPUT... OUTPUT        INPUT: a folder, photos, a zip of photos, or a video
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from data_tools.structure_from_motion.job import ProgressCallback

STAGES = {
    "unpack": "unpacking",
    "frames": "choosing frames",
    "photos": "reading photos",
    "features": "finding features",
    "matches": "comparing photos",
    "cameras": "placing cameras",
    "scene": "writing the scene",
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "photos", help="photos, a zip of photos or a video to a scene, by structure from motion"
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="folder, photos, zip of photos, or one video")
    parser.add_argument("output", type=Path, help="folder of the scene to write")
    parser.add_argument("--frames", type=int, metavar="N", help="frames to take of a video (default: 60)")
    parser.add_argument(
        "--max-size",
        type=int,
        metavar="N",
        help="longer side of the images, pixels (default: 1600, less for many)",
    )
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="masks of the photos' names, white is the subject: it renders on white",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Reconstruct; 0, or 130 when interrupted."""
    from data_tools.structure_from_motion.photos import PhotoOptions, reconstruct

    chosen = PhotoOptions(max_size=options.max_size, masks=options.masks)
    if options.frames is not None:
        chosen = PhotoOptions(options.max_size, options.frames, options.masks)
    try:
        with stage_progress() as progress:
            report = reconstruct(options.inputs, options.output, chosen, progress)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print("\n".join(report.lines()))
    return 0


@contextmanager
def stage_progress() -> Iterator[ProgressCallback]:
    """A progress bar for each stage on stderr; into a file or pipe one line a stage."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:18}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:

        def report(stage: str, fraction: float, message: str) -> None:
            if stage not in STAGES:
                return
            if stage not in tasks:
                for task in tasks.values():
                    bars.stop_task(task)
                tasks[stage] = bars.add_task(STAGES[stage], total=1.0, words=message)
                if not console.is_terminal:
                    print(f"{STAGES[stage]} ...", file=sys.stderr, flush=True)
            bars.update(tasks[stage], completed=fraction, words=message)

        yield report
