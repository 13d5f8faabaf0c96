"""Answers that need no network of ours, to stand beside it: the context's mean colour, the nearest context view, and
a Gaussian splatting fit of the scene from the same context (with the package gsplat and a GPU).

    reason = gsplat_missing(device)          # None: a fit can be made
    renders = fit_gsplat(context, cameras, steps=2000)
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.robust import camera_statistics
from nvs_app.scenes.posed import PosedImages

DESCRIPTIONS = {
    "nearest_view": "the context picture whose camera is nearest",
    "mean_colour": "the mean colour of the context pictures",
    "gsplat": "3D Gaussian splatting fitted to the same context",
}
_START_POINTS = 50_000


def nearest_views(context: Float[Tensor, "n 4 4"], target: Float[Tensor, "t 4 4"]) -> Int[Tensor, "t"]:
    """Row of the context camera nearest to each target camera: distance of positions, in units of the context's
    mean distance from its middle, plus the angle between viewing directions in radians."""
    context, target = context.float(), target.float()
    position = context[:, :3, 3]
    spread = (position - position.mean(0)).norm(dim=-1).mean().clamp_min(1e-6)
    distance = (target[:, None, :3, 3] - position).norm(dim=-1) / spread
    angle = torch.acos((target[:, None, :3, 2] * context[:, :3, 2]).sum(-1).clamp(-1, 1))
    return (distance + angle).argmin(dim=1)


def mean_colour(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "1 3 1 1"]:
    """The mean over pictures and pixels."""
    return images.float().mean((0, 2, 3)).view(1, 3, 1, 1)


def gsplat_missing(device: torch.device) -> str | None:
    """Why gsplat cannot fit scenes here; None when it can. Compiles its kernels where they are not compiled yet."""
    if device.type != "cuda":
        return "it needs a GPU"
    try:
        from gsplat import rasterization
    except (ImportError, OSError, RuntimeError) as error:
        return f"the package gsplat does not import ({error})"
    try:
        one = torch.ones(1, device=device)
        rasterization(
            torch.tensor([[0.0, 0.0, 2.0]], device=device), torch.tensor([[1.0, 0, 0, 0]], device=device),
            one.view(1, 1).expand(1, 3), one, one.view(1, 1).expand(1, 3), torch.eye(4, device=device)[None],
            torch.tensor([[[8.0, 0, 8], [0, 8, 8], [0, 0, 1]]], device=device), 16, 16,
        )  # fmt: skip
    except (RuntimeError, AttributeError, ImportError, OSError, TypeError) as error:
        return f"gsplat's kernels do not run here ({' '.join(str(error).split())[:120]})"
    return None


def fit_gsplat(context: PosedImages, cameras: Cameras, steps: int, seed: int = 0) -> Float[Tensor, "t 3 h w"]:
    """Optimises Gaussians on the context pictures and renders `cameras`: gsplat's default strategy from points drawn
    in front of the context cameras, an L1 loss, plain colours. Kernels sum in any order: no two fits are equal.

    context: images [v, 3, H, W] on the GPU. Returns [t, 3, H, W] in [0, 1] on the GPU.
    """
    from gsplat import DefaultStrategy, rasterization

    device = context.images.device
    photos = context.images.float().movedim(1, -1)
    viewmats, ks = _matrices(context.cameras, device)
    height, width = context.cameras.image_hw
    points, colours, extent = _start(context, torch.Generator().manual_seed(seed))
    count = len(points)
    spacing = extent * (4.0 / count) ** (1 / 3)
    values = {
        "means": (points, 1.6e-4 * extent),
        "scales": (torch.full((count, 3), spacing, device=device).log(), 5e-3),
        "quats": (torch.tensor([1.0, 0, 0, 0], device=device).repeat(count, 1), 1e-3),
        "opacities": (torch.full((count,), -2.2, device=device), 5e-2),
        "colors": (torch.logit(colours.clamp(0.02, 0.98)), 2.5e-2),
    }
    params = torch.nn.ParameterDict({name: torch.nn.Parameter(value) for name, (value, _) in values.items()})
    optimizers = {
        name: torch.optim.Adam([{"params": params[name], "lr": rate, "name": name}], eps=1e-15)
        for name, (_, rate) in values.items()
    }
    strategy = DefaultStrategy(refine_start_iter=300, refine_stop_iter=steps // 2, reset_every=steps, verbose=False)
    state = strategy.initialize_state(scene_scale=extent)

    def draw(which: slice | Tensor, mats: Tensor, intrinsics: Tensor) -> tuple[Tensor, dict]:
        images, _, info = rasterization(
            params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid(),
            params["colors"].sigmoid(), mats[which], intrinsics[which], width, height, packed=False,
            backgrounds=torch.ones(len(mats[which]), 3, device=device),
        )  # fmt: skip
        return images, info

    order = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for step in range(1, steps + 1):  # step 0 would reset the opacities
            row = torch.randint(len(photos), (1,), generator=order).to(device)
            images, info = draw(row, viewmats, ks)
            strategy.step_pre_backward(params, optimizers, state, step, info)
            (images - photos[row]).abs().mean().backward()
            for optimizer in optimizers.values():
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            strategy.step_post_backward(params, optimizers, state, step, info, packed=False)
    with torch.no_grad():
        mats, intrinsics = _matrices(cameras, device)
        views = [draw(slice(i, i + 1), mats, intrinsics)[0] for i in range(len(cameras))]
    return torch.cat(views).clamp(0, 1).movedim(-1, 1)


def _matrices(cameras: Cameras, device: torch.device) -> tuple[Tensor, Tensor]:
    fx, fy, cx, cy = cameras.fxfycxcy.float().to(device).unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    ks = torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], dim=-1).view(-1, 3, 3)
    return cameras.w2c.float().to(device).contiguous(), ks


def _start(context: PosedImages, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Points on rays of random context pixels at random depths around the distance looked at; their pixels' colours."""
    from nvs_app.geometry.rays import pixel_rays

    device = context.images.device
    distance = float(camera_statistics(context.cameras.c2w[None].cpu()).distance[0])
    extent = distance if distance > 1e-6 else 1.0
    origins, directions = pixel_rays(context.cameras.to("cpu"))
    height, width = context.cameras.image_hw
    view, row, column = (
        torch.randint(size, (_START_POINTS,), generator=generator) for size in (len(context), height, width)
    )
    depth = extent * (0.3 + 1.7 * torch.rand(_START_POINTS, 1, generator=generator))
    points = origins[view, :, row, column] + depth * directions[view, :, row, column]
    colours = context.images.float()[view.to(device), :, row.to(device), column.to(device)]
    return points.to(device), colours, extent
