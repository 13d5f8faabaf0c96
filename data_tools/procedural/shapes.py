"""Parametric solids on six grid patches: boxes, balls, lathes, tori, with bends, bumps, cuts and lattices.

One function, ``surface``, maps (patch, a, b) to a point for a whole batch of instances; normals are its finite
differences, so that every deformation is shaded right. An instance's shape is one row of numbers (``SHAPE_FIELDS``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from data_tools.procedural.rng import constant

SHAPE_FIELDS = (
    "family",  # 0 ball of a p-norm (cube, rounded box, sphere, octahedron), 1 lathe, 2 torus
    "power",  # p of the ball, or of the lathe's cross-section (2 round, large square)
    "taper",  # lathe: radius at the top relative to the bottom; 1 straight, 0 cone
    "bulge",  # lathe: added radius in the middle
    "wave",  # lathe: amplitude of the profile's waves
    "waves",  # their number
    "tube",  # torus: radius of the tube, the ring's outer radius being 1
    "arc",  # torus: share of the full turn
    "twist",  # radians from the bottom to the top
    "bend_x",  # sideways shift, quadratic in z
    "bend_y",
    "flare",  # scale of x and y at the top minus one, for any family
    "bump",  # amplitude of the displacement
    "bump_scale",  # its frequency
    "bump_sharp",  # 0 smooth, towards 1 plateaus
    "bump_phase",
    "cut",  # 0 none, 1 ball, 2 box
    "cut_x",
    "cut_y",
    "cut_z",
    "cut_size",
    "lattice",  # 0 none, else keep each m-th grid line's cells
)
SHAPE_INDEX = {name: number for number, name in enumerate(SHAPE_FIELDS)}
GRID_SIDES = (3, 8, 12)
"""Quads along a patch side of the three levels of detail."""
_MAX_LANES = 2**17


_PLAIN = {"power": 64.0, "taper": 1.0, "arc": 1.0, "tube": 0.3}


def shape_rows(like: Shaped[Tensor, "*b"], **values: Shaped[Tensor, "..."] | float) -> Float[Tensor, "*b k"]:
    """Rows [*like, fields] of the named fields, the others as of a cube."""
    device = like.device
    fields = [values.get(name, _PLAIN.get(name, 0.0)) for name in SHAPE_FIELDS]
    columns = [
        (field if isinstance(field, Tensor) else constant(float(field), device)).expand(like.shape).float()
        for field in fields
    ]
    return torch.stack(columns, -1)


def _cube_point(patch: Int64[Tensor, " n"], a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    """Points of the cube's surface; patches 0-3 go around z, 4 is the top and 5 the bottom."""
    one = torch.ones_like(a)
    x = torch.where(patch == 0, one, torch.where(patch == 1, -a, torch.where(patch == 2, -one, a)))
    y = torch.where(patch == 0, a, torch.where(patch == 1, one, torch.where(patch == 2, -a, -one)))
    z = torch.where(patch == 4, one, torch.where(patch == 5, -one, b))
    cap = patch >= 4
    return torch.stack([torch.where(cap, a, x), torch.where(cap, b, y), z], -1)


