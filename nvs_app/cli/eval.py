"""`python -m nvs_app eval SCENE ... --checkpoint NAME --context 8 --image-hw 256 256 --json FILE`, and
`python -m nvs_app eval --benchmark NAME --data DIR --context 4,8,16` (see `eval_benchmark`).

Measures PSNR, SSIM and sharpness (LPIPS where its weights are at hand) on the views that were not given to the
model. The table goes to stdout, progress to stderr. Scenes that cannot be read are named in one line each, the
others go on, and the exit code is 2. The scenes are shared by all GPUs of the machine, by the processes of torchrun, or
by the tasks of a Ray cluster (`--ray`). A run with --json that was stopped goes on where it stopped: until the report
is whole, its scenes are kept in FILE.partial.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_tools.ray_tasks import Lost
from nvs_app.atomic_io import is_stream
from nvs_app.cli.adapting import adapt_scene, add_adapt_option
from nvs_app.cli.common import (
    add_context_options,
    add_model_options,
    add_scene_option,
    check_writable,
    indices,
    load_renderer,
    name_scenes,
    positive_int,
    read_scene,
    stage,
    stderr_progress,
)
from nvs_app.cli.eval_benchmark import add_benchmark_options, check_no_benchmark, run_benchmark
from nvs_app.cli.spread import add_spread_options, kept_lpips, kept_renderer, on_cluster, on_gpus
from nvs_app.distributed import World, torchrun_world
from nvs_app.errors import NVSError
from nvs_app.evaluation.benchmark.results import SceneResults, fingerprint
from nvs_app.evaluation.evaluate import EvalConfig, evaluate, report_header, with_overall
from nvs_app.evaluation.metrics import LPIPS
from nvs_app.evaluation.report.files import write_json
from nvs_app.evaluation.report.measures import MEASURES
from nvs_app.evaluation.report.words import rendering_words
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Registers the command and its options."""
    parser = subparsers.add_parser(
        "eval",
        help="measure PSNR, SSIM and sharpness on held-out views of scenes",
        description="PSNR per image, averaged over the views of a scene, then over scenes.",
    )
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="scene, folder or zip of photos, or video")
    add_scene_option(parser)
    add_context_options(parser, several=True)
    add_adapt_option(parser)
    parser.add_argument(
        "--target-views", type=indices, metavar="I,J,K", help="compare these views (default: all that are no input)"
    )
    parser.add_argument("--max-targets", type=positive_int, metavar="N", help="compare N views at most")
    parser.add_argument(
        "--image-hw",
        type=positive_int,
        nargs=2,
        metavar=("H", "W"),
        help="size of input and compared images (default: the size the checkpoint was trained at)",
    )
    parser.add_argument("--rounded", action="store_true", help="round renderings to 8 bits before comparing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, view by view")
    parser.add_argument(
        "--side-by-side",
        type=Path,
        metavar="DIR",
        help="write a PNG a view: nearest input view | rendering | photo | error x4",
    )
    parser.add_argument(
        "--lpips", metavar="PATH", help="LPIPS weights, file or folder (default: $NVS_LPIPS_WEIGHTS, else no LPIPS)"
    )
    add_benchmark_options(parser)
    add_spread_options(parser)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command; 0, or 2 when a scene failed."""
    check_writable("--json", args.json)
    if args.benchmark is not None:
        if args.adapt is not None:
            raise NVSError(f"--adapt {args.adapt:g}: of scenes, not of a benchmark; leave one of the two out")
        return run_benchmark(args)
    check_no_benchmark(args)
    EvalConfig(image_hw=tuple(args.image_hw or (256, 256)))  # a wrong size is said before the model is loaded
    named = name_scenes(args.scenes)
    if args.ray is not None:
        report = _on_cluster(args, named)
    else:
        with on_gpus(args, len(named)), torchrun_world(args.device) as (world, args.device):
            report = measured(load_renderer(args), LPIPS.find(args.lpips), args, named, world)
            if world is not None and not world.is_main:
                return 0  # process 0 says what failed
    if report["scenes"]:
        print_table(report)
    if args.json is not None:
        write_json(report, args.json, "--json")
        if not report["failed"]:
            shutil.rmtree(kept_beside(args.json), ignore_errors=True)
    return 2 if report["failed"] else 0


def kept_beside(report: Path) -> Path:
    """The folder of what is done of a report that is not: `eval`, run again, goes on there."""
    return report.with_name(f"{report.name}.partial")


def _on_cluster(args: argparse.Namespace, named: dict[str, Path]) -> dict[str, Any]:
    """The report of scenes that Ray tasks measure; the figures are those of one process."""
    args.json = None if args.json is None else args.json.absolute()
    shared = args.json and args.json.parent
    header: dict[str, Any] = {}
    results: dict[str, Any] = {}
    failed: dict[str, str] = {}
    tasks = ((name, (name, path.absolute())) for name, path in named.items())
    with stage(f"{len(named)} scenes on {args.ray}", len(named)) as tell:
        for done, (name, answer) in enumerate(on_cluster(args, eval_task, tasks, shared), 1):
            tell(done)
            if isinstance(answer, Lost):
                failed[name] = str(answer)
                continue
            header, results, failed = answer, results | answer["scenes"], failed | answer["failed"]
    if not header:
        raise Lost(f"--ray {args.ray}: no scene was measured; {next(iter(failed.values()))}")
    for message in failed.values():
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return with_overall(
        header, *({name: found[name] for name in named if name in found} for found in (results, failed))
    )


def eval_task(args: argparse.Namespace, name: str, path: Path) -> dict[str, Any]:
    """What a Ray worker does for a scene: its report."""
    return measured(kept_renderer(args), kept_lpips(args), args, {name: path}, None)


def measured(
    renderer: Renderer, lpips: LPIPS | None, args: argparse.Namespace, named: dict[str, Path], world: World | None
) -> dict[str, Any]:
    """The report of scenes, in one of the processes of torchrun, alone, or in a Ray worker."""
    config = EvalConfig(
        num_context=(args.context or (8,))[0],
        image_hw=tuple(args.image_hw or renderer.train_image_hw),
        mode=args.mode,
        seed=args.seed,
        context=args.context_views,
        target=args.target_views,
        max_targets=args.max_targets,
        rounded=args.rounded,
    )
    kept = None
    if args.json is not None and not is_stream(args.json):
        decisive = [report_header(renderer, config, lpips), asdict(config), args.adapt, str(args.side_by_side)]
        kept = SceneResults(kept_beside(args.json), fingerprint(decisive))

    def adapt(name: str, posed: PosedImages, state: SceneState) -> tuple[SceneState, dict[str, Any]]:
        found = adapt_scene(renderer, posed, state, args.adapt, name)
        return found.state, found.facts

    with stderr_progress() as progress:
        every = progress.add_task("scenes", total=len(named))
        views = progress.add_task("views", total=None)

        def failed(name: str, message: str) -> None:
            progress.advance(every)
            print(f"error: {' '.join(message.split())}", file=sys.stderr)

        return evaluate(
            renderer,
            {name: functools.partial(read_scene, path, key=args.scene) for name, path in named.items()},
            config,
            lpips=lpips,
            side_by_side=args.side_by_side,
            on_scene=lambda name, result: progress.advance(every),
            on_progress=lambda name, done, total: progress.update(views, description=name, completed=done, total=total),
            on_error=failed,
            adapt=None if args.adapt is None else adapt,
            world=world,
            kept=kept,
        )


def print_table(report: dict[str, Any]) -> None:
    """The figures of a report, a row a scene."""
    measured = report["overall"].get("lpips") is not None
    title = f"{report['checkpoint']['name']}: {rendering_words(report)}, {report['device']}"
    table = Table(title=title, title_justify="left")
    table.add_column("scene", no_wrap=True)
    measures = [m for m in MEASURES if m.name in report["overall"]]
    columns = ["views", *(m.title for m in measures), "nearest", "mean", "white", "ms/view"]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)

    def row(name: str, counts: str, figures: dict[str, Any], speed: str, bold: bool = False) -> None:
        baselines = figures["baselines"]
        cells = [counts, *(_figure(figures[m.name], m.digits) for m in measures)]
        cells += [_figure(baselines[key]["psnr"], 2) for key in ("nearest_view", "mean_colour", "white")]
        table.add_row(name, *cells, speed, style="bold" if bold else None)

    for name, result in report["scenes"].items():
        counts = f"{len(result['context'])}+{len(result['target'])}"
        row(name, counts, result, f"{result['decode_ms_per_view']:.0f}")
    table.add_section()
    row("overall", str(report["overall"]["num_scenes"]), report["overall"], "", bold=True)
    # Not cut to 80 columns when piped into a file.
    console = Console() if sys.stdout.isatty() else Console(width=max(100, 60 + max(map(len, report["scenes"]))))
    console.print(table)
    console.print("sharpness: gradient energy in parts of the photo's; 1 as sharp, below blurred, above noisy.")
    console.print("nearest, mean, white: PSNR of the nearest input view, of its mean colour, of a white image.")
    if not measured:
        console.print(f"LPIPS {report['lpips']}.")


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
