"""Pieces to one soup of triangles with everything that shading needs in one row each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data_tools.procedural.assets import AssetPack
from data_tools.procedural.bank import TextureBank
from data_tools.procedural.pieces import ASSET, Pieces
from data_tools.procedural.shapes import INDEX, evaluate, make_grids


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
    """RotaryCosSin pieces into triangles; holds the grids and the object pack."""

    def __init__(self, device: torch.device, pack: AssetPack | None) -> None:
        self.pack, self.grids = pack, make_grids(device)
        counts = [] if pack is None else [pack.counts]
        starts = [] if pack is None else [pack.offset[:-1]]
        # By the mesh number of a piece: its faces, the first of them in its own list, and its vertices.
        self.face_count = torch.cat([self.grids.face_count, *counts])
        self.face_start = torch.cat([self.grids.face_start, *starts])
        self.vertex_count = torch.cat([self.grids.vertex_count, *(torch.zeros_like(c) for c in counts)])

    def __call__(self, pieces: Pieces, scene: Tensor) -> Soup:
        """Triangles, in the order of the pieces, of flat pieces [p] of the scenes int64 [p]; dead ones give none."""
        grids, device = self.grids, scene.device
        code, alive = pieces.mesh.clamp_min(0), pieces.mesh >= 0
        faces, vertices = self.face_count[code] * alive, self.vertex_count[code] * alive
        face_end, vertex_end = faces.cumsum(0), vertices.cumsum(0)
        num_faces, num_vertices = torch.stack([face_end[-1], vertex_end[-1]]).tolist()
        number = torch.arange(len(scene), device=device)
        piece = torch.repeat_interleave(number, faces, output_size=num_faces)
        lattice = pieces.shape[:, INDEX["lattice"]].to(torch.int64)[piece]
        first = self.face_start[code] - (face_end - faces)
        face = torch.arange(num_faces, device=device) + first[piece]
        solid = pieces.mesh[piece] < ASSET
        # The faces of scans and grids are two lists: a number of one is clamped into the other and not used.
        quad = face.clamp_max(len(grids.row) - 1)
        keep = (lattice < 2) | (grids.row[quad] % lattice.clamp_min(1) == 0)
        keep |= grids.column[quad] % lattice.clamp_min(1) == 0
        kept = (keep | ~solid).nonzero().squeeze(-1)
        piece, face, quad, solid = piece[kept], face[kept], quad[kept], solid[kept]
        owner = torch.repeat_interleave(number, vertices, output_size=num_vertices)
        vertex_first = vertex_end - vertices
        if num_vertices:
            inner = torch.arange(num_vertices, device=device) - vertex_first[owner]
            vertex = self._vertices(pieces, owner, inner + grids.vertex_start[code.clamp_max(ASSET - 1)][owner])
            at = (grids.faces[quad] + vertex_first[piece][:, None]).clamp_max(num_vertices - 1)
            corners = vertex[at]  # [f, 3, 8]
        else:
            corners = torch.zeros(len(piece), 3, 8, device=device)
        point, normal, uv = corners[..., :3], corners[..., 3:6], corners[..., 6:]
        if self.pack is not None:
            scan = _scan(pieces, piece, face.clamp_max(len(self.pack.corners) - 1), self.pack)
            chosen = solid[:, None, None]
            point, normal, uv = (torch.where(chosen, a, b) for a, b in zip((point, normal, uv), scan, strict=True))
        return Soup(point.contiguous(), normal, uv, piece, scene[piece])

    def _vertices(self, pieces: Pieces, owner: Tensor, vertex: Tensor) -> Tensor:
        """Point, normal and texture coordinates of grid vertices of the pieces ``owner``, [n, 8]."""
        patch, a, b = self.grids.patch[vertex], self.grids.a[vertex], self.grids.b[vertex]
        point, normal = evaluate(pieces.shape, owner, patch, a, b)
        linear = pieces.linear
        point = (linear[owner] * point[:, None]).sum(-1) + pieces.offset[owner]
        normal = (_cofactor(linear)[owner] * normal[:, None]).sum(-1)
        # What the texture coordinates need of a piece, in one row: a single gather.
        size = 2.0 * linear.norm(dim=-2)  # lengths along the piece's own axes, [p, 3]
        torus = pieces.shape[:, INDEX["family"], None] > 1.5
        ring = size[:, :1] * 3.0 * pieces.shape[:, INDEX["tube"], None]
        sides = torch.cat(
            [size[:, :2], torch.where(torus, ring, size[:, 1:2]), torch.where(torus, ring, size[:, 2:3])], 1
        )
        fit = pieces.material[:, 15:16] > 0.5
        row = torch.cat([torch.where(fit, 1.0, sides), pieces.material[:, 16:21]], 1)[owner]
        cap = patch >= 4
        u = 0.5 * (a + 1.0) + torch.where(cap, 0, patch)
        v = 0.5 * (1.0 - b)
        u = u * torch.where(cap | (patch % 2 == 1), row[:, 0], row[:, 1]) * row[:, 4] + row[:, 6]
        v = v * torch.where(cap, row[:, 2], row[:, 3]) * row[:, 5] + row[:, 7]
        turned = row[:, 8] > 0.5
        uv = torch.stack([torch.where(turned, v, u), torch.where(turned, u, v)], -1)
        return torch.cat([point, normal, uv], 1)


def _scan(pieces: Pieces, piece: Tensor, face: Tensor, pack: AssetPack) -> tuple[Tensor, Tensor, Tensor]:
    """Faces of the pack as the pieces place them: corners, normals [f, 3, 3] and texture coordinates [f, 3, 2]."""
    linear = pieces.linear
    point = torch.einsum("fij,fkj->fki", linear[piece], pack.corners[face]) + pieces.offset[piece][:, None]
    return point, torch.einsum("fij,fkj->fki", _cofactor(linear)[piece], pack.normals[face]), pack.uvs[face]


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
    return torch.cat([soup.corners.flatten(1), unit.flatten(1), soup.uvs.flatten(1), density[:, None], sky], 1)
