"""Splats optimised on the photos, from the surfaces as a start: on a CUDA GPU, with the package gsplat.

    train, held = hold_out(views)
    refined = refine(splats_of(fuse(train)), train, held, seconds=30, device=torch.device("cuda"))

Held-out photos say which moment was best: the result is never worse on them than the start.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.evaluation.baselines import gsplat_missing
from nvs_app.evaluation.gaussians import RATES, camera_matrices, photo_loss, view_renderer
from nvs_app.evaluation.seed_points import border_colour, viewing_distance
from nvs_app.export.splats import Splats
from nvs_app.export.views import SurfaceViews

_HELD_EACH = 8  # of so many views one is held out
_LOOKS = 20  # at the held-out views, evenly over the time
_PATIENCE = 5  # looks without a better one, and it ends
_GROW_UNTIL = 0.6  # of the time: then splats are no longer added
_FALL_TO = 0.05  # the rate of positions, at the end


@dataclass(frozen=True)
class Refined:
    """What came of it: PSNR on the held-out views `before` and `after`, the number of `steps` and of `held` views."""

    splats: Splats
    before: float
    after: float
    steps: int
    held: int


def refine_missing(device: torch.device) -> str | None:
    """Why splats cannot be optimised here; None when they can."""
    return gsplat_missing(device)


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
    """Adam on L1 and SSIM, a photo a step, with gsplat's default strategy of adding splats; one colour a splat.

    progress: called with the seconds spent; what it raises stops the work. clock: seconds.
    Raises RuntimeError: gsplat's kernels refuse, for want of memory for example.
    """
    from gsplat import DefaultStrategy

    images, cameras = train.images.to(device), camera_matrices(train.cameras, device)
    truth, held_cameras = held.images.to(device), camera_matrices(held.cameras, device)
    size = viewing_distance(train.cameras)
    params = _parameters(splats, device)
    background = torch.nn.Parameter(border_colour(images)[0])
    optimizers = {
        name: torch.optim.Adam([params[name]], lr=rate * (size if name == "means" else 1), eps=1e-15)
        for name, rate in RATES.items()
    }
    ground = torch.optim.Adam([background], lr=1e-3)
    strategy = DefaultStrategy(refine_start_iter=200, refine_stop_iter=10**9, reset_every=10**9, verbose=False)
    state = strategy.initialize_state(scene_scale=size)
    render = view_renderer(params, background, train.cameras.image_hw)

    def quality() -> float:
        with torch.no_grad():
            views = [render(view, *held_cameras)[0][0].clamp(0, 1) for view in range(len(held))]
            errors = (torch.stack(views) - truth).square().mean(dim=(1, 2, 3))
        return float((-10 * errors.clamp_min(1e-10).log10()).mean())

    before = best = quality()
    kept, steps, looks, since = splats, 0, 0, 0
    order: list[int] = []
    generator, start = torch.Generator().manual_seed(0), clock()
    while (spent := clock() - start) < seconds and since < _PATIENCE:
        steps += 1
        order = order or torch.randperm(len(images), generator=generator).tolist()
        view, growing = order.pop(), spent < _GROW_UNTIL * seconds
        picture, info = render(view, *cameras)
        if growing:
            strategy.step_pre_backward(params, optimizers, state, steps, info)
        photo_loss(picture, images[view : view + 1], params, size).backward()
        optimizers["means"].param_groups[0]["lr"] = RATES["means"] * size * _FALL_TO ** (spent / seconds)
        for optimizer in (*optimizers.values(), ground):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if growing:
            strategy.step_post_backward(params, optimizers, state, steps, info, packed=False)
        if spent >= seconds * (looks + 1) / _LOOKS:
            looks, since, now = looks + 1, since + 1, quality()
            if now > best:
                best, since, kept = now, 0, _splats(params)
            if progress is not None:
                progress(spent)
    if (now := quality()) > best:
        best, kept = now, _splats(params)
    return Refined(kept, before, best, steps, len(held))


def _parameters(splats: Splats, device: torch.device) -> torch.nn.ParameterDict:
    values = {
        "means": splats.means,
        "scales": splats.scales.log(),
        "quats": splats.quats,
        "opacities": splats.opacities.logit(eps=1e-3),
        "colors": splats.colours.clamp(0.02, 0.98).logit(),
    }
    return torch.nn.ParameterDict(
        {name: torch.nn.Parameter(value.float().to(device).contiguous()) for name, value in values.items()}
    )


def _splats(params: torch.nn.ParameterDict) -> Splats:
    def plain(values: Tensor) -> Float[Tensor, "..."]:
        return values.detach().float().cpu()

    return Splats(
        plain(params["means"]).clone(),
        plain(params["scales"].exp()),
        torch.nn.functional.normalize(plain(params["quats"]), dim=-1),
        plain(params["colors"].sigmoid()),
        plain(params["opacities"].sigmoid()),
    )
