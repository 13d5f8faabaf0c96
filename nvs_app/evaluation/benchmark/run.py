"""A benchmark from the first scene to the report: resumes scene by scene, alone or on every process of torchrun.

    run = BenchmarkRun(renderer, benchmark, benchmark.complete(settings), MetricOptions(), Path("outputs/run"))
    report = run()          # None on processes other than the first

Each process takes its share of the scenes (whole groups, by number), so the figures of a scene never depend on how
many processes there are; they are averaged by the first process in the order of the list. Seconds are kept apart.
"""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nvs_app.distributed import World
from nvs_app.errors import NVSError
from nvs_app.evaluation.baselines import DESCRIPTIONS
from nvs_app.evaluation.benchmark.load import BenchmarkScene, UpcomingScenes
from nvs_app.evaluation.benchmark.results import SceneResults, fingerprint
from nvs_app.evaluation.benchmark.scene import (
    NORMALIZE_WITH,
    ExtremeView,
    MetricOptions,
    RenderedCase,
    encode_images,
    figures_of,
    render_case,
)
from nvs_app.evaluation.evaluate import versions
from nvs_app.evaluation.evaluator import DeviceClock
from nvs_app.evaluation.protocols.base import Benchmark, Entry, Settings
from nvs_app.evaluation.report.summary import assemble, keep_shown_images
from nvs_app.rendering.device import device_name
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages


class ProgressCallback:
    """What a run says while it works: nothing, unless a subclass does."""

    def scene(self, done: int, total: int, name: str, record: dict[str, Any] | None) -> None:
        """A scene is done, or was: `record` is None for one of another process or of an earlier run."""

    def error(self, name: str, message: str) -> None:
        """A scene, or one of its numbers of views, is left out."""

    def note(self, text: str) -> None:
        """Something worth knowing."""


@dataclass
class Timings:
    """Seconds of this process. `startup_s` is everything before the first scene was there and the network warm."""

    startup_s: float = 0.0
    wall_s: float = 0.0
    model_s: float = 0.0
    waiting_s: float = 0.0
    compare_s: float = 0.0
    gsplat_s: float = 0.0
    scenes: int = 0
    views: int = 0
    memory: dict[str, dict[str, int]] = field(default_factory=dict)


