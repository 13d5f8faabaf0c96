"""Mesh instances to the triangles of a whole batch of scenes, with what shading needs in one row a face."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from data_tools.procedural.asset_pack import AssetPack
from data_tools.procedural.instances import ASSET, MeshInstances
from data_tools.procedural.shapes import SHAPE_INDEX, make_patch_grids, surface_and_normals
from data_tools.procedural.texture_bank import TextureBank


@dataclass
class MeshBatch:
    """Triangles of all scenes of a batch.

    Attributes:
        normals: of any length and either side.
        uvs: in textures, which may repeat.
        instance: row of the flattened instances; scene: of the batch.
    """

    corners: Float[Tensor, "f 3 3"]
    normals: Float[Tensor, "f 3 3"]
    uvs: Float[Tensor, "f 3 2"]
    instance: Int64[Tensor, " f"]
    scene: Int64[Tensor, " f"]


class Mesher:
    """Turns mesh instances into triangles; holds the patch grids and the pack of scans."""

    def __init__(self, device: torch.device, pack: AssetPack | None) -> None:
        self.pack, self.grids = pack, make_patch_grids(device)
        counts = [] if pack is None else [pack.counts]
        starts = [] if pack is None else [pack.offset[:-1]]
        # By the mesh number of an instance: its faces, the first of them in its own list, and its vertices.
        self.face_count = torch.cat([self.grids.face_count, *counts])
        self.face_start = torch.cat([self.grids.face_start, *starts])
        self.vertex_count = torch.cat([self.grids.vertex_count, *(torch.zeros_like(c) for c in counts)])

    def __call__(self, instances: MeshInstances, scene: Int64[Tensor, " p"]) -> MeshBatch:
        """Triangles of instances [p] in scenes ``scene``, in the order of the instances; unused slots give none."""
        grids, device = self.grids, scene.device
        code, alive = instances.mesh.clamp_min(0), instances.mesh >= 0
        faces, vertices = self.face_count[code] * alive, self.vertex_count[code] * alive
        face_end, vertex_end = faces.cumsum(0), vertices.cumsum(0)
        num_faces, num_vertices = torch.stack([face_end[-1], vertex_end[-1]]).tolist()
        number = torch.arange(len(scene), device=device)
        instance = torch.repeat_interleave(number, faces, output_size=num_faces)
        lattice = instances.shape[:, SHAPE_INDEX["lattice"]].to(torch.int64)[instance]
        first = self.face_start[code] - (face_end - faces)
        face = torch.arange(num_faces, device=device) + first[instance]
        solid = instances.mesh[instance] < ASSET
        # The faces of scans and grids are two lists: a number of one is clamped into the other and not used.
        quad = face.clamp_max(len(grids.row) - 1)
        keep = (lattice < 2) | (grids.row[quad] % lattice.clamp_min(1) == 0)
        keep |= grids.column[quad] % lattice.clamp_min(1) == 0
        kept = (keep | ~solid).nonzero().squeeze(-1)
        instance, face, quad, solid = instance[kept], face[kept], quad[kept], solid[kept]
        owner = torch.repeat_interleave(number, vertices, output_size=num_vertices)
        vertex_first = vertex_end - vertices
        if num_vertices:
            inner = torch.arange(num_vertices, device=device) - vertex_first[owner]
            vertex = self._vertices(instances, owner, inner + grids.vertex_start[code.clamp_max(ASSET - 1)][owner])
            at = (grids.faces[quad] + vertex_first[instance][:, None]).clamp_max(num_vertices - 1)
            corners = vertex[at]  # [f, 3, 8]
        else:
            corners = torch.zeros(len(instance), 3, 8, device=device)
        point, normal, uv = corners[..., :3], corners[..., 3:6], corners[..., 6:]
        if self.pack is not None:
            scan = _scan(instances, instance, face.clamp_max(len(self.pack.corners) - 1), self.pack)
            chosen = solid[:, None, None]
            point, normal, uv = (torch.where(chosen, a, b) for a, b in zip((point, normal, uv), scan, strict=True))
        return MeshBatch(point.contiguous(), normal, uv, instance, scene[instance])

    def _vertices(
        self, instances: MeshInstances, owner: Int64[Tensor, " n"], vertex: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n 8"]:
        """Point, normal and texture coordinates of grid vertices of the instances ``owner``."""
        patch, a, b = self.grids.patch[vertex], self.grids.a[vertex], self.grids.b[vertex]
        point, normal = surface_and_normals(instances.shape, owner, patch, a, b)
        linear = instances.linear
        point = (linear[owner] * point[:, None]).sum(-1) + instances.offset[owner]
        normal = (_cofactor(linear)[owner] * normal[:, None]).sum(-1)
        # What the texture coordinates need of an instance, in one row: a single gather.
        size = 2.0 * linear.norm(dim=-2)  # lengths along the instance's own axes, [p, 3]
        torus = instances.shape[:, SHAPE_INDEX["family"], None] > 1.5
        ring = size[:, :1] * 3.0 * instances.shape[:, SHAPE_INDEX["tube"], None]
        sides = torch.cat(
            [size[:, :2], torch.where(torus, ring, size[:, 1:2]), torch.where(torus, ring, size[:, 2:3])], 1
        )
        fit = instances.material[:, 15:16] > 0.5
        row = torch.cat([torch.where(fit, 1.0, sides), instances.material[:, 16:21]], 1)[owner]
        cap = patch >= 4
        u = 0.5 * (a + 1.0) + torch.where(cap, 0, patch)
        v = 0.5 * (1.0 - b)
        u = u * torch.where(cap | (patch % 2 == 1), row[:, 0], row[:, 1]) * row[:, 4] + row[:, 6]
        v = v * torch.where(cap, row[:, 2], row[:, 3]) * row[:, 5] + row[:, 7]
        turned = row[:, 8] > 0.5
        uv = torch.stack([torch.where(turned, v, u), torch.where(turned, u, v)], -1)
        return torch.cat([point, normal, uv], 1)


def _scan(
    instances: MeshInstances, instance: Int64[Tensor, " f"], face: Int64[Tensor, " f"], pack: AssetPack
) -> tuple[Float[Tensor, "f 3 3"], Float[Tensor, "f 3 3"], Float[Tensor, "f 3 2"]]:
    """Faces of the pack as the instances place them: corners, normals and texture coordinates."""
    linear = instances.linear
    point = torch.einsum("fij,fkj->fki", linear[instance], pack.corners[face]) + instances.offset[instance][:, None]
    return point, torch.einsum("fij,fkj->fki", _cofactor(linear)[instance], pack.normals[face]), pack.uvs[face]


def _cofactor(linear: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """What maps normals when a matrix maps points (up to a positive or negative factor)."""
    a, b, c = linear.unbind(-2)
    return torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -2)


FACE_ATTRIBUTES = 28
"""Floats of a face's row: 9 corners, 9 unit normals, 6 uvs, 1 texel density, 3 sky visibilities."""


