"""A Gaussian splatting fit of a scene from its context images: the baseline beside ours (package gsplat and a GPU).

    renders = fit_gsplat(context, cameras, steps=7000)

Gaussians start on surfaces found in the images (`seed_points`). Started as a fog in front of the cameras they
never fit: no gradient reaches what stands behind the ones that are nearest to a camera.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.evaluation.metrics import ssim
from nvs_app.evaluation.seed_points import border_colour, scattered_points, seed_points, viewing_distance
from nvs_app.geometry.cameras import Cameras, rigid
from nvs_app.scenes.posed import PosedImages

STEPS = 7000
"""Steps after which the papers report their quick fits."""
# Adam's rates of Kerbl et al. 2023, that of the means in units of the scene's size. Colours are logits here: four
# times the rate of their first spherical harmonic moves a colour about as far.
RATES = {"means": 1.6e-4, "scales": 5e-3, "quats": 1e-3, "opacities": 5e-2, "colors": 1e-2}
_MEANS_FALL_TO = 0.01
_SSIM_SHARE = 0.2
# Gaussians that the images do not ask for fade and shrink (Kheradmand et al. 2024). From few views the fit would
# else hang some in front of single cameras, in the colours that these see.
_OPACITY_COST = 0.01
_SIZE_COST = 0.01
_FIRST_OPACITY = 0.1
_TOO_FEW = 500  # points found; what is missing is scattered


def fit_gsplat(context: PosedImages, cameras: Cameras, steps: int = STEPS, seed: int = 0) -> Float[Tensor, "t 3 h w"]:
    """Optimises Gaussians on the context images and renders `cameras`: gsplat's default strategy, one image a step,
    L1 and SSIM, one colour a Gaussian in all directions, one learned background colour.

    Kernels sum in any order: no two fits are equal.

    Args:
        context: images [v, 3, H, W], float in [0, 1] or uint8, on the GPU; cameras anywhere. Any world frame.
        cameras: batch [t], of the context's size. Their images are not known here.
        steps: of optimisation. Gaussians are added in the first half; 7000 take about half a minute at 256x256.
        seed: of the order of images, and of points where images have too little in common to find any.

    Returns:
        [t, 3, H, W] in [0, 1] on the GPU.

    Raises:
        RuntimeError: gsplat's kernels refuse, for want of memory for example.
    """
    from gsplat import DefaultStrategy

    context, cameras = _centred(context.float(), cameras)
    images = context.images
    size = viewing_distance(context.cameras)
    generator = torch.Generator().manual_seed(seed)
    params = _start(context, size, generator)
    background = torch.nn.Parameter(border_colour(images)[0])
    render_view = view_renderer(params, background, context.cameras.image_hw)
    fused = images.device.type == "cuda"
    optimizers = {
        name: torch.optim.Adam([params[name]], lr=rate * (size if name == "means" else 1), eps=1e-15, fused=fused)
        for name, rate in RATES.items()
    }
    ground = torch.optim.Adam([background], lr=1e-3)
    # The papers' times for 30,000 steps, in proportion, but for the pause between two refinements.
    strategy = DefaultStrategy(
        refine_start_iter=steps // 14, refine_stop_iter=steps // 2, reset_every=max(200, steps // 5), verbose=False
    )
    state = strategy.initialize_state(scene_scale=size)
    matrices = camera_matrices(context.cameras, images.device)
    order: list[int] = []
    with torch.enable_grad():
        for step in range(1, steps + 1):  # step 0 would reset the opacities
            order = order or torch.randperm(len(images), generator=generator).tolist()
            view = order.pop()
            render, info = render_view(view, *matrices)
            strategy.step_pre_backward(params, optimizers, state, step, info)
            photo_loss(render, images[view : view + 1], params, size).backward()
            optimizers["means"].param_groups[0]["lr"] = RATES["means"] * size * _MEANS_FALL_TO ** (step / steps)
            for optimizer in (*optimizers.values(), ground):
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            strategy.step_post_backward(params, optimizers, state, step, info, packed=False)
    with torch.no_grad():
        matrices = camera_matrices(cameras, images.device)
        return torch.cat([render_view(view, *matrices)[0] for view in range(len(cameras))]).clamp(0, 1)


def _centred(context: PosedImages, cameras: Cameras) -> tuple[PosedImages, Cameras]:
    """Both moved so that the context stands around the origin, float32: map coordinates leave no digits for detail."""
    middle = context.cameras.c2w[:, :3, 3].double().mean(0)

    def moved(own: Cameras) -> Cameras:
        c2w = own.c2w.double()
        return replace(own, c2w=rigid(c2w[:, :3, :3], c2w[:, :3, 3] - middle.to(c2w.device)).float())

    return replace(context, cameras=moved(context.cameras)), moved(cameras)


def view_renderer(
    params: torch.nn.ParameterDict, background: Tensor, image_hw: tuple[int, int]
) -> Callable[[int, Tensor, Tensor], tuple[Tensor, dict]]:
    """Renders view number `view` of cameras given as w2c [n, 4, 4] and intrinsics [n, 3, 3]: a render [1, 3, H, W] and
    what gsplat notes of it."""
    from gsplat import rasterization

    def render_view(view: int, w2c: Tensor, intrinsics: Tensor) -> tuple[Tensor, dict]:
        one = slice(view, view + 1)
        image, _, info = rasterization(
            params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid(),
            params["colors"].sigmoid(), w2c[one], intrinsics[one], image_hw[1], image_hw[0], packed=False,
            backgrounds=background[None],
        )  # fmt: skip
        return image.movedim(-1, 1), info

    return render_view


def photo_loss(
    render: Tensor, photo: Tensor, params: torch.nn.ParameterDict | None = None, size: float = 1.0
) -> Tensor:
    """L1 and SSIM of images [1, 3, H, W]; with `params`, what Gaussians cost in a scene of that size, too."""
    difference = (render - photo).abs().mean()
    unlike = 1 - ssim(render, photo).mean() if min(photo.shape[-2:]) >= 11 else difference
    error = (1 - _SSIM_SHARE) * difference + _SSIM_SHARE * unlike
    if params is None:
        return error
    costs = _OPACITY_COST * params["opacities"].sigmoid().mean() + _SIZE_COST / size * params["scales"].exp().mean()
    return error + costs


def camera_matrices(cameras: Cameras, device: torch.device) -> tuple[Float[Tensor, "n 4 4"], Float[Tensor, "n 3 3"]]:
    """World-to-camera and intrinsics as gsplat reads them: its pixel centres are at (0.5, 0.5) too."""
    fx, fy, cx, cy = cameras.fxfycxcy.float().to(device).unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    intrinsics = torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], dim=-1).view(-1, 3, 3)
    return cameras.w2c.float().to(device).contiguous(), intrinsics


def _start(context: PosedImages, size: float, generator: torch.Generator) -> torch.nn.ParameterDict:
    """Round Gaussians on the points found, as wide as their three nearest neighbours are away."""
    points, colours = seed_points(context)
    if len(points) < _TOO_FEW:
        more = scattered_points(context, _TOO_FEW - len(points), generator)
        points, colours = torch.cat([points, more[0]]), torch.cat([colours, more[1]])
    width = _neighbour_distance(points).clamp(1e-4 * size, 0.1 * size)
    values = {
        "means": points,
        "scales": width.log()[:, None].repeat(1, 3),
        "quats": points.new_tensor([1.0, 0, 0, 0]).repeat(len(points), 1),
        "opacities": points.new_full((len(points),), math.log(_FIRST_OPACITY / (1 - _FIRST_OPACITY))),
        "colors": torch.logit(colours.clamp(0.02, 0.98)),
    }
    return torch.nn.ParameterDict({name: torch.nn.Parameter(value.contiguous()) for name, value in values.items()})


def _neighbour_distance(points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Mean distance of each point from its three nearest neighbours."""
    found = []
    for part in points.split(2048):
        # Not by a matrix product, which loses distances that are small beside the points' own lengths.
        distance = torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist")
        found.append(distance.topk(4, dim=1, largest=False).values[:, 1:].mean(dim=1))
    return torch.cat(found)
