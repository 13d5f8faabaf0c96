"""One frame and scale for every scene, computed from the context cameras alone.

transform = normalize_context(context.c2w)                # SimilarityTransform, world -> normalised
context, target = transform.normalise(context), transform.normalise(target)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, cross, rigid
from nvs_app.geometry.robust import camera_statistics

PRESETS = ("auto", "object", "scene", "none")
# Of positions, relative to the largest; files hold float64 in ten digits or more.
_ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-9}


@dataclass(frozen=True)
class SimilarityTransform:
    """x' = scale * rotation @ x + translation, one for each scene of a batch ``*b``.

    Attributes:
        scale: positive, [*b]. rotation: proper and orthonormal, [*b, 3, 3]. translation: [*b, 3], in the units
            of the result.
    """

    scale: Float[Tensor, "*b"]
    rotation: Float[Tensor, "*b 3 3"]
    translation: Float[Tensor, "*b 3"]

    @property
    def shape(self) -> torch.Size:
        """The batch shape ``*b``."""
        return self.scale.shape

    @staticmethod
    def identity(batch_shape: tuple[int, ...] = (), device: torch.device | str = "cpu") -> SimilarityTransform:
        """The transform that changes nothing, float64."""
        return SimilarityTransform(
            torch.ones(batch_shape, dtype=torch.float64, device=device),
            torch.eye(3, dtype=torch.float64, device=device).expand(*batch_shape, 3, 3).clone(),
            torch.zeros(*batch_shape, 3, dtype=torch.float64, device=device),
        )

    def to(self, *args, **kwargs) -> SimilarityTransform:
        """Move or cast as ``Tensor.to`` does."""
        fields = (self.scale, self.rotation, self.translation)
        return SimilarityTransform(*(field.to(*args, **kwargs) for field in fields))

    def __getitem__(self, index) -> SimilarityTransform:
        """Index the batch dimensions with an int, a slice or a tensor of indices (not an ellipsis)."""
        return SimilarityTransform(self.scale[index], self.rotation[index], self.translation[index])

    def apply_points(self, points: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p 3"]:
        """Map points [*b, ..., 3] of the source frame."""
        scale, rotation, translation = self._align(points.dim() - 1)
        return scale[..., None] * _rotate(rotation, points) + translation

    def apply_c2w(self, c2w: Float[Tensor, "*p 4 4"]) -> Float[Tensor, "*p 4 4"]:
        """Map cameras [*b, ..., 4, 4]: positions are scaled, the rotation part stays orthonormal."""
        _, rotation, _ = self._align(c2w.dim() - 2)
        turned = (rotation[..., :, :, None] * c2w[..., None, :3, :3]).sum(-2)
        return rigid(turned, self.apply_points(c2w[..., :3, 3]))

    def apply_cameras(self, cameras: Cameras) -> Cameras:
        """Map cameras of batch shape [*b, ...]; intrinsics stay as they are."""
        return replace(cameras, c2w=self.apply_c2w(cameras.c2w))

    def normalise(self, cameras: Cameras) -> Cameras:
        """Map cameras of the world into the frame that networks see, and only then round them to float32: in map
        coordinates (UTM) that would move positions by half a metre before."""
        moved = self.to(torch.float64).apply_cameras(cameras.to(torch.float64))
        return Cameras(moved.c2w.float(), cameras.fxfycxcy.float(), cameras.image_hw)

    def inverse(self) -> SimilarityTransform:
        """The transform back to the source frame."""
        rotation = self.rotation.transpose(-1, -2)
        scale = 1.0 / self.scale
        return SimilarityTransform(scale, rotation, -scale[..., None] * _rotate(rotation, self.translation))

    def compose(self, first: SimilarityTransform) -> SimilarityTransform:
        """The transform that applies ``first`` and then this one."""
        rotation = (self.rotation[..., :, :, None] * first.rotation[..., None, :, :]).sum(-2)
        return SimilarityTransform(self.scale * first.scale, rotation, self.apply_points(first.translation))

    def _align(self, batch_dims: int) -> tuple[Tensor, Tensor, Tensor]:
        """The three fields with axes of length 1 after ``*b``, to broadcast with ``batch_dims`` batch axes."""
        extra = (1,) * (batch_dims - len(self.shape))
        return (
            self.scale.reshape((*self.shape, *extra)),
            self.rotation.reshape(*self.shape, *extra, 3, 3),
            self.translation.reshape(*self.shape, *extra, 3),
        )


def normalize_context(c2w: Float[Tensor, "*b v 4 4"], preset: str = "auto") -> SimilarityTransform:
    """The transform from the world of each scene to the frame in which the network sees it.

    Args:
        c2w: the context cameras, OpenCV axes, any world units; at least one view.
        preset: ``"auto"`` (below); ``"object"`` and ``"none"``: the identity, as the released object weights
            expect their scenes as given (object inside the unit cube, cameras 1.7 to 3.0 away); ``"scene"``: the
            released scene weights' convention, the frame of the mean camera (mean position, mean forward, mean
            down), scaled so that the largest absolute camera coordinate is 1.

    Returns:
        The transform, float64 on the device of ``c2w``, batch shape ``*b``. Apply it to context, targets and
        camera paths alike.

    "auto" suits cameras around an object, in front of a scene, and roaming in one. The origin is the point that
    the cameras look at: the one closest to their axes in front of them, pulled weakly toward the middle of the
    cameras, so that axes which are parallel or spread apart put it among the cameras. The scale makes the mean
    distance of the cameras from it 1; +z is up, +y the mean direction of view made horizontal. All means are
    robust: one wild camera among four or more hardly matters. It is symmetric in the views, continuous, and gives
    the same normalised cameras whatever similarity moves the world. What the cameras cannot tell falls back: the
    scale to 1 where all stand at one point (a single view); the heading to the world's +y where the directions of
    view cancel (a full ring); up to the opposite of the mean direction of view, then to the world's +z.

    Raises:
        NVSError: an unknown preset.
    """
    if preset == "auto":
        return _normalize_auto(c2w)
    if preset == "scene":
        return _normalize_mean_pose(c2w)
    if preset in ("object", "none"):
        return SimilarityTransform.identity(tuple(c2w.shape[:-3]), c2w.device)
    raise NVSError(f"normalization {preset!r}: unknown, expected one of {', '.join(PRESETS)}")


def _normalize_auto(c2w: Tensor) -> SimilarityTransform:
    cameras = camera_statistics(c2w)
    axis_x, axis_y, axis_z = torch.eye(3, dtype=torch.float64, device=c2w.device)
    up = _with_fallback(cameras.up, -cameras.forward)
    up = _unit(_with_fallback(up, axis_z.expand_as(up)), axis_z)
    heading = _across(cameras.forward, up)
    heading = _with_fallback(heading, _across(axis_y.expand_as(up), up))
    heading = _with_fallback(heading, _across(axis_x.expand_as(up), up))
    heading = _unit(_across(heading, up), _across(axis_x.expand_as(up), up))
    rotation = torch.stack([cross(heading, up), heading, up], dim=-2)
    # Below this the distances are the rounding of positions and not a baseline.
    smallest = _ROUNDING[c2w.dtype] * c2w[..., :3, 3].double().abs().amax(dim=(-1, -2))
    known = cameras.distance > smallest.clamp_min(1e-12)
    scale = torch.where(known, 1.0 / cameras.distance.clamp_min(1e-30), torch.ones_like(cameras.distance))
    return SimilarityTransform(scale, rotation, -scale[..., None] * _rotate(rotation, cameras.focus))


def _normalize_mean_pose(c2w: Tensor) -> SimilarityTransform:
    rounding, c2w = _ROUNDING[c2w.dtype], c2w.double()
    center = c2w[..., :3, 3].mean(-2)
    axis_x, axis_y, axis_z = torch.eye(3, dtype=torch.float64, device=c2w.device)
    forward = _unit(c2w[..., :3, 2].mean(-2), axis_z)
    # Only where down and forward are parallel, or both cancel, does the fallback matter.
    down = _across(c2w[..., :3, 1].mean(-2), forward)
    down = _unit(down, _across(axis_y.expand_as(down), forward))
    down = _unit(_across(down, forward), _unit(_across(axis_x.expand_as(down), forward), axis_x))
    rotation = torch.stack([cross(down, forward), down, forward], dim=-2)
    offset = _rotate(rotation[..., None, :, :], c2w[..., :3, 3] - center[..., None, :])
    extent = offset.abs().amax(dim=(-1, -2))
    known = extent > rounding * c2w[..., :3, 3].abs().amax(dim=(-1, -2)).clamp_min(1e-6)
    scale = torch.where(known, 1.0 / extent.clamp_min(1e-30), torch.ones_like(extent))
    return SimilarityTransform(scale, rotation, -scale[..., None] * _rotate(rotation, center))


def _rotate(rotation: Tensor, vector: Tensor) -> Tensor:
    return (rotation * vector[..., None, :]).sum(-1)


def _across(vector: Tensor, axis: Tensor) -> Tensor:
    """The part of ``vector`` orthogonal to the unit vector ``axis``."""
    return vector - (vector * axis).sum(-1, keepdim=True) * axis


def _unit(vector: Tensor, fallback: Tensor) -> Tensor:
    """Unit vectors; the last resort for a length of zero is ``fallback``, so that no NaN can arise."""
    length = vector.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-12, vector / length.clamp_min(1e-12), fallback)


def _with_fallback(vector: Tensor, fallback: Tensor, threshold: float = 0.01) -> Tensor:
    """``vector``, blended smoothly into ``fallback`` where it is shorter than about ``threshold``.

    The share of the fallback falls as a Gaussian: at seven times the threshold nothing of it is left in
    float64, so that well-defined directions follow the cameras alone.
    """
    length2 = vector.square().sum(-1, keepdim=True)
    return vector + threshold * torch.exp(-length2 / threshold**2) * fallback