def face_attributes(
    meshes: MeshBatch, instances: MeshInstances, bank: TextureBank, sky: Float[Tensor, "f 3"]
) -> Float[Tensor, "f k"]:
    """Rows of ``FACE_ATTRIBUTES``; sky: share of the sky seen by each corner, in [0, 1]."""
    size = bank.table[instances.texture][:, 5:7].to(torch.float32)[meshes.instance]
    edge = meshes.corners[:, 1:] - meshes.corners[:, :1]
    area = torch.linalg.cross(edge[:, 0], edge[:, 1]).norm(dim=-1)
    step = (meshes.uvs[:, 1:] - meshes.uvs[:, :1]) * size[:, None]
    texels = (step[:, 0, 0] * step[:, 1, 1] - step[:, 0, 1] * step[:, 1, 0]).abs()
    density = (texels / area.clamp_min(1e-10)).sqrt()
    unit = torch.nn.functional.normalize(meshes.normals, dim=-1)
    # A vanishing normal (a collapsed corner) becomes the flat one.
    flat = torch.nn.functional.normalize(torch.linalg.cross(edge[:, 0], edge[:, 1]), dim=-1)[:, None]
    weak = (unit * unit).sum(-1, keepdim=True) < 0.5
    unit = torch.where(weak, flat, unit)
    return torch.cat([meshes.corners.flatten(1), unit.flatten(1), meshes.uvs.flatten(1), density[:, None], sky], 1)
