"""Where the triangles of a mesh lie in its texture: flat pieces (charts) side by side.

atlas = unwrap(vertices, triangles, density, most=4096)

A chart is a connected piece that looks along one axis of the frame, and lies in one cell of a grid: so charts hardly
stretch, do not fold, and pack well. Colours are the same on both sides of a seam (`texture`), so seams may be many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from nvs_app.errors import NVSError

PAD = 2
"""Texels around each chart that belong to it: a viewer interpolates, and looks at smaller copies of the texture."""
_CELL = 192  # texels: a chart is no wider, so that a room's floor does not become one piece, mostly of nothing
_STEEPEST = 0.2  # cosine between a triangle and the axis of its chart, at least: it has a fifth of its texels
_SMALL = 64  # triangles: a smaller chart is mostly border
_ROUNDS = 12
_LEAST = 0.02  # of the texels that are wanted, in each direction
_MULTIPLE = 256  # of texels: width of a texture


@dataclass(frozen=True)
class Atlas:
    """A texture's plan, for m triangles.

    size: (height, width) in texels. source: [n], the mesh's vertex that each of the atlas's stands for; one vertex is
    several where charts meet. triangles: [m, 3], rows of `source`. place: [n, 2], (x, y) in texels from the texture's
    upper left corner, y down. charts: how many there are.
    """

    size: tuple[int, int]
    source: Integer[np.ndarray, " n"]
    triangles: Integer[np.ndarray, "m 3"]
    place: Float[np.ndarray, "n 2"]
    charts: int


def unwrap(
    vertices: Float[np.ndarray, "p 3"],
    triangles: Integer[np.ndarray, "m 3"],
    density: Float[np.ndarray, " m"],
    most: int,
) -> Atlas:
    """Charts of a mesh, in a texture of at most `most` texels a side.

    density: texels that a unit of each triangle's length should have; all get fewer, alike, where they do not fit.

    Raises NVSError where they do not fit at all.
    """
    corners = torch.from_numpy(vertices[triangles.astype(np.int64)]).double()
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = normals.norm(dim=-1) / 2
    normals = normals / normals.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    pairs = adjacent(triangles)
    axis = _axes(normals, pairs)
    flat = _flat(corners, axis)
    wanted = torch.from_numpy(density).double()
    usual = float((wanted * area).sum() / area.sum().clamp_min(1e-30))
    cell = (flat.mean(dim=1) * (usual / _CELL)).floor().long()
    cell = (cell - cell.min(0).values) @ torch.tensor([1, int(cell[:, 0].max() - cell[:, 0].min()) + 1])
    chart = pieces(pairs, 6 * cell + axis)
    count = int(chart.max()) + 1

    def each(values: Tensor, how: str) -> Tensor:  # of a chart's triangles
        start = values.new_zeros(count, *values.shape[1:])
        rows = chart.reshape(-1, *[1] * (values.ndim - 1)).expand_as(values)
        return start.scatter_reduce(0, rows, values, how, include_self=False)

    # Of equal weight by area, and more where the chart sees its triangles askew.
    cosine = normals.gather(1, (axis // 2)[:, None])[:, 0].abs().clamp_min(_STEEPEST)
    scale = (each(wanted.square() * area / cosine, "sum") / each(area, "sum").clamp_min(1e-30)).sqrt()
    low, high = each(flat.amin(1), "amin"), each(flat.amax(1), "amax")
    extent = (high - low) * scale[:, None]
    share, width, corner, height = _fit(extent.numpy(), most)
    at = (flat - low[chart][:, None]) * (scale * share)[chart][:, None, None] + torch.from_numpy(corner)[chart][:, None]
    key, first, rows = np.unique(
        chart.numpy()[:, None] * len(vertices) + triangles.astype(np.int64), return_index=True, return_inverse=True
    )
    return Atlas(
        (height, width), key % len(vertices), rows.reshape(-1, 3), at.reshape(-1, 2).numpy()[first], count
    )  # fmt: skip


def adjacent(triangles: Integer[np.ndarray, "m 3"]) -> Int[Tensor, "2 e"]:
    """Pairs of triangles that share an edge; where more than two do, one after another."""
    rows = torch.from_numpy(triangles.astype(np.int64))
    edges = torch.cat([rows[:, [0, 1]], rows[:, [1, 2]], rows[:, [2, 0]]]).sort(dim=1).values
    key, order = (edges[:, 0] * (int(rows.max()) + 1) + edges[:, 1]).sort()
    owner = order % len(rows)
    same = key[1:] == key[:-1]
    return torch.stack([owner[:-1][same], owner[1:][same]])


def pieces(pairs: Int[Tensor, "2 e"], kind: Int[Tensor, " m"]) -> Int[Tensor, " m"]:
    """Connected pieces of one kind, numbered from 0: the piece of each of m triangles."""
    one, two = pairs[:, kind[pairs[0]] == kind[pairs[1]]]
    piece = torch.arange(len(kind))
    while True:
        lower = torch.minimum(piece[one], piece[two])
        found = piece.clone()
        for end in (one, two, piece[one], piece[two]):  # the pieces' own first ones, too: whole pieces join at once
            found.scatter_reduce_(0, end, lower, "amin")
        found = found[found]
        if torch.equal(found, piece):
            return piece.unique(return_inverse=True)[1]
        piece = found


def _axes(normals: Float[Tensor, "m 3"], pairs: Int[Tensor, "2 e"]) -> Int[Tensor, " m"]:
    """Which way each triangle's chart looks: 2 * axis, + 1 where against it. Small pieces go with a larger neighbour,
    as far as they are not too steep for that."""
    towards = torch.stack([normals, -normals], dim=-1).flatten(1)
    axis = towards.argmax(1)
    one, two = torch.cat([pairs, pairs.flip(0)], dim=1)
    for _ in range(_ROUNDS):
        piece = pieces(pairs, axis)
        size = piece.bincount()
        asks = (size[piece[one]] < _SMALL) & (size[piece[two]] > size[piece[one]])
        votes = torch.zeros(len(size), 6)
        votes.index_put_((piece[one[asks]], axis[two[asks]]), torch.tensor(1.0), accumulate=True)
        wanted = torch.where(votes.amax(1) > 0, votes.argmax(1), -1)[piece]
        fits = (wanted >= 0) & (towards.gather(1, wanted.clamp_min(0)[:, None])[:, 0] > _STEEPEST)
        if not (fits & (wanted != axis)).any():
            break
        axis = torch.where(fits, wanted, axis)
    return axis


def _flat(corners: Float[Tensor, "m 3 3"], axis: Int[Tensor, " m"]) -> Float[Tensor, "m 3 2"]:
    """Corners as one sees them who looks at their chart from outside."""
    across, down = torch.tensor([1, 2, 0])[axis // 2], torch.tensor([2, 0, 1])[axis // 2]
    x, y = (corners.gather(2, part[:, None, None].expand(-1, 3, 1))[..., 0] for part in (across, down))
    return torch.stack([x * (1 - 2 * (axis % 2))[:, None], y], dim=-1)


def _fit(extent: np.ndarray, most: int) -> tuple[float, int, np.ndarray, int]:
    """By which share charts [k, 2] shrink, the texture's width, where each chart's own texels begin [k, 2] (x, y), and
    the height."""
    share = 1.0
    while True:
        sides = np.ceil(extent * share).astype(np.int64) + 1 + 2 * PAD
        least = int(np.sqrt(sides.prod(1).sum())) // _MULTIPLE * _MULTIPLE
        for width in range(max(_MULTIPLE, least), most + _MULTIPLE, _MULTIPLE):
            width = min(width, most)
            corner, height = _packed(sides, width)
            if height <= width and sides[:, 0].max() <= width:
                return share, width, corner + PAD + 0.5, -(-height // 4) * 4
        share *= 0.95
        if share < _LEAST:
            raise NVSError(f"texture: {len(extent)} pieces do not fit into {most}x{most} texels; allow more")


def _packed(sides: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    """Corners of rectangles (across, down) in rows of that width, the highest first; and the height of all."""
    order = np.argsort(-sides[:, 1], kind="stable")
    corner = np.zeros(sides.shape)
    x = y = row = 0
    for index in order.tolist():
        across, down = sides[index]
        if x + across > width:
            x, y, row = 0, y + row, 0
        corner[index] = x, y
        x, row = x + int(across), max(row, int(down))
    return corner, y + row
