"""Rotary phases from ray coordinates: where a token looks, as turns of its channel pairs.

A token's ray (through its patch centre, in the normalised frame) has six coordinates, its unit direction d
and its moment m = o x d (Pluecker). Each coordinate times each of a geometric series of frequencies is a
phase; a phase turns one pair of channels. Two tokens turned so have inner products that depend on the
*difference* of their ray coordinates only (Su et al., arXiv 2104.09864, for one dimension), so writing with a
context ray and reading with a target ray compares rays at many scales. Turning is orthogonal: norms, and so
the L2 normalisation and the Muon step of the fast weights, keep their meaning.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.rays import pixel_rays
from nvs_app.model.config import LaCTConfig

NUM_COORDINATES = 6


def patch_rays(cameras: Cameras, patch: int) -> Float[Tensor, "b v n 6"]:
    """Origin and direction of the ray through every patch centre.

    Args:
        cameras: [b, v], in the normalised frame; image_hw a multiple of `patch`.
        patch: side of a patch in pixels.
    Returns:
        [b, v, n, 6]: o and d (unit); n = (h / patch) * (w / patch), row by row.
    """
    height, width = cameras.image_hw
    # An image of one pixel a patch has its pixel centres at the patch centres.
    centres = cameras.scaled_to((height // patch, width // patch))
    origins, directions = pixel_rays(centres)
    return torch.cat([origins, directions], dim=2).flatten(3).transpose(2, 3)


def ray_coordinates(rays: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 6"]:
    """Direction d and moment o x d of rays given as origin and direction."""
    origins, directions = rays.chunk(2, dim=-1)
    return torch.cat([directions, torch.cross(origins, directions, dim=-1)], dim=-1)


def ray_phases(
    coordinates: Float[Tensor, "*b 6"], pairs: int, min_frequency: float, max_frequency: float
) -> Float[Tensor, "*b pairs"]:
    """Phases in radians of `pairs` channel pairs: coordinate times frequency, the frequencies geometric.

    Pairs beyond the largest multiple of six are left unturned (phase 0).
    """
    count = pairs // NUM_COORDINATES
    exponents = torch.linspace(0, 1, max(count, 1), device=coordinates.device, dtype=torch.float32)[:count]
    frequencies = min_frequency * torch.exp(exponents * math.log(max_frequency / min_frequency))
    turned = (coordinates[..., None] * frequencies).flatten(-2)
    return torch.nn.functional.pad(turned, (0, pairs - count * NUM_COORDINATES))


def rotary_cos_sin(
    coordinates: Float[Tensor, "b n 6"], width: int, config: LaCTConfig
) -> tuple[Float[Tensor, "b 1 n pairs"], Float[Tensor, "b 1 n pairs"]]:
    """Cosine and sine of the phases of `width` channels, one set for all heads.

    Under autocast they are bfloat16, which halves their traffic in a pass that computes in bfloat16 anyway.
    """
    device = coordinates.device.type
    dtype = torch.bfloat16 if torch.is_autocast_enabled(device) else torch.float32
    with torch.autocast(device_type=device, enabled=False):
        low, high = config.rotary_min_frequency, config.rotary_max_frequency
        angle = ray_phases(coordinates.float(), width // 2, low, high)
        return angle.cos().to(dtype)[:, None], angle.sin().to(dtype)[:, None]


def rotate(
    x: Float[Tensor, "*b d"],
    cos: Float[Tensor, "*c pairs"],
    sin: Float[Tensor, "*c pairs"],
    inverse: bool = False,
) -> Float[Tensor, "*b d"]:
    """Turn channel i together with channel i + d/2 by the phase whose cosine and sine are given.

    Args:
        x: [..., d], d = 2 * pairs.
        cos, sin: [..., pairs], broadcast against x.
        inverse: turn back.
    """
    # A flip of the halves, not a concatenation: compilers fuse it into an index.
    halves = x.unflatten(-1, (2, -1))
    sign = torch.arange(2, device=x.device, dtype=x.dtype)[:, None] * 2 - 1
    turned = halves * cos[..., None, :] + halves.flip(-2) * ((-sign if inverse else sign) * sin[..., None, :])
    return turned.flatten(-2)
