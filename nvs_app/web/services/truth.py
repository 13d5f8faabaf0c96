"""How good a reconstruction is: held-out views beside their photos, with error maps and figures.

    truth = compare(render, scene, held_out(split), image_hw)     # render: Cameras [k] -> images [k, 3, h, w]
    truth.psnr, truth.views[0].error                            # dB; uint8 [h, w, 3]

The photos are read, the cameras rendered and the figures taken as `python -m nvs_app eval` does; the numbers are
the same.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from data_tools.structure_from_motion.job import Cancelled
from nvs_app.errors import NVSError
from nvs_app.evaluation.metrics import psnr, ssim
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.images import to_uint8
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit

RenderFunction = Callable[[Cameras], Tensor]
"""Renders cameras [k] as images [k, 3, h, w] in [0, 1]."""
FractionCallback = Callable[[float, str], None]
"""Told the fraction done in [0, 1] and a few words."""

PIXELS_AT_ONCE = 1 << 17  # rendered by one call, so that a visitor who drags waits for no more than these
TOPS = (0.1, 0.2, 0.3, 0.5, 1.0)  # what the brightest colour of an error map may stand for


@dataclass(frozen=True)
class TruthView:
    """One held-out view.

    Attributes:
        index: of the view in the scene. name: of its photo.
        rendered, photo: [h, w, 3].
        error: absolute difference, mean over colours, from black (none) to yellow (`Truth.error_top` or more).
        psnr: dB. ssim: -1 to 1.
    """

    index: int
    name: str
    rendered: UInt8[np.ndarray, "h w 3"]
    photo: UInt8[np.ndarray, "h w 3"]
    error: UInt8[np.ndarray, "h w 3"]
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Truth:
    """Held-out views, their averages, and the range of their error maps (one for all, so that they compare)."""

    views: tuple[TruthView, ...]
    psnr: float
    ssim: float
    error_top: float
    image_hw: tuple[int, int]

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """View, PSNR and SSIM as words for a table; the last row is the mean."""
        rows = [(f"{view.index} · {view.name}", f"{view.psnr:.2f}", f"{view.ssim:.3f}") for view in self.views]
        return [*rows, (f"mean of {len(self.views)}", f"{self.psnr:.2f}", f"{self.ssim:.3f}")]


def held_out(split: ViewSplit, count: int = 6) -> list[int]:
    """At most `count` target views, evenly spaced in their order; empty where the scene has none to hold out."""
    targets = [index for index in split.target if index not in set(split.context)]
    if len(targets) <= count:
        return targets
    return [targets[int((slot + 0.5) * len(targets) / count)] for slot in range(max(0, count))]


def compare(
    render: RenderFunction,
    scene: Scene,
    indices: Sequence[int],
    image_hw: tuple[int, int],
    progress: FractionCallback | None = None,
    cancelled: Callable[[], bool] | None = None,
    chunk: int | None = None,
) -> Truth:
    """Renders views of a scene and compares them with their photos.

    Args:
        render: renders cameras in the scene's own frame.
        scene: whose photos are the truth.
        indices: views; at least one.
        image_hw: size that photos are brought to and views rendered at: 11 pixels or more a side.
        progress, cancelled: told after, asked before each call of `render`.
        chunk: views in one call; None goes by their size.

    Raises:
        NVSError: no view, one that does not exist, or images too small for SSIM. Cancelled.
    """
    indices = [int(index) for index in indices]
    if not indices:
        raise NVSError(f"{scene.name}: no view is held out; encode fewer of its {len(scene)}")
    if len(set(indices)) != len(indices):
        raise NVSError(f"{scene.name}: a view is listed twice")
    found: list[tuple[int, Tensor, Tensor, float, float]] = []
    size = chunk or views_at_once(image_hw)
    for first in range(0, len(indices), size):
        if cancelled is not None and cancelled():
            raise Cancelled(f"{scene.name}: comparison cancelled")
        part = indices[first : first + size]
        truth = scene.load(part, image_hw)
        rendered = render(truth.cameras)
        figures = zip(psnr(rendered, truth.images).tolist(), ssim(rendered, truth.images).tolist())
        found += [
            (index, image, photo, *pair) for index, image, photo, pair in zip(part, rendered, truth.images, figures)
        ]
        if progress is not None:
            progress(len(found) / len(indices), f"{len(found)} of {len(indices)} views compared")
    top = error_top([absolute_error(image, photo) for _, image, photo, _, _ in found])
    views = tuple(
        TruthView(
            index,
            scene.image_paths[index].name,
            to_uint8(image).cpu().numpy(),
            to_uint8(photo).cpu().numpy(),
            error_map(image, photo, top),
            own_psnr,
            own_ssim,
        )
        for index, image, photo, own_psnr, own_ssim in found
    )
    count = len(views)
    return Truth(views, sum(v.psnr for v in views) / count, sum(v.ssim for v in views) / count, top, image_hw)


def absolute_error(rendered: Float[Tensor, "3 h w"], photo: Float[Tensor, "3 h w"]) -> Float[Tensor, "h w"]:
    """Mean over the colours of the absolute difference, in [0, 1]."""
    return (rendered.float().clamp(0, 1).cpu() - photo.float().cpu()).abs().mean(0)


def error_top(errors: Sequence[Tensor]) -> float:
    """What the brightest colour should stand for: the least of TOPS that 99 of 100 pixels stay below."""
    pixels = torch.cat([error.flatten() for error in errors])
    # A sample: torch's quantile takes 16 million values at most.
    level = float(torch.quantile(pixels[:: 1 + len(pixels) // 1_000_000], 0.99))
    return next((top for top in TOPS if level <= top), TOPS[-1])


def error_map(
    rendered: Float[Tensor, "3 h w"], photo: Float[Tensor, "3 h w"], top: float
) -> UInt8[np.ndarray, "h w 3"]:
    """The absolute error in the colours of "inferno" (lightness rises evenly): black 0, light yellow `top` or more."""
    share = (absolute_error(rendered, photo) / top).clamp(0, 1)
    return _inferno((share * 255).round().to(torch.uint8).numpy())


def legend(width: int = 256, height: int = 12) -> UInt8[np.ndarray, "h w 3"]:
    """The colours of error maps from 0 (left) to the top of the range (right)."""
    return _inferno(np.repeat(np.linspace(0, 255, width).round().astype(np.uint8)[None], height, axis=0))


def legend_uri() -> str:
    """`legend` as a data URI."""
    return image_uri(legend())


def image_uri(image: UInt8[np.ndarray, "h w 3"], kind: str = "PNG") -> str:
    """An image as a data URI: "PNG" without loss, or "JPEG"."""
    buffer = io.BytesIO()
    options = {"quality": 92, "subsampling": 0} if kind == "JPEG" else {}
    Image.fromarray(image).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def views_at_once(image_hw: tuple[int, int]) -> int:
    """How many views of this size one call renders."""
    return max(1, PIXELS_AT_ONCE // (image_hw[0] * image_hw[1]))


def render_chunks(
    render: RenderFunction,
    cameras: Cameras,
    chunk: int | None = None,
    progress: FractionCallback | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Tensor]:
    """All images of a path [n], some at a time: [k, 3, h, w]. Raises Cancelled between two parts."""
    size, total = chunk or views_at_once(cameras.image_hw), len(cameras)
    for first in range(0, total, size):
        if cancelled is not None and cancelled():
            raise Cancelled(f"cancelled after {first} of {total} images")
        yield render(cameras[first : first + size])
        if progress is not None:
            done = min(total, first + size)
            progress(done / total, f"{done} of {total} images")


def _inferno(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cv2.applyColorMap(values, cv2.COLORMAP_INFERNO)[:, :, ::-1])
