"""Splats optimised on the photos, from the surfaces as a start: with gsplat on a CUDA GPU, in plain torch elsewhere.

    train, held = hold_out(views)
    refined = refine(splats_of(fuse(train)), train, held, seconds=30, device=torch.device("cuda"))

Held-out photos say which moment was best: the result is never worse on them than the start.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nvs_app.evaluation.baselines import gsplat_missing
from nvs_app.evaluation.gaussians import camera_matrices, photo_loss
from nvs_app.evaluation.seed_points import border_colour, viewing_distance
from nvs_app.export.rasterise import rasterization
from nvs_app.export.shading import DEGREE, harmonics
from nvs_app.export.splats import Splats
from nvs_app.export.views import SurfaceViews

_HELD_EACH = 8  # of so many views one is held out
_LOOKS = 20  # at the held-out views, evenly over the time
_LOOKING = 0.15  # of the time that looks may take
_PATIENCE = 5  # looks without a better one, and it ends
_GROW_UNTIL = 0.6  # of the time: then splats are no longer added
_FALL_TO = 0.1  # the rates, at the end
# Adam's rates: with gsplat, of thousands of steps; in plain torch, of a hundred. Of positions in units of the scene.
_RATES = {
    "means": (1.6e-4, 1e-3), "scales": (5e-3, 1e-2), "quats": (1e-3, 3e-3),
    "opacities": (5e-2, 5e-2), "colors": (2.5e-3, 1e-2), "harmonics": (1.25e-4, 1e-3),
}  # fmt: skip


@dataclass(frozen=True)
class Refined:
    """What came of it: PSNR on the held-out views `before` and `after`, the number of `steps` and of `held` views."""

    splats: Splats
    before: float
    after: float
    steps: int
    held: int


def hold_out(views: SurfaceViews) -> tuple[SurfaceViews, SurfaceViews]:
    """The views to optimise on, and some evenly taken from them to stop by; two views or more."""
    rows = torch.arange(len(views))
    held = rows % _HELD_EACH == min(_HELD_EACH, len(views)) // 2
    return views[rows[~held]], views[rows[held]]


def refine(
    splats: Splats,
    train: SurfaceViews,
    held: SurfaceViews,
    seconds: float | int,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Refined:
    """Adam on L1 and SSIM, a photo a step; with gsplat, by its default strategy of adding splats, too. Splats keep
    their harmonics, which change with the rest.

    progress: called with the seconds spent; what it raises stops the work. clock: seconds.
    Raises RuntimeError: gsplat's kernels refuse, for want of memory for example.
    """
    images, cameras = train.images.to(device), camera_matrices(train.cameras, device)
    truth, held_cameras = held.images.to(device), camera_matrices(held.cameras, device)
    size = viewing_distance(train.cameras)
    params = _parameters(splats, device)
    ground = torch.nn.Parameter(border_colour(images)[0])
    optimizers = {name: torch.optim.Adam([value], eps=1e-15) for name, value in params.items()}
    sky = torch.optim.Adam([ground], lr=1e-3)
    drawn, strategy = rasterization, None
    if gsplat_missing(device) is None:
        import gsplat

        drawn = gsplat.rasterization
        strategy = gsplat.DefaultStrategy(
            refine_start_iter=200, refine_stop_iter=10**9, reset_every=10**9, verbose=False
        )
        state = strategy.initialize_state(scene_scale=size)

    few = strategy is None
    rates = {name: _RATES[name][few] * (size if name == "means" else 1) for name in params}

    def render(view: int, w2c: Tensor, lenses: Tensor) -> tuple[Tensor, dict]:
        one, colours = slice(view, view + 1), params["colors"]
        if len(params["harmonics"][0]):
            eye = -w2c[view, :3, :3].T @ w2c[view, :3, 3]
            basis = harmonics(normalize(params["means"] - eye, dim=-1), DEGREE)
            colours = colours + (basis[:, 1:, None] * params["harmonics"]).sum(1)
        image, _, info = drawn(
            params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid(),
            colours.clamp_min(0), w2c[one], lenses[one], images.shape[-1], images.shape[-2], packed=False,
            backgrounds=ground[None],
        )  # fmt: skip
        return image.movedim(-1, 1), info

    def quality() -> float:
        with torch.no_grad():
            views = [render(view, *held_cameras)[0][0].clamp(0, 1) for view in range(len(held))]
            errors = (torch.stack(views) - truth).square().mean(dim=(1, 2, 3))
        return float((-10 * errors.clamp_min(1e-10).log10()).mean())

    start = clock()
    before = best = quality()
    kept, steps, since, cost = splats, 0, 0, clock() - start
    due = max(cost / _LOOKING, seconds / _LOOKS)
    order: list[int] = []
    generator = torch.Generator().manual_seed(0)
    while (spent := clock() - start) + cost < seconds and since < _PATIENCE:
        steps += 1
        order = order or torch.randperm(len(images), generator=generator).tolist()
        view, growing = order.pop(), spent < _GROW_UNTIL * seconds
        picture, info = render(view, *cameras)
        if strategy is not None and growing:
            strategy.step_pre_backward(params, optimizers, state, steps, info)
        # What keeps a fit from nothing free of fog would fade what a few steps do not see.
        photo_loss(picture, images[view : view + 1], *(() if few else (params, size))).backward()
        for name, rate in rates.items():
            optimizers[name].param_groups[0]["lr"] = rate * _FALL_TO ** (spent / seconds)
        for optimizer in (*optimizers.values(), sky):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if strategy is not None and growing:
            strategy.step_post_backward(params, optimizers, state, steps, info, packed=False)
        if (looking := clock()) - start >= due:
            since, now = since + 1, quality()
            if now > best:
                best, since, kept = now, 0, _splats(params)
            cost = clock() - looking
            due = clock() - start + max(cost / _LOOKING, seconds / _LOOKS)
        if progress is not None:
            progress(spent)
    if (now := quality()) > best:
        best, kept = now, _splats(params)
    return Refined(kept, before, best, steps, len(held))


def _parameters(splats: Splats, device: torch.device) -> torch.nn.ParameterDict:
    rest = splats.means.new_zeros(len(splats), 0, 3) if splats.harmonics is None else splats.harmonics
    values = {
        "means": splats.means,
        "scales": splats.scales.log(),
        "quats": splats.quats,
        "opacities": splats.opacities.logit(eps=1e-3),
        "colors": splats.colours,
        "harmonics": rest,
    }
    return torch.nn.ParameterDict(
        {
            name: torch.nn.Parameter(value.to(device, torch.float32, copy=True).contiguous())
            for name, value in values.items()
        }
    )


def _splats(params: torch.nn.ParameterDict) -> Splats:
    means, scales, quats, opacities, colours, rest = (  # copies: the parameters go on changing
        params[name].detach().to("cpu", torch.float32, copy=True)
        for name in ("means", "scales", "quats", "opacities", "colors", "harmonics")
    )
    several = rest.shape[1] > 0
    return Splats(
        means, scales.exp(), normalize(quats, dim=-1), colours if several else colours.clamp(0, 1),
        opacities.sigmoid(), rest if several else None,
    )  # fmt: skip
