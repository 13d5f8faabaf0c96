"""The detail head in order: context views once a scene, then any target view.

    context = head.context_views(tokens, token_hw, photos, cameras)           # once a scene
    output = head(tokens, token_hw, lact_images, context, target_cameras)     # a view, at any resolution

The cost of a target view does not grow with the number of photos: a fixed number of context views is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.warp import plane_rays, project, relative_pose
from nvs_app.model.compilation import plainly, varying
from nvs_app.model.detail.blending import TOKEN_CHANNELS, Blending, ConvexUpsampling, Warped
from nvs_app.model.detail.config import FINEST_GROUPS, DetailHeadConfig, Sampling
from nvs_app.model.detail.features import Guide, ImageFeatures, PhotoFeatures, TokenGuide
from nvs_app.model.detail.layers import conv, resize, sample
from nvs_app.model.detail.selection import select_views
from nvs_app.model.detail.sweep import (
    FINEST_PAIR,
    FINEST_VOLUME,
    DepthSweep,
    Sources,
    Swept,
    finest_hypotheses,
    first_hypotheses,
    matching_costs,
    narrowed_hypotheses,
    open_width,
    other_surface,
)

FULL = Sampling()


@dataclass(frozen=True)
class ContextViews:
    """What target views look at: photos, their features and their depth.

    images: [b, v, 3, H, W] in [0, 1] (uint8 in a saved state); cameras: [b, v] of `image_hw` (H, W), normalised frame.
    features: [b, v, c + 2, H/4, W/4]: image features, log depth and its log scale. guide, swept: of the prior and the
    sweep behind that depth [b * v, ...], for the losses; None where nobody trains.
    """

    images: Tensor
    cameras: Cameras
    features: Tensor
    guide: Guide | None = None
    swept: Swept | None = None

    def to(self, device: torch.device | str) -> ContextViews:
        """On `device`, without what only the losses need."""
        return ContextViews(self.images.to(device), self.cameras.to(device), self.features.to(device))

    def stored(self) -> ContextViews:
        """As a state keeps them: photos as uint8, features as float16, a third of the memory."""
        images = self.images
        if images.dtype != torch.uint8:
            images = images.mul(255).round().clamp(0, 255).to(torch.uint8)
        return ContextViews(images, self.cameras, self.features.half())


@dataclass(frozen=True)
class DetailOutput:
    """A rendered view and its geometry; n = b * t target views.

    images: [b, t, 3, H, W], not clamped. log_depth: [n, H, W], of z along the camera's axis, normalised frame.
    log_scale: [n, H/4, W/4], of its Laplace distribution. surface: [n, H/8, W/8], logit: a surface, or sky and plain
    background. seen: [n, H/4, W/4] in [0, 1]: some photo shows the point. from_photos: [n, H, W], the photos' share.
    """

    images: Tensor
    log_depth: Tensor
    log_scale: Tensor
    surface: Tensor
    seen: Tensor
    from_photos: Tensor
    guide: Guide
    first: Swept
    second: Swept
    third: Swept | None


class DetailHead(nn.Module):
    """See the module. dim: channels of LaCT's tokens."""

    def __init__(self, config: DetailHeadConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        c, volume, guide = config.features, config.volume, config.guide
        self.image_features = ImageFeatures(config)
        self.guide = TokenGuide(config, dim)
        self.query = nn.Conv2d(guide, c, 1)
        self.fine = nn.Conv2d(guide + volume, 4 * 32, 1)
        self.fine_query = nn.Conv2d(32, c, 1)
        self.first_sweep, self.second_sweep = (DepthSweep(config.groups, volume) for _ in range(2))
        self.own_scale = nn.Conv2d(volume + guide, 1, 1)
        self.log_scale = nn.Conv2d(volume + 32, 1, 1)
        for layer in (self.own_scale, self.log_scale):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, -2.0)
        self.upsampling = ConvexUpsampling(volume + 32, 2 if config.finest_planes else 4)
        if config.finest_planes:
            self.photo_features = PhotoFeatures(config)
            self.finest_query = conv(32 + TOKEN_CHANNELS, config.finest_features)
            self.third_sweep = DepthSweep(FINEST_GROUPS, FINEST_VOLUME, FINEST_PAIR, layers=2)
            self.finest_upsampling = ConvexUpsampling(FINEST_VOLUME + config.finest_features, 2, 32)
        self.tokens = nn.Linear(dim, 16 * TOKEN_CHANNELS)
        self.blending = Blending(config)

    def compile_parts(self) -> None:
        """Compile what compiles in seconds and is worth it; whole sweeps and networks took minutes."""
        for sweep in self.modules():
            if isinstance(sweep, DepthSweep):
                sweep.matching_costs = torch.compile(matching_costs)

    # ------------------------------------------------------------------ once a scene

    def context_views(
        self,
        tokens: Float[Tensor, "b v n d"],
        token_hw: tuple[int, int],
        images: Float[Tensor, "b v 3 h w"],
        cameras: Cameras,
        views: int | None = None,
        views_per_chunk: int | None = None,
    ) -> ContextViews:
        """Features and depth of the context views.

        tokens: of the context, behind LaCT's output norm, a grid of `token_hw` a view. images: the photos in [0, 1] at
        any size whose sides are multiples of 8, and `cameras` of that size. views: other context views that each one's
        depth is compared with; None: as configured. views_per_chunk: bounds memory where nobody trains; the result is
        the same, without what only the losses need.
        """
        if views_per_chunk is not None and views_per_chunk < images.shape[1]:
            return self._context_in_chunks(tokens, token_hw, images, cameras, views, views_per_chunk)
        features, guide = self._prior(tokens, token_hw, images)
        chosen = self._neighbours(guide.log_depth.unflatten(0, images.shape[:2]), cameras, views)
        plain = ContextViews(images, cameras, features)
        own, swept = self._own_depth(guide, cameras, gather_sources(plain, cameras, chosen), features.shape[-2:])
        return ContextViews(images, cameras, _with_depth(features, own), guide, swept)

    def _prior(self, tokens: Tensor, token_hw: tuple[int, int], images: Tensor) -> tuple[Tensor, Guide]:
        """Features with the prior's log depth and log scale [b, v, c + 2, h4, w4], and the guide, of context views."""
        height, width = images.shape[-2:]
        features = self.image_features(images.flatten(0, 1))
        guide = self.guide(tokens.flatten(0, 1), token_hw, features, (height // 8, width // 8))
        prior = _upsample(torch.stack([guide.log_depth, guide.log_scale], 1), features.shape[-2:])
        return torch.cat([features.float(), prior], 1).unflatten(0, images.shape[:2]), guide

    def _neighbours(self, log_depth: Float[Tensor, "b v h w"], cameras: Cameras, views: int | None) -> Tensor:
        """The other context views that each context view's depth is compared with."""
        return select_views(
            log_depth, cameras.c2w, cameras.fxfycxcy, cameras.image_hw, cameras.c2w, cameras.fxfycxcy,
            cameras.image_hw, views or self.config.views, exclude_self=True,
        )  # fmt: skip

    def _own_depth(
        self, guide: Guide, cameras: Cameras, sources: Sources, hw: Sequence[int]
    ) -> tuple[Float[Tensor, "n 2 h4 w4"], Swept]:
        """Log depth and log scale of context views at the features' size `hw`, and the sweep that they come from."""
        swept = self._first(guide, cameras, sources, (guide.maps.shape[-2], guide.maps.shape[-1]))
        own_scale = self.own_scale(torch.cat([swept.maps, guide.maps], 1))[:, 0].float().clamp(-5, 0.5)
        return _upsample(torch.stack([swept.log_depth, own_scale], 1), hw), swept

    def _context_in_chunks(
        self, tokens: Tensor, token_hw: tuple[int, int], images: Tensor, cameras: Cameras, views: int | None, size: int
    ) -> ContextViews:
        groups = [slice(i, i + size) for i in range(0, images.shape[1], size)]
        parts = [self._prior(tokens[:, group], token_hw, images[:, group]) for group in groups]
        b, features = images.shape[0], torch.cat([part[0] for part in parts], 1)
        plain = ContextViews(images, cameras, features)
        chosen = self._neighbours(torch.cat([g.log_depth.unflatten(0, (b, -1)) for _, g in parts], 1), cameras, views)
        own = []
        for group, (_, guide) in zip(groups, parts, strict=True):
            sources = gather_sources(plain, cameras[:, group], chosen[:, group])
            depth, _ = self._own_depth(guide, cameras[:, group], sources, features.shape[-2:])
            own.append(depth.unflatten(0, (b, -1)))
        return ContextViews(images, cameras, _with_depth(features, torch.cat(own, 1).flatten(0, 1)))

    def more_views(
        self, context: ContextViews, tokens: Float[Tensor, "1 v n d"], token_hw: tuple[int, int],
        images: Float[Tensor, "1 v 3 h w"], cameras: Cameras,
    ) -> ContextViews:  # fmt: skip
        """`context` (as a state keeps it) and more views, whose depth is compared with all; that of the views before
        stays as it is. The arguments are those of `context_views`; images: of the size of those before."""
        features, guide = self._prior(tokens, token_hw, images)
        before = context.features.to(features.dtype)
        every = Cameras.cat([context.cameras, cameras], dim=1)
        count, every_features = images.shape[1], torch.cat([before, features], 1)
        chosen = self._neighbours(every_features[:, :, -2], every, None)[:, -count:]
        plain = ContextViews(context.images, every, every_features)
        own, _ = self._own_depth(guide, cameras, gather_sources(plain, cameras, chosen), features.shape[-2:])
        fresh = ContextViews(images, cameras, _with_depth(features, own)).stored()
        with torch.autocast(images.device.type, enabled=False):  # on a CPU it knows no float16
            kept = torch.cat([context.images, fresh.images], 1)
            return ContextViews(kept, every, torch.cat([context.features, fresh.features], 1))

    # ------------------------------------------------------------------ a target view

    def forward(
        self,
        tokens: Float[Tensor, "b t n d"],
        token_hw: tuple[int, int],
        lact_images: Float[Tensor, "b t 3 hl wl"],
        context: ContextViews,
        cameras: Cameras,
        sampling: Sampling = FULL,
        call: Callable[[Callable], Callable] = plainly,
    ) -> DetailOutput:
        """Render target views.

        tokens: of the target, behind LaCT's output norm; lact_images: LaCT's own image, at its own size. cameras:
        [b, t], normalised frame; their `image_hw` is the size that is rendered, sides multiples of 8. sampling: how
        closely it looks. call: how the work is called, compiled for one.
        """
        rendered = call(DetailHead._rendered)
        for tensor in (context.images, context.features, context.cameras.c2w, context.cameras.fxfycxcy):
            varying(tensor, 1)
        return DetailOutput(*rendered(self, tokens, token_hw, lact_images, context, cameras, sampling))

    def _rendered(
        self, tokens: Tensor, token_hw: tuple[int, int], lact_images: Tensor, context: ContextViews, cameras: Cameras,
        sampling: Sampling,
    ) -> tuple:  # fmt: skip
        """What `DetailOutput` is made of, in its order."""
        b, t = cameras.shape
        height, width = cameras.image_hw
        half, quarter, eighth = ((height // f, width // f) for f in (2, 4, 8))
        flat_tokens = tokens.flatten(0, 1)
        small = lact_images.flatten(0, 1)
        guide = self.guide(flat_tokens, token_hw, self.image_features(small), eighth)
        chosen = select_views(
            guide.log_depth.unflatten(0, (b, t)), cameras.c2w, cameras.fxfycxcy, cameras.image_hw,
            context.cameras.c2w, context.cameras.fxfycxcy, context.cameras.image_hw,
            sampling.views or self.config.views,
        )  # fmt: skip
        sources = gather_sources(context, cameras, chosen)
        first = self._first(guide, cameras, sources, eighth, sampling.planes)
        fine = F.pixel_shuffle(self.fine(torch.cat([guide.maps, first.maps], 1)), 2)
        hypotheses = narrowed_hypotheses(first, sampling.fine_planes or self.config.fine_planes, quarter)
        intrinsics = cameras.fxfycxcy.flatten(0, 1).float()
        second = self.second_sweep(
            self.fine_query(fine), hypotheses, plane_rays(intrinsics, cameras.image_hw, quarter), sources
        )
        found = torch.cat([second.maps, fine], 1)
        log_scale = self.log_scale(found)[:, 0].float().clamp(-6, 0.5)
        photos = gather_photos(context, chosen)
        if sampling.photo_level:
            photos = F.avg_pool2d(photos.flatten(0, 1), 2**sampling.photo_level).unflatten(0, photos.shape[:2])
        token_maps = self._token_maps(flat_tokens, token_hw, half)
        third = None
        if self.config.finest_planes:
            third, query = self._third(second, found, fine, token_maps, photos, sources, cameras, sampling)
            log_depth = self.finest_upsampling(third.log_depth[:, None], torch.cat([third.maps, query], 1))[:, 0]
        else:
            log_depth = self.upsampling(second.log_depth[:, None], found)[:, 0]
        layers = [log_depth]
        if self.config.layers == 2 and third is not None:
            layers.append(other_surface(log_depth, third.log_depth))
        lact_image = resize(small, (height, width)).float()
        images, share = self.blending(
            look_up(photos, layers, sources, cameras), lact_image, second.views, token_maps,
            torch.stack([log_scale.detach(), second.seen], 1), guide.maps, third,
        )  # fmt: skip
        return (
            images.unflatten(0, (b, t)), log_depth, log_scale, guide.surface, second.seen, share.sum(1), guide, first,
            second, third,
        )  # fmt: skip

    def _third(
        self, second: Swept, found: Tensor, fine: Tensor, token_maps: Tensor, photos: Float[Tensor, "n k 3 h w"],
        sources: Sources, cameras: Cameras, sampling: Sampling,
    ) -> tuple[Swept, Float[Tensor, "n c h2 w2"]]:  # fmt: skip
        """The sweep at half the resolution, around what the second found, and its query."""
        half = (token_maps.shape[-2], token_maps.shape[-1])
        log_depth, width = self.upsampling(torch.stack([second.log_depth, open_width(second)], 1), found).unbind(1)
        hypotheses = finest_hypotheses(log_depth, width, sampling.finest_planes or self.config.finest_planes)
        query = self.finest_query(torch.cat([resize(fine, half), token_maps], 1))
        features = self.photo_features(photos.flatten(0, 1)).unflatten(0, photos.shape[:2])
        rays = plane_rays(cameras.fxfycxcy.flatten(0, 1).float(), cameras.image_hw, half)
        third = self.third_sweep(query, hypotheses, rays, sources, features)
        # Where the depths tried lie is trained by what was found among them.
        shifted = third.log_depth + (log_depth - log_depth.detach())
        # Not by `_replace`: compiled code of torch 2.11 cannot return what that makes.
        return Swept(third.hypotheses, third.probability, shifted, *third[3:]), query

    def _first(
        self, guide: Guide, cameras: Cameras, sources: Sources, hw: tuple[int, int], planes: int | None = None
    ) -> Swept:
        planes = planes or self.config.planes
        hypotheses = first_hypotheses(guide.log_depth, guide.log_scale, planes, self.config.reach)
        rays = plane_rays(cameras.fxfycxcy.flatten(0, 1).float(), cameras.image_hw, hw)
        return self.first_sweep(self.query(guide.maps), hypotheses, rays, sources)

    def _token_maps(self, tokens: Float[Tensor, "n t d"], token_hw: tuple[int, int], hw: tuple[int, int]) -> Tensor:
        cells = self.tokens(tokens).transpose(1, 2).unflatten(2, token_hw)
        return resize(F.pixel_shuffle(cells, 4), hw)


def gather_sources(context: ContextViews, cameras: Cameras, chosen: Tensor) -> Sources:
    """The chosen context views [b, t, k] of target `cameras` [b, t]."""
    rows = torch.arange(chosen.shape[0], device=chosen.device)[:, None, None]
    c2w = context.cameras.c2w[rows, chosen].flatten(0, 1).float()
    return Sources(
        context.features[rows, chosen].flatten(0, 1),
        relative_pose(cameras.c2w.flatten(0, 1).float(), c2w),
        context.cameras.fxfycxcy[rows, chosen].flatten(0, 1).float(),
        context.cameras.image_hw,
    )


def look_up(
    photos: Float[Tensor, "n k 3 h2 w2"], log_depths: Sequence[Tensor], sources: Sources, cameras: Cameras
) -> Warped:
    """The chosen photos as target `cameras` [b, t] would see them, if surfaces lay at each of the depths [n, h, w]."""
    hw = cameras.image_hw
    with torch.autocast(photos.device.type, enabled=False):
        rays = plane_rays(cameras.fxfycxcy.flatten(0, 1).float(), hw, hw)
        depth = torch.stack(list(log_depths), 1).exp()
        at = project(rays, depth, sources.pose, sources.fxfycxcy, sources.image_hw)
        n, k, layers = at.depth.shape[:3]
        found = sample(photos.flatten(0, 1), at.grid.flatten(0, 1), "bicubic").unflatten(0, (n, k))
        geometry = torch.stack([at.cosine, at.ratio.clamp(-2, 2)], 3).detach()  # [n, k, layers, 2, h, w]
        geometry = F.avg_pool2d(geometry.flatten(0, 2), 4).unflatten(0, (n, k, layers))

    def by_layer(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(1, 2)

    apart = log_depths[1] - log_depths[0].detach() if layers == 2 else None
    return Warped(by_layer(found.transpose(2, 3)), by_layer(at.valid.float()), by_layer(geometry), apart)


def gather_photos(context: ContextViews, chosen: Tensor) -> Float[Tensor, "n k 3 h w"]:
    """The photos of the chosen context views [b, t, k], float32 in [0, 1]."""
    rows = torch.arange(chosen.shape[0], device=chosen.device)[:, None, None]
    photos = context.images[rows, chosen].flatten(0, 1)
    return photos.float() / 255 if photos.dtype == torch.uint8 else photos.float()


def _with_depth(features: Float[Tensor, "b v c h w"], own: Float[Tensor, "n 2 h w"]) -> Float[Tensor, "b v c h w"]:
    """Features whose last two channels are log depth and log scale."""
    return torch.cat([features[:, :, :-2], own.unflatten(0, features.shape[:2])], 2)


def _upsample(maps: Float[Tensor, "n c h w"], hw: Sequence[int]) -> Float[Tensor, "n c h2 w2"]:
    return F.interpolate(maps, (hw[0], hw[1]), mode="bilinear", align_corners=False)
