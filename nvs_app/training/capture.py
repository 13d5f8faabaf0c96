"""Synthetic photos made like real captures: light that drifts along the walk, lenses, hands, noise, JPEG, and cameras
that are a little wrong.

    images, cameras = like_captures(context_images, context_cameras, changed, generator, {"motion": 0.5})

Only the context is changed: what is compared with stays as it was, so that a network learns to see through it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nvs_app.geometry.cameras import Cameras

FLAWS = tuple("exposure drift vignetting defocus motion rolling sharpening noise jpeg pose focal".split())
"""exposure, drift: gains and white balance of each photo by itself, and smooth along the walk; motion, rolling: blur
and skew along the motion of the image; pose: cameras, each and smoothly along the walk; focal: length, distortion."""

# For a scene that is changed most. Log gains: standard deviation of a photo's own, amplitude of the drift.
EXPOSURE, WHITE_BALANCE, DRIFT, BALANCE_DRIFT = 0.05, 0.012, 0.09, 0.03
VIGNETTING = 0.14  # light that is missing in the corners
# What moves pixels stays below half a pixel of 256, as structure from motion leaves cameras: with ten times as much the
# head learns to blur, since nothing that it sees says where a pixel belongs (checkpoints/TRAINING.md, thirteenth run).
MOTION, ROLLING = 0.002, 0.001  # shares of the width: during an exposure, from the first row to the last
DEFOCUS = 0.4  # share of a blurred image
SHARPENING = 0.55  # share of the difference from a blurred image that is added
NOISE = 0.01  # standard deviation, of values in [0, 1]
COARSENESS = 0.5  # of JPEG, see `compressed`
ROTATION, POSITION = (0.00012, 0.0003), (0.00025, 0.0005)  # radians, shares of the distance looked at: own, on the walk
FOCAL, DISTORTION = 0.0006, 0.0006  # shares; of the radius where it is half the width
_TAPS = 5

# The luminance table of JPEG (ITU-T T.81, annex K), used for all three channels.
_QUANTISATION = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip


def like_captures(
    images: Float[Tensor, "b v 3 h w"],
    cameras: Cameras,
    changed: Bool[Tensor, " b"],
    generator: torch.Generator,
    strengths: Mapping[str, float] | None = None,
) -> tuple[Float[Tensor, "b v 3 h w"], Cameras]:
    """Change the photos [0, 1] and cameras [b, v] (normalised frame, 1 from what they look at) of some scenes.

    changed: which scenes. How strongly is drawn for each scene and each of `FLAWS`. strengths: in parts of the usual, 1
    for those left out. Returns new tensors.
    """
    b, v = images.shape[:2]
    device = images.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    # Smooth along the walk: waves over the cameras' positions, in units of their spread; amplitude 1.
    centred = cameras.c2w[..., :3, 3] - cameras.c2w[..., :3, 3].mean(1, keepdim=True)
    place = centred / centred.square().sum(-1).mean(1).sqrt().clamp_min(1e-6)[:, None, None]

    def smooth(channels: int) -> Float[Tensor, "b v k"]:
        return torch.sin(place @ (1.2 * normal(b, 3, channels)) + 2 * math.pi * uniform(b, 1, channels))

    share = uniform(len(FLAWS), b) * changed
    # Half of the scenes and more lack the rarer ones.
    share[2:7], share[8:] = (share[2:7] - 0.4).clamp_min(0) / 0.6, (share[8:] - 0.3).clamp_min(0) / 0.7
    rows = [row * (strengths or {}).get(name, 1.0) for name, row in zip(FLAWS, share, strict=True)]
    exposure, drift, vignetting, defocus, motion, rolling, sharpening, noise, jpeg, pose, focal = rows

    gain = exposure[:, None, None] * (EXPOSURE * normal(b, v, 1) + WHITE_BALANCE * normal(b, v, 3))
    gain = gain + drift[:, None, None] * (DRIFT * smooth(1) + BALANCE_DRIFT * smooth(3))
    bend = focal * DISTORTION * normal(b)
    x = _seen(images, _motion(cameras, 0.5 * normal(b, v, 2)), motion[:, None] * uniform(b, v), rolling, bend)
    radius = _radius(x)
    x = x * (gain.exp()[..., None, None] * (1 - (VIGNETTING * vignetting)[:, None, None, None, None] * radius**2))
    x = _blurred(x, DEFOCUS * defocus[:, None] * uniform(b, v))
    x = x + (NOISE * noise[:, None, None, None, None]) * normal(*x.shape)
    x = _blurred(x, -SHARPENING * sharpening[:, None].expand(b, v))
    x = compressed(x.clamp(0, 1), COARSENESS * jpeg)
    own = [normal(b, v, 3) * size for size, _ in (ROTATION, POSITION)]
    turn, shift = (
        pose[:, None, None] * (n + size * smooth(3)) for n, (_, size) in zip(own, (ROTATION, POSITION), strict=True)
    )
    moved = _moved(cameras, turn, shift, 1 + (focal * FOCAL)[:, None] * normal(b, 1))
    return torch.where(changed[:, None, None, None, None], x.clamp(0, 1), images), moved


def _motion(cameras: Cameras, shake: Float[Tensor, "b v 2"]) -> Float[Tensor, "b v 2"]:
    """Unit directions in which images move: towards the nearest other camera, seen in each, and a hand's shake."""
    eye = cameras.c2w[..., :3, 3]
    apart = torch.cdist(eye, eye) + 1e9 * torch.eye(eye.shape[1], device=eye.device)
    step = eye.gather(1, apart.argmin(-1, keepdim=True).expand(eye.shape)) - eye
    local = (cameras.c2w[..., :3, :2] * step[..., None]).sum(-2)
    return torch.nn.functional.normalize(torch.nn.functional.normalize(local, dim=-1) + shake, dim=-1)


