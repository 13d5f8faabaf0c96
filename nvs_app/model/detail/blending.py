"""Blending: what k photos show at each pixel, warped with the swept depth, and LaCT's own image.

Photos are looked up at full resolution, the network that weighs them works at half of it: it gives every pixel a
weight for each photo and for LaCT's image, and a small correction. What leaves it is as sharp as the photos are.
Where a head has two layers, each photo is looked up at the pixel's own depth and, at silhouettes, at the other
surface's; a few convolutions at full resolution then refine the blended image.
Sources: IBRNet (arXiv 2102.13090), Stable View Synthesis (arXiv 2011.07233), convex upsampling of RAFT
(arXiv 2003.12039).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nvs_app.model.detail.config import DetailHeadConfig
from nvs_app.model.detail.layers import Residual, by_photo, conv, over_views, resize
from nvs_app.model.detail.sweep import FINEST_PAIR, FINEST_VOLUME, PAIR_CHANNELS, Swept

VIEW_CHANNELS = 32
TOKEN_CHANNELS = 8  # at half the resolution
QUERY = 16


class Warped(NamedTuple):
    """k photos as the target view would see them, looked up at m = k or 2 k depths: the first k at the pixel's own.

    photos: [n, m, 3, h, w]; valid: [n, m, h, w], 1 where a photo's frame holds the point; geometry: [n, m, 2, h4, w4],
    cosine and ratio of the viewing rays (`Projection`); apart: [n, h, w] log depth of the second layer less that of
    the first.
    """

    photos: Tensor
    valid: Tensor
    geometry: Tensor
    apart: Tensor | None


class Refinement(nn.Module):
    """Convolutions at full resolution that make good what blending blurs; an untrained one changes nothing."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(inputs, channels), nn.GELU(), conv(channels, channels), nn.GELU(), conv(channels, 3)
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self, image: Float[Tensor, "n 3 h w"], lact_image: Tensor, photos: Float[Tensor, "n m 3 h w"], share: Tensor,
        maps: Float[Tensor, "n c h w"],
    ) -> Float[Tensor, "n 3 h w"]:  # fmt: skip
        """share: [n, m, h, w] of each photo; maps: of the blending network."""
        spread = ((photos - image[:, None]).square().sum(2) * share).sum(1, keepdim=True)
        known = torch.cat([image * 2 - 1, image - lact_image, (spread + 1e-6).sqrt(), share.amax(1, keepdim=True)], 1)
        x = torch.cat([known.to(maps.dtype), maps], 1)
        return image + self.layers(x.contiguous(memory_format=torch.channels_last)).float()


