"""Pieces: the parts a scene is put together from, as rows of tensors; and what their surfaces look like."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from data_tools.procedural.bank import NUM_TILES, TextureBank
from data_tools.procedural.draws import Draws
from data_tools.procedural.shapes import INDEX, plain_shape
from data_tools.procedural.tiles import FAMILIES, natural_colours

MATERIAL_FIELDS = 22
"""0-8 colour matrix, 9-11 colour offset, 12 specular, 13 gloss, 14 emission, 15 uv mode (0 per length, 1 per patch,
2 the mesh's own), 16-17 uv scale, 18-19 uv offset, 20 quarter turn, 21 unused."""
DEAD, ASSET = -1, 3
"""``mesh``: DEAD, 0-2 for a level of detail of the parametric solids, ASSET + j for object j of the pack."""


@dataclass
class Pieces:
    """Parts of scenes; every field begins with the same batch shape.

    Attributes:
        mesh: int64, see ``ASSET``.
        linear: [3, 3] and offset [3]: from the mesh's own frame to the scene.
        shape: the solid's numbers (``shapes.SHAPE_FIELDS``).
        texture: int64 number in the bank.
        material: [MATERIAL_FIELDS].
    """

    mesh: Tensor
    linear: Tensor
    offset: Tensor
    shape: Tensor
    texture: Tensor
    material: Tensor

    @staticmethod
    def cat(parts: list[Pieces], dim: int) -> Pieces:
        return Pieces(*(torch.cat([getattr(part, f.name) for part in parts], dim) for f in fields(Pieces)))

    def map(self, function) -> Pieces:
        return Pieces(*(function(getattr(self, f.name)) for f in fields(Pieces)))

    def moved(self, linear: Tensor, offset: Tensor) -> Pieces:
        """The pieces after x -> linear x + offset (both broadcast over the batch shape)."""
        moved = torch.einsum("...ij,...j->...i", linear.expand_as(self.linear), self.offset) + offset
        return Pieces(self.mesh, linear @ self.linear, moved, self.shape, self.texture, self.material)

    def where(self, alive: Tensor) -> Pieces:
        """Only those alive (bool, batch shape); the others become DEAD."""
        return Pieces(torch.where(alive, self.mesh, DEAD), self.linear, self.offset, self.shape, self.texture,
                      self.material)  # fmt: skip


def boxes(centre: Tensor, half: Tensor, texture: Tensor, material: Tensor, **shape: Tensor | float) -> Pieces:
    """Axis-aligned solids of the lowest detail: centre and half sizes [*b, 3]; shape fields by name."""
    row = plain_shape(*centre.shape[:-1], device=centre.device)
    for name, value in shape.items():
        row[..., INDEX[name]] = value
    mesh = torch.zeros(centre.shape[:-1], dtype=torch.int64, device=centre.device)
    return Pieces(mesh, torch.diag_embed(half), centre, row, texture, material)


def random_rotation(draws: Draws, *shape: int) -> Tensor:
    """Rotations of all directions, [*keys, *shape, 3, 3]."""
    quaternion = torch.stack([draws.normal(*shape) for _ in range(4)], -1)
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def turn(angle: Tensor) -> Tensor:
    """Rotations about z, [*b] radians -> [*b, 3, 3]."""
    c, s, o = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return torch.stack([c, -s, o, s, c, o, o, o, o + 1], -1).unflatten(-1, (3, 3))


def colour_matrix(hue: Tensor, saturation: Tensor, contrast: Tensor, tint: Tensor) -> Tensor:
    """Rows of 12 numbers: c -> M c + t: hue turned (radians), saturation, contrast about 0.5, tint [*b, 3]."""
    c, s = torch.cos(hue), torch.sin(hue)
    eye = torch.eye(3, device=hue.device)
    third = torch.full((3, 3), 1.0 / 3.0, device=hue.device)
    cross = torch.tensor(
        [[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=hue.device
    ) / math.sqrt(3.0)
    chroma = c[..., None, None] * (eye - third) + s[..., None, None] * cross
    matrix = (third + saturation[..., None, None] * chroma) * (contrast[..., None] * tint)[..., None]
    offset = 0.5 * (1.0 - contrast)[..., None] * tint
    return torch.cat([matrix.flatten(-2), offset], -1)


STYLES = {
    # weights of plain, generated, real; families of the generated ones (None: all of them)
    "any": (0.22, 0.45, 0.33, None),
    "package": (0.1, 0.6, 0.3, (9, 10, 11, 11, 4, 5, 13)),
    "furniture": (0.4, 0.35, 0.25, (3, 3, 3, 1, 2, 12, 4)),
    "wall": (0.6, 0.2, 0.2, (1, 7, 4, 5, 12, 13, 0)),
    "floor": (0.2, 0.4, 0.4, (3, 3, 7, 5, 12, 1, 2)),
    "picture": (0.0, 0.35, 0.65, (10, 11, 9, 1, 8)),
}


def materials(draws: Draws, bank: TextureBank, *shape: int, style: str = "any") -> tuple[Tensor, Tensor]:
    """Random looks: texture numbers int64 [*keys, *shape] and material rows [..., MATERIAL_FIELDS]."""
    plain_share, made_share, real_share, families = STYLES[style]
    if not bank.num_real:
        real_share = 0.0
    source = draws.pick((plain_share, made_share, real_share), *shape)
    choices = torch.tensor(families or tuple(range(1, len(FAMILIES))), device=draws.device)
    family = choices[draws.integer(len(choices), *shape)]
    which = draws.integer(NUM_TILES // len(FAMILIES), *shape)
    made = torch.where(source == 0, 0, family) + len(FAMILIES) * which
    real = NUM_TILES + draws.integer(max(1, bank.num_real), *shape)
    texture = torch.where(source == 2, real, made)
    plain = source == 0
    tint = natural_colours(draws, *shape)
    if style in ("wall", "picture"):
        tint = tint * 0.5 + 0.5 * tint.amax(-1, keepdim=True)  # walls are pale
    if style in ("wall", "floor"):  # and mostly greyish
        grey = tint.mean(-1, keepdim=True)
        tint = grey + (tint - grey) * torch.where(draws.chance(0.7, *shape, 1), 0.3, 1.0)
    strong = plain | draws.chance(0.12, *shape)
    tint = torch.where(strong[..., None], tint, draws.uniform(*shape, 1, low=0.75, high=1.1))
    calm = style in ("wall", "floor", "furniture")
    wild = (source == 1) & draws.chance(0.1 if calm else 0.5, *shape)
    hue = torch.where(wild, draws.uniform(*shape, high=2 * math.pi), draws.normal(*shape, std=0.1))
    saturation = draws.uniform(*shape, low=0.2 if calm else 0.6, high=0.9 if calm else 1.15)
    contrast = draws.uniform(*shape, low=0.7, high=1.1)
    contrast = torch.where(plain, 1.0, contrast)
    glossy = draws.chance(0.35, *shape)
    specular = torch.where(
        glossy, draws.uniform(*shape, low=0.04, high=0.35), draws.uniform(*shape, high=0.04)
    )
    gloss = draws.log_uniform(*shape, low=8.0, high=120.0)
    # One in three prints a whole picture on each patch, the others repeat by length.
    fit = draws.chance(0.85 if style in ("package", "picture") else 0.3, *shape).float()
    scale = torch.where(fit > 0, 1.0, draws.log_uniform(*shape, low=0.4, high=2.5))
    quarter = draws.chance(0.3, *shape).float() * (1 - fit)
    rows = [colour_matrix(hue, saturation, contrast, tint), specular[..., None], gloss[..., None],
            torch.zeros_like(gloss)[..., None], fit[..., None], scale[..., None],
            (scale * draws.uniform(*shape, low=0.8, high=1.25).where(fit < 0.5, torch.ones_like(scale)))[..., None],
            draws.uniform(*shape, 2) * (1.0 - fit[..., None]), quarter[..., None],
            torch.zeros_like(gloss)[..., None]]  # fmt: skip
    return texture, torch.cat(rows, -1)
