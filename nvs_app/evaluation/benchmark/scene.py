"""The figures of one scene at one number of context views, compared on the device; times and images apart."""

from __future__ import annotations

import base64
import io
import math
import time
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
from nvs_app.evaluation.benchmark.load import Case, Loaded
from nvs_app.evaluation.gaussians import fit_gsplat
from nvs_app.evaluation.metrics import LPIPS, depth_error, psnr, sharpness, ssim
from nvs_app.evaluation.report.measures import BASELINE_MEASURES, shown
from nvs_app.geometry.normalize import normalize_context
from nvs_app.rendering.plan import CUDA_PIXELS
from nvs_app.rendering.renderer import Renderer
from nvs_app.rendering.views import RenderedViews
from nvs_app.scenes.images import to_uint8
from nvs_app.scenes.posed import PosedImages

NORMALIZE_WITH = {
    "context": "frame and scale from the context cameras alone",
    "context+target": "frame and scale from context and target cameras, as some releases do: sees the targets' cameras",
}
# Fixed numbers, so that the figures do not depend on how much memory is free at the moment.
_CUDA_CHUNK_TOKENS = 32768
_IMAGE_SIDE = 256


@dataclass(frozen=True)
class Measures:
    """What is measured: `lpips` where its weights are at hand; gsplat_steps 0 leaves that baseline out."""

    rounded: bool = False
    normalize_with: str = "context"
    gsplat_steps: int = 0
    lpips: LPIPS | None = None

    @property
    def baselines(self) -> tuple[str, ...]:
        return ("nearest_view", "mean_colour", *(("gsplat",) if self.gsplat_steps else ()))


@dataclass
class Extreme:
    """The best or worst view so far, small enough to keep: uint8 [h, w, 3] each, on the device."""

    psnr: float
    row: int
    images: dict[str, Tensor] = field(default_factory=dict)


class Clock:
    """Wall time, after the work that this thread gave to the device (and no other thread's)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        return time.perf_counter()


@dataclass
class Work:
    """A scene at one number of context views, rendered; its figures are complete after `Comparer.finish`."""

    loaded: Loaded
    case: Case
    keep_images: bool
    seconds: dict[str, float] = field(default_factory=dict)
    rows: list[list[float]] = field(default_factory=list)
    """For each target so far: PSNR of ours and the baselines, SSIM, sharpness of them, LPIPS of ours where measured,
    and the error of our depth where the true one is known."""
    extremes: dict[str, Extreme] = field(default_factory=dict)
    """The "worst" and the "best" view, where `keep_images` asks for them."""


class Comparer:
    """Compares renderings with photos on the device; on a GPU on a stream of its own, so that the network goes on.

    One chunk is on its way at any time: `submit` first finishes the one before.
    """

    def __init__(self, device: torch.device, measures: Measures) -> None:
        self.device, self.measures = device, measures
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.pending: tuple[Work, Tensor, tuple[Tensor, ...]] | None = None

    def submit(
        self, work: Work, first: int, rendered: Tensor, context: Tensor, fitted: Tensor | None, depth: Tensor | None
    ) -> None:
        """Begins to compare `rendered`, the targets from number `first` on. context: the context photos; fitted:
        gsplat's answers to all targets; depth: of the rendered views, where the true one is known."""
        self.finish()
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        part = slice(first, first + len(rendered))
        with torch.cuda.stream(self.stream), torch.inference_mode():
            truth = work.loaded.pixels(work.case.target_rows[part], self.device)
            nearest = work.loaded.pixels(work.case.nearest_rows[part], self.device)
            answers = [rendered, nearest, mean_colour(context).expand_as(truth)]
            answers += [] if fitted is None else [fitted[part]]
            figures = _compare(torch.stack(answers), truth, self.measures)
            kept = (rendered, truth, nearest, context)
            if depth is not None:
                true = work.loaded.depths(work.case.target_rows[part], self.device)
                assert true is not None
                figures = torch.cat([figures, depth_error(depth, true)[:, None].double()], dim=-1)
                kept += (depth, true)
        # Kept until `finish`, so that no memory is given to the network that this stream still reads.
        self.pending = (work, figures, kept)

    def finish(self) -> None:
        """Waits for the chunk on its way and adds its figures to its work."""
        if self.pending is None:
            return
        work, figures, (rendered, truth, nearest, *_) = self.pending
        with torch.cuda.stream(self.stream):
            rows = figures.cpu().tolist()
        if work.keep_images:
            with torch.inference_mode():
                _keep_extremes(work.extremes, len(work.rows), rows, rendered, truth, nearest)
        work.rows += rows
        self.pending = None


def render_case(renderer: Renderer, loaded: Loaded, count: int, comparer: Comparer, keep_images: bool) -> Work:
    """Encodes a scene at `count` context views, renders its targets and has them compared. Raises NVSError.

    The figures are a function of the scene, the settings and the device; the seconds are not.
    """
    clock, device, measures = Clock(renderer.device), renderer.device, comparer.measures
    work = Work(loaded, loaded.cases[count], keep_images)
    case, seconds = work.case, work.seconds
    context = PosedImages(loaded.pixels(case.context_rows, device), case.context_cameras)
    transform = None
    if measures.normalize_with == "context+target":
        c2w = torch.cat([case.context_cameras.c2w, case.target_cameras.c2w])[None].float()
        transform = normalize_context(c2w, str(renderer.card.get("normalization", "auto")))
    chunk = chunk_of(renderer, loaded.image_hw)
    start = clock()
    state = renderer.encode(context, transform, chunk=chunk)
    seconds |= {"encode_s": clock() - start, "decode_s": 0.0, "compare_s": 0.0}
    fitted = None
    if measures.gsplat_steps:
        start = clock()
        try:
            fitted = fit_gsplat(context, case.target_cameras, measures.gsplat_steps)
        except RuntimeError as error:  # memory, or no Gaussian left
            reason = " ".join(str(error).split())[:160]
            raise NVSError(f"scene {loaded.name}: gsplat failed ({reason}); --gsplat off leaves it out") from error
        seconds["gsplat_s"] = clock() - start
    done = 0
    with_depth = {"depth": True} if loaded.depth is not None and state.context is not None else {}
    stream = renderer.stream(state, case.target_cameras, chunk, on_device=True, **with_depth)
    while True:
        start = clock()
        views = next(stream, None)
        seconds["decode_s"] += (decoded := clock()) - start
        if views is None:
            return work
        rendered, depth = (views.images, views.depth) if isinstance(views, RenderedViews) else (views, None)
        comparer.submit(work, done, rendered, context.images, fitted, depth)
        done += len(rendered)
        seconds["compare_s"] += time.perf_counter() - decoded


