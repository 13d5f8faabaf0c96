"""What shading reads of a batch of scenes."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int32, Int64
from torch import Tensor


@dataclass(frozen=True)
class ShadingBuffers:
    """Of s scenes with f faces of p instances, on one device.

    Attributes:
        faces: a row of attributes for each face, see ``mesh_batch.FACE_ATTRIBUTES``.
        instance: the instance of each face.
        texture: number of each instance's texture; material: rows of ``instances.MATERIAL_FIELDS``.
        texture_table, texels: of a ``TextureBank``.
        lights: rows of ``lights.LIGHT_FIELDS``.
        shadow_camera: rows of the key light's w2c (12), then fx, fy, cx, cy in texels of its map.
        shadow_depth: the key light's shadow maps.
    """

    faces: Float[Tensor, "f k"]
    instance: Int64[Tensor, " f"]
    texture: Int64[Tensor, " p"]
    material: Float[Tensor, "p m"]
    texture_table: Int32[Tensor, "t 8"]
    texels: Int32[Tensor, " texels"]
    lights: Float[Tensor, "s l"]
    shadow_camera: Float[Tensor, "s 16"]
    shadow_depth: Float[Tensor, "s r r"]