def surface(
    shape: Float[Tensor, "n k"], patch: Int64[Tensor, " n"], a: Float[Tensor, " n"], b: Float[Tensor, " n"]
) -> Float[Tensor, "n 3"]:
    """Points on the instances' surfaces, within about the cube [-1, 1]^3.

    shape: rows of ``SHAPE_FIELDS``; a, b: patch coordinates in [-1, 1].
    """
    f = {name: shape[..., number] for name, number in SHAPE_INDEX.items()}
    cube = _cube_point(patch, a, b)
    x, y, z = cube.unbind(-1)
    power = f["power"].clamp_min(0.5)

    length = (cube.abs().clamp_min(1e-6) ** power[..., None]).sum(-1) ** (1.0 / power)
    flat = power >= 60.0
    ball = cube / torch.where(flat, 1.0, length)[..., None]

    # Relative to the larger of x and y: the cap's middle has both zero.
    reach = torch.maximum(x.abs(), y.abs()).clamp_min(1e-6)
    section = (x.abs() / reach).clamp_min(1e-6) ** power + (y.abs() / reach).clamp_min(1e-6) ** power
    section = section.clamp_min(1.0) ** (1.0 / power)
    height = 0.5 * (z + 1.0)
    profile = 1.0 + (f["taper"] - 1.0) * height + f["bulge"] * (1.0 - z * z)
    profile = (profile + f["wave"] * torch.sin(f["waves"] * math.pi * z)).clamp_min(0.0)
    ratio = profile / torch.where(flat, 1.0, section)
    lathe = torch.stack([x * ratio, y * ratio, z], -1)

    around = 2.0 * math.pi * f["arc"] * (patch + 0.5 * (a + 1.0)) / 6.0
    inner = 1.0 - f["tube"] + f["tube"] * torch.cos(math.pi * b)
    torus = torch.stack([inner * torch.cos(around), inner * torch.sin(around), f["tube"] * torch.sin(math.pi * b)], -1)

    family = f["family"][..., None]
    point = torch.where(family < 0.5, ball, torch.where(family < 1.5, lathe, torus))
    point = _cut(point, f)
    bump = _bump_field(point, f)
    core = (
        torch.stack([torch.cos(around), torch.sin(around), torch.zeros_like(around)], -1) * (1 - f["tube"])[..., None]
    )
    outward = point - torch.where(family < 1.5, torch.zeros_like(core), core)
    point = point + outward / outward.norm(dim=-1, keepdim=True).clamp_min(1e-4) * bump[..., None]

    x, y, z = point.unbind(-1)
    scale = 1.0 + f["flare"] * 0.5 * (z + 1.0)
    angle = f["twist"] * 0.5 * z
    c, s = torch.cos(angle) * scale, torch.sin(angle) * scale
    return torch.stack([c * x - s * y + f["bend_x"] * z * z, s * x + c * y + f["bend_y"] * z * z, z], -1)


def _bump_field(point: Float[Tensor, "n 3"], f: dict[str, Float[Tensor, " n"]]) -> Float[Tensor, " n"]:
    """A smooth field of four plane waves, made into plateaus where asked."""
    total: Any = 0.0  # a tensor from the first wave on
    for k in range(4):
        phase = f["bump_phase"] * (1.0 + 0.37 * k)
        direction = torch.stack([torch.sin(phase), torch.sin(phase * 1.7 + 2.0), torch.sin(phase * 2.3 + 4.0)], -1)
        angle = (point * direction).sum(-1) * f["bump_scale"] * (1.0 + 0.45 * k) + phase * 5.0
        total = total + torch.sin(angle) / (1.0 + 0.4 * k)
    total = total / 1.6
    plateau = torch.tanh(total * 6.0)
    return f["bump"] * (total + (plateau - total) * f["bump_sharp"])


def _cut(point: Float[Tensor, "n 3"], f: dict[str, Float[Tensor, " n"]]) -> Float[Tensor, "n 3"]:
    """Subtract a ball or box: points inside it slide towards the instance's centre until they leave it.

    Exact for a star-shaped instance with its centre outside the cutter.
    """
    centre = torch.stack([f["cut_x"], f["cut_y"], f["cut_z"]], -1)
    size = f["cut_size"][..., None].clamp_min(1e-3)
    along = (point * centre).sum(-1)
    square = (point * point).sum(-1).clamp_min(1e-8)
    root = along * along - square * ((centre * centre).sum(-1) - size[..., 0] ** 2)
    ball_in = (along - root.clamp_min(0).sqrt()) / square
    ball_out = (along + root.clamp_min(0).sqrt()) / square
    safe = torch.where(point.abs() < 1e-5, 1e-5, point)
    one, two = (centre - size) / safe, (centre + size) / safe
    box_in, box_out = torch.minimum(one, two).amax(-1), torch.maximum(one, two).amin(-1)
    box = f["cut"] > 1.5
    enter, leave = torch.where(box, box_in, ball_in), torch.where(box, box_out, ball_out)
    hit = torch.where(box, box_in < box_out, root > 0) & (enter > 0.05) & (enter < 1.0) & (leave > 1.0)
    return point * torch.where(hit & (f["cut"] > 0.5), enter, 1.0)[..., None]


@dataclass(frozen=True)
class PatchGrids:
    """Vertices and triangles of the levels of detail, one level after another.

    Attributes:
        patch, a, b: of each vertex; a, b: patch coordinates in [-1, 1].
        faces: vertices counted from the level's first; row, column: of each face's quad.
    """

    vertex_start: Int64[Tensor, " levels"]
    vertex_count: Int64[Tensor, " levels"]
    face_start: Int64[Tensor, " levels"]
    face_count: Int64[Tensor, " levels"]
    patch: Int64[Tensor, " n"]
    a: Float[Tensor, " n"]
    b: Float[Tensor, " n"]
    faces: Int64[Tensor, "f 3"]
    row: Int64[Tensor, " f"]
    column: Int64[Tensor, " f"]


