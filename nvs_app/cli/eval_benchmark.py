"""`python -m nvs_app eval --benchmark NAME --data DIR --context 4,8,16`: a published protocol, scene by scene.

Run the same command again and it goes on where it stopped; under torchrun every process takes its share. --out holds
the report (report.json, views.csv, scenes.csv, report.html) and what is done so far. A scene that cannot be read is
named in one line and left out, and the exit code is 2.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from nvs_app.cli.common import counts, load_renderer, positive_int, stderr_progress
from nvs_app.cli.spread import on_gpus
from nvs_app.distributed import torchrun_world
from nvs_app.errors import NVSError
from nvs_app.evaluation.benchmark.run import BenchmarkRun, ProgressCallback
from nvs_app.evaluation.benchmark.scene import MetricOptions

_NEEDS_BENCHMARK = ("data", "out", "option", "only", "max_scenes", "restart", "pooled")


def add_benchmark_options(parser: argparse.ArgumentParser) -> None:
    """--benchmark and what goes with it."""
    group = parser.add_argument_group("benchmarks")
    group.add_argument(
        "--benchmark",
        metavar="NAME",
        help="a protocol instead of SCENE: gso, re10k, dl3dv, nerf-synthetic, llff, mipnerf360, objaverse, folder,"
        " procedural; list shows them with their options",
    )
    group.add_argument("--data", type=Path, metavar="DIR", help="where the benchmark's scenes are")
    group.add_argument(
        "--option", action="append", metavar="KEY=VALUE", help="a variant of the protocol; may be given several times"
    )
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="report and progress (default: a folder in outputs/benchmarks)"
    )
    group.add_argument("--restart", action="store_true", help="forget what is done in --out")
    group.add_argument("--only", metavar="A,B,C", help="these scenes")
    group.add_argument("--max-scenes", type=positive_int, metavar="N", help="the first N scenes")
    group.add_argument("--pooled", action="store_true", help="print means over all views alike, not scene by scene")
    group.add_argument(
        "--normalize-with",
        choices=("context", "context+target"),
        default="context",
        help="cameras that fix frame and scale; context+target is how some releases do it (default: context)",
    )
    group.add_argument(
        "--gsplat",
        default="auto",
        metavar="STEPS",
        help="Gaussian splatting fitted to every scene as a baseline: a number of steps, on (7000), off, or auto: on"
        " where gsplat and a GPU are there (default)",
    )


def check_no_benchmark(args: argparse.Namespace) -> None:
    """Without --benchmark: scenes are needed, and options of benchmarks mean a mistake. Raises NVSError."""
    given = [name for name in _NEEDS_BENCHMARK if getattr(args, name)]
    if given:
        raise NVSError(f"--{given[0].replace('_', '-')}: only with --benchmark NAME")
    if not args.scenes:
        raise NVSError("eval: name a SCENE, or a protocol with --benchmark (list shows them)")
    if args.context is not None and len(args.context) > 1:
        raise NVSError("--context: several numbers only with --benchmark (folder takes any scenes)")


def run_benchmark(args: argparse.Namespace) -> int:
    """Runs the command; 0, or 2 when a scene was left out."""
    from nvs_app.evaluation.protocols import BENCHMARKS, find

    if args.benchmark == "list":
        print(listing(BENCHMARKS))
        return 0
    benchmark = find(args.benchmark)
    for name in ("scenes", "ray", "context_views", "target_views", "max_targets", "side_by_side"):
        if getattr(args, name):
            raise NVSError(f"--benchmark {args.benchmark}: the protocol chooses; leave out {name.replace('_', '-')}")
    with on_gpus(args, args.max_scenes or sys.maxsize), torchrun_world(args.device) as (world, args.device):
        return _run(args, benchmark, world)


def _run(args: argparse.Namespace, benchmark, world) -> int:
    from nvs_app.evaluation.baselines import gsplat_missing
    from nvs_app.evaluation.metrics import LPIPS
    from nvs_app.evaluation.protocols.base import Settings
    from nvs_app.rendering.device import pick_device

    main = world is None or world.is_main
    device = pick_device(args.device)
    options = dict(_option(text) for text in args.option or ())
    image_hw = tuple(args.image_hw) if args.image_hw else None
    if image_hw is not None and min(image_hw) < 11:
        raise NVSError(f"--image-hw: {image_hw[0]} {image_hw[1]}, expected 11 pixels or more")
    asked = Settings(args.data, args.context or (), image_hw, args.seed, options, device)
    settings = benchmark.complete(asked)
    lpips = LPIPS.find(args.lpips)
    remarks = {"lpips": "not measured: no weights (--lpips, NVS_LPIPS_WEIGHTS)"}
    steps = _gsplat_steps(args.gsplat)
    if steps and (missing := gsplat_missing(device)):
        remarks["gsplat"] = f"not measured: {missing}"
        steps = 0
        if args.gsplat != "auto":
            raise NVSError(f"--gsplat {args.gsplat}: {missing}")
    args.device = str(device)
    renderer = load_renderer(args)
    metrics = MetricOptions(args.rounded, args.normalize_with, steps, None if lpips is None else lpips.to(device))
    progress = BenchmarkProgress(quiet=not main)
    run = BenchmarkRun(
        renderer,
        benchmark,
        settings,
        metrics,
        args.out,
        world=world,
        limit=args.max_scenes,
        only=tuple(filter(None, (args.only or "").split(","))),
        restart=args.restart,
        callback=progress,
        remarks=remarks,
    )
    if main:
        say(f"{benchmark.title}: {len(run.entries)} scenes at {_list(settings.contexts)} context views; {run.out}")
        if steps:
            say(f"Gaussian splatting is fitted to every scene, {steps} steps each; --gsplat off leaves it out")
        for name, reason in list(run.absent.items())[:5]:
            say(f"error: {name}: {' '.join(reason.split())}")
        if len(run.absent) > 5:
            say(f"error: {len(run.absent) - 5} more scenes of the protocol are not in the data")
    try:
        with progress:
            report = run()
    except KeyboardInterrupt:
        say(f"{run.out}: the same command goes on from here")
        raise
    if report is None:
        return 0
    finish(report, run.out, args.json, args.pooled)
    if report["failed"]:
        say("exit code 2: scenes were left out")
        return 2
    return 0


def finish(report: dict[str, Any], out: Path, also: Path | None, pooled: bool) -> None:
    """Writes the report's files and prints its tables."""
    from nvs_app.atomic_io import write_whole
    from nvs_app.evaluation.report.files import scenes_csv, views_csv, write_json
    from nvs_app.evaluation.report.page import plotly_missing, write_page
    from nvs_app.evaluation.report.tables import print_report

    write_json(report, out / "report.json")
    write_whole(out / "views.csv", views_csv(report))
    write_whole(out / "scenes.csv", scenes_csv(report))
    if also is not None:
        write_json(report, also)
    print_report(report, pooled=pooled)
    print(f"written: {out / 'report.json'}, views.csv, scenes.csv")
    if not report["scenes"]:
        return
    if plotly_missing():
        print(f"no page: plotly is not installed; where it is: python -m nvs_app report {out / 'report.json'} --html")
    else:
        write_page(report, out / "report.html")
        print(f"the page: {out / 'report.html'}")


