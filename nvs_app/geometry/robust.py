"""Robust averages of cameras: where they stand, what they look at, which way is up.

Each function is a fixed, small number of tensor operations over batches ``[*b, v, ...]`` without any
synchronisation with the host, so that training can call it on every batch. Each is a symmetric function of the
views, continuous in them, and follows any rotation, translation and scaling of the world. One wild camera
among four or more hardly moves the results.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.geometry.cameras import cross

# How strongly the focus is pulled toward the middle of the cameras, against a unit weight of the optical axes.
# Small, so that a ring of cameras keeps its own centre (0.5 % off at most); not smaller, so that nearly parallel
# axes, whose crossing point is noise, put the focus among the cameras and not thousands of units away.
RIDGE = 0.003
# Reweighting steps; the first is a plain average. Errors of one outlier among four fall below 1 % by then.
STEPS = 6
# From this number of views on, one that disagrees with the rest is believed less.
MAJORITY = 4
# Views beyond this number are compared with so many of them, evenly spaced: a table of all pairs of thousands takes
# gigabytes and tells the same.
COMPARED = 1024


class CameraStatistics(NamedTuple):
    """What :func:`camera_statistics` returns; world units and world axes.

    Attributes:
        focus: the point closest to the cameras' axes in front of them, pulled weakly toward ``center``.
        center: robust mean of the camera positions.
        spread: robust size of the cloud of positions (a median of pairwise distances); 0 for one view.
        up, forward: robust means of the cameras' up (-y) and forward (+z) axes, not normalised: their length
            tells how well the cameras agree. ``up`` has a length of at least the agreement, see there.
        distance: robust mean distance of the cameras from ``focus``.
        weight: how far each camera was believed, sums to 1.
    """

    focus: Float[Tensor, "*b 3"]
    center: Float[Tensor, "*b 3"]
    spread: Float[Tensor, "*b"]
    up: Float[Tensor, "*b 3"]
    forward: Float[Tensor, "*b 3"]
    distance: Float[Tensor, "*b"]
    weight: Float[Tensor, "*b v"]


def camera_statistics(c2w: Float[Tensor, "*b v 4 4"]) -> CameraStatistics:
    """Robust averages of the views of each scene; computed and returned in float64.

    float64 costs nothing at this size and keeps the result exact under autocast, TF32 and large coordinates.
    """
    c2w = c2w.double()
    position = c2w[..., :3, 3]
    right, up, forward = c2w[..., :3, 0], -c2w[..., :3, 1], c2w[..., :3, 2]
    weight, spread = _position_weights(position)
    center = _mean(position, weight)
    # Relative to the centre from here on, so that a world far from its origin loses no digits.
    offset = position - center[..., None, :]
    up_mean, up_weight = _robust_direction(up, weight)
    # In a capture from the front, one camera turned aside would outweigh all others' nearly parallel axes.
    _, forward_weight = _robust_direction(forward, weight)
    focus, axis_weight = _focus(offset, forward, forward_weight, spread)
    forward_mean, _ = _robust_direction(forward, axis_weight)
    distance = ((offset - focus[..., None, :]).norm(dim=-1) * weight).sum(-1)
    return CameraStatistics(
        focus=focus + center,
        center=center,
        spread=spread,
        up=_level(right, up_mean, up_weight),
        forward=forward_mean,
        distance=distance,
        weight=weight,
    )


def median(values: Float[Tensor, "*b v"]) -> Float[Tensor, "*b"]:
    """The median over the last axis; between the two middle values where their number is even."""
    ordered = values.sort(dim=-1).values
    count = values.shape[-1]
    return 0.5 * (ordered[..., (count - 1) // 2] + ordered[..., count // 2])


def solve3(matrix: Float[Tensor, "*b 3 3"], vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Solve symmetric 3x3 systems by the adjugate (torch.linalg.solve would wait for the device)."""
    first, second, third = matrix.unbind(-2)
    adjugate = torch.stack(
        [
            cross(second, third),
            cross(third, first),
            cross(first, second),
        ],
        dim=-2,
    )
    determinant = (first * adjugate[..., 0, :]).sum(-1, keepdim=True)
    return (adjugate * vector[..., None, :]).sum(-1) / determinant


def _mean(vectors: Tensor, weight: Tensor) -> Tensor:
    return (vectors * weight[..., None]).sum(-2)


def _share(weight: Tensor) -> Tensor:
    return weight / weight.sum(-1, keepdim=True)


