"""What people do with a camera beside choosing where to stand: lenses, rolls, views from straight above and below.

A scene's style is random by its key ("mixed", for training), or set (for measuring).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from data_tools.procedural.rng import CounterRNG, hash32

CAPTURES = ("mixed", "plain", "narrow", "wide", "above", "rolled")
"""mixed: each style has its share; plain: none (a lens of 28-72 degrees, upright or nearly so); narrow: a lens of 15-25
degrees from far away; wide: 90-105 degrees; above: objects from within 15 degrees of the zenith; rolled: plain, and
every view turned by 30 degrees about its axis."""
ORDINARY, NARROW, WIDE = range(3)
ROLLED = math.radians(30)


@dataclass(frozen=True)
class CaptureStyles:
    """Of s scenes and v views.

    Attributes:
        lens: ``ORDINARY``, ``NARROW`` or ``WIDE``.
        fov: radians along the shorter side, for lenses that are not ordinary.
        roll: radians, to be added.
        mixed: the style is random and not set.
        pole: height on the unit sphere where a view is taken from near the zenith or nadir, else nan.
    """

    lens: Int64[Tensor, " s"]
    fov: Float[Tensor, " s"]
    roll: Float[Tensor, "s v"]
    mixed: Bool[Tensor, " s"]
    pole: Float[Tensor, "s v"]

    def field_of_view(self, own: Float[Tensor, " s"], lens: Int64[Tensor, " s"] | None = None) -> Float[Tensor, " s"]:
        """The scene's field of view [s]: ``own`` where its lens is an ordinary one."""
        return torch.where((self.lens if lens is None else lens) == ORDINARY, own, self.fov)


def view_rng(keys: Int64[Tensor, " s"], num_views: int, columns: int, stream: str = "view") -> CounterRNG:
    """Numbers of each view, [s, v]: of view j from (scene, j) alone."""
    views = torch.arange(num_views, device=keys.device)
    return CounterRNG(hash32(keys[:, None] + 0x632BE59B * (views + 1)), stream, columns)


def sample_capture_styles(
    keys: Int64[Tensor, " s"], num_views: int, capture: Int64[Tensor, " s"], narrow: float, wide: float
) -> CaptureStyles:
    """Styles of the scenes' captures.

    Args:
        capture: numbers in ``CAPTURES``.
        narrow, wide: shares of the scenes with such a lens, where mixed.
    """
    scene, view = CounterRNG(keys, "habits", 16), view_rng(keys, num_views, 8, "habits")
    mixed = capture == CAPTURES.index("mixed")
    drawn = scene.choice((1.0 - narrow - wide, narrow, wide))
    lens = torch.where(mixed, drawn, ORDINARY)
    lens = torch.where(capture == CAPTURES.index("narrow"), NARROW, lens)
    lens = torch.where(capture == CAPTURES.index("wide"), WIDE, lens)
    share = scene.uniform()
    tele = torch.where(mixed, 12.0 + 18.0 * share, 15.0 + 10.0 * share)
    broad = torch.where(mixed, 80.0 + 30.0 * share, 90.0 + 15.0 * share)
    fov = torch.where(lens == NARROW, tele, broad) * (math.pi / 180.0)

    # The whole capture turned: on its side, upside down, or anyhow; or every view held askew.
    turned, quarters, angle = scene.bernoulli(0.12), scene.randint(3) + 1, scene.uniform(high=2 * math.pi)
    constant = torch.where(scene.bernoulli(0.5), quarters * (0.5 * math.pi), angle) * turned
    askew = view.uniform(low=-0.25 * math.pi, high=0.25 * math.pi) * scene.bernoulli(0.15, 1)
    roll = (constant[:, None] + askew) * mixed[:, None]
    roll = roll + ROLLED * (capture == CAPTURES.index("rolled"))[:, None]

    above = capture == CAPTURES.index("above")
    some, below = scene.bernoulli(0.15) & mixed, scene.bernoulli(0.25)
    lowest = torch.where(above, math.cos(math.radians(15)), math.cos(math.radians(25)))
    cap = lowest[:, None] + (1.0 - lowest[:, None]) * view.uniform()
    cap = cap * torch.where(below & ~above, -1.0, 1.0)[:, None]
    here = above[:, None] | (some[:, None] & view.bernoulli(0.6))
    return CaptureStyles(lens, fov, roll, mixed, torch.where(here, cap, torch.nan))