class BenchmarkProgress(ProgressCallback):
    """A bar where stderr is a terminal, else a line every ten seconds; both tell the time left."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bars = stderr_progress()
        self.task = self.bars.add_task("scenes", total=None)
        self.started = self.last = time.monotonic()
        self.first = 0
        self.measured = self.said = 0

    def __enter__(self) -> BenchmarkProgress:
        if not self.quiet:
            self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def scene(self, done: int, total: int, name: str, record: dict[str, Any] | None) -> None:
        """A scene is done."""
        if self.quiet:
            return
        if record is not None and not self.measured:
            self.started, self.first = time.monotonic(), done  # what was done before, and the start, tell no speed
        self.measured += record is not None
        self.bars.update(self.task, description=name or "waiting", completed=done, total=total)
        now = time.monotonic()
        if self.bars.disable and done > self.said and (done == total or now - self.last >= 10):
            self.last, self.said = now, done
            say(f"{done}/{total} scenes{self.left(done, total, now)}{_headline(name, record)}")

    def left(self, done: int, total: int, now: float) -> str:
        """How long it will take, from the scenes since the first."""
        if done <= self.first or not self.measured or done >= total:
            return ""
        seconds = (now - self.started) / (done - self.first)
        left = round(seconds * (total - done))
        return f", {seconds:.2f} s a scene, {left // 60}:{left % 60:02d} left"

    def error(self, name: str, message: str) -> None:
        """A scene is left out. Every process says its own."""
        self.bars.console.print(f"error: {name}: {message}", markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Something worth knowing."""
        if not self.quiet:
            say(f"note: {text}")


def listing(benchmarks: dict) -> str:
    """The protocols with their sources, defaults and options."""
    lines = []
    for benchmark in benchmarks.values():
        lines += [f"{benchmark.name}: {benchmark.title}", f"    source: {benchmark.source}"]
        if benchmark.needs_data:
            lines.append(f"    --data: {benchmark.layout}")
        lines.append(f"    --context (default): {_list(benchmark.contexts)}")
        for option in benchmark.options:
            default = f" (default: {option.default})" if option.default and not option.choices else ""
            lines.append(f"    --option {option.name}=...: {option.help}{default}")
            for choice, meaning in option.choices.items():
                mark = " (default)" if choice == option.default else ""
                lines.append(f"        {choice}: {meaning}{mark}")
    return "\n".join(lines)


def say(text: str) -> None:
    """A line to stderr."""
    print(text, file=sys.stderr, flush=True)


def _option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise NVSError(f"--option {text}: expected KEY=VALUE")
    return key.strip(), value.strip()


def _gsplat_steps(text: str) -> int:
    from nvs_app.evaluation.gaussians import STEPS

    if text in ("auto", "on", "off"):
        return 0 if text == "off" else STEPS
    try:
        return counts(text)[0]
    except argparse.ArgumentTypeError as error:
        raise NVSError(f"--gsplat {text}: expected a number of steps, on, off or auto") from error


def _headline(name: str, record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    figures = record["result"]["counts"]
    return f"; {name}: " + ", ".join(f"{case['psnr']:.2f} dB at {count}" for count, case in figures.items())


def _list(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
