"""`objaverse`: 3D assets become scenes, rendered by the published protocol.

python -m data_tools objaverse models/ list.txt 0123...uid OUT --workers 8
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from nvs_app.errors import NVSError
from nvs_app.machine import cores
from nvs_app.terminal import Terminated, raise_on_sigterm

EXIT = """exit code: 0 all assets are rendered; 1 some failed (log.jsonl says why); 2 a mistake in the call, or nothing
can be rendered at all; 130 or 143 stopped by Ctrl-C or SIGTERM, the same command goes on"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "objaverse",
        help="render GLB, glTF and OBJ files or Objaverse uids as scenes",
        description="Render 3D assets as nerfstudio scenes: scaled to the unit cube, cameras all around, RGBA, uniform"
        " light. Run again to go on after a stop.",
        epilog=EXIT,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT",
        help=".glb, .gltf or .obj file, folder of them, .txt or .json list of files and uids, or Objaverse uid",
    )  # fmt: skip
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the scenes and of log.jsonl")
    parser.add_argument("--views", type=int, default=32, metavar="N", help="images an asset (default 32)")
    parser.add_argument(
        "--image-hw",
        type=int,
        nargs=2,
        default=(512, 512),
        metavar=("H", "W"),
        help="pixels (default 512 512)",
    )
    parser.add_argument(
        "--distance", type=float, nargs=2, default=(1.7, 3.0), metavar=("MIN", "MAX"),
        help="of the cameras from the centre, the asset's longest side is 1 (default 1.7 3.0)",
    )  # fmt: skip
    parser.add_argument(
        "--fov", type=float, nargs="+", default=(30.0, 70.0), metavar="DEG",
        help="field of view of the shorter side: one number, or two between which each asset gets its own"
        " (default 30 70)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the cameras (default 0)")
    parser.add_argument(
        "--light", choices=("uniform", "unlit"), default="uniform",
        help="uniform: from all sides alike; unlit: base colours as stored (default uniform)",
    )  # fmt: skip
    parser.add_argument("--cull", action="store_true", help="hide the back of surfaces that are not double-sided")
    parser.add_argument("--up", choices=("y", "z"), default="y", help="up axis of OBJ files (default y; glTF's is y)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: the cores of this machine)")
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="S", help="seconds an asset may take (default 300)"
    )
    parser.add_argument("--retry-failed", action="store_true", help="try assets again that an earlier run refused")
    parser.add_argument(
        "--ray", metavar="ADDRESS",
        help="render on a Ray cluster: local, auto, host:port or ray://host:port; INPUT and OUT must be shared folders",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Render; see EXIT."""
    from data_tools.assets.render_task import RenderOptions
    from data_tools.assets.run import Report, render_assets

    if len(options.fov) > 2:
        raise NVSError(f"--fov: {len(options.fov)} numbers, expected one or two")
    workers = cores() if options.workers is None else options.workers
    if not 1 <= workers <= 1024:
        raise NVSError(f"--workers {workers}: expected 1 to 1024")
    if not 0.1 <= options.timeout <= 86400.0:
        raise NVSError(f"--timeout {options.timeout:g}: expected 0.1 to 86400 seconds")
    chosen = RenderOptions(
        views=options.views, image_hw=tuple(options.image_hw), distance=tuple(options.distance),
        fov=(options.fov[0], options.fov[-1]), seed=options.seed, light=options.light, cull=options.cull,
        obj_up=options.up,
    )  # fmt: skip
    try:
        with raise_on_sigterm():
            report: Report = _with_bar(render_assets, options, chosen, workers)
    except KeyboardInterrupt as stop:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    print("\n".join(report.lines()))
    print(f"log: {options.out / 'log.jsonl'}")
    if report.total and not report.rendered and not report.present:
        raise NVSError(f"{options.out}: none of {report.total} assets could be rendered, see log.jsonl")
    return 1 if report.failed or report.failed_before else 0


def _with_bar(render_assets: Any, options: argparse.Namespace, chosen: Any, workers: int) -> Any:
    """Run under a progress bar on stderr; failures are printed above it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("assets"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("assets", total=None, rate="")
        images = [0]

        def progress(done: int, total: int, answer: dict[str, Any] | None) -> None:
            if answer is not None:
                images[0] += answer["views"]
                if answer["error"]:
                    text = f"{answer['asset']}: {answer['status']}: {answer['error']}"
                    bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            spent = bar.tasks[0].elapsed or 0.0
            rate = f"{images[0] / spent:.1f} images/s" if spent > 1.0 else ""
            bar.update(task, completed=done, total=total, rate=rate)

        return render_assets(
            options.inputs,
            options.out,
            chosen,
            workers,
            options.timeout,
            options.ray,
            options.retry_failed,
            progress,
        )
