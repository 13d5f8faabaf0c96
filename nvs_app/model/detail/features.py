"""Image features of images, and what the tokens of a view say of its depth.

Images have sides that are multiples of 8. Features lie at a quarter of the resolution, tokens' maps ("guides") at an
eighth; cells cover pixels evenly, so that no map is shifted against another.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nvs_app.model.detail.config import DetailHeadConfig
from nvs_app.model.detail.layers import Residual, conv, resize

LOG_DEPTH = (-3.5, 4.6)  # of the normalised frame, in which cameras are 1 away from what they look at: 0.03 to 100
LOG_SCALE = (-5.0, 0.5)  # of the Laplace distribution of log depth
TOKEN_CHANNELS = 64  # of the map that tokens are unfolded into, two by two cells a token


class ImageFeatures(nn.Module):
    """Convolutional features of an image at a quarter of its resolution."""

    def __init__(self, config: DetailHeadConfig) -> None:
        super().__init__()
        self.fine = nn.Sequential(conv(12, 32), nn.GELU(), Residual(32))
        self.coarse = nn.Sequential(conv(128, 64), Residual(64), Residual(64), nn.GELU(), conv(64, config.features))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h4 w4"]:
        """images: in [0, 1]."""
        x = F.pixel_unshuffle(images * 2 - 1, 2).contiguous(memory_format=torch.channels_last)
        return self.coarse(F.pixel_unshuffle(self.fine(x), 2))


class PhotoFeatures(nn.Module):
    """Convolutional features of a photo at half its resolution, for the third sweep.

    Two layers, which are computed anew for a view: kept, they would be twice as large as all else that a scene keeps.
    """

    def __init__(self, config: DetailHeadConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv(12, 24), nn.GELU(), conv(24, config.finest_features))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h2 w2"]:
        """images: in [0, 1], of even sides."""
        return self.layers(F.pixel_unshuffle(images * 2 - 1, 2).contiguous(memory_format=torch.channels_last))


class Guide(NamedTuple):
    """What the tokens of n views say, at an eighth of the resolution.

    maps: [n, guide, h8, w8]; log_depth, log_scale: the depth prior, a Laplace distribution of the log of z along the
    camera's axis, float32 [n, h8, w8]; surface: logit of "there is a surface here" (neither sky nor plain background).
    """

    maps: Tensor
    log_depth: Tensor
    log_scale: Tensor
    surface: Tensor


class TokenGuide(nn.Module):
    """Tokens and image of a view -> `Guide`: the depth prior."""

    def __init__(self, config: DetailHeadConfig, dim: int) -> None:
        super().__init__()
        self.unfold = nn.Linear(dim, 4 * TOKEN_CHANNELS)
        self.mix = nn.Sequential(
            conv(TOKEN_CHANNELS + config.features, config.guide), Residual(config.guide), Residual(config.guide)
        )
        self.prior = nn.Conv2d(config.guide, 3, 1)
        nn.init.zeros_(self.prior.weight)
        with torch.no_grad():
            assert self.prior.bias is not None
            self.prior.bias.copy_(torch.tensor([0.0, -1.5, 0.0]))

    def forward(
        self,
        tokens: Float[Tensor, "n t d"],
        token_hw: tuple[int, int],
        features: Float[Tensor, "n c h4 w4"],
        hw: tuple[int, int],
    ) -> Guide:
        """tokens: of a grid of `token_hw`; features: of the view's image; hw: size of the guide."""
        cells = self.unfold(tokens).transpose(1, 2).unflatten(2, token_hw)
        cells = resize(F.pixel_shuffle(cells, 2), hw)
        maps = self.mix(torch.cat([cells, resize(features, hw).to(cells.dtype)], 1))
        log_depth, log_scale, surface = self.prior(F.gelu(maps)).float().unbind(1)
        return Guide(maps, log_depth.clamp(*LOG_DEPTH), log_scale.clamp(*LOG_SCALE), surface)
