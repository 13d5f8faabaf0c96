"""Rendered views: images, and, where a detail head rendered them, their geometry."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.model.detail import DetailOutput


@dataclass(frozen=True)
class RenderedViews:
    """Some rendered views, v of them; all float32.

    images: [v, 3, H, W] in [0, 1].
    depth: [v, H, W], z along the camera's forward axis, in units of the scene's own frame.
    uncertainty: [v, H, W], relative: the depth is off by this share of itself, one standard deviation.
    surface: [v, H, W] in [0, 1], how surely the pixel shows a surface; low for sky and for a plain background.
    seen: [v, H, W] in [0, 1], how surely some photo shows what the pixel shows; low for unseen parts.
    """

    images: Float[Tensor, "v 3 h w"]
    depth: Float[Tensor, "v h w"]
    uncertainty: Float[Tensor, "v h w"]
    surface: Float[Tensor, "v h w"]
    seen: Float[Tensor, "v h w"]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> RenderedViews:
        """Some of the views."""
        return self._each(lambda part: part[rows])

    def to(self, device: torch.device | str) -> RenderedViews:
        """The same on `device`."""
        return self._each(lambda part: part.to(device))

    def clone(self) -> RenderedViews:
        """A copy."""
        return self._each(torch.clone)

    def _each(self, what) -> RenderedViews:
        return replace(self, **{name: what(value) for name, value in vars(self).items()})

    @staticmethod
    def cat(parts: list[RenderedViews]) -> RenderedViews:
        """One after another."""
        first = parts[0]
        return replace(first, **{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(first)})


def views_of(output: DetailOutput, transform: SimilarityTransform | None, image_hw: tuple[int, int]) -> RenderedViews:
    """The head's output for one scene, cut to `image_hw`, its depth in the units of the scene's own frame."""
    height, width = image_hw
    full = output.log_depth.shape[-2:]

    def enlarged(maps: Tensor) -> Tensor:
        return F.interpolate(maps[:, None].float(), full, mode="bilinear", align_corners=False)[:, 0]

    depth = output.log_depth.float().exp()
    if transform is not None:
        depth = depth / transform.scale[0].float()
    # A Laplace distribution of scale b has the standard deviation sqrt(2) b.
    maps = (depth, enlarged(output.log_scale).exp() * 2**0.5, enlarged(output.surface).sigmoid(), enlarged(output.seen))
    images = output.images[0].float().clamp(0, 1)
    return RenderedViews(images[..., :height, :width], *(part[..., :height, :width] for part in maps))
