"""Light from everywhere and from the lamp: how much of the sky each corner sees, and shadow maps."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from data_tools.procedural.cameras import look_at
from data_tools.procedural.mesh_batch import MeshBatch
from data_tools.procedural.raster_constants import EMPTY
from data_tools.procedural.rasterize import rasterize

SHADOW_SIDE, DOME_SIDE = 256, 128
DOME = 10
"""Directions from which the sky is probed."""


def w2c_from_c2w(c2w: Float[Tensor, "*b _ 4"]) -> Float[Tensor, "*b 3 4"]:
    """World to camera of rigid c2w of 3 or 4 rows."""
    rotation = c2w[..., :3, :3].transpose(-1, -2)
    return torch.cat([rotation, -(rotation @ c2w[..., :3, 3:])], -1)


def _light_views(
    eye: Float[Tensor, "s k 3"], centre: Float[Tensor, "s 3"], radius: Float[Tensor, " s"], side: int
) -> tuple[Float[Tensor, "s k 3 4"], Float[Tensor, "s k 4"]]:
    """Cameras at ``eye`` that see the balls of ``centre`` and ``radius``: w2c and intrinsics."""
    target = centre[:, None].expand_as(eye)
    c2w = look_at(eye, target, torch.zeros_like(eye[..., 0]))
    distance = (eye - target).norm(dim=-1)
    sine = (radius[:, None] / distance.clamp_min(1e-3)).clamp(max=0.85)
    focal = 0.5 * side * (1.0 - sine * sine).sqrt() / sine
    middle = torch.full_like(focal, 0.5 * side)
    return w2c_from_c2w(c2w), torch.stack([focal, focal, middle, middle], -1)


def _depth(visibility: Int64[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Depths of a visibility buffer; empty samples lie far away."""
    depth = (visibility >> 32).to(torch.int32).view(torch.float32)
    return torch.where(visibility == EMPTY, 1e9, depth)


def shadow_maps(
    blockers: Float[Tensor, "f 3 3"],
    scene: Int64[Tensor, " f"],
    position: Float[Tensor, "s 3"],
    centre: Float[Tensor, "s 3"],
    radius: Float[Tensor, " s"],
) -> tuple[Float[Tensor, "s 16"], Float[Tensor, "s r r"]]:
    """The shadow map of every scene's lamp: rows of w2c (12) and fx, fy, cx, cy; and depths."""
    w2c, intrinsics = _light_views(position[:, None], centre, radius, SHADOW_SIDE)
    visibility = rasterize(blockers, scene, w2c, intrinsics, (SHADOW_SIDE, SHADOW_SIDE))
    return torch.cat([w2c.flatten(2), intrinsics], -1)[:, 0], _depth(visibility)[:, 0]


def sky_visibility(
    meshes: MeshBatch,
    blockers: Float[Tensor, "b 3 3"],
    scene: Int64[Tensor, " b"],
    centre: Float[Tensor, "s 3"],
    radius: Float[Tensor, " s"],
) -> Float[Tensor, "f 3"]:
    """Share of the upper sky that each corner sees: soft contact shadows, at the price of a few views."""
    step = torch.arange(DOME, device=centre.device) + 0.5
    height = 1.0 - step / DOME * 0.95
    flat, azimuth = (1.0 - height * height).sqrt(), step * (math.pi * (3.0 - math.sqrt(5.0)))
    direction = torch.stack([flat * torch.cos(azimuth), flat * torch.sin(azimuth), height], -1)
    eye = centre[:, None] + direction * (radius * 6.0)[:, None, None]
    w2c, intrinsics = _light_views(eye, centre, radius, DOME_SIDE)
    depth = _depth(rasterize(blockers, scene, w2c, intrinsics, (DOME_SIDE, DOME_SIDE)))
    arguments = (meshes.corners, meshes.normals, meshes.scene, radius, direction, w2c, intrinsics, depth)
    if centre.device.type == "cuda":
        from data_tools.procedural.mesh_triton import sky_visibility_triton

        return sky_visibility_triton(*arguments)
    return sky_visibility_torch(*arguments)


def sky_visibility_torch(
    corners: Float[Tensor, "f 3 3"],
    normals: Float[Tensor, "f 3 3"],
    scene: Int64[Tensor, " f"],
    radius: Float[Tensor, " s"],
    direction: Float[Tensor, "k 3"],
    w2c: Float[Tensor, "s k 3 4"],
    fxfycxcy: Float[Tensor, "s k 4"],
    depth: Float[Tensor, "s k r r"],
) -> Float[Tensor, "f 3"]:
    """Share of probed directions from which nothing blocks each corner.

    Args:
        normals: of any length and either side.
        radius: of the ball that the maps show; direction: unit, towards the sky.
        depth: the maps from those directions.

    Returns:
        Numbers in [0.2, 1].
    """
    side = depth.shape[-1]
    # Corners are moved out along their normals, by about a texel of the maps, to clear their own surface.
    normal = torch.nn.functional.normalize(normals, dim=-1)
    texel = (radius * 2.0 / side)[scene][:, None]
    # Which side of a triangle will be seen is not known here: take the side that is more open.
    seen: list[Any] = [0.3 * 0.7, 0.3 * 0.7]  # tensors from the first direction on
    weights: list[Any] = [0.3, 0.3]
    for k in range(len(direction)):
        matrix, camera = w2c[scene, k], fxfycxcy[scene, k]
        cosine = (normal * direction[k]).sum(-1)
        point = corners + normal * (texel * 1.2 * cosine.sign())[..., None]
        local = torch.einsum("fij,fkj->fki", matrix[..., :3], point) + matrix[:, None, :, 3]
        z = local[..., 2].clamp_min(1e-3)
        x = local[..., 0] / z * camera[:, None, 0] + camera[:, None, 2]
        y = local[..., 1] / z * camera[:, None, 1] + camera[:, None, 3]
        inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
        px, py = x.clamp(0, side - 1).to(torch.int64), y.clamp(0, side - 1).to(torch.int64)
        blocked = (z - 1.5 * texel > depth[scene[:, None], k, py, px]) & inside
        for face, sign in enumerate((1.0, -1.0)):
            weight = (cosine * sign).clamp_min(0.0)
            seen[face], weights[face] = seen[face] + weight * (~blocked), weights[face] + weight
    return 0.2 + 0.8 * torch.maximum(seen[0] / weights[0], seen[1] / weights[1])
