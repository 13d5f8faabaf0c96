"""Pinhole cameras, and the one function that crops and resizes pixels and cameras together.

Conventions: OpenCV axes (+x right, +y down, +z forward), ``c2w`` 4x4, intrinsics ``fxfycxcy`` in pixels, the
first pixel's centre at (0.5, 0.5), sizes as ``image_hw`` = (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from nvs_app.errors import NVSError

LARGEST = 1e15
"""Of a camera's numbers: beyond it a camera has no meaning left."""


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras that share one image size.

    Attributes:
        c2w: camera-to-world, rotation part orthonormal, last row (0, 0, 0, 1); world units.
        fxfycxcy: focal lengths and principal point in pixels of an image of ``image_hw``.
        image_hw: (height, width) in pixels.
    """

    c2w: Float[Tensor, "*b 4 4"]
    fxfycxcy: Float[Tensor, "*b 4"]
    image_hw: tuple[int, int]

    def __post_init__(self) -> None:
        if self.c2w.shape[-2:] != (4, 4) or self.fxfycxcy.shape != (*self.c2w.shape[:-2], 4):
            raise ValueError(
                f"Cameras: c2w {tuple(self.c2w.shape)} and fxfycxcy {tuple(self.fxfycxcy.shape)},"
                " expected [*b, 4, 4] and [*b, 4]"
            )
        if len(self.image_hw) != 2 or min(self.image_hw) < 1:
            raise ValueError(f"Cameras: image_hw {self.image_hw}, expected (height, width), both at least 1")

    @property
    def shape(self) -> torch.Size:
        """The batch shape ``*b``."""
        return self.c2w.shape[:-2]

    @property
    def device(self) -> torch.device:
        return self.c2w.device

    @property
    def w2c(self) -> Float[Tensor, "*b 4 4"]:
        """World-to-camera: the exact inverse of a rigid ``c2w`` (transpose, not a general inverse)."""
        rotation = self.c2w[..., :3, :3].transpose(-1, -2)
        translation = -(rotation * self.c2w[..., None, :3, 3]).sum(-1)
        return rigid(rotation, translation)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a single camera (empty batch shape) has no length")
        return self.shape[0]

    def __getitem__(self, index) -> Cameras:
        """Index the batch dimensions: an int, a slice, an ellipsis, a mask, a list or a tensor of indices."""
        if isinstance(index, (list, range)):
            index = torch.as_tensor(list(index), dtype=torch.long, device=self.device)
        parts = index if isinstance(index, tuple) else (index,)
        if any(part is Ellipsis for part in parts):  # the camera's own dimensions are not to be indexed
            parts_c2w, parts_k = (*parts, slice(None), slice(None)), (*parts, slice(None))
        else:
            parts_c2w = parts_k = parts
        return replace(self, c2w=self.c2w[parts_c2w], fxfycxcy=self.fxfycxcy[parts_k])

    def to(self, *args, **kwargs) -> Cameras:
        """Move or cast as ``Tensor.to`` does."""
        return replace(self, c2w=self.c2w.to(*args, **kwargs), fxfycxcy=self.fxfycxcy.to(*args, **kwargs))

    def flatten(self) -> Cameras:
        """The same cameras with one batch dimension."""
        return replace(self, c2w=self.c2w.reshape(-1, 4, 4), fxfycxcy=self.fxfycxcy.reshape(-1, 4))

    def scaled_to(self, image_hw: tuple[int, int]) -> Cameras:
        """The cameras of the same images resized (not cropped) to ``image_hw`` = (height, width)."""
        factor_y, factor_x = image_hw[0] / self.image_hw[0], image_hw[1] / self.image_hw[1]
        fxfycxcy = _scale_shift(self.fxfycxcy, factor_x, factor_y, 0, 0)
        return Cameras(self.c2w, fxfycxcy, (image_hw[0], image_hw[1]))

    @staticmethod
    def cat(cameras: Sequence[Cameras], dim: int = 0) -> Cameras:
        """Concatenate along an existing batch dimension; all must share one ``image_hw``."""
        return _join(torch.cat, cameras, dim)

    @staticmethod
    def stack(cameras: Sequence[Cameras], dim: int = 0) -> Cameras:
        """Stack along a new batch dimension; all must share one ``image_hw``."""
        return _join(torch.stack, cameras, dim)


def _join(join, cameras: Sequence[Cameras], dim: int) -> Cameras:
    cameras = list(cameras)
    sizes = {camera.image_hw for camera in cameras}
    if len(sizes) != 1:
        raise ValueError(f"Cameras: cannot join {len(cameras)} batches with image sizes {sorted(sizes)}")
    # A negative dim counts the batch dimensions only.
    if dim < 0:
        dim += len(cameras[0].shape) + (join is torch.stack)
    return Cameras(
        join([camera.c2w for camera in cameras], dim=dim),
        join([camera.fxfycxcy for camera in cameras], dim=dim),
        sizes.pop(),
    )


def _scale_shift(fxfycxcy: Tensor, factor_x: float, factor_y: float, left: int, top: int) -> Tensor:
    """Intrinsics after scaling the image, then cutting ``left`` and ``top`` pixels off.

    With pixel centres at half-integers a resize maps x to factor * x without any offset.
    """
    # By components: a tensor made from a Python list would make a GPU's host wait for the copy, in every step.
    fx, fy, cx, cy = fxfycxcy.unbind(-1)
    return torch.stack([fx * factor_x, fy * factor_y, cx * factor_x - left, cy * factor_y - top], dim=-1)


def rigid(rotation: Float[Tensor, "*b 3 3"], translation: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4 4"]:
    """Build [R t; 0 1]."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1.0
    return torch.cat([top, bottom], dim=-2)


