"""Measures a renderer on held-out views of scenes.

    report = evaluate(renderer, {"chair": open_scene(path)}, EvalConfig(num_context=8, image_hw=(128, 128)))
    print(report["overall"]["psnr"])

The context views are written into fast weights once, every target view is rendered and compared with its photo.
PSNR is taken per image, averaged over the views of a scene, then over scenes. Three answers that need no network
stand beside ours, so that a number means something: a white image, the mean colour of the context, and the
context view whose camera is nearest.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.distributed import World
from nvs_app.errors import NVSError
from nvs_app.evaluation.baselines import mean_colour, nearest_views
from nvs_app.evaluation.benchmark.results import SceneResults
from nvs_app.evaluation.evaluator import Comparer, DeviceClock, EvaluatedViews, TargetViews, compare_stream
from nvs_app.evaluation.metrics import LPIPS
from nvs_app.evaluation.protocols.base import Views, view_name
from nvs_app.evaluation.report.measures import BASELINE_MEASURES, MEASURES, shown
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.state import SceneState
from nvs_app.rendering.device import device_name
from nvs_app.rendering.renderer import Renderer
from nvs_app.rendering.video import save_png
from nvs_app.scenes.digest import scene_digest
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit, choose_views

SMALLEST = 11  # pixels a side, which SSIM needs
MEASURED = "measured"
BASELINES = ("white", "mean_colour", "nearest_view")
Adapt = Callable[[str, PosedImages, SceneState], tuple[SceneState, dict[str, Any]]]
_TARGETS_AT_ONCE = 16  # bounds memory on captures of hundreds of views


@runtime_checkable
class SceneViews(Views, Protocol):
    """A `Scene`, or what can do this much of it."""

    def cameras(self, indices: Sequence[int] | None = None, image_hw: tuple[int, int] | None = None) -> Cameras:
        """The cameras that `load` would return."""
        ...


@dataclass(frozen=True)
class EvalConfig:
    """What is measured. Raises NVSError for impossible values."""

    num_context: int = 8
    """Number of context views; the listed ones count when `context` is given."""
    image_hw: tuple[int, int] = (256, 256)
    """Size (height, width) that context and target views are resized and cut to."""
    mode: str = "spread"
    """"spread": context views evenly over the cameras; "random": drawn with `seed`."""
    seed: int = 0
    """Seed of the choice of views."""
    context: tuple[int, ...] | None = None
    """Listed context views; None chooses by `mode`."""
    target: tuple[int, ...] | None = None
    """Listed target views; None takes all views that are no context."""
    max_targets: int | None = None
    """Upper limit for the number of target views."""
    rounded: bool = False
    """Round renderings to 8 bits before comparing, as if they had been saved."""

    def __post_init__(self) -> None:
        if self.num_context < 1:
            raise NVSError(f"--context: {self.num_context}, expected a view or more")
        if min(self.image_hw) < SMALLEST:
            raise NVSError(f"--image-hw: {self.image_hw[0]} {self.image_hw[1]}, expected {SMALLEST} pixels or more")
        if self.mode not in ("spread", "random"):
            raise NVSError(f"--mode: {self.mode!r}, expected spread or random")

    def choose(self, scene: Views) -> ViewSplit:
        """The context and target views of one scene."""
        return choose_views(
            scene,
            self.num_context if self.context is None else len(self.context),
            mode=self.mode if self.context is None else "listed",
            seed=self.seed,
            context=None if self.context is None else list(self.context),
            target=None if self.target is None else list(self.target),
            max_targets=self.max_targets,
        )


def evaluate(
    renderer: Renderer,
    scenes: Mapping[str, Scene | Callable[[], Scene]],
    config: EvalConfig,
    *,
    lpips: LPIPS | None = None,
    side_by_side: Path | None = None,
    on_scene: Callable[[str, dict[str, Any]], None] | None = None,
    on_error: Callable[[str, str], None] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
    adapt: Adapt | None = None,
    world: World | None = None,
    kept: SceneResults | None = None,
) -> dict[str, Any]:
    """Evaluates scenes and returns the report that `eval --json` writes.

    scenes: name -> scene, or a function that opens it; a scene that raises NVSError is reported through `on_error`
        and under "failed", and the others go on.
    side_by_side: a folder for one PNG a target view (nearest context view, rendering, photo, error), by scene.
    adapt: see `evaluate_scene`.
    kept: where the figures of each scene are kept: one whose files and cameras are as they were is not done again.
    world: processes that evaluate the scenes by turns; process 0 returns the whole report, the others that of theirs.
    on_scene(name, result), on_error(name, message), on_progress(name, done, total): called as it goes.
    """
    lpips = None if lpips is None else lpips.to(renderer.device)
    results: dict[str, Any] = {}
    failed: dict[str, str] = {}
    rank, size = (0, 1) if world is None else (world.rank, world.size)
    for name, scene in list(scenes.items())[rank::size]:
        try:
            opened = scene if isinstance(scene, Scene) else scene()
            folder = None if side_by_side is None else side_by_side / name
            progress = None if on_progress is None else (lambda done, total, n=name: on_progress(n, done, total))
            made_of = "" if kept is None else scene_digest(opened)
            record = None if kept is None else kept.read(name)
            if record is None or record["made_of"] != made_of:
                result = evaluate_scene(
                    renderer, opened, config, lpips=lpips, side_by_side=folder, on_progress=progress, adapt=adapt
                )
                record = {"made_of": made_of, "result": result}
                if kept is not None:
                    kept.write(name, record)
            results[name] = record["result"]
            if on_scene is not None:
                on_scene(name, results[name])
        except NVSError as error:
            failed[name] = error.told
            if on_error is not None:
                on_error(name, error.told)
    if world is not None:
        own = [{"results": {name: result}} for name, result in results.items()]
        gathered = world.gather_objects("evaluated", [*own, {"failed": failed}])
        for part in (part for parts in gathered or () for part in parts):
            results |= part.get("results", {})
            failed |= part.get("failed", {})
        results, failed = ({name: found[name] for name in scenes if name in found} for found in (results, failed))
    return with_overall(report_header(renderer, config, lpips), results, failed)


def with_overall(header: dict[str, Any], results: dict[str, Any], failed: dict[str, str]) -> dict[str, Any]:
    """The report of scenes and their averages; header: `report_header`, or a report of other scenes."""
    metrics = [m.name for m in MEASURES if m.of_baselines or (m.name == "lpips" and header["lpips"] == MEASURED)]
    overall: dict[str, Any] = {metric: _mean([r[metric] for r in results.values()]) for metric in metrics}
    overall["baselines"] = {
        baseline: {
            m.name: _mean([r["baselines"][baseline][m.name] for r in results.values()]) for m in BASELINE_MEASURES
        }
        for baseline in BASELINES
    }
    overall["num_scenes"] = len(results)
    return {**header, "overall": overall, "scenes": results, "failed": failed}


def report_header(renderer: Renderer, config: EvalConfig, lpips: LPIPS | None) -> dict[str, Any]:
    """What a report says beside the figures: all that decides about them."""
    card = renderer.card
    return {
        "checkpoint": {"name": card.get("name"), "hash": card.get("hash")},
        **{key: value for key, value in asdict(config).items() if key not in ("context", "target")},
        "image_hw": list(config.image_hw),
        "lpips": MEASURED if lpips is not None else "not measured: no weights (--lpips, NVS_LPIPS_WEIGHTS)",
        "device": device_name(renderer.device),
        "precision": renderer.precision,
        "rendering": renderer.settings(config.image_hw),
        "versions": versions(),
    }


def evaluate_scene(
    renderer: Renderer,
    scene: SceneViews,
    config: EvalConfig,
    *,
    lpips: LPIPS | None = None,
    side_by_side: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    baselines: tuple[str, ...] = BASELINES,
    chunk: int | None = None,
    adapt: Adapt | None = None,
) -> dict[str, Any]:
    """Figures of one scene: averages, per view, of the baselines, and which views were used. Raises NVSError.

    baselines: some of `BASELINES`. chunk: views that pass through the network at once, see `Renderer.encode`.
    adapt: makes of the context views and their state another one, and facts for the report ("adapted"); the target
        views are not among what it is given.
    """
    split = config.choose(scene)
    if not split.target:
        raise NVSError(f"{scene.name}: no target view left beside {len(split.context)} context views; use fewer")
    device, clock = renderer.device, DeviceClock(renderer.device)
    context = scene.load(split.context, config.image_hw).float()
    start = clock()
    state = renderer.encode(context, chunk=chunk)
    encode_s = clock() - start
    adapted: dict[str, Any] = {}
    if adapt is not None:
        state, adapted = adapt(scene.name, context, state)
    cameras = scene.cameras(split.target, config.image_hw)
    nearest = nearest_views(context.cameras.c2w.cpu(), cameras.c2w.cpu()).to(context.images.device)
    colour = mean_colour(context.images).to(device)
    answers: dict[str, Callable[[slice, Tensor], Tensor]] = {
        "white": lambda part, photos: torch.ones_like(photos),
        "mean_colour": lambda part, photos: colour.expand_as(photos),
        "nearest_view": lambda part, photos: context.images[nearest[part]].to(device),
    }

    def photos(part: slice) -> Tensor:
        return scene.load(split.target[part], config.image_hw).float().images.to(device)

    def on_views(first: int, figures: list[dict], images: dict[str, Tensor], photos: Tensor) -> None:
        if side_by_side is not None:
            for row, (rendered, photo) in enumerate(zip(images["rendered"].cpu(), photos.cpu()), first):
                strip = strip_image(context.images[nearest[row]].cpu(), rendered, photo)
                save_png(strip, side_by_side / f"view_{split.target[row]:04d}.png")
        if on_progress is not None:
            on_progress(first + len(figures), len(split.target))

    targets = TargetViews(cameras, photos, lambda part, own: {name: answers[name](part, own) for name in baselines})
    evaluated, comparer = EvaluatedViews(targets, on_views), Comparer(device, config.rounded, lpips)
    groups = (cameras[first : first + _TARGETS_AT_ONCE] for first in range(0, len(cameras), _TARGETS_AT_ONCE))
    compare_stream(
        (torch.cat(list(renderer.stream(state, group, chunk, on_device=True))) for group in groups), evaluated, comparer
    )
    comparer.finish()
    if side_by_side is not None:
        save_png(torch.cat(list(context.images.cpu()), dim=-1), side_by_side / "context.png")
    of_baselines = [figures.pop("baselines") for figures in evaluated.figures]
    views = [
        {"index": index, "file": view_name(scene, index), **figures}
        for index, figures in zip(split.target, evaluated.figures)
    ]
    return {
        **{metric.name: _mean([view[metric.name] for view in views]) for metric in shown(views[0])},
        "path": str(scene.root),
        "seed": config.seed,
        "mode": config.mode if config.context is None else "listed",
        "context": list(split.context),
        "target": list(split.target),
        "views": views,
        "baselines": {
            name: {m.name: _mean([view[name][m.name] for view in of_baselines]) for m in BASELINE_MEASURES}
            for name in baselines
        },
        **({"adapted": adapted} if adapted else {}),
        "encode_ms": 1e3 * encode_s,
        "decode_ms_per_view": 1e3 * evaluated.decode_s / len(views),
    }


def strip_image(
    nearest: Float[Tensor, "3 h w"], rendered: Float[Tensor, "3 h w"], truth: Float[Tensor, "3 h w"]
) -> Float[Tensor, "3 h wide"]:
    """Nearest context view | rendering | photo | absolute error times 4, side by side with white gaps."""
    error = ((rendered - truth).abs() * 4).clamp(0, 1)
    gap = torch.ones(3, truth.shape[-2], 4)
    return torch.cat([nearest, gap, rendered, gap, truth, gap, error], dim=-1)


def versions() -> dict[str, str]:
    """Versions that can change a figure."""
    found = {"python": platform.python_version()}
    for package in ("torch", "numpy", "opencv-python", "pillow", "nvs-app"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _mean(values: list[float]) -> float | None:
    """Average; None (JSON null) of nothing or of something that is no number."""
    if not values or any(value is None for value in values):
        return None
    mean = sum(values) / len(values)
    return mean if math.isfinite(mean) else None
