"""Small parts that the detail head is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def conv(inputs: int, outputs: int, side: int = 3) -> nn.Conv2d:
    """A convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, side, padding=side // 2)


class Residual(nn.Module):
    """x + conv(gelu(conv(gelu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv(channels, channels), conv(channels, channels)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.second(F.gelu(self.first(F.gelu(x))))


def resize(x: Float[Tensor, "n c h w"], hw: Sequence[int]) -> Float[Tensor, "n c h2 w2"]:
    """Bilinear, antialiased where it shrinks, to `hw` = (height, width); the same tensor where that is its size."""
    hw, (height, width) = (hw[0], hw[1]), x.shape[-2:]
    if (height, width) == hw:
        return x
    if height % hw[0] == 0 and width % hw[1] == 0:
        return F.avg_pool2d(x, (height // hw[0], width // hw[1]))
    shrinks = hw[0] < height or hw[1] < width
    return F.interpolate(x.float() if shrinks else x, hw, mode="bilinear", antialias=shrinks).to(x.dtype)


def sample(
    maps: Float[Tensor, "n c h w"], grid: Float[Tensor, "n *p 2"], mode: str = "bilinear"
) -> Float[Tensor, "n c *p"]:
    """Samples at `grid` ([-1, 1] over the map), the border's values beyond it; float32.

    mode: "bilinear", or "bicubic", which keeps what a photo shows sharp. Coordinates in bfloat16 would be off by a
    quarter of a pixel.
    """
    points = grid.shape[1:-1]
    flat = grid.flatten(1, -2)[:, None].float()
    found = F.grid_sample(maps.float(), flat, mode=mode, padding_mode="border", align_corners=False)
    return found[:, :, 0].unflatten(-1, points)


def over_views(x: Float[Tensor, "n k *r"], what: str) -> Tensor:
    """The "sum" or "amax" over the k views. On a CPU one view after the other: of tensors whose channels lie last,
    torch's own reductions take 10 to 25 times as long there. Sums differ by rounding."""
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return getattr(x, what)(1)
    return functools.reduce(torch.add if what == "sum" else torch.maximum, x.unbind(1))


def by_photo(function: Callable[[Tensor], Tensor], *maps: Float[Tensor, "n m _ h w"]) -> Float[Tensor, "n m c h w"]:
    """`function` of the channels of all maps together. Without gradients on a CPU photo by photo: what all need at once
    is most of the memory of a large view."""
    photos = maps[0].shape[:2]
    if torch.is_grad_enabled() or maps[0].device.type != "cpu":
        joined = torch.cat(maps, 2).flatten(0, 1)
        return function(joined.contiguous(memory_format=torch.channels_last)).unflatten(0, photos)
    each = (torch.cat([x[:, photo] for x in maps], 1) for photo in range(photos[1]))
    return torch.stack([function(x.contiguous(memory_format=torch.channels_last)) for x in each], 1)