def opengl_to_opencv(c2w: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """Turn camera axes from OpenGL/Blender/nerfstudio (+y up, -z forward) to OpenCV; the world stays."""
    return c2w * c2w.new_tensor([1.0, -1.0, -1.0, 1.0])


def opencv_to_opengl(c2w: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """The inverse of :func:`opengl_to_opencv` (the same flip of two columns)."""
    return opengl_to_opencv(c2w)


def look_at(
    eye: Float[Tensor, "*#b 3"], target: Float[Tensor, "*#b 3"], up: Float[Tensor, "*#b 3"]
) -> Float[Tensor, "*c 4 4"]:
    """c2w (OpenCV axes) of cameras at ``eye`` that look at ``target`` with ``up`` pointing up in the image.

    The three broadcast to the batch shape of the result.

    All in world units; ``up`` need not be a unit vector. Where ``up`` is parallel to the line of sight, another
    axis takes its place; where ``eye`` equals ``target`` the camera looks along a direction orthogonal to up.
    """
    eye, target, up = torch.broadcast_tensors(eye, target, up)
    up = _unit(up, up.new_tensor([0.0, 0.0, 1.0]))
    forward = _unit(target - eye, orthogonal_unit(up))
    right = cross(forward, up)
    tiny = right.square().sum(-1, keepdim=True) < 1e-12
    right = _unit(torch.where(tiny, cross(forward, orthogonal_unit(forward)), right), up)
    down = cross(forward, right)
    return rigid(torch.stack([right, down, forward], dim=-1), eye)


def cross(first: Float[Tensor, "*#b 3"], second: Float[Tensor, "*#b 3"]) -> Float[Tensor, "*c 3"]:
    """The cross product over the last axis. Written out: autocast breaks torch.linalg.cross.

    Rolled, not indexed by lists: a list is copied to a GPU at each use, and the host waits for every copy.
    """
    return first.roll(-1, -1) * second.roll(1, -1) - first.roll(1, -1) * second.roll(-1, -1)


def orthogonal_unit(direction: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Some unit vector orthogonal to a unit vector (not continuous in it: no such choice can be)."""
    axis = F.one_hot(direction.abs().argmin(-1), 3).to(direction.dtype)
    side = axis - (axis * direction).sum(-1, keepdim=True) * direction
    return side / side.norm(dim=-1, keepdim=True)


def _unit(vector: Tensor, fallback: Tensor) -> Tensor:
    length = vector.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-12, vector / length.clamp_min(1e-12), fallback)


def crop_resize(
    image: Float[Tensor, "*s c h w"] | UInt8[Tensor, "*s c h w"], camera: Cameras, image_hw: tuple[int, int]
) -> tuple[Float[Tensor, "*s c p q"] | UInt8[Tensor, "*s c p q"], Cameras]:
    """Bring images and their cameras to ``image_hw`` together: the largest centred crop, resized.

    The image keeps its aspect but for the rounding of the crop to whole pixels, and the returned intrinsics
    say exactly what was done to each axis, for off-centre principal points too. Shrinking averages over the
    area of a pixel (a box for whole factors, an antialiased bilinear filter otherwise); enlarging is bilinear.

    Args:
        image: [..., 3 or 4, H, W], float in [0, 1] or uint8. RGBA is filtered channel by channel: composite it
            on a background first.
        camera: its ``image_hw`` must equal (H, W); its batch shape is not compared with the image's.
        image_hw: (height, width) wanted.

    Raises:
        ValueError: the image's size is not the camera's. NVSError: a wanted size below one pixel.
    """
    height, width = image.shape[-2:]
    out_h, out_w = (int(size) for size in image_hw)
    if (height, width) != tuple(camera.image_hw):
        raise ValueError(f"crop_resize: the image is {height}x{width}, its camera {camera.image_hw}")
    if out_h < 1 or out_w < 1:
        raise NVSError(f"image size {out_h}x{out_w}: both height and width must be at least 1 pixel")
    if (height, width) == (out_h, out_w):
        return image, camera
    plan = _plan_crop((height, width), (out_h, out_w))
    top, left, crop_h, crop_w = plan.source
    result = _resize(image[..., top : top + crop_h, left : left + crop_w], plan.resized)
    top, left = plan.result
    return result[..., top : top + out_h, left : left + out_w], crop_resize_cameras(camera, (out_h, out_w))


def crop_resize_cameras(camera: Cameras, image_hw: tuple[int, int]) -> Cameras:
    """The cameras that :func:`crop_resize` returns, without any pixels."""
    if tuple(camera.image_hw) == tuple(image_hw):
        return camera
    plan = _plan_crop(camera.image_hw, image_hw)
    top, left, crop_h, crop_w = plan.source
    fxfycxcy = _scale_shift(camera.fxfycxcy, 1.0, 1.0, left, top)
    factor_x, factor_y = plan.resized[1] / crop_w, plan.resized[0] / crop_h
    fxfycxcy = _scale_shift(fxfycxcy, factor_x, factor_y, plan.result[1], plan.result[0])
    return Cameras(camera.c2w, fxfycxcy, (int(image_hw[0]), int(image_hw[1])))


class _CropPlan(NamedTuple):
    """Cut a box out of the source, resize it, cut again; one of the two cuts does nothing."""

    source: tuple[int, int, int, int]  # top, left, height, width
    resized: tuple[int, int]  # height, width
    result: tuple[int, int]  # top, left


def _plan_crop(image_hw: tuple[int, int], out_hw: tuple[int, int]) -> _CropPlan:
    """Whole-pixel steps of a centred crop; rounding is done where pixels are many."""
    (height, width), (out_h, out_w) = image_hw, out_hw
    factor = max(out_h / height, out_w / width)
    if factor <= 1:  # shrinking: cut the source, then resize exactly to the result
        crop_h, crop_w = min(height, round(out_h / factor)), min(width, round(out_w / factor))
        source = ((height - crop_h) // 2, (width - crop_w) // 2, crop_h, crop_w)
        return _CropPlan(source, (out_h, out_w), (0, 0))
    full_h, full_w = max(out_h, round(height * factor)), max(out_w, round(width * factor))
    cut = ((full_h - out_h) // 2, (full_w - out_w) // 2)
    return _CropPlan((0, 0, height, width), (full_h, full_w), cut)


def _resize(image: Tensor, image_hw: tuple[int, int]) -> Tensor:
    height, width = image.shape[-2:]
    if (height, width) == image_hw:
        return image
    flat = image.reshape(-1, *image.shape[-3:])
    if image.dtype == torch.uint8:
        flat = flat.float()
    if height % image_hw[0] == 0 and width % image_hw[1] == 0:
        flat = F.interpolate(flat, size=image_hw, mode="area")
    else:
        flat = F.interpolate(flat, size=image_hw, mode="bilinear", align_corners=False, antialias=True)
    if image.dtype == torch.uint8:
        flat = flat.round().clamp(0, 255).to(torch.uint8)
    return flat.reshape(*image.shape[:-2], *image_hw)


def with_vertical_fov(cameras: Cameras, degrees: float | Tensor, image_hw: tuple[int, int] | None = None) -> Cameras:
    """Cameras [v] of the same poses with square pixels, a centred principal point, and this vertical field of view
    (one, or [v]) in a frame of `image_hw` (None: the one they have)."""
    height, width = image_hw or cameras.image_hw
    angle = torch.as_tensor(degrees, dtype=cameras.fxfycxcy.dtype, device=cameras.device).expand(cameras.shape)
    focal = 0.5 * height / torch.tan(torch.deg2rad(angle) / 2)
    centre = focal.new_tensor([width / 2, height / 2]).expand(*cameras.shape, 2)
    return Cameras(cameras.c2w, torch.cat((focal[..., None], focal[..., None], centre), dim=-1), (height, width))


def vertical_fov(cameras: Cameras) -> Tensor:
    """Vertical field of view of each camera in degrees, as if its principal point were centred."""
    return torch.rad2deg(2 * torch.atan(0.5 * cameras.image_hw[0] / cameras.fxfycxcy[..., 1]))
