"""The depth sweep: a narrow cost volume around a prior depth, through the features of k context views.

For every cell of the target view a few depths are tried. At each, the features of the context views there are
compared with a query made from the target's tokens, with each other, and the depth with what the context views
themselves hold for their depth at that place. A small network shared by all views scores each, views are pooled by
these scores, convolutions over cells and depths compare neighbours, and a softmax over the depths says which it is.

Sources: MVSNet (arXiv 1804.02505) for cost volumes by variance, group-wise correlation (arXiv 1903.04025), cascades of
narrowing sweeps (CasMVSNet, arXiv 1912.06378; ENeRF, arXiv 2112.01517).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nvs_app.geometry.warp import Projection, RelativePose, project
from nvs_app.model.detail.layers import conv, over_views, sample

PAIR_CHANNELS = 16  # what one context view says of one depth
FINEST_PAIR, FINEST_VOLUME = 8, 8  # the same, and the channels of the volume, of the third sweep
SAME_SURFACE = 0.02  # of log depth: what differs by less is one surface
CPU_CELLS = 32768  # of context views and depths that a CPU scores at once
GEOMETRY = 6  # valid, cosine, ratio, and three of the context view's own depth


class Sources(NamedTuple):
    """The k context views that each of n target views looks at.

    features: [n, k, c + 2, hf, wf] image features, then log depth and log scale of the views' own depth;
    pose: of the target in their axes; fxfycxcy: [n, k, 4] in pixels of `image_hw`.
    """

    features: Tensor
    pose: RelativePose
    fxfycxcy: Tensor
    image_hw: tuple[int, int]


class Swept(NamedTuple):
    """What a sweep found, at the resolution of its query.

    hypotheses: [n, d, h, w] log depths tried; probability: of each; log_depth, deviation: mean and standard deviation
    [n, h, w]; maps: [n, volume, h, w]; views: [n, k, 16, h, w] of each context view; seen: [n, h, w] in [0, 1], how
    surely some context view shows the point.
    """

    hypotheses: Tensor
    probability: Tensor
    log_depth: Tensor
    deviation: Tensor
    maps: Tensor
    views: Tensor
    seen: Tensor


def matching_costs(
    features: Float[Tensor, "n k c d h w"], query: Float[Tensor, "n c h w"], valid: Float[Tensor, "n k d h w"],
    groups: int,
) -> tuple[Float[Tensor, "n k g d h w"], Float[Tensor, "n k d h w"], Float[Tensor, "n g d h w"]]:  # fmt: skip
    """How k views agree with a query and with each other, in the query's type.

    Returns the correlation with the query by groups of channels, each view's squared difference from the mean of the
    views that see the point, and the variance by groups. (A function of its own: compiled, it is one pass over the
    largest tensor of a step.)
    """
    grouped = features.to(query.dtype).unflatten(2, (groups, -1))  # [n, k, g, c/g, d, h, w]
    correlation = (grouped * query.unflatten(1, (groups, -1))[:, None, :, :, None]).mean(3)
    weight = valid / valid.sum(1, keepdim=True).clamp_min(1e-3)
    mean = over_views(grouped * weight[:, :, None, None], "sum")[:, None]
    squared = (grouped - mean).square().mean(3)
    return correlation, squared.mean(2), over_views(squared * weight[:, :, None], "sum")


class VolumeLayer(nn.Module):
    """A residual 3-D convolution in two: 3x3 among the cells of a depth, then 3 along the depths of a cell.

    Two-dimensional convolutions are what processors are fast at, and it is less than half of the products.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.within = conv(channels, channels)
        self.across = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))

    def forward(self, x: Float[Tensor, "n d c h w"]) -> Float[Tensor, "n d c h w"]:
        n, d, _, h, w = x.shape
        y = F.gelu(self.within(F.gelu(x).flatten(0, 1))).unflatten(0, (n, d))
        y = self.across(y.transpose(1, 2).flatten(3)).unflatten(3, (h, w))
        return x + y.transpose(1, 2)


