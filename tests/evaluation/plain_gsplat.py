"""gsplat's two names that the baseline uses, in plain torch on a CPU: the reference that its fit is tested with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize


def rotations(quats: Tensor) -> Tensor:
    """Quaternions [n, 4], real part first and of any length, as matrices [n, 3, 3]."""
    w, vector = normalize(quats, dim=-1).split([1, 3], dim=-1)
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).view(-1, 3, 3)
    return torch.eye(3) + 2 * w[..., None] * cross + 2 * cross @ cross


def rasterization(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, packed: bool = True, backgrounds: Tensor | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """Every Gaussian at every pixel of one camera, composited from front to back: [1, h, w, 3], opacity, notes."""
    (w2c,), (intrinsics,) = viewmats, Ks
    local = means @ w2c[:3, :3].T + w2c[:3, 3]
    x, y, z = local.unbind(-1)
    z = z.clamp_min(0.01)
    fx, fy = intrinsics[0, 0], intrinsics[1, 1]
    # No further out than a bit beyond the image: the linear projection is wrong there.
    u = (x / z).clamp(-0.65 * width / fx, 0.65 * width / fx)
    v = (y / z).clamp(-0.65 * height / fy, 0.65 * height / fy)
    zero = torch.zeros_like(z)
    slope = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], dim=-1).view(-1, 2, 3)
    root = slope @ w2c[:3, :3] @ (rotations(quats) * scales[:, None])
    inverse = (root @ root.mT + 0.3 * torch.eye(2)).inverse()
    means2d = torch.stack([fx * x / z + intrinsics[0, 2], fy * y / z + intrinsics[1, 2]], dim=-1)[None]
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).view(-1, 1, 2)
    order = z.detach().argsort()
    offset = pixels - means2d[0, order]
    power = (offset[..., None, :] @ inverse[order] @ offset[..., None])[..., 0, 0]
    alpha = (opacities[order] * (local[order, 2] > 0.01) * torch.exp(-0.5 * power)).clamp_max(0.999)
    alpha = alpha * (alpha >= 1 / 255)
    through = torch.cumprod(1 - alpha, dim=-1)
    weight = alpha * torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=-1)
    image = weight @ colors[order]
    if backgrounds is not None:
        image = image + through[:, -1:] * backgrounds
    shape = (1, height, width, -1)
    with torch.no_grad():
        reach = 3 * (root @ root.mT).diagonal(dim1=-2, dim2=-1).amax(-1).sqrt().ceil() * (local[:, 2] > 0.01)
    info = {"means2d": means2d, "radii": reach[None], "width": width, "height": height, "n_cameras": 1,
            "gaussian_ids": None, "packed": packed}  # fmt: skip
    return image.view(shape), 1 - through[:, -1:].view(shape), info


@dataclass
class DefaultStrategy:
    """Neither adds nor removes a Gaussian; counts its calls."""

    refine_start_iter: int = 500
    refine_stop_iter: int = 15_000
    reset_every: int = 3000
    verbose: bool = False

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        return {"scene_scale": scene_scale, "steps": []}

    def step_pre_backward(self, params, optimizers, state, step: int, info) -> None:
        assert set(params) == set(optimizers) and "means2d" in info

    def step_post_backward(self, params, optimizers, state, step: int, info, packed: bool) -> None:
        assert not packed and not info["packed"]
        state["steps"].append(step)
