"""Synthetic photos made like real captures: exposure and white balance, blur, noise, JPEG, and cameras that are a
little wrong.

    images, cameras = like_captures(context_images, context_cameras, changed, generator)

Only the context is changed: what is compared with stays as it was, so that a network learns to see through it.
"""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nvs_app.geometry.cameras import Cameras

EXPOSURE, WHITE_BALANCE = 0.08, 0.02  # standard deviations of log gains, for a scene that is changed most
NOISE = 0.02  # standard deviation, of values in [0, 1]
ROTATION, POSITION, FOCAL = 0.0015, 0.003, 0.006  # radians; share of the distance looked at; share

# The luminance table of JPEG (ITU-T T.81, annex K), used for all three channels.
_QUANTISATION = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip


def like_captures(
    images: Float[Tensor, "b v 3 h w"], cameras: Cameras, changed: Bool[Tensor, " b"], generator: torch.Generator
) -> tuple[Float[Tensor, "b v 3 h w"], Cameras]:
    """Change the photos [0, 1] and cameras [b, v] (normalised frame, 1 from what they look at) of some scenes.

    changed: which scenes. How strongly is drawn for each scene and each kind of change. Returns new tensors.
    """
    b, v = images.shape[:2]
    device = images.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    strength = uniform(b, 5) * changed[:, None]
    gain = strength[:, 0, None, None] * (EXPOSURE * normal(b, v, 1) + WHITE_BALANCE * normal(b, v, 3))
    x = images * gain.exp()[..., None, None]
    x = _blurred(x, (strength[:, 1, None] * uniform(b, v) - 0.4).clamp_min(0))
    x = x + (NOISE * strength[:, 2, None, None, None, None]) * normal(*x.shape)
    coarseness = (strength[:, 3] - 0.3).clamp_min(0) / 0.7
    x = compressed(x.clamp(0, 1), coarseness)
    wrong = (strength[:, 4, None] - 0.3).clamp_min(0)
    turn, shift = (wrong[..., None] * size * normal(b, v, 3) for size in (ROTATION, POSITION))
    moved = _moved(cameras, turn, shift, 1 + wrong * FOCAL * normal(b, 1))
    return torch.where(changed[:, None, None, None, None], x.clamp(0, 1), images), moved


def _blurred(x: Tensor, share: Float[Tensor, "b v"]) -> Tensor:
    """Each image mixed with its own mean over 3x3 pixels."""
    flat = x.flatten(0, 1)
    mean = torch.nn.functional.avg_pool2d(flat, 3, 1, 1, count_include_pad=False).view(x.shape)
    return x + share[..., None, None, None] * (mean - x)


def compressed(images: Float[Tensor, "b v 3 h w"], coarseness: Float[Tensor, " b"]) -> Float[Tensor, "b v 3 h w"]:
    """As JPEG leaves images: blocks of 8x8 in the cosine basis, rounded. coarseness: 0 leaves them as they are, 1 is
    about quality 25. Chroma is not subsampled. Images whose sides are no multiples of 8 are left as they are."""
    height, width = images.shape[-2:]
    if height % 8 or width % 8:
        return images
    device = images.device
    rows = torch.arange(8, device=device, dtype=torch.float32)
    basis = torch.cos((2 * rows + 1) * rows[:, None] * (math.pi / 16)) * 0.5
    basis[0] *= math.sqrt(0.5)
    table, to_ycc, to_rgb = _constants(device)
    step = (2 * coarseness[:, None, None, None, None, None, None] * table).clamp_min(1e-6)
    ycc = torch.einsum("ij,bvjhw->bvihw", to_ycc, images)
    blocks = ycc.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).movedim(-3, -2)  # [b, v, 3, rows, columns, 8, 8]
    coefficients = basis @ blocks @ basis.mT
    blocks = basis.mT @ ((coefficients / step).round() * step) @ basis
    ycc = blocks.movedim(-2, -3).flatten(-4, -3).flatten(-2)
    back = torch.einsum("ij,bvjhw->bvihw", to_rgb, ycc).clamp(0, 1)
    return torch.where((coarseness > 0)[:, None, None, None, None], back, images)


@functools.cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The table of steps, RGB to YCbCr and back. Kept: a GPU's host would wait for each copy of a list."""
    to_ycc = torch.tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    table = torch.tensor(_QUANTISATION, dtype=torch.float32) / 255
    return table.to(device), to_ycc.to(device), torch.linalg.inv(to_ycc).to(device)


def _moved(cameras: Cameras, turn: Float[Tensor, "b v 3"], shift: Tensor, zoom: Float[Tensor, "b 1"]) -> Cameras:
    """Cameras turned by small rotation vectors in their own axes, shifted, and with another focal length."""
    x, y, z = turn.unbind(-1)
    one = torch.ones_like(x)
    # To first order; a thousandth of a radian leaves a millionth in the lengths, which the columns are rid of.
    rotation = torch.stack([one, -z, y, z, one, -x, -y, x, one], -1).unflatten(-1, (3, 3))
    rotation = rotation / rotation.norm(dim=-2, keepdim=True)
    c2w = cameras.c2w.clone()
    c2w[..., :3, :3] = (cameras.c2w[..., :3, :3, None] * rotation[..., None, :, :]).sum(-2)
    c2w[..., :3, 3] += shift
    k = cameras.fxfycxcy
    return Cameras(c2w, torch.cat([k[..., :2] * zoom[..., None], k[..., 2:]], -1), cameras.image_hw)
