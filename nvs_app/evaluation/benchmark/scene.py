"""The figures of one scene at one number of context views, compared on the device; times and images apart."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.evaluation.baselines import mean_colour
from nvs_app.evaluation.benchmark.load import BenchmarkScene, Case
from nvs_app.evaluation.evaluator import Comparer, DeviceClock, EvaluatedViews, TargetViews, compare_stream
from nvs_app.evaluation.gaussians import fit_gsplat
from nvs_app.evaluation.metrics import LPIPS
from nvs_app.evaluation.report.measures import BASELINE_MEASURES, shown
from nvs_app.geometry.normalize import normalize_context
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.images import data_uri, to_uint8
from nvs_app.scenes.posed import PosedImages

NORMALIZE_WITH = {
    "context": "frame and scale from the context cameras alone",
    "context+target": "frame and scale from context and target cameras, as some releases do: sees the targets' cameras",
}
_IMAGE_SIDE = 256


@dataclass(frozen=True)
class MetricOptions:
    """What is measured: `lpips` where its weights are at hand; gsplat_steps 0 leaves that baseline out."""

    rounded: bool = False
    normalize_with: str = "context"
    gsplat_steps: int = 0
    lpips: LPIPS | None = None

    @property
    def baselines(self) -> tuple[str, ...]:
        return ("nearest_view", "mean_colour", *(("gsplat",) if self.gsplat_steps else ()))

    def comparer(self, device: torch.device) -> Comparer:
        """Measures it on the device."""
        return Comparer(device, self.rounded, self.lpips)


@dataclass
class ExtremeView:
    """The best or worst view so far, small enough to keep: uint8 [h, w, 3] each, on the device."""

    psnr: float
    row: int
    images: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class RenderedCase:
    """A scene at one number of context views, rendered; complete after `Comparer.finish`."""

    scene: BenchmarkScene
    case: Case
    views: EvaluatedViews
    seconds: dict[str, float]
    extremes: dict[str, ExtremeView] = field(default_factory=dict)
    """The "worst" and the "best" view, where images are kept."""


def render_case(
    renderer: Renderer, scene: BenchmarkScene, count: int, comparer: Comparer, options: MetricOptions, keep_images: bool
) -> RenderedCase:
    """Encodes a scene at `count` context views, renders its targets and has them compared. Raises NVSError.

    The figures are a function of the scene, the settings and the device; the seconds are not.
    """
    clock, device, case = DeviceClock(renderer.device), renderer.device, scene.cases[count]
    context = PosedImages(scene.pixels(case.context_rows, device), case.context_cameras)
    transform = None
    if options.normalize_with == "context+target":
        c2w = torch.cat([case.context_cameras.c2w, case.target_cameras.c2w])[None]
        transform = normalize_context(c2w, str(renderer.card.get("normalization", "auto")))
    chunk = renderer.fixed_chunk(scene.image_hw)
    start = clock()
    state = renderer.encode(context, transform, chunk=chunk)
    seconds = {"encode_s": clock() - start}
    fitted: Tensor | None = None
    if options.gsplat_steps:
        start = clock()
        try:
            fitted = fit_gsplat(context, case.target_cameras, options.gsplat_steps)
        except RuntimeError as error:  # memory, or no Gaussian left
            reason = " ".join(str(error).split())[:160]
            raise NVSError(f"scene {scene.name}: gsplat failed ({reason}); --gsplat off leaves it out") from error
        seconds["gsplat_s"] = clock() - start

    def baselines(part: slice, photos: Tensor) -> dict[str, Tensor]:
        nearest = scene.pixels(case.nearest_rows[part], device)
        answers = {"nearest_view": nearest, "mean_colour": mean_colour(context.images).expand_as(photos)}
        return answers if fitted is None else {**answers, "gsplat": fitted[part]}

    with_depth = {"depth": True} if scene.depth is not None and state.context is not None else {}
    targets = TargetViews(
        case.target_cameras,
        lambda part: scene.pixels(case.target_rows[part], device),
        baselines,
        (lambda part: scene.depths(case.target_rows[part], device)) if with_depth else None,
    )
    extremes: dict[str, ExtremeView] = {}
    views = EvaluatedViews(targets, functools.partial(_keep_extremes, extremes) if keep_images else None)
    stream = renderer.stream(state, case.target_cameras, chunk, on_device=True, **with_depth)
    compare_stream(stream, views, comparer)
    return RenderedCase(
        scene, case, views, seconds | {"decode_s": views.decode_s, "compare_s": views.compare_s}, extremes
    )


def figures_of(rendered: RenderedCase, options: MetricOptions, renderer: Renderer) -> dict[str, Any]:
    """What the report keeps of a case, view by view and averaged. Raises NVSError where a rendering is no image."""
    scene, case = rendered.scene, rendered.case
    views = []
    for index, figures in zip(case.split.target, rendered.views.figures):
        own = {**figures, "baselines": {name: figures["baselines"][name] for name in options.baselines}}
        found = [answer[m.name] for answer in (own, *own["baselines"].values()) for m in shown(answer) if m.finite]
        if not all(map(math.isfinite, found)):
            raise NVSError(f"scene {scene.name}: view {index} ({scene.files[index]}) has values that are no numbers")
        views.append({"index": index, "file": scene.files[index], **_rounded(own)})
    plan = renderer.plan_encode(scene.image_hw)
    columns = {m.name: [view[m.name] for view in views if view[m.name] is not None] for m in shown(views[0])}
    return {
        **{name: mean(values) for name, values in columns.items() if values},
        "baselines": {
            name: {m.name: mean([view["baselines"][name][m.name] for view in views]) for m in BASELINE_MEASURES}
            for name in options.baselines
        },
        "tokens": len(case.split.context) * plan.tokens,
        "context": list(case.split.context),
        "target": list(case.split.target),
        "views": views,
    }


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """As they are stored; None for the error of depth of a view without a surface."""
    return {
        name: _rounded(value) if isinstance(value, dict) else round(value, 6) if math.isfinite(value) else None
        for name, value in figures.items()
    }


def mean(values: list[float]) -> float:
    """The mean, rounded as figures are stored; the sum is in the order of the views."""
    return round(sum(values) / len(values), 6)


def _keep_extremes(
    extremes: dict[str, ExtremeView], first: int, figures: list[dict[str, Any]], images: dict[str, Tensor],
    photos: Tensor,
) -> None:  # fmt: skip
    values = [view["psnr"] for view in figures]
    for name, pick, better in (("worst", min, float.__lt__), ("best", max, float.__gt__)):
        row = values.index(pick(values))
        if name in extremes and not better(values[row], extremes[name].psnr):
            continue
        rendered = images["rendered"][row]
        error = (rendered.clamp(0, 1) - photos[row]).abs().mean(0, keepdim=True) * 4
        kept = {"render": rendered, "photo": photos[row], "nearest": images["nearest_view"][row]}
        kept["error"] = error.expand(3, -1, -1)
        extremes[name] = ExtremeView(values[row], first + row, {key: _small(image) for key, image in kept.items()})


def _small(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    factor = min(1.0, _IMAGE_SIDE / max(height, width))
    if factor < 1:
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        image = F.interpolate(image[None], size=size, mode="area")[0]
    return to_uint8(image)


def encode_images(extreme: ExtremeView) -> dict[str, str]:
    """The images of a view as data URIs of JPEGs; the error, times 4, in the colours of `inferno`."""
    uris = {}
    for name, pixels in extreme.images.items():
        array = np.ascontiguousarray(pixels.cpu().numpy())
        if name == "error":
            array = cv2.cvtColor(cv2.applyColorMap(array[:, :, 0], cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
        uris[name] = data_uri(Image.fromarray(array), quality=88, subsampling=0)
    return uris
