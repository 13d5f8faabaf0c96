"""How good a reconstruction is: held-out views beside their photos, with error maps and figures.

    truth = compare_views(render, scene, held_out(split), image_hw)     # render: Cameras [k] -> images [k, 3, h, w]
    truth.psnr, truth.views[0].error                            # dB; uint8 [h, w, 3]

The photos are read, the cameras rendered and the figures taken as `python -m nvs_app eval` does; the numbers are
the same.
"""

from __future__ import annotations

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
from nvs_app.evaluation.evaluator import Comparer, EvaluatedViews, TargetViews, compare_stream
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.images import data_uri, to_uint8
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit

RenderFunction = Callable[[Cameras], Tensor]
"""Renders cameras [k] as images [k, 3, h, w] in [0, 1]."""
FractionCallback = Callable[[float, str], None]
"""Told the fraction done in [0, 1] and a few words."""

PIXELS_AT_ONCE = 1 << 17  # rendered by one call, so that a visitor who drags waits for no more than these
TOPS = (0.1, 0.2, 0.3, 0.5, 1.0)  # what the brightest colour of an error map may stand for


@dataclass(frozen=True)
class ComparedView:
    """One held-out view.

    Attributes:
        index: of the view in the scene. name: of its photo.
        rendered, photo: [h, w, 3].
        error: absolute difference, mean over colours, from black (none) to yellow (`Comparison.error_top` or more).
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
class Comparison:
    """Held-out views, their averages, and the range of their error maps (one for all, so that they compare)."""

    views: tuple[ComparedView, ...]
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


def compare_views(
    render: RenderFunction,
    scene: Scene,
    indices: Sequence[int],
    image_hw: tuple[int, int],
    chunk: int | None = None,
) -> Comparison:
    """Renders views of a scene and compares them with their photos.

    Args:
        render: renders cameras in the scene's own frame.
        scene: whose photos are the truth.
        indices: views; at least one.
        image_hw: size that photos are brought to and views rendered at: 11 pixels or more a side.
        chunk: views in one call; None goes by their size.

    Raises:
        NVSError: no view, one that does not exist, or images too small for SSIM.
    """
    indices = [int(index) for index in indices]
    if not indices:
        raise NVSError(f"{scene.name}: no view is held out; encode fewer of its {len(scene)}")
    if len(set(indices)) != len(indices):
        raise NVSError(f"{scene.name}: a view is listed twice")
    cameras = scene.cameras(indices, image_hw)
    targets = TargetViews(cameras, lambda part: scene.load(indices[part], image_hw).images)
    pairs: list[tuple[Tensor, Tensor]] = []
    compared = EvaluatedViews(targets, lambda _, __, images, photos: pairs.extend(zip(images["rendered"], photos)))
    comparer = Comparer(torch.device("cpu"))
    compare_stream(render_chunks(render, cameras, chunk), compared, comparer)
    comparer.finish()
    top = error_top([absolute_error(image, photo) for image, photo in pairs])
    views = tuple(
        ComparedView(
            index,
            scene.image_paths[index].name,
            to_uint8(image).cpu().numpy(),
            to_uint8(photo).cpu().numpy(),
            error_map(image, photo, top),
            figures["psnr"],
            figures["ssim"],
        )
        for index, (image, photo), figures in zip(indices, pairs, compared.figures)
    )
    count = len(views)
    return Comparison(views, sum(v.psnr for v in views) / count, sum(v.ssim for v in views) / count, top, image_hw)


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


def legend_uri() -> str:
    """The colours of error maps from 0 (left) to the top of the range (right) as a data URI."""
    return image_uri(_inferno(np.tile(np.arange(256, dtype=np.uint8), (12, 1))))


def image_uri(image: UInt8[np.ndarray, "h w 3"], kind: str = "PNG") -> str:
    """An image as a data URI: "PNG" without loss, or "JPEG"."""
    options = {"quality": 92, "subsampling": 0} if kind == "JPEG" else {}
    return data_uri(Image.fromarray(image), kind, **options)


def views_per_call(image_hw: tuple[int, int]) -> int:
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
    size, total = chunk or views_per_call(cameras.image_hw), len(cameras)
    for first in range(0, total, size):
        if cancelled is not None and cancelled():
            raise Cancelled(f"cancelled after {first} of {total} images")
        yield render(cameras[first : first + size])
        if progress is not None:
            done = min(total, first + size)
            progress(done / total, f"{done} of {total} images")


def _inferno(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cv2.applyColorMap(values, cv2.COLORMAP_INFERNO)[:, :, ::-1])