class BenchmarkRun:
    """See the module. `settings` come from `Benchmark.complete`; `limit` and `only` keep some of the scenes."""

    def __init__(
        self,
        renderer: Renderer,
        benchmark: Benchmark,
        settings: Settings,
        metrics: MetricOptions,
        out: Path | None = None,
        *,
        world: World | None = None,
        limit: int | None = None,
        only: tuple[str, ...] = (),
        restart: bool = False,
        callback: ProgressCallback | None = None,
        remarks: dict[str, str] | None = None,
    ) -> None:
        self.renderer, self.benchmark, self.settings, self.metrics = renderer, benchmark, settings, metrics
        self.comparer = metrics.comparer(renderer.device)
        self.world, self.callback = world, callback or ProgressCallback()
        self.rank, self.size = (world.rank, world.size) if world is not None else (0, 1)
        self.header = describe(renderer, benchmark, settings, metrics, remarks or {})
        data = settings.data.resolve() if settings.data is not None else None
        decisive = [self.header, str(data), device_name(renderer.device), versions()]
        self.fingerprint = fingerprint(decisive)
        self.out = out or Path("outputs") / "benchmarks" / f"{benchmark.name}-{self.fingerprint}"
        self.results = SceneResults(self.out, self.fingerprint)
        if restart and self.rank == 0:
            self.results.clear()
        if restart and world is not None:
            world.broadcast_object("restarted", True)
        listing = benchmark.entries(settings)
        self.entries = _picked(listing.entries, only, limit)
        self.absent = {} if only or limit else dict(listing.absent)
        self.failed: dict[str, dict[str, str]] = {}
        self.timings = Timings()
        self.done = 0

    def __call__(self) -> dict[str, Any] | None:
        """Evaluates what is not done and returns the report, on the first process."""
        started = time.perf_counter()
        mine = [entry for entry, owner in zip(self.entries, owners(self.entries, self.size)) if owner == self.rank]
        records: dict[str, dict[str, Any]] = {}
        for entry in mine:
            if (record := self.results.read(entry.name)) is not None:
                records[entry.name] = record
                self._told(entry.name, None)
        if self.results.stale:
            self.callback.note(f"{self.out}: {self.results.stale} scenes done under other settings are done again")
        rest = [entry for entry in mine if entry.name not in records]
        if rest:
            # A thread that makes the next scene would otherwise keep this one from the GPU for 5 ms at a time.
            interval = sys.getswitchinterval()
            sys.setswitchinterval(0.0005)
            try:
                self._evaluate(rest, records, started)
            finally:
                sys.setswitchinterval(interval)
        return self._gather(records)

    def _evaluate(self, entries: list[Entry], records: dict[str, dict[str, Any]], started: float) -> None:
        """Loads, measures and keeps the scenes; three things at once, of three scenes."""
        begun = None
        keeping: list[tuple[str, Future]] = []
        with ThreadPoolExecutor(1, thread_name_prefix="keep") as keeper:
            upcoming = UpcomingScenes(self.benchmark, self.settings, entries, self.renderer.device)
            for entry, take in upcoming:
                waited = time.perf_counter()
                try:
                    scene = take()
                    if begun is None:
                        self._warm_up(scene)
                        begun = waited = time.perf_counter()
                        self.timings.startup_s = begun - started
                    self.timings.waiting_s += time.perf_counter() - waited
                    upcoming.fill(upcoming.depth)
                    record, extremes = self._measure(scene)
                except (NVSError, OSError) as error:
                    self._failed(entry.name, {"*": " ".join(str(error).split())})
                    continue
                records[entry.name] = record
                keeping.append((entry.name, keeper.submit(self._keep, entry.name, record, extremes)))
                self._told(entry.name, record)
            for _, future in keeping:
                future.result()
        if begun is not None:
            self.timings.wall_s = time.perf_counter() - begun

    def _measure(self, scene: BenchmarkScene) -> tuple[dict[str, Any], dict[str, ExtremeView]]:
        counts: dict[str, Any] = {}
        seconds: dict[str, dict[str, float]] = {}
        failed = {str(count): " ".join(message.split()) for count, message in scene.failed.items()}
        extremes: dict[str, ExtremeView] = {}
        rendered: dict[str, RenderedCase] = {}
        for count in scene.cases:
            try:
                keep = count == max(scene.cases)
                rendered[str(count)] = render_case(self.renderer, scene, count, self.comparer, self.metrics, keep)
            except NVSError as error:  # memory, most likely: another number of views may fit
                failed[str(count)] = " ".join(str(error).split())
        self.comparer.finish()
        for count, case in rendered.items():
            spent = case.seconds
            self.timings.model_s += spent["encode_s"] + spent["decode_s"]
            self.timings.compare_s += spent["compare_s"]
            self.timings.gsplat_s += spent.get("gsplat_s", 0.0)
            self.timings.views += len(case.views.figures)
            try:
                counts[count] = figures_of(case, self.metrics, self.renderer)
            except NVSError as error:
                failed[count] = str(error)
                continue
            seconds[count] = spent
            extremes = case.extremes or extremes
        if not counts:
            raise NVSError(next(iter(failed.values())))
        if failed:
            self._failed(scene.name, failed)
        self.timings.scenes += 1
        result = {"path": scene.root, "image_hw": list(scene.image_hw), "notes": scene.remarks, "counts": counts}
        record = {
            "result": result,
            "failed": failed,
            "timing": {"load_s": scene.load_s, "counts": seconds},
        }
        return record, extremes

    def _keep(self, name: str, record: dict[str, Any], extremes: dict[str, ExtremeView]) -> None:
        """Writes a scene's record with its images; runs beside the next scene."""
        counts = record["result"]["counts"]
        largest = str(max(map(int, counts)))
        record["result"]["pictures"] = {
            which: {
                "context": int(largest),
                "view": counts[largest]["views"][extreme.row]["file"],
                "psnr": counts[largest]["views"][extreme.row]["psnr"],
                **encode_images(extreme),
            }
            for which, extreme in extremes.items()
        }
        self.results.write(name, record)

    def _warm_up(self, scene: BenchmarkScene) -> None:
        """Renders the first scene once untimed on a GPU (libraries load, memory is fetched) and notes the memory that
        encoding and decoding take beyond what was there."""
        device = self.renderer.device
        if device.type != "cuda":
            return
        options = MetricOptions(rounded=self.metrics.rounded)
        clock, comparer = DeviceClock(device), options.comparer(device)
        for count, case in scene.cases.items():
            try:
                render_case(self.renderer, scene, count, comparer, options, keep_images=True)
                comparer.finish()
                images = scene.pixels(case.context_rows, device)
                peaks = {}
                for what in ("encode", "decode"):
                    clock()
                    torch.cuda.reset_peak_memory_stats(device)
                    before = torch.cuda.memory_allocated(device)
                    if what == "encode":
                        chunk = self.renderer.fixed_chunk(scene.image_hw)
                        state = self.renderer.encode(PosedImages(images, case.context_cameras), chunk=chunk)
                    else:
                        next(self.renderer.stream(state, case.target_cameras, 1, on_device=True))
                    clock()
                    peaks[f"{what}_bytes"] = torch.cuda.max_memory_allocated(device) - before
                self.timings.memory[str(count)] = peaks
            except NVSError:
                continue  # told when its turn comes

    def _failed(self, name: str, messages: dict[str, str]) -> None:
        self.failed[name] = messages
        for count, message in messages.items():
            self.callback.error(name if count == "*" else f"{name} at {count} views", message)
        if "*" in messages:
            self._told(name, None)

    def _told(self, name: str, record: dict[str, Any] | None) -> None:
        store = self.world.store if self.world is not None else None
        self.done = self.done + 1 if store is None else store.add("scenes done", 1)
        self.callback.scene(self.done, len(self.entries), name, record)

    def _gather(self, records: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        """Brings everything to the first process, which makes the report."""
        store = self.world.store if self.world is not None else None
        for name, record in records.items():
            if record["failed"]:
                self.failed.setdefault(name, record["failed"])
        keep_shown_images({name: record["result"] for name, record in records.items()})
        share: list[Any] = [{"failed": self.failed, "timing": self._timing()}, *map(list, records.items())]
        if store is not None and not self.rank:
            while (done := store.add("scenes done", 0)) < len(self.entries):
                self.callback.scene(done, len(self.entries), "", None)
                time.sleep(0.5)
            self.callback.scene(done, len(self.entries), "", None)
        shares = [share] if self.world is None else self.world.gather_objects("measured", share)
        if shares is None:
            return None
        everything: dict[str, dict[str, Any]] = {}
        failed = {name: {"*": reason} for name, reason in self.absent.items()}
        for said, *own in shares:
            failed |= said["failed"]
            everything |= dict(own)
        ordered = {entry.name: everything[entry.name] for entry in self.entries if entry.name in everything}
        timing = {"device": device_name(self.renderer.device), "processes": [said["timing"] for said, *_ in shares]}
        kinds = {entry.name: entry.kind for entry in self.entries if entry.kind}
        return assemble(self.header, ordered, failed, len(self.entries) + len(self.absent), timing, kinds)

    def _timing(self) -> dict[str, Any]:
        spent = self.timings
        busy = spent.wall_s - spent.gsplat_s
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            **{key: value for key, value in vars(spent).items() if key != "memory"},
            "not_in_model": None if busy <= 0 else 1 - spent.model_s / busy,
            "memory": spent.memory,
            "process_peak_bytes": 1024 * kilobytes,
        }


