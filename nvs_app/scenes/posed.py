"""Images with their cameras: what goes into the network and what training compares with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nvs_app.geometry.cameras import Cameras


@dataclass(frozen=True)
class PosedImages:
    """Views with pixels and cameras of the same batch shape ``[*b, v]``.

    Attributes:
        images: RGB, [*b, v, 3, H, W]; float32 in [0, 1] or uint8.
        cameras: batch shape [*b, v], ``image_hw`` = (H, W).
        depth: where it is known, [*b, v, H, W]: z along the camera's forward axis at the pixel's centre, in units of
            the cameras' frame; 0 where there is no surface (a plain background), inf for sky.
    """

    images: Float[Tensor, "*b 3 h w"] | UInt8[Tensor, "*b 3 h w"]
    cameras: Cameras
    depth: Float[Tensor, "*b h w"] | None = None

    def __post_init__(self) -> None:
        batch, image_hw = self.cameras.shape, self.cameras.image_hw
        expected = (*batch, 3, *image_hw)
        if tuple(self.images.shape) != expected:
            raise ValueError(f"PosedImages: images {tuple(self.images.shape)}, expected {expected}")
        if self.depth is not None and tuple(self.depth.shape) != (*batch, *image_hw):
            raise ValueError(f"PosedImages: depth {tuple(self.depth.shape)}, expected {(*batch, *image_hw)}")

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index) -> PosedImages:
        """Index the batch dimensions; lists of view indices are taken as such."""
        if isinstance(index, (list, range)):
            index = torch.as_tensor(list(index), dtype=torch.long, device=self.images.device)
        parts = index if isinstance(index, tuple) else (index,)
        whole = any(part is Ellipsis for part in parts)  # the pixels' own dimensions are not to be indexed

        def picked(values: Tensor, own: int) -> Tensor:
            return values[(*parts, *[slice(None)] * own)] if whole else values[parts]

        depth = None if self.depth is None else picked(self.depth, 2)
        return PosedImages(picked(self.images, 3), self.cameras[index], depth)

    def to(self, device: torch.device | str) -> PosedImages:
        """Move pixels, cameras and depth to a device."""
        depth = None if self.depth is None else self.depth.to(device)
        return PosedImages(self.images.to(device), self.cameras.to(device), depth)

    def float(self) -> PosedImages:
        """The same images as float32 in [0, 1]; depth as float32."""
        images = self.images.to(torch.float32)
        if self.images.dtype == torch.uint8:
            images = images / 255.0
        return PosedImages(images, self.cameras, None if self.depth is None else self.depth.to(torch.float32))
