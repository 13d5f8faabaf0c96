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
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.evaluation.baselines import nearest_views
from nvs_app.evaluation.metrics import LPIPS, psnr, sharpness, ssim
from nvs_app.evaluation.protocols.base import view_name
from nvs_app.evaluation.report.measures import BASELINE_MEASURES, MEASURES, shown
from nvs_app.rendering.renderer import Renderer
from nvs_app.rendering.video import save_png
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit, choose_views

BASELINES = ("white", "mean_colour", "nearest_view")
_TARGETS_AT_ONCE = 16  # bounds memory on captures of hundreds of views


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
        if min(self.image_hw) < 11:
            raise NVSError(f"--image-hw: {self.image_hw[0]} {self.image_hw[1]}, expected 11 pixels or more")
        if self.mode not in ("spread", "random"):
            raise NVSError(f"--mode: {self.mode!r}, expected spread or random")

    def choose(self, scene: Scene) -> ViewSplit:
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
) -> dict[str, Any]:
    """Evaluates scenes and returns the report that `eval --json` writes.

    scenes: name -> scene, or a function that opens it; a scene that raises NVSError is reported through `on_error`
        and under "failed", and the others go on.
    side_by_side: a folder for one PNG a target view (nearest context view, rendering, photo, error), by scene.
    on_scene(name, result), on_error(name, message), on_progress(name, done, total): called as it goes.
    """
    results: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name, scene in scenes.items():
        try:
            opened = scene if isinstance(scene, Scene) else scene()
            folder = None if side_by_side is None else side_by_side / name
            progress = None if on_progress is None else (lambda done, total, n=name: on_progress(n, done, total))
            results[name] = evaluate_scene(
                renderer, opened, config, lpips=lpips, side_by_side=folder, on_progress=progress
            )
            if on_scene is not None:
                on_scene(name, results[name])
        except NVSError as error:
            failed[name] = str(error)
            if on_error is not None:
                on_error(name, str(error))
    metrics = [m.name for m in MEASURES if m.of_baselines or (m.name == "lpips" and lpips is not None)]
    overall: dict[str, Any] = {metric: _mean([r[metric] for r in results.values()]) for metric in metrics}
    overall["baselines"] = {
        baseline: {
            m.name: _mean([r["baselines"][baseline][m.name] for r in results.values()]) for m in BASELINE_MEASURES
        }
        for baseline in BASELINES
    }
    overall["num_scenes"] = len(results)
    card = renderer.card
    return {
        "overall": overall,
        "scenes": results,
        "failed": failed,
        "checkpoint": {"name": card.get("name"), "hash": card.get("hash")},
        **{key: value for key, value in asdict(config).items() if key not in ("context", "target")},
        "image_hw": list(config.image_hw),
        "lpips": "measured" if lpips is not None else "not measured: no weights (--lpips, NVS_LPIPS_WEIGHTS)",
        "device": device_name(renderer.device),
        "precision": renderer.precision,
        "rendering": renderer.settings(config.image_hw),
        "versions": versions(),
    }


def evaluate_scene(
    renderer: Renderer,
    scene: Scene,
    config: EvalConfig,
    *,
    lpips: LPIPS | None = None,
    side_by_side: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Figures of one scene: averages, per view, of the baselines, and which views were used. Raises NVSError."""
    split = config.choose(scene)
    if not split.target:
        raise NVSError(f"{scene.name}: no target view left beside {len(split.context)} context views; use fewer")
    context = scene.load(split.context, config.image_hw)
    start = time.perf_counter()
    state = renderer.encode(context)
    encode_ms = 1e3 * (time.perf_counter() - start)

    mean_colour = context.images.float().mean((0, 2, 3)).view(1, 3, 1, 1)
    views: list[dict[str, Any]] = []
    baseline_views: dict[str, list[dict[str, float]]] = {name: [] for name in BASELINES}
    decode_s = 0.0
    for first in range(0, len(split.target), _TARGETS_AT_ONCE):
        indices = split.target[first : first + _TARGETS_AT_ONCE]
        target = scene.load(indices, config.image_hw)
        start = time.perf_counter()
        rendered = renderer.render(state, target.cameras)
        decode_s += time.perf_counter() - start
        truth = target.images.float()
        figures = compared(rendered, truth, config.rounded)
        if lpips is not None:
            lpips = lpips.to(renderer.device)
            for row, a, b in zip(figures, rendered.to(renderer.device), truth.to(renderer.device)):
                row["lpips"] = float(lpips(a, b))
        for column, (index, row) in enumerate(zip(indices, figures)):
            views.append({"index": index, "file": view_name(scene, index), **row})
            if side_by_side is not None:
                nearest = nearest_view(context, target.cameras.c2w[column])
                strip = strip_image(context.images[nearest].float(), rendered[column], truth[column])
                save_png(strip, side_by_side / f"view_{index:04d}.png")
        answers = {
            "white": torch.ones_like(truth),
            "mean_colour": mean_colour.expand_as(truth),
            "nearest_view": torch.stack(
                [context.images[nearest_view(context, pose)].float() for pose in target.cameras.c2w]
            ),
        }
        for name, answer in answers.items():
            baseline_views[name] += compared(answer, truth)
        if on_progress is not None:
            on_progress(first + len(indices), len(split.target))

    if side_by_side is not None:
        save_png(torch.cat(list(context.images.float()), dim=-1), side_by_side / "context.png")
    return {
        **{metric.name: _mean([view[metric.name] for view in views]) for metric in shown(views[0])},
        "path": str(scene.root),
        "seed": config.seed,
        "mode": config.mode if config.context is None else "listed",
        "context": list(split.context),
        "target": list(split.target),
        "views": views,
        "baselines": {
            name: {m.name: _mean([view[m.name] for view in answers]) for m in BASELINE_MEASURES}
            for name, answers in baseline_views.items()
        },
        "encode_ms": encode_ms,
        "decode_ms_per_view": 1e3 * decode_s / len(views),
    }


def compared(
    rendered: Float[Tensor, "t 3 h w"], truth: Float[Tensor, "t 3 h w"], rounded: bool = False
) -> list[dict[str, float]]:
    """PSNR, SSIM and sharpness of each rendering (in [0, 1]) against its photo."""
    columns = {"psnr": psnr, "ssim": ssim, "sharpness": sharpness}
    values = [measure(rendered, truth, rounded=rounded).tolist() for measure in columns.values()]
    return [dict(zip(columns, row)) for row in zip(*values)]


def nearest_view(context: PosedImages, c2w: Float[Tensor, "4 4"]) -> int:
    """Row of the context view whose camera is nearest, see `baselines.nearest_views`."""
    return int(nearest_views(context.cameras.c2w.cpu(), c2w.cpu()[None])[0])


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


def device_name(device: torch.device) -> str:
    """The device in words: the GPU's name, or the CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _mean(values: list[float]) -> float | None:
    """Average; None (JSON null) of nothing or of something that is no number."""
    if not values or any(value is None for value in values):
        return None
    mean = sum(values) / len(values)
    return mean if math.isfinite(mean) else None
