"""Configuration of the detail head."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nvs_app.errors import NVSError

FINEST_GROUPS = 4  # groups of feature channels in the third sweep
QUICK_VIEWS = 2  # context views that the head looks at for a frame that must come soon
QUICK_FINEST_PLANES = 4  # depths of the third sweep for such a frame: with 3, silhouettes lose half a decibel


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How closely a detail head looks for a view; None: as it is configured.

    views: context views that it looks at. planes, fine_planes, finest_planes: depths of its sweeps. photo_level: how
    often photos are halved before they are looked up, for views that are coarser than they are.
    """

    views: int | None = None
    planes: int | None = None
    fine_planes: int | None = None
    finest_planes: int | None = None
    photo_level: int = 0


@dataclass(frozen=True)
class DetailHeadConfig:
    """Sizes of a detail head (`nvs_app.model.detail`). Raises `NVSError` for sizes that do not fit together."""

    features: int = 32
    """Channels of the image features that a sweep compares."""
    groups: int = 8
    """Groups of feature channels, each of which gives one correlation."""
    guide: int = 96
    """Channels of the maps made from the tokens of a view, at an eighth of the resolution."""
    volume: int = 16
    """Channels of a cost volume."""
    blend: int = 48
    """Channels of the blending network at half the resolution."""
    views: int = 4
    """Context views that a target view looks at; any other number can be asked for when rendering."""
    planes: int = 16
    """Depths of the first sweep, at an eighth of the resolution."""
    fine_planes: int = 8
    """Depths of the second sweep, at a quarter of the resolution."""
    reach: float = 2.5
    """Half width of the first sweep, in units of the prior's uncertainty."""
    finest_planes: int = 0
    """Depths of a third sweep, at half the resolution; 0: there is none."""
    finest_features: int = 16
    """Channels of the photos' features that the third sweep compares, at half their resolution."""
    layers: int = 1
    """Depths at which photos are looked up for a pixel; 2: at silhouettes, the other surface's too."""
    refine: int = 0
    """Channels of the convolutions that refine the blended image at full resolution; 0: there are none."""

    def __post_init__(self) -> None:
        for name in ("features", "groups", "guide", "volume", "blend", "views", "finest_features"):
            if int(getattr(self, name)) < 1:
                raise NVSError(f"DetailHeadConfig: {name} is {getattr(self, name)}, expected a positive integer")
        for name in ("planes", "fine_planes"):
            if int(getattr(self, name)) < 2:
                raise NVSError(f"DetailHeadConfig: {name} is {getattr(self, name)}, expected 2 or more")
        if self.features % self.groups:
            raise NVSError(
                f"DetailHeadConfig: groups is {self.groups}, expected a divisor of features ({self.features})"
            )
        if self.finest_planes < 0 or self.finest_planes == 1:
            raise NVSError(f"DetailHeadConfig: finest_planes is {self.finest_planes}, expected 0, or 2 or more")
        if self.finest_features % FINEST_GROUPS:
            raise NVSError(
                f"DetailHeadConfig: finest_features is {self.finest_features}, expected a multiple of {FINEST_GROUPS}"
            )
        if self.layers not in (1, 2):
            raise NVSError(f"DetailHeadConfig: layers is {self.layers}, expected 1 or 2")
        if self.layers == 2 and not self.finest_planes:
            raise NVSError("DetailHeadConfig: layers is 2, which needs a third sweep (finest_planes)")
        if self.refine < 0:
            raise NVSError(f"DetailHeadConfig: refine is {self.refine}, expected 0 or more")
        if not self.reach > 0:
            raise NVSError(f"DetailHeadConfig: reach is {self.reach}, expected a positive number")

    def quick(self, views: int | None = None, photo_level: int = 0) -> Sampling:
        """For a frame that must come soon: fewer context views (`views` at most) and depths."""
        return Sampling(
            views=min(QUICK_VIEWS, views or self.views),
            planes=-(-self.planes // 2),
            fine_planes=-(-self.fine_planes // 2),
            finest_planes=min(QUICK_FINEST_PLANES, self.finest_planes),
            photo_level=photo_level,
        )

    @classmethod
    def usual(cls) -> DetailHeadConfig:
        """The sizes of a new head. (The fields' defaults are those of heads that do not name them.)"""
        return cls(finest_planes=4, layers=2, refine=24)

    def with_parts_of(self, other: DetailHeadConfig) -> DetailHeadConfig:
        """These sizes, with the third sweep, second layer and refinement of `other`."""
        parts = {name: getattr(other, name) for name in ("finest_planes", "finest_features", "layers", "refine")}
        return dataclasses.replace(self, **parts)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DetailHeadConfig:
        """From plain values; raises `NVSError` for unknown names."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - known:
            raise NVSError(f"DetailHeadConfig: unknown options {sorted(unknown)}, expected some of {sorted(known)}")
        return cls(**values)
