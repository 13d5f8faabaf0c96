"""Pictures with their cameras: what goes into the network and what training compares with."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """

    images: Float[Tensor, "*b 3 h w"] | UInt8[Tensor, "*b 3 h w"]
    cameras: Cameras

    def __post_init__(self) -> None:
        expected = (*self.cameras.shape, 3, *self.cameras.image_hw)
        if tuple(self.images.shape) != expected:
            raise ValueError(f"PosedImages: images {tuple(self.images.shape)}, expected {expected}")

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index) -> PosedImages:
        """Index the batch dimensions; lists of view indices are taken as such."""
        if isinstance(index, (list, range)):
            index = torch.as_tensor(list(index), dtype=torch.long, device=self.images.device)
        if isinstance(index, tuple) and any(part is Ellipsis for part in index):
            return replace(self, images=self.images[(*index, *[slice(None)] * 3)], cameras=self.cameras[index])
        return replace(self, images=self.images[index], cameras=self.cameras[index])

    def to(self, device: torch.device | str) -> PosedImages:
        """Move pixels and cameras to a device."""
        return PosedImages(self.images.to(device), self.cameras.to(device))

    def float(self) -> PosedImages:
        """The same pictures as float32 in [0, 1]."""
        if self.images.dtype == torch.uint8:
            return replace(self, images=self.images.to(torch.float32) / 255.0)
        return replace(self, images=self.images.to(torch.float32))
