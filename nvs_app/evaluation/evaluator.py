"""The evaluator: compares rendered views with their photos. `eval`, the benchmarks, the held-out figures of training
and the page's comparison all take their figures from here.

    comparer, views = Comparer(renderer.device), EvaluatedViews(TargetViews(cameras, photos))
    compare_stream(renderer.stream(state, cameras, on_device=True), views, comparer)
    comparer.finish()
    views.figures[0]["psnr"]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.evaluation.metrics import LPIPS, depth_error, psnr, sharpness, ssim
from nvs_app.geometry.cameras import Cameras
from nvs_app.rendering.views import RenderedViews


@dataclass(frozen=True)
class TargetViews:
    """Views to render and what to compare them with, where it is needed: t views, a slice of them at a time.

    Attributes:
        cameras: [t], in the scene's own frame.
        photos: a slice -> their photos [n, 3, h, w], float32 in [0, 1].
        baselines: a slice and its photos -> name -> another answer, images like the photos.
        depth: a slice -> the true depth [n, h, w], see `PosedImages`; None where it is not known.
    """

    cameras: Cameras
    photos: Callable[[slice], Float[Tensor, "n 3 h w"]]
    baselines: Callable[[slice, Tensor], dict[str, Tensor]] = lambda part, photos: {}
    depth: Callable[[slice], Float[Tensor, "n h w"]] | None = None


@dataclass
class EvaluatedViews:
    """Figures of target views, in their order; complete after `Comparer.finish`.

    Attributes:
        on_views: called with the number of the first view, the figures of some views, their images by answer
            ("rendered" and the baselines) and their photos, as soon as they are there.
        figures: for each view "psnr", "ssim", "sharpness", "lpips" where it is measured, "depth_error" where the true
            depth is known, and "baselines": name -> the first three.
        decode_s, compare_s: seconds of rendering, and of comparing as far as it held up the rendering.
    """

    targets: TargetViews
    on_views: Callable[[int, list[dict[str, Any]], dict[str, Tensor], Tensor], None] | None = None
    figures: list[dict[str, Any]] = field(default_factory=list)
    decode_s: float = 0.0
    compare_s: float = 0.0


def measure(
    rendered: Float[Tensor, "n 3 h w"], photos: Float[Tensor, "n 3 h w"], rounded: bool = False,
    lpips: LPIPS | None = None,
) -> dict[str, Float[Tensor, " n"]]:  # fmt: skip
    """PSNR in dB, SSIM, sharpness, and LPIPS where it is given, of each image (in [0, 1]) against its photo.

    rounded: round renderings to 8 bits first, as if they had been saved. Raises NVSError below 11x11 pixels.
    """
    figures = {
        "psnr": psnr(rendered, photos, rounded=rounded),
        "ssim": ssim(rendered, photos, rounded=rounded),
        "sharpness": sharpness(rendered, photos, rounded=rounded),
    }
    if lpips is not None:  # one after another: its features take much memory
        figures["lpips"] = torch.stack([lpips(a, b) for a, b in zip(rendered, photos)])
    return figures


class DeviceClock:
    """Wall time, after the work that this thread gave to the device (and no other thread's)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        return time.perf_counter()


class Comparer:
    """Compares renderings with photos on `device`; on a GPU on a stream of its own, so that the network goes on.

    Some views are on their way at any time: `submit` first finishes those before. rounded, lpips: see `measure`.
    """

    def __init__(self, device: torch.device, rounded: bool = False, lpips: LPIPS | None = None) -> None:
        self.device, self.rounded, self.lpips = device, rounded, lpips
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.pending: tuple[EvaluatedViews, dict[tuple[str, str], Tensor], tuple[Any, ...]] | None = None

    def submit(self, views: EvaluatedViews, rendered: Tensor | RenderedViews) -> None:
        """Begins to compare the next views. rendered: images [n, 3, h, w], with depth where the true one is known."""
        self.finish()
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        targets, first = views.targets, len(views.figures)
        part = slice(first, first + len(rendered))
        with torch.cuda.stream(self.stream), torch.inference_mode():
            images = rendered.images if isinstance(rendered, RenderedViews) else rendered
            photos = targets.photos(part)
            answers = {"rendered": images, **targets.baselines(part, photos)}
            columns: dict[tuple[str, str], Tensor] = {}
            for answer, own in answers.items():
                lpips = self.lpips if answer == "rendered" else None
                figures = measure(own, photos, self.rounded, lpips)
                columns |= {(answer, metric): values for metric, values in figures.items()}
            if isinstance(rendered, RenderedViews) and targets.depth is not None:
                columns["rendered", "depth_error"] = depth_error(rendered.depth, targets.depth(part))
        # Kept until `finish`, so that no memory is given to the network that this stream still reads.
        self.pending = (views, columns, (answers, photos, rendered))

    def finish(self) -> None:
        """Waits for the views on their way and adds their figures."""
        if self.pending is None:
            return
        views, columns, (answers, photos, _) = self.pending
        with torch.cuda.stream(self.stream):
            rows = torch.stack(list(columns.values()), dim=-1).cpu().tolist()
        figures = []
        for row in rows:
            named: dict[str, dict[str, float]] = {answer: {} for answer in answers}
            for (answer, metric), value in zip(columns, row):
                named[answer][metric] = value
            figures.append({**named.pop("rendered"), "baselines": named})
        if views.on_views is not None:
            with torch.inference_mode():
                views.on_views(len(views.figures), figures, answers, photos)
        views.figures += figures
        self.pending = None


def compare_stream(rendered: Iterable[Tensor | RenderedViews], views: EvaluatedViews, comparer: Comparer) -> None:
    """Compares all target views, some at a time, as they are rendered; `Comparer.finish` completes the last ones.

    rendered: images [n, 3, h, w] of the next n targets, on the comparer's device, as `Renderer.stream` yields them.
    """
    clock, stream = DeviceClock(comparer.device), iter(rendered)
    while True:
        start = clock()
        part = next(stream, None)
        views.decode_s += (decoded := clock()) - start
        if part is None:
            return
        comparer.submit(views, part)
        views.compare_s += time.perf_counter() - decoded
