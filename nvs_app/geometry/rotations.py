"""Rotations as unit quaternions (w, x, y, z), for interpolation: slerp, and squad through many keyframes.

q and -q are the same rotation; the functions take the shorter way between two rotations unless told otherwise.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.geometry.cameras import cross


def matrix_to_quaternion(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternions of rotation matrices.

    All four components are at hand up to a common factor, once from each row of a 4x4 table; the row of the
    largest component has no cancellation (Shepperd's method).
    """
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    yz, zx, xy = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    sxy, szx, syz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    table = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, yz, zx, xy], dim=-1),
            torch.stack([yz, 1 + xx - yy - zz, sxy, szx], dim=-1),
            torch.stack([zx, sxy, 1 - xx + yy - zz, syz], dim=-1),
            torch.stack([xy, szx, syz, 1 - xx - yy + zz], dim=-1),
        ],
        dim=-2,
    )
    best = table.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = torch.take_along_dim(table, best[..., None, None], dim=-2)[..., 0, :]
    return row / row.norm(dim=-1, keepdim=True)


def quaternion_to_matrix(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of quaternions, which need not be of unit length."""
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def multiply(first: Float[Tensor, "*b 4"], second: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """The Hamilton product: the rotation ``second``, then ``first``."""
    w, v = first[..., :1], first[..., 1:]
    s, u = second[..., :1], second[..., 1:]
    scalar = w * s - (v * u).sum(-1, keepdim=True)
    return torch.cat([scalar, w * u + s * v + cross(v, u)], dim=-1)


def conjugate(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """The inverse rotation of a unit quaternion."""
    return quaternion * quaternion.new_tensor([1.0, -1.0, -1.0, -1.0])


def rotation_vector(quaternion: Float[Tensor, "*b 4"], shorter: bool = True) -> Float[Tensor, "*b 3"]:
    """The logarithm: half the rotation angle times the axis; at most pi/2 long the shorter way, else pi."""
    if shorter:
        quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    sine = quaternion[..., 1:].norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, quaternion[..., :1])
    return quaternion[..., 1:] * torch.where(sine > 1e-9, angle / sine.clamp_min(1e-9), torch.ones_like(sine))


def from_rotation_vector(vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4"]:
    """The inverse of :func:`rotation_vector`: the length is half the rotation angle."""
    angle = vector.norm(dim=-1, keepdim=True)
    # sinc(x) of torch is sin(pi x) / (pi x), and is right at 0.
    return torch.cat([torch.cos(angle), vector * torch.sinc(angle / torch.pi)], dim=-1)


def slerp(
    first: Float[Tensor, "*b 4"], second: Float[Tensor, "*b 4"], fraction: Float[Tensor, "*b"], shorter: bool = True
) -> Float[Tensor, "*b 4"]:
    """Constant-speed interpolation from ``first`` (0) to ``second`` (1), the shorter way or as the signs say."""
    step = rotation_vector(multiply(conjugate(first), second), shorter)
    return multiply(first, from_rotation_vector(step * fraction[..., None]))


def squad(keyframes: Float[Tensor, "k 4"], index: Float[Tensor, " n"], loop: bool = False) -> Float[Tensor, "n 4"]:
    """Smooth interpolation through keyframes (Shoemake's spherical quadrangle).

    Args:
        keyframes: unit quaternions, of any signs.
        index: where to evaluate, in keyframes: 0 is the first, 1.5 halfway from the second to the third; up to
            k - 1, or up to k (the first again) in a loop.
        loop: the last keyframe is followed by the first.

    Returns:
        Unit quaternions; at whole indices the keyframes themselves, with a continuous angular velocity there.
    """
    count = len(keyframes)
    if loop:
        following, previous = keyframes.roll(-1, 0), keyframes.roll(1, 0)
    else:
        following, previous = torch.cat([keyframes[1:], keyframes[-1:]]), torch.cat([keyframes[:1], keyframes[:-1]])
    inverse = conjugate(keyframes)
    bend = rotation_vector(multiply(inverse, following)) + rotation_vector(multiply(inverse, previous))
    control = multiply(keyframes, from_rotation_vector(-0.25 * bend))
    if not loop:  # the ends have one neighbour only: start and stop straight
        control = torch.cat([keyframes[:1], control[1:-1], keyframes[-1:]]) if count > 1 else keyframes
    start = index.floor().long().clamp(0, count - 1 if loop else max(count - 2, 0))
    end = (start + 1) % count if loop else (start + 1).clamp_max(count - 1)
    fraction = index - start
    # From here on signs count, so that the straight and the curved way turn in the same direction.
    sign = torch.where((keyframes[start] * keyframes[end]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    straight = slerp(keyframes[start], sign * keyframes[end], fraction, shorter=False)
    curved = slerp(control[start], sign * control[end], fraction, shorter=False)
    return slerp(straight, curved, 2 * fraction * (1 - fraction), shorter=False)