class DepthSweep(nn.Module):
    """One sweep; its weights fit any number of depths and views.

    groups: of feature channels; volume: channels of the cost volume; pair: channels that one context view says of one
    depth; layers: of convolutions in the volume.
    """

    def __init__(self, groups: int, volume: int, pair: int = PAIR_CHANNELS, layers: int = 3) -> None:
        super().__init__()
        self.groups = groups
        self.pair_in = nn.Linear(groups + GEOMETRY + 1, 2 * pair)
        self.pair_out = nn.Linear(2 * pair, pair + 1)
        self.volume_in = nn.Linear(pair + groups + 2, volume)
        self.volume = nn.Sequential(*(VolumeLayer(volume) for _ in range(layers)))
        self.volume_out = nn.Conv2d(volume, 1, 1)
        self.matching_costs = matching_costs

    def forward(
        self,
        query: Float[Tensor, "n c h w"],
        hypotheses: Float[Tensor, "n d h w"],
        rays: Float[Tensor, "n 3 h w"],
        sources: Sources,
        features: Float[Tensor, "n k c hf wf"] | None = None,
    ) -> Swept:
        """query: features to look for; hypotheses: log depths, no gradient flows into them; rays: z = 1; features: of
        the context views, of any size, in place of those of `sources`."""
        if torch.is_grad_enabled() or query.device.type != "cpu":
            said, volume, visible = self._said(query, hypotheses, rays, sources, features)
            x = self.volume(self.volume_in(volume).movedim(-1, 2))  # [n, d, volume, h, w]
        else:
            said, volume, visible = self._said_in_rows(query, hypotheses, rays, sources, features)
            x = self.volume(volume)
        probability = self.volume_out(x.flatten(0, 1)).float().unflatten(0, x.shape[:2])[:, :, 0].softmax(1)
        log_depth = (probability * hypotheses).sum(1)
        deviation = (probability * (hypotheses - log_depth[:, None]).square()).sum(1).clamp_min(1e-8).sqrt()
        spread = probability.to(x.dtype)
        return Swept(
            hypotheses=hypotheses,
            probability=probability,
            log_depth=log_depth,
            deviation=deviation,
            maps=(x * spread[:, :, None]).sum(1),
            views=weighed(said, spread),
            seen=(probability.detach() * visible).sum(1),
        )

    def _said(
        self, query: Tensor, hypotheses: Tensor, rays: Tensor, sources: Sources, features: Tensor | None
    ) -> tuple[Float[Tensor, "n k d h w p"], Float[Tensor, "n d h w q"], Float[Tensor, "n d h w"]]:
        """What each context view says of each depth, what goes into the volume, and whether any view sees the point."""
        with torch.autocast(query.device.type, enabled=False), torch.no_grad():
            seen = project(rays, hypotheses.exp(), sources.pose, sources.fxfycxcy, sources.image_hw)
        n, k = seen.depth.shape[:2]
        grid = seen.grid.flatten(0, 1)
        if features is None:
            found = sample(sources.features.flatten(0, 1), grid).unflatten(0, (n, k))
        else:
            parts = [sample(maps.flatten(0, 1), grid) for maps in (features, sources.features[:, :, -2:])]
            found = torch.cat(parts, 1).unflatten(0, (n, k))
        own, valid = found[:, :, -2:], seen.valid.to(query.dtype)
        correlation, difference, variance = self.matching_costs(found[:, :, :-2], query, valid, self.groups)
        depth_fit, visible = self._own_depth(own, seen)
        geometry = torch.stack([valid, seen.cosine.to(query.dtype), seen.ratio.clamp(-2, 2).to(query.dtype)], 2)
        pairs = torch.cat([correlation, difference[:, :, None], geometry, depth_fit.to(query.dtype)], 2)
        pairs = self.pair_out(F.gelu(self.pair_in(pairs.movedim(2, -1))))  # [n, k, d, h, w, p + 1]
        said, score = pairs[..., :-1], pairs[..., -1].float()
        share = torch.where(seen.valid, score, -8.0).softmax(1)[..., None].to(said.dtype)
        some = over_views(visible, "amax")
        pooled = [over_views(said * share, "sum"), variance.movedim(1, -1), valid.mean(1)[..., None]]
        return said, torch.cat([*pooled, some[..., None].to(said.dtype)], -1), some

    def _said_in_rows(
        self, query: Tensor, hypotheses: Tensor, rays: Tensor, sources: Sources, features: Tensor | None
    ) -> tuple[Float[Tensor, "n k d h w p"], Float[Tensor, "n d v h w"], Float[Tensor, "n d h w"]]:
        """As `_said`, behind `volume_in`, as a processor is fast: some rows at a time, which stay in its caches, in
        float32, with the channels in front, so that it works at many cells at once."""
        rows = max(1, CPU_CELLS // (sources.features.shape[1] * hypotheses[:, :, 0].numel()))
        own = sources.features[:, :, -2:].flatten(0, 1).float()
        looked_at = (sources.features[:, :, :-2] if features is None else features).flatten(0, 1).float()
        layers = (self.pair_in, self.pair_out, self.volume_in)
        pair_in, pair_out, volume_in = ((layer.weight.float(), layer.bias.float()[:, None]) for layer in layers)
        parts = []
        with torch.autocast(query.device.type, enabled=False):
            blocks = zip(query.split(rows, -2), hypotheses.split(rows, -2), rays.split(rows, -2), strict=True)
            for wanted, depths, own_rays in blocks:
                seen = project(own_rays, depths.exp(), sources.pose, sources.fxfycxcy, sources.image_hw)
                shape, grid = seen.depth.shape, seen.grid.flatten(0, 1)
                found, theirs = (sample(maps, grid).unflatten(0, shape[:2]) for maps in (looked_at, own))
                valid = seen.valid.float()
                correlation, difference, variance = self.matching_costs(found, wanted.float(), valid, self.groups)
                depth_fit, visible = self._own_depth(theirs, seen)
                geometry = torch.stack([difference, valid, seen.cosine, seen.ratio.clamp(-2, 2)], 2)
                pairs = torch.cat([correlation, geometry, depth_fit], 2).flatten(0, 1).flatten(2)
                pairs = over_channels(pair_out, F.gelu(over_channels(pair_in, pairs))).unflatten(2, shape[2:])
                pairs = pairs.unflatten(0, shape[:2])  # [n, k, p + 1, d, h, w]
                said, score = pairs[:, :, :-1], pairs[:, :, -1]
                share = torch.where(seen.valid, score, -8.0).softmax(1)[:, :, None]
                some = over_views(visible, "amax")
                pooled = [over_views(said * share, "sum"), variance, valid.mean(1, keepdim=True), some[:, None]]
                volume = over_channels(volume_in, torch.cat(pooled, 1).flatten(2)).unflatten(2, shape[2:])
                parts.append((said.to(query.dtype).movedim(2, -1), volume.movedim(1, -1).to(query.dtype), some))
        said, volume, visible = (torch.cat(part, axis) for part, axis in zip(zip(*parts), (3, 2, -2), strict=True))
        return said, volume.movedim(-1, 2), visible

    @staticmethod
    def _own_depth(own: Float[Tensor, "n k 2 d h w"], seen: Projection) -> tuple[Tensor, Tensor]:
        """How a depth fits what the context views hold for their own: [n, k, 3, d, h, w], and whether they can see
        the point, [n, k, d, h, w] in [0, 1]: it lies in their frame and not behind their own surface."""
        log_depth, log_scale = own.unbind(2)
        behind = seen.depth.clamp_min(1e-3).log() - log_depth
        scale = log_scale.exp() + 0.01
        relative = (behind / scale).clamp(-4, 4)
        visible = torch.sigmoid(4 - 2 * relative.detach()) * seen.valid
        return torch.stack([relative / 4, torch.exp(-relative.abs()), scale.clamp_max(1.0)], 2), visible


def over_channels(layer: tuple[Tensor, Tensor], x: Float[Tensor, "n c m"]) -> Float[Tensor, "n c2 m"]:
    """A linear layer, its weight and its bias as a column, of channels that lie in front."""
    weight, bias = layer
    return torch.baddbmm(bias, weight.expand(len(x), -1, -1), x)


def weighed(said: Float[Tensor, "n k d h w p"], spread: Float[Tensor, "n d h w"]) -> Float[Tensor, "n k p h w"]:
    """The sum over the depths of what is said, times their probability."""
    if said.device.type != "cpu" or torch.is_grad_enabled():
        return (said * spread[:, None, ..., None]).sum(2).movedim(-1, 2)
    total = torch.zeros(1)
    for part, share in zip(said.movedim(-1, 2).unbind(3), spread.float().unbind(1), strict=True):
        total = total + part * share[:, None, None]  # one depth after the other takes half as long there
    return total.to(said.dtype)


def first_hypotheses(
    log_depth: Float[Tensor, "n h w"], log_scale: Float[Tensor, "n h w"], planes: int, reach: float
) -> Float[Tensor, "n d h w"]:
    """Log depths evenly around the prior: `reach` times its uncertainty to either side, 0.02 at least, 0.8 at most."""
    width = (reach * log_scale.detach().exp()).clamp(0.02, 0.8)
    steps = torch.linspace(-1, 1, planes, device=log_depth.device)
    return log_depth.detach()[:, None] + steps[:, None, None] * width[:, None]


def narrowed_hypotheses(swept: Swept, planes: int, hw: tuple[int, int]) -> Float[Tensor, "n d h2 w2"]:
    """Log depths for a second sweep of size `hw`: the range that a sweep leaves open in a cell and its neighbours, so
    that at an edge both surfaces are tried."""
    log_depth = swept.log_depth.detach()
    half = open_width(swept).detach().clamp_max(0.5)
    low = -F.max_pool2d(half[:, None] - log_depth[:, None], 3, 1, 1)
    high = F.max_pool2d((log_depth + half)[:, None], 3, 1, 1)
    # What only a neighbour says is followed as far as 0.4, which separates most silhouettes from what is behind.
    low = torch.maximum(low[:, 0], log_depth - half - 0.4)
    high = torch.minimum(high[:, 0], log_depth + half + 0.4)
    bounds = F.interpolate(torch.stack([low, high], 1), hw, mode="nearest")
    steps = torch.linspace(0, 1, planes, device=low.device)[:, None, None]
    return bounds[:, :1] + (bounds[:, 1:] - bounds[:, :1]) * steps


def finest_hypotheses(
    log_depth: Float[Tensor, "n h w"], width: Float[Tensor, "n h w"], planes: int
) -> Float[Tensor, "n d h w"]:
    """Log depths for a third sweep, `width` to either side of what the second one found for a cell's own surface."""
    steps = torch.linspace(-1, 1, planes, device=log_depth.device)[:, None, None]
    return log_depth.detach()[:, None] + steps * width.detach()[:, None].clamp(0.002, 0.1)


def open_width(swept: Swept) -> Float[Tensor, "n h w"]:
    """How far from its mean a sweep leaves the log depth open, to either side."""
    return 1.25 * swept.deviation + 0.5 * (swept.hypotheses[:, 1] - swept.hypotheses[:, 0])


def other_surface(log_depth: Float[Tensor, "n h w"], near: Float[Tensor, "n h2 w2"]) -> Float[Tensor, "n h w"]:
    """At silhouettes the log depth of the other surface; elsewhere `log_depth` itself. No gradient.

    near: log depths at half the resolution; of those within two cells, the one that differs most.
    """
    near, own = near.detach()[:, None], log_depth.detach()
    ends = torch.cat([-F.max_pool2d(-near, 5, 1, 2), F.max_pool2d(near, 5, 1, 2)], 1)
    low, high = F.interpolate(ends, own.shape[-2:], mode="bilinear", align_corners=False).unbind(1)
    other = torch.where(high - own > own - low, high, low)
    return torch.where((other - own).abs() > SAME_SURFACE, other, own)