def make_patch_grids(device: torch.device) -> PatchGrids:
    """Six patches of side x side quads for every level of ``GRID_SIDES``."""
    levels = [_patch_grid(side) for side in GRID_SIDES]
    vertices, faces = [len(level[0]) for level in levels], [len(level[3]) for level in levels]
    counts = [torch.tensor(values) for values in ([0, *vertices][:-1], vertices, [0, *faces][:-1], faces)]
    joined = [torch.cat(parts) for parts in zip(*levels, strict=True)]
    return PatchGrids(*(value.to(device) for value in (counts[0].cumsum(0), counts[1], counts[2].cumsum(0), counts[3],
                                                  *joined)))  # fmt: skip


def _patch_grid(
    side: int,
) -> tuple[
    Int64[Tensor, " n"],
    Float[Tensor, " n"],
    Float[Tensor, " n"],
    Int64[Tensor, "f 3"],
    Int64[Tensor, " f"],
    Int64[Tensor, " f"],
]:
    axis = torch.linspace(-1.0, 1.0, side + 1)
    number = torch.arange(6 * (side + 1) ** 2)
    patch, rest = number // (side + 1) ** 2, number % (side + 1) ** 2
    quad = torch.arange(6 * side * side)
    quad_patch, inner = quad // (side * side), quad % (side * side)
    row, column = inner // side, inner % side
    first = quad_patch * (side + 1) ** 2 + row * (side + 1) + column
    below = first + side + 1
    lower = torch.stack([first, first + 1, below], -1)
    upper = torch.stack([first + 1, below + 1, below], -1)
    return (patch, axis[rest % (side + 1)], axis[rest // (side + 1)], torch.stack([lower, upper], 1).reshape(-1, 3),
            row.repeat_interleave(2), column.repeat_interleave(2))  # fmt: skip


def surface_of(
    shape: Float[Tensor, "p k"],
    instance: Int64[Tensor, " n"],
    patch: Int64[Tensor, " n"],
    a: Float[Tensor, " n"],
    b: Float[Tensor, " n"],
) -> Float[Tensor, "n 3"]:
    """:func:`surface` of instances by number (rows of ``shape``); one kernel on a GPU."""
    if shape.device.type == "cuda":
        from data_tools.procedural.mesh_triton import surface_triton

        return surface_triton(shape, instance, patch, a, b)
    lanes = (instance, patch, a, b)
    parts = zip(*(lane.split(_MAX_LANES) for lane in lanes), strict=True)
    return torch.cat([surface(shape[rows], *rest) for rows, *rest in parts])


def surface_and_normals(
    shape: Float[Tensor, "p k"],
    instance: Int64[Tensor, " n"],
    patch: Int64[Tensor, " n"],
    a: Float[Tensor, " n"],
    b: Float[Tensor, " n"],
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Vertices and the two tangents' cross product (not normalised, outward).

    instance: row of ``shape`` of each vertex; a, b: patch coordinates in [-1, 1].
    """
    # Step inwards, so that an edge of a cube gets the normal of its own patch.
    step_a, step_b = torch.where(a > 0, -1e-2, 1e-2), torch.where(b > 0, -1e-2, 1e-2)
    # At a pole (a cone's tip) one tangent vanishes: there, look a little further in.
    inner_a, inner_b = a * 0.97, b * 0.97
    all_a = torch.cat([a, a + step_a, a, inner_a, inner_a + 1e-2, inner_a])
    all_b = torch.cat([b, b, b + step_b, inner_b, inner_b, inner_b + 1e-2])
    points = surface_of(shape, instance.repeat(6), patch.repeat(6), all_a, all_b).view(6, -1, 3)
    point, base = points[0], points[3]
    sign = (step_a * step_b).sign()[:, None]
    normal = torch.linalg.cross(points[1] - point, points[2] - point) * sign
    inner = torch.linalg.cross(points[4] - base, points[5] - base)
    weak = (normal * normal).sum(-1, keepdim=True) < 1e-12
    return point, torch.where(weak, inner, normal)