class Blending(nn.Module):
    """Warped photos and LaCT's image -> the rendered image."""

    def __init__(self, config: DetailHeadConfig) -> None:
        super().__init__()
        c, finest = config.blend, config.finest_planes > 0
        per_view = 24 + PAIR_CHANNELS + 2 + finest * FINEST_PAIR + (config.layers - 1)
        self.view = nn.Sequential(conv(per_view, VIEW_CHANNELS), nn.GELU(), conv(VIEW_CHANNELS, VIEW_CHANNELS))
        entering = 2 * VIEW_CHANNELS + 12 + TOKEN_CHANNELS + 2 + finest * (FINEST_VOLUME + 1)
        self.enter = nn.Sequential(conv(entering, c), nn.GELU(), Residual(c))
        self.down = nn.Sequential(conv(4 * c, 2 * c, 1), Residual(2 * c))
        self.bottom = nn.Sequential(conv(8 * c + config.guide, 2 * c, 1), Residual(2 * c), Residual(2 * c))
        self.up = nn.Sequential(conv(4 * c, 2 * c), Residual(2 * c))
        self.leave = nn.Sequential(conv(3 * c, c), Residual(c), nn.GELU())
        self.out = conv(c, 4 * (1 + 3) + QUERY)
        self.weigh = nn.Sequential(conv(VIEW_CHANNELS + QUERY, 16, 1), nn.GELU(), conv(16, 4))
        self.refinement = Refinement(8 + c // 4, config.refine) if config.refine else None
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        warped: Warped,
        lact_image: Float[Tensor, "n 3 h w"],
        views: Float[Tensor, "n k p h4 w4"],
        tokens: Float[Tensor, "n q h2 w2"],
        confidence: Float[Tensor, "n 2 h4 w4"],
        guide: Float[Tensor, "n g h8 w8"],
        finest: Swept | None = None,
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n m h w"]]:
        """The image, and the share of each looked-up photo in it.

        lact_image: at full resolution; views, confidence: of the second sweep; tokens: channels of the target's
        tokens; guide: of its guide; finest: the third sweep, of heads that have one.
        """
        photos, valid, geometry, apart = warped
        n, m = photos.shape[:2]
        half, layers = tokens.shape[-2:], m // views.shape[1]
        dtype = tokens.dtype
        difference = photos - lact_image[:, None]
        per_view = torch.cat([photos, difference], 2).flatten(0, 1).to(dtype)
        said = torch.cat([views.repeat(1, layers, 1, 1, 1), geometry.to(views.dtype)], 2).flatten(0, 1)
        parts = [F.pixel_unshuffle(per_view, 2), resize(said, half)]
        entering = [F.pixel_unshuffle(lact_image.to(dtype) * 2 - 1, 2), tokens, resize(confidence.to(dtype), half)]
        if finest is not None:
            parts.append(finest.views.repeat(1, layers, 1, 1, 1).flatten(0, 1).to(dtype))
            entering += [finest.maps.to(dtype), finest.deviation.detach().log()[:, None].to(dtype) * 0.2]
        if apart is not None:
            other = F.avg_pool2d(apart[:, None].clamp(-1, 1), 2).to(dtype)[:, None].expand(-1, m // 2, -1, -1, -1)
            parts.append(torch.cat([torch.zeros_like(other), other], 1).flatten(0, 1))
        each = by_photo(self.view, *(part.unflatten(0, (n, m)) for part in parts))
        entered = self.enter(torch.cat([over_views(each, "sum") / m, over_views(each, "amax"), *entering], 1))
        middle = self.down(F.pixel_unshuffle(entered, 2))
        low = self.bottom(torch.cat([F.pixel_unshuffle(middle, 2), guide], 1))
        x = self.up(torch.cat([resize(low, middle.shape[-2:]), middle], 1))
        leaving = self.leave(torch.cat([resize(x, half), entered], 1))
        lact, correction, query = self.out(leaving).split([4, 12, QUERY], 1)
        logits = by_photo(self.weigh, each, query[:, None].expand(-1, m, -1, -1, -1))
        logits = F.pixel_shuffle(logits, 2).float()[:, :, 0]
        # A photo that is looked up twice at one depth counts once.
        logits = torch.where(valid > 0, logits - math.log(layers), -20.0)
        # LaCT's image begins with a weight of its own, so that an untrained head changes little.
        all_logits = torch.cat([logits, F.pixel_shuffle(lact, 2).float() + 1.0], 1)
        share = all_logits.softmax(1)
        image = (share[:, :m, None] * photos).sum(1) + share[:, m:] * lact_image
        image = image + 0.5 * torch.tanh(F.pixel_shuffle(correction, 2).float())
        if self.refinement is not None:
            image = self.refinement(image, lact_image, photos, share[:, :m], F.pixel_shuffle(leaving, 2))
        return image, share[:, :m]


class ConvexUpsampling(nn.Module):
    """Maps to `factor` times their resolution: each pixel a learned mean of the nine cells around."""

    def __init__(self, inputs: int, factor: int = 4, hidden: int = 64) -> None:
        super().__init__()
        self.factor = factor
        self.weights = nn.Sequential(conv(inputs, hidden), nn.GELU(), nn.Conv2d(hidden, 9 * factor**2, 1))

    def forward(self, values: Float[Tensor, "n v h w"], maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n v h2 w2"]:
        """values: float32; maps: what decides the weights, which all values share."""
        weights = self.weights(maps).unflatten(1, (9, self.factor**2)).float().softmax(1)[:, None]
        h, w = values.shape[-2:]
        padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
        near = torch.stack([padded[..., i : i + h, j : j + w] for i in range(3) for j in range(3)], 2)
        return F.pixel_shuffle((weights * near[:, :, :, None]).sum(2).flatten(1, 2), self.factor)
