"""Gaussian splats from pieces of surface: flat discs on the surface, each as wide as the pixel that saw it.

splats = splats_of(fuse(views))
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.export.fusion import Surfels
from nvs_app.geometry.rotations import matrix_to_quaternion

FILL_TOLERANCE = 0.03
"""Of `fuse`, for splats: a hole is worse than a splat that lies a little beside its surface."""
WIDTH = 0.5  # standard deviation, in pixels of the photo that saw the surface
_THICKNESS = 0.1  # of the smaller width
_OPACITY = (0.6, 0.98)  # where hardly any, and where all views that are asked agree


@dataclass(frozen=True)
class Splats:
    """Gaussians, n of them, in the scene's own frame.

    means: [n, 3]. scales: [n, 3], standard deviations along the Gaussian's own axes, world units.
    quats: [n, 4], real part first, unit length, from its own axes to the world's.
    colours: [n, 3] in [0, 1], as displayed (sRGB). opacities: [n] in (0, 1).
    harmonics: [n, k, 3], what changes of the colour with the direction from the camera (`shading.harmonics` without the
        constant); None: nothing.
    """

    means: Float[Tensor, "n 3"]
    scales: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    colours: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    harmonics: Float[Tensor, "n k 3"] | None = None

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, rows: Tensor | slice) -> Splats:
        """Some of them."""
        return Splats(**{name: value[rows] for name, value in vars(self).items() if value is not None})


def splats_of(surfels: Surfels, width: float = WIDTH) -> Splats:
    """A flat splat for each surfel: as long and wide as its pixel is on the surface, more opaque where views agree."""
    footprint = torch.stack([surfels.across, surfels.down], dim=-1)
    axes, sizes, _ = torch.linalg.svd(footprint, full_matrices=True)
    axes = axes * torch.det(axes).sign()[:, None, None]
    sizes = width * torch.cat([sizes, _THICKNESS * sizes[:, 1:]], dim=-1)
    low, high = _OPACITY
    share = (surfels.agreeing + 1) / (surfels.asked + 1)  # the view itself is one of them
    quats = matrix_to_quaternion(axes)
    return Splats(surfels.points, sizes, quats, surfels.colours, low + (high - low) * share)


def thinned(splats: Splats, most: int, seed: int = 0) -> Splats:
    """At most so many of them, drawn at random and made wider, so that they still cover the surfaces."""
    if len(splats) <= most:
        return splats
    chosen = torch.randperm(len(splats), generator=torch.Generator().manual_seed(seed))[:most].sort().values
    some = splats[chosen.to(splats.means.device)]
    return replace(some, scales=some.scales * (len(splats) / most) ** 0.5)