def describe(
    renderer: Renderer, benchmark: Benchmark, settings: Settings, metrics: MetricOptions, remarks: dict[str, str]
) -> dict[str, Any]:
    """What was measured and how: everything that decides the figures, in words and numbers."""
    card, image_hw = renderer.card, settings.image_hw or benchmark.image_hw
    options = {
        option.name: {
            "value": settings.options[option.name],
            "help": option.help,
            "meaning": option.choices.get(settings.options[option.name], ""),
        }
        for option in benchmark.options
    }
    return {
        "benchmark": {
            "name": benchmark.name,
            "title": benchmark.title,
            "source": benchmark.source,
            "notes": list(benchmark.notes),
            "options": options,
            "contexts": list(settings.contexts),
            "image_hw": list(image_hw) if image_hw else None,
            "seed": settings.seed,
            "published": [vars(figure) for figure in benchmark.published],
        },
        "model": {
            "checkpoint": card.get("name"),
            "hash": card.get("hash"),
            "parameters": sum(parameter.numel() for parameter in renderer.model.parameters()),
            "precision": renderer.precision,
            "normalization": str(card.get("normalization", "auto")),
            "train_image_hw": card.get("train_image_hw"),
            "rendering": renderer.settings(image_hw),
        },
        "measures": {
            "normalize_with": metrics.normalize_with,
            "normalize_with_means": NORMALIZE_WITH[metrics.normalize_with],
            "rounded": metrics.rounded,
            "ssim": "11x11 Gaussian window of sigma 1.5, each colour channel",
            "sharpness": "gradient energy of luma in parts of the photo's: 1 as sharp, below blurred, above noisy",
            "depth_error": "where the true depth is known: |depth - true| / true, median over a view's surface pixels",
            "lpips": "VGG-16" if metrics.lpips is not None else remarks.get("lpips", "not measured"),
            "baselines": {name: DESCRIPTIONS[name] for name in metrics.baselines},
            "gsplat": f"{metrics.gsplat_steps} steps" if metrics.gsplat_steps else remarks.get("gsplat", "off"),
        },
    }


def owners(entries: list[Entry], size: int) -> list[int]:
    """The process of each scene: groups by turns, scenes without a group by turns."""
    turn: dict[str, int] = {}
    for number, entry in enumerate(entries):
        turn.setdefault(entry.group or f" {number}", len(turn))
    return [turn[entry.group or f" {number}"] % size for number, entry in enumerate(entries)]


def _picked(entries: list[Entry], only: tuple[str, ...], limit: int | None) -> list[Entry]:
    names = {entry.name for entry in entries}
    if len(names) != len(entries):
        raise NVSError("two scenes of the data have the same name; give them other names")
    unknown = [name for name in only if name not in names]
    if unknown:
        raise NVSError(f"--scenes {unknown[0]}: no such scene among the {len(entries)}")
    chosen = [entry for entry in entries if not only or entry.name in only]
    return chosen[:limit] if limit else chosen