def _position_weights(position: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the views by how far each stands from the rest, and the spread of all.

    Fewer than four views give no majority to say which one is wild: they all count alike.

    A view's distance from the rest is the median of its distances from all views: no starting point is needed,
    and one far camera changes the medians of the others little (of more than COMPARED views, an even choice stands
    for all). The weight is near 1 up to twice the spread and
    falls with the sixth power: captures that merely stretch out keep all their views.
    """
    count = position.shape[-2]
    if count < MAJORITY:
        centered = position - position.mean(-2, keepdim=True)
        return torch.full_like(position[..., 0], 1.0 / count), centered.norm(dim=-1).mean(-1)
    if count <= COMPARED:
        pairwise = (position[..., :, None, :] - position[..., None, :, :]).norm(dim=-1)
    else:
        even = torch.arange(COMPARED, device=position.device) * count // COMPARED
        pairwise = torch.cdist(position, position[..., even, :], compute_mode="donot_use_mm_for_euclid_dist")
    from_rest = median(pairwise)
    spread = median(from_rest)
    ratio = from_rest / (2.5 * spread[..., None]).clamp_min(1e-30)
    return _share(1.0 / (1.0 + ratio.clamp_max(1e6) ** 6)), spread


def _focus(offset: Tensor, forward: Tensor, weight: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """The point closest to what the cameras look along, by reweighted least squares; positions are relative to
    the centre.

    Minimises sum_i w_i d_i(p)^2 + RIDGE |p|^2, where d_i is the distance of p from the half-line in front of
    camera i, and w_i falls with that distance. Half-lines, because axes that spread apart (a capture of a wide
    scene) meet behind the cameras, where there is nothing: then p stays among the cameras. The first step takes
    whole lines, from which axes that do meet in front never depart. The ridge makes every case solvable:
    parallel axes, one view (p is then the camera itself).
    """
    identity = torch.eye(3, dtype=offset.dtype, device=offset.device)
    along = forward[..., :, None] * forward[..., None, :]
    size = spread[..., None].clamp_min(1e-30)
    axis_weight, front = weight, torch.ones_like(weight)
    focus = torch.zeros_like(offset[..., 0, :])
    for step in range(STEPS):
        if step:
            gap = focus[..., None, :] - offset
            depth = (gap * forward).sum(-1)
            # 1 where the focus lies in front of the camera; behind it the camera itself is its nearest point.
            front = torch.sigmoid((depth / (0.1 * size)).clamp(-50, 50))
            miss = (gap - (front * depth)[..., None] * forward).norm(dim=-1)
            # The floor keeps axes that meet almost perfectly from being ranked by their rounding.
            scale = median(miss)[..., None] + 0.1 * size
            if offset.shape[-2] >= MAJORITY:
                axis_weight = _share(weight / (1.0 + (miss / scale).clamp_max(1e6) ** 2))
        projector = identity - front[..., None, None] * along
        projected = (projector * offset[..., None, :]).sum(-1)
        matrix = (projector * axis_weight[..., None, None]).sum(-3) + RIDGE * identity
        focus = solve3(matrix, _mean(projected, axis_weight))
    return focus, axis_weight


def _robust_direction(direction: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Robust mean of unit vectors, not normalised (a full ring has a mean of zero), and the weights used."""
    mean = _mean(direction, weight)
    used = weight
    for _ in range(3 if direction.shape[-2] >= MAJORITY else 0):
        miss = (direction - mean[..., None, :]).norm(dim=-1)
        used = _share(weight / (1.0 + (miss / (median(miss)[..., None] + 0.1)) ** 4))
        mean = _mean(direction, used)
    return mean, used


def _level(right: Tensor, up_mean: Tensor, weight: Tensor) -> Tensor:
    """Bend the mean up vector away from the directions in which the cameras' x axes lie.

    Cameras held level have x axes orthogonal to gravity, also when all of them look down at an object from one
    side, where the mean of their up vectors leans toward the object. One view, or parallel ones, keep the plain
    mean. The ridge is the square of the roll (about 8 degrees) that a hand-held camera has.
    """
    identity = torch.eye(3, dtype=right.dtype, device=right.device)
    ridge = 0.02
    matrix = (right[..., :, None] * right[..., None, :] * weight[..., None, None]).sum(-3)
    return solve3(matrix + ridge * identity, ridge * up_mean)
