"""Which context views a target view looks at: those that together see most of it, from nearby directions.

The nearest cameras may look elsewhere, and several may show the same half. So points of the target view at its prior
depths are projected into all context views, and views are taken one by one, each time the one that adds most.
Source of the principle: maximum coverage by the greedy rule (Nemhauser et al. 1978).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nvs_app.geometry.warp import plane_rays, project, relative_pose

POINTS = 8  # along each side of the target view
ANGLE = 0.35  # radians; a view whose rays differ by this is worth 1 / e of one whose rays agree


@torch.no_grad()
def select_views(
    log_depth: Float[Tensor, "b t h w"],
    target_c2w: Float[Tensor, "b t 4 4"],
    target_fxfycxcy: Float[Tensor, "b t 4"],
    target_hw: tuple[int, int],
    context_c2w: Float[Tensor, "b v 4 4"],
    context_fxfycxcy: Float[Tensor, "b v 4"],
    context_hw: tuple[int, int],
    count: int,
    exclude_self: bool = False,
) -> Int[Tensor, "b t k"]:
    """Rows of the `count` context views to look at (fewer where there are fewer), best first.

    log_depth: the target views' prior, any size. exclude_self: the targets are the context views themselves, and
    none looks at itself unless it is alone.
    """
    b, t, v = *log_depth.shape[:2], context_c2w.shape[1]
    side = (min(POINTS, log_depth.shape[-2]), min(POINTS, log_depth.shape[-1]))
    depth = torch.nn.functional.adaptive_avg_pool2d(log_depth.flatten(0, 1), side)[:, None].exp()
    rays = plane_rays(target_fxfycxcy.flatten(0, 1), target_hw, side)
    sources = context_c2w[:, None].expand(-1, t, -1, -1, -1).flatten(0, 1)
    intrinsics = context_fxfycxcy[:, None].expand(-1, t, -1, -1).flatten(0, 1)
    seen = project(rays, depth, relative_pose(target_c2w.flatten(0, 1), sources), intrinsics, context_hw)
    angle = seen.cosine.clamp(-1, 1).acos()
    worth = seen.valid * torch.exp(-angle / ANGLE - 0.5 * seen.ratio.abs())
    worth = worth.flatten(2)  # [n, v, points]
    # Where no view sees anything, the nearest one by position and direction.
    away = (sources[..., :3, 3] - target_c2w.flatten(0, 1)[:, None, :3, 3]).norm(dim=-1)
    turned = (sources[..., :3, 2] - target_c2w.flatten(0, 1)[:, None, :3, 2]).norm(dim=-1)
    nearness = -1e-3 * (away + 0.5 * turned)
    count = min(count, v)
    taken = torch.zeros_like(nearness)
    if exclude_self and v > 1:
        count = min(count, v - 1)
        taken = torch.eye(v, device=taken.device).repeat(b, 1)
    best, chosen = torch.zeros_like(worth[:, 0]), []
    for _ in range(count):
        gain = (worth - best[:, None]).clamp_min(0).mean(-1) + 0.1 * worth.mean(-1) + nearness
        pick = (gain - 1e3 * taken).argmax(-1)
        chosen.append(pick)
        taken = taken.scatter(1, pick[:, None], 1.0)
        best = torch.maximum(best, worth.gather(1, pick[:, None, None].expand(-1, 1, worth.shape[-1]))[:, 0])
    return torch.stack(chosen, -1).view(b, t, count)
