"""Blending: what k photos show at each pixel, warped with the swept depth, and LaCT's own picture.

Photos are looked up at full resolution, the network that weighs them works at half of it: it gives every pixel a
weight for each photo and for LaCT's picture, and a small correction. What leaves it is as sharp as the photos are.
Sources: IBRNet (arXiv 2102.13090), Stable View Synthesis (arXiv 2011.07233), convex upsampling of RAFT
(arXiv 2003.12039).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nvs_app.model.detail.config import DetailHeadConfig
from nvs_app.model.detail.layers import Residual, conv, resize
from nvs_app.model.detail.sweep import PAIR_CHANNELS

VIEW_CHANNELS = 32
TOKEN_CHANNELS = 8  # at half the resolution
QUERY = 16


class Blending(nn.Module):
    """Warped photos and LaCT's picture -> the rendered image."""

    def __init__(self, config: DetailHeadConfig) -> None:
        super().__init__()
        c = config.blend
        self.view = nn.Sequential(
            conv(24 + PAIR_CHANNELS + 2, VIEW_CHANNELS), nn.GELU(), conv(VIEW_CHANNELS, VIEW_CHANNELS)
        )
        self.enter = nn.Sequential(conv(2 * VIEW_CHANNELS + 12 + TOKEN_CHANNELS + 2, c), nn.GELU(), Residual(c))
        self.down = nn.Sequential(conv(4 * c, 2 * c, 1), Residual(2 * c))
        self.bottom = nn.Sequential(conv(8 * c + config.guide, 2 * c, 1), Residual(2 * c), Residual(2 * c))
        self.up = nn.Sequential(conv(4 * c, 2 * c), Residual(2 * c))
        self.leave = nn.Sequential(conv(3 * c, c), Residual(c), nn.GELU())
        self.out = conv(c, 4 * (1 + 3) + QUERY)
        self.weigh = nn.Sequential(conv(VIEW_CHANNELS + QUERY, 16, 1), nn.GELU(), conv(16, 4))
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        photos: Float[Tensor, "n k 3 h w"],
        valid: Float[Tensor, "n k h w"],
        lact_image: Float[Tensor, "n 3 h w"],
        views: Float[Tensor, "n k p h4 w4"],
        geometry: Float[Tensor, "n k 2 h4 w4"],
        tokens: Float[Tensor, "n q h2 w2"],
        confidence: Float[Tensor, "n 2 h4 w4"],
        guide: Float[Tensor, "n g h8 w8"],
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n k h w"]]:
        """The image, and the share of each photo in it.

        photos: warped to the target view; valid: 1 where a photo's frame holds the point; lact_image: at the same size;
        views, geometry, confidence: of the second sweep; tokens: channels of the target's tokens; guide: of its guide.
        """
        n, k = photos.shape[:2]
        half = tokens.shape[-2:]
        difference = photos - lact_image[:, None]
        per_view = torch.cat([photos, difference], 2).flatten(0, 1).to(tokens.dtype)
        said = torch.cat([views, geometry.to(views.dtype)], 2).flatten(0, 1)
        x = torch.cat([F.pixel_unshuffle(per_view, 2), resize(said, half)], 1)
        each = self.view(x.contiguous(memory_format=torch.channels_last)).unflatten(0, (n, k))
        entered = self.enter(
            torch.cat(
                [
                    each.mean(1),
                    each.amax(1),
                    F.pixel_unshuffle(lact_image.to(each.dtype) * 2 - 1, 2),
                    tokens,
                    resize(confidence.to(each.dtype), half),
                ],
                1,
            )
        )
        middle = self.down(F.pixel_unshuffle(entered, 2))
        low = self.bottom(torch.cat([F.pixel_unshuffle(middle, 2), guide], 1))
        x = self.up(torch.cat([resize(low, middle.shape[-2:]), middle], 1))
        x = self.out(self.leave(torch.cat([resize(x, half), entered], 1)))
        lact, correction, query = x.split([4, 12, QUERY], 1)
        logits = self.weigh(torch.cat([each, query[:, None].expand(-1, k, -1, -1, -1)], 2).flatten(0, 1))
        logits = F.pixel_shuffle(logits, 2).float().unflatten(0, (n, k))[:, :, 0]
        logits = torch.where(valid > 0, logits, -20.0)
        # LaCT's picture begins with a weight of its own, so that an untrained head changes little.
        all_logits = torch.cat([logits, F.pixel_shuffle(lact, 2).float() + 1.0], 1)
        share = all_logits.softmax(1)
        image = (share[:, :k, None] * photos).sum(1) + share[:, k:] * lact_image
        return image + 0.5 * torch.tanh(F.pixel_shuffle(correction, 2).float()), share[:, :k]


class ConvexUpsampling(nn.Module):
    """A map at a quarter of the resolution to full resolution: each pixel a learned mean of the nine cells around."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weights = nn.Sequential(conv(inputs, 64), nn.GELU(), nn.Conv2d(64, 9 * 16, 1))

    def forward(self, values: Float[Tensor, "n h w"], maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h4 w4"]:
        """values: float32; maps: what decides the weights."""
        weights = self.weights(maps).unflatten(1, (9, 16)).float().softmax(1)
        h, w = values.shape[-2:]
        padded = F.pad(values[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
        near = torch.stack([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], 1)
        return F.pixel_shuffle((weights * near[:, :, None]).sum(1), 4)[:, 0]
