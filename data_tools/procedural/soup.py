"""Pieces to one soup of triangles with everything that shading needs in one row each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data_tools.procedural.assets import AssetPack
from data_tools.procedural.bank import TextureBank
from data_tools.procedural.pieces import ASSET, Pieces
from data_tools.procedural.shapes import GRID_SIDES, INDEX, evaluate, grid_topology

_MAX_VERTICES = 400_000


@dataclass
class Soup:
    """Triangles of all scenes of a batch.

    Attributes:
        corners: [f, 3, 3]; normals: [f, 3, 3] (any length, either side); uvs: [f, 3, 2] in textures.
        piece: int64 [f] row of the flattened pieces; scene: int64 [f].
    """

    corners: Tensor
    normals: Tensor
    uvs: Tensor
    piece: Tensor
    scene: Tensor


class Mesher:
    """Turns pieces into triangles; holds the grids and the object pack."""

    def __init__(self, device: torch.device, pack: AssetPack | None) -> None:
        self.pack = pack
        self.grids = [grid_topology(side, device) for side in GRID_SIDES]

    def __call__(self, pieces: Pieces, scene: Tensor) -> Soup:
        """Triangles of flat pieces [p] of the scenes int64 [p]; dead pieces give none."""
        parts: list[tuple[Tensor, ...]] = []
        for level, grid in enumerate(self.grids):
            index = (pieces.mesh == level).nonzero().squeeze(-1)
            step = max(1, _MAX_VERTICES // len(grid["a"]))
            for start in range(0, len(index), step):
                parts.append(_solid(pieces, index[start : start + step], grid))
        if self.pack is not None:
            index = (pieces.mesh >= ASSET).nonzero().squeeze(-1)
            if len(index):
                parts.append(_scan(pieces, index, self.pack))
        corners, normals, uvs, piece = (torch.cat(group) for group in zip(*parts, strict=True))
        return Soup(corners, normals, uvs, piece, scene[piece])


def _solid(pieces: Pieces, index: Tensor, grid: dict[str, Tensor]) -> tuple[Tensor, ...]:
    shape, linear = pieces.shape[index], pieces.linear[index]
    point, normal = evaluate(shape, grid)
    point = torch.einsum("pij,pkj->pki", linear, point) + pieces.offset[index][:, None]
    normal = torch.einsum("pij,pkj->pki", _cofactor(linear), normal)
    uv = _solid_uv(pieces.material[index], linear, shape, grid)
    faces = grid["faces"]
    count = shape[:, INDEX["lattice"], None].to(torch.int64)
    keep = (count < 2) | (grid["row"] % count.clamp_min(1) == 0) | (grid["column"] % count.clamp_min(1) == 0)
    chosen, face = keep.nonzero().unbind(-1)
    at = faces[face]
    chosen_at = chosen[:, None]
    return point[chosen_at, at], normal[chosen_at, at], uv[chosen_at, at], index[chosen]


def _solid_uv(material: Tensor, linear: Tensor, shape: Tensor, grid: dict[str, Tensor]) -> Tensor:
    """Texture coordinates [p, k, 2] of the grid's vertices."""
    patch = grid["patch"]
    u, v = 0.5 * (grid["a"] + 1.0), 0.5 * (1.0 - grid["b"])
    size = 2.0 * linear.norm(dim=-2)  # lengths along the piece's own axes, [p, 3]
    around, cap = torch.where(patch % 2 == 0, 1, 0), patch >= 4
    width = torch.where(cap, size[:, 0:1], size[:, around])
    height = torch.where(cap, size[:, 1:2], size[:, 2:3])
    torus = shape[:, None, INDEX["family"]] > 1.5
    height = torch.where(torus, size[:, 0:1] * 3.0 * shape[:, None, INDEX["tube"]], height)
    fit = material[:, None, 15] > 0.5
    width, height = torch.where(fit, 1.0, width), torch.where(fit, 1.0, height)
    u = (u + torch.where(cap, 0, patch)) * width * material[:, None, 16] + material[:, None, 18]
    v = v * height * material[:, None, 17] + material[:, None, 19]
    turned = material[:, None, 20] > 0.5
    return torch.stack([torch.where(turned, v, u), torch.where(turned, u, v)], -1)


def _scan(pieces: Pieces, index: Tensor, pack: AssetPack) -> tuple[Tensor, ...]:
    asset = pieces.mesh[index] - ASSET
    count = pack.counts[asset]
    owner = torch.repeat_interleave(torch.arange(len(index), device=index.device), count)
    first = pack.offset[asset] - (count.cumsum(0) - count)
    face = torch.arange(len(owner), device=index.device) + first[owner]
    linear = pieces.linear[index]
    point = (
        torch.einsum("fij,fkj->fki", linear[owner], pack.corners[face]) + pieces.offset[index][owner][:, None]
    )
    normal = torch.einsum("fij,fkj->fki", _cofactor(linear)[owner], pack.normals[face])
    return point, normal, pack.uvs[face], index[owner]


def _cofactor(linear: Tensor) -> Tensor:
    """What maps normals when the matrix [*b, 3, 3] maps points (up to a positive or negative factor)."""
    a, b, c = linear.unbind(-2)
    return torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -2)


ROW = 28
"""Floats of a shading row: 9 corners, 9 unit normals, 6 uvs, 1 texel density, 3 sky visibilities."""


def shading_rows(soup: Soup, pieces: Pieces, bank: TextureBank, sky: Tensor) -> Tensor:
    """[f, ROW]; sky: share of the sky seen by each corner, [f, 3] in [0, 1]."""
    size = bank.table[pieces.texture][:, 5:7].to(torch.float32)[soup.piece]
    edge = soup.corners[:, 1:] - soup.corners[:, :1]
    area = torch.linalg.cross(edge[:, 0], edge[:, 1]).norm(dim=-1)
    step = (soup.uvs[:, 1:] - soup.uvs[:, :1]) * size[:, None]
    texels = (step[:, 0, 0] * step[:, 1, 1] - step[:, 0, 1] * step[:, 1, 0]).abs()
    density = (texels / area.clamp_min(1e-10)).sqrt()
    unit = torch.nn.functional.normalize(soup.normals, dim=-1)
    # A vanishing normal (a collapsed corner) becomes the flat one.
    flat = torch.nn.functional.normalize(torch.linalg.cross(edge[:, 0], edge[:, 1]), dim=-1)[:, None]
    weak = (unit * unit).sum(-1, keepdim=True) < 0.5
    unit = torch.where(weak, flat, unit)
    return torch.cat(
        [soup.corners.flatten(1), unit.flatten(1), soup.uvs.flatten(1), density[:, None], sky], 1
    )