def chunk_of(renderer: Renderer, image_hw: tuple[int, int]) -> int | None:
    """Views that pass through the network at once; None leaves it to the renderer."""
    plan = renderer.plan_render(image_hw)
    height, width = (side // renderer.patch for side in plan.lact_hw)
    most = _CUDA_CHUNK_TOKENS // (height * width)
    if plan.detail:
        most = min(most, CUDA_PIXELS // (plan.render_hw[0] * plan.render_hw[1]))
    return max(1, most) if renderer.device.type == "cuda" else None


def _compare(answers: Tensor, truth: Tensor, measures: Measures) -> Tensor:
    """Ours and the baselines [k, t, 3, h, w] against the photos [t, ...] -> [t, 3 k (+ 1)]: for each view PSNR of the k
    answers, SSIM of the k, sharpness of the k and, where measured, LPIPS of ours."""
    repeated = truth.expand_as(answers)
    columns: list[Tensor] = []
    for measure in (psnr, ssim, sharpness):  # in the order of BASELINE_MEASURES
        columns += measure(answers, repeated, rounded=measures.rounded)
    if measures.lpips is not None:
        columns.append(torch.cat([measures.lpips(a[None], b[None]) for a, b in zip(answers[0], truth)]))
    return torch.stack(columns, dim=-1).double()


def figures_of(work: Work, measures: Measures, renderer: Renderer) -> dict[str, Any]:
    """What the report keeps of a case, view by view and averaged. Raises NVSError where a rendering is no image."""
    loaded, case, rows = work.loaded, work.case, work.rows
    names = ("ours", *measures.baselines)
    k = len(names)
    plain = k * len(BASELINE_MEASURES) + (measures.lpips is not None)  # columns before the error of depth
    for index, row in zip(case.split.target, rows):
        if not all(map(math.isfinite, row[:plain])):
            raise NVSError(f"scene {loaded.name}: view {index} ({loaded.files[index]}) has values that are no numbers")
    views = []
    for index, row in zip(case.split.target, rows):
        view: dict[str, Any] = {"index": index, "file": loaded.files[index]}
        answers = {
            name: {m.name: round(row[k * place + n], 6) for place, m in enumerate(BASELINE_MEASURES)}
            for n, name in enumerate(names)
        }
        view |= answers.pop("ours")
        if measures.lpips is not None:
            view["lpips"] = round(row[plain - 1], 6)
        if len(row) > plain:  # None where no pixel shows a surface
            view["depth_error"] = round(row[plain], 6) if math.isfinite(row[plain]) else None
        views.append({**view, "baselines": answers})
    height, width = (side // renderer.patch for side in renderer.plan_encode(loaded.image_hw).lact_hw)
    columns = {m.name: [view[m.name] for view in views if view[m.name] is not None] for m in shown(views[0])}
    return {
        **{name: mean(values) for name, values in columns.items() if values},
        "baselines": {
            name: {m.name: mean([view["baselines"][name][m.name] for view in views]) for m in BASELINE_MEASURES}
            for name in measures.baselines
        },
        "tokens": len(case.split.context) * height * width,
        "context": list(case.split.context),
        "target": list(case.split.target),
        "views": views,
    }


def mean(values: list[float]) -> float:
    """The mean, rounded as figures are stored; the sum is in the order of the views."""
    return round(sum(values) / len(values), 6)


def _keep_extremes(
    extremes: dict[str, Extreme], first: int, figures: list[list[float]], rendered: Tensor, truth: Tensor,
    nearest: Tensor,
) -> None:  # fmt: skip
    values = [row[0] for row in figures]
    for name, pick, better in (("worst", min, float.__lt__), ("best", max, float.__gt__)):
        row = values.index(pick(values))
        if name in extremes and not better(values[row], extremes[name].psnr):
            continue
        error = (rendered[row].clamp(0, 1) - truth[row]).abs().mean(0, keepdim=True) * 4
        images = {"render": rendered[row], "photo": truth[row], "nearest": nearest[row]}
        images["error"] = error.expand(3, -1, -1)
        small = {key: _small(image) for key, image in images.items()}
        extremes[name] = Extreme(values[row], first + row, small)


def _small(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    factor = min(1.0, _IMAGE_SIDE / max(height, width))
    if factor < 1:
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        image = F.interpolate(image[None], size=size, mode="area")[0]
    return to_uint8(image)


def encode_images(extreme: Extreme) -> dict[str, str]:
    """The images of a view as data URIs of JPEGs; the error, times 4, in the colours of `inferno`."""
    uris = {}
    for name, pixels in extreme.images.items():
        array = np.ascontiguousarray(pixels.cpu().numpy())
        if name == "error":
            array = cv2.cvtColor(cv2.applyColorMap(array[:, :, 0], cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, "JPEG", quality=88, subsampling=0)
        uris[name] = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
    return uris