def _radius(x: Tensor) -> Float[Tensor, "h w"]:
    """Distance of pixels from the middle, 1 in the corners."""
    rows, columns = (torch.linspace(-1, 1, n, device=x.device) for n in x.shape[-2:])
    return torch.hypot(rows[:, None], columns) / math.sqrt(2)


def _seen(
    x: Float[Tensor, "b v 3 h w"],
    direction: Float[Tensor, "b v 2"],
    motion: Float[Tensor, "b v"],
    rolling: Float[Tensor, " b"],
    bend: Float[Tensor, " b"],
) -> Tensor:
    """Images as a moving camera sees them: averaged along the motion, sheared by it row by row, bent by the lens."""
    rows, columns = ((torch.arange(n, device=x.device) + 0.5) / n * 2 - 1 for n in x.shape[-2:])
    grid = torch.stack(torch.broadcast_tensors(columns, rows[:, None]), -1)  # [h, w, 2], as grid_sample has it
    grid = grid * (1 + bend[:, None, None, None, None] * grid.square().sum(-1, keepdim=True))
    skew = ROLLING * rolling[:, None, None] * direction
    grid = grid + skew[:, :, None, None] * rows[:, None, None]
    total = torch.zeros_like(x)
    for tap in range(_TAPS):
        shift = (2 * MOTION * (tap / (_TAPS - 1) - 0.5)) * motion[..., None] * direction
        at = (grid + shift[:, :, None, None]).flatten(0, 1)
        total += torch.nn.functional.grid_sample(
            x.flatten(0, 1), at, mode="bicubic", padding_mode="border", align_corners=False
        ).view(x.shape)
    return total / _TAPS


def _blurred(x: Tensor, share: Float[Tensor, "b v"]) -> Tensor:
    """Each image mixed with its own mean over 3x3 pixels, twice."""
    flat = x.flatten(0, 1)
    for _ in range(2):
        flat = torch.nn.functional.avg_pool2d(flat, 3, 1, 1, count_include_pad=False)
    return x + share[..., None, None, None] * (flat.view(x.shape) - x)


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
