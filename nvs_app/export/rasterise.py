"""Gaussian splats rendered in plain torch, with gradients: what gsplat does on a GPU, where there is none.

    image = rasterization(means, quats, scales, opacities, colors, w2c, intrinsics, width, height)[0]

As 3D Gaussian splatting defines it (Kerbl et al. 2023), with names and shapes of gsplat's function. Nothing is in
tiles: every Gaussian lists the pixels that it reaches, the list is sorted by pixel, nearest first, and composited at
once.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.geometry.rotations import quaternion_to_matrix

_BLUR = 0.3  # square pixels, added to each projected covariance
_LEAST = 1 / 255  # opacity of a fragment; less is left out
_MOST = 0.999
_NEAREST = 0.01
_BEHIND = 1e-3  # light that is left: what lies deeper is not drawn


def rasterization(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n 3"],
    viewmats: Float[Tensor, "1 4 4"],
    Ks: Float[Tensor, "1 3 3"],
    width: int,
    height: int,
    packed: bool = False,
    backgrounds: Float[Tensor, "1 3"] | None = None,
) -> tuple[Float[Tensor, "1 h w 3"], Float[Tensor, "1 h w 1"], dict[str, Any]]:
    """One camera's view [1, h, w, 3], how much of each pixel is covered [1, h, w, 1], and no notes.

    means, scales: world units; quats: real part first; opacities in [0, 1]; colors: any range, as seen from here.
    viewmats: world to camera; Ks: intrinsics in pixels. backgrounds: black unless given. Gradients reach all but
    the cameras.
    """
    w2c, lens = viewmats[0], Ks[0]
    with torch.no_grad():
        place, inverse, depth, reach = _projected(means, quats, scales, opacities, w2c, lens, width, height)
        pixel, index = _fragments(place, depth, reach, width, height)
        alpha = _alpha(pixel, index, place, inverse, opacities, width)
        pixel, index = (part[alpha >= _LEAST] for part in (pixel, index))
        pixel, order = torch.sort(pixel, stable=True)  # they came nearest first
        index = index[order]
        light = _light(alpha[alpha >= _LEAST][order], pixel)
        pixel, index = (part[light > _BEHIND] for part in (pixel, index))
    used, index = index.unique(return_inverse=True)
    place, inverse, _, _ = _projected(means[used], quats[used], scales[used], opacities[used], w2c, lens, width, height)
    alpha = _alpha(pixel, index, place, inverse, opacities[used], width)
    weight = alpha * _light(alpha, pixel)
    image = weight.new_zeros(height * width, 4).index_add(
        0, pixel, weight[:, None] * torch.cat([colors[used], weight.new_ones(len(used), 1)], dim=1)[index]
    )
    cover = image[:, 3:]
    image = image[:, :3] if backgrounds is None else image[:, :3] + (1 - cover) * backgrounds
    return image.view(1, height, width, 3), cover.view(1, height, width, 1), {}


def _projected(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, w2c: Tensor, lens: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each Gaussian its place [n, 2] in pixels, the inverse [n, 3] of its covariance there (xx, xy, yy), its depth,
    and how far its fragments reach [n, 2], 0 where there are none."""
    local = means @ w2c[:3, :3].T + w2c[:3, 3]
    x, y, depth = local.unbind(-1)
    z = depth.clamp_min(_NEAREST)
    fx, fy = lens[0, 0], lens[1, 1]
    # No further out than a bit beyond the image: the linear projection is wrong there.
    u = (x / z).clamp(-0.65 * width / fx, 0.65 * width / fx)
    v = (y / z).clamp(-0.65 * height / fy, 0.65 * height / fy)
    zero = torch.zeros_like(z)
    slope = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], dim=-1).view(-1, 2, 3)
    root = slope @ w2c[:3, :3] @ (quaternion_to_matrix(quats) * scales[:, None])
    xx, yy = (root.square().sum(-1) + _BLUR).unbind(-1)
    xy = (root[:, 0] * root[:, 1]).sum(-1)
    inverse = torch.stack([yy, -xy, xx], dim=-1) / (xx * yy - xy.square())[:, None]
    with torch.no_grad():
        wide = (2 * (opacities.clamp_min(_LEAST) / _LEAST).log())[:, None]
        reach = (wide * torch.stack([xx, yy], dim=-1)).sqrt() * (depth > _NEAREST)[:, None]
    return torch.stack([fx * x / z + lens[0, 2], fy * y / z + lens[1, 2]], dim=-1), inverse, depth, reach


def _fragments(place: Tensor, depth: Tensor, reach: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Pixels and Gaussians that may touch, all pairs, the nearest Gaussian's first."""
    size = place.new_tensor([width, height])
    # Bounded as floats: what lies far outside has no number as an integer.
    low = (place - reach - 0.5).ceil().clamp_min(0).minimum(size).long()
    high = ((place + reach - 0.5).floor() + 1).clamp_min(0).minimum(size).long()
    count = (high - low).clamp_min(0)
    order = depth.argsort()
    order = order[(count.prod(-1) * (reach[:, 0] > 0) > 0)[order]]
    low, count = low[order], count[order]
    number = count.prod(-1)
    row = torch.repeat_interleave(number)
    inside = torch.arange(len(row)) - (number.cumsum(0) - number)[row]
    across = count[row, 0]
    down = inside // across
    return (low[row, 1] + down) * width + low[row, 0] + inside - down * across, order[row]


def _alpha(pixel: Tensor, index: Tensor, place: Tensor, inverse: Tensor, opacities: Tensor, width: int) -> Tensor:
    """Opacity of each fragment."""
    here = torch.stack([pixel % width, pixel // width], dim=-1) + 0.5
    values = torch.cat([place, inverse, opacities[:, None]], dim=-1)[index]
    x, y = (here - values[:, :2]).unbind(-1)
    power = values[:, 2] * x * x + 2 * values[:, 3] * x * y + values[:, 4] * y * y
    return (values[:, 5] * torch.exp(-0.5 * power)).clamp_max(_MOST)


def _light(alpha: Tensor, pixel: Tensor) -> Tensor:
    """How much light reaches each fragment: the product of what those before it let through."""
    logs = torch.log1p(-alpha.double())
    before = logs.cumsum(0) - logs
    first = torch.searchsorted(pixel, pixel)
    return (before - before[first]).exp().to(alpha.dtype)
