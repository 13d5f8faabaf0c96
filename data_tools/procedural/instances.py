"""Mesh instances, the parts that a scene is made of, as rows of tensors; and random materials for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from data_tools.procedural.patterns import FAMILIES, natural_colours
from data_tools.procedural.rng import CounterRNG, constant
from data_tools.procedural.shapes import shape_rows
from data_tools.procedural.texture_bank import NUM_PATTERNS, TextureBank

MATERIAL_FIELDS = 23
"""0-8 colour matrix, 9-11 colour offset, 12 specular, 13 gloss, 14 emission, 15 uv mode (0 per length, 1 per patch,
2 the mesh's own), 16-17 uv scale, 18-19 uv offset, 20 quarter turn, 21 sky (1: infinitely far for depth), 22 how
much it mirrors lamps and walls (0 to 1)."""
SKY, MIRROR = 21, 22
NO_MESH, ASSET = -1, 3
"""``mesh``: ``NO_MESH`` in an unused slot, 0-2 for a level of detail of the parametric solids, ASSET + j for object j
of the pack."""


Materials = tuple[Int64[Tensor, "s _"], Float[Tensor, "s _ m"]]
"""Of s scenes: texture numbers, and rows of MATERIAL_FIELDS."""


def some(materials: Materials, first: int, count: int) -> Materials:
    """``count`` of the materials from the number ``first`` on."""
    return materials[0][:, first : first + count], materials[1][:, first : first + count]


@dataclass
class MeshInstances:
    """A mesh, where it stands and what it is made of; every field begins with the same batch shape.

    Attributes:
        mesh: see ``ASSET``.
        linear, offset: from the mesh's own frame to the scene.
        shape: the solid's numbers (``shapes.SHAPE_FIELDS``).
        texture: number in the bank.
        material: a row of ``MATERIAL_FIELDS``.
    """

    mesh: Int64[Tensor, "*b"]
    linear: Float[Tensor, "*b 3 3"]
    offset: Float[Tensor, "*b 3"]
    shape: Float[Tensor, "*b k"]
    texture: Int64[Tensor, "*b"]
    material: Float[Tensor, "*b m"]

    @staticmethod
    def cat(parts: list[MeshInstances], dim: int) -> MeshInstances:
        return MeshInstances(*(torch.cat(values, dim) for values in zip(*(vars(part).values() for part in parts))))

    @staticmethod
    def stack(parts: list[MeshInstances], dim: int) -> MeshInstances:
        return MeshInstances(*(torch.stack(values, dim) for values in zip(*(vars(part).values() for part in parts))))

    def map(self, function) -> MeshInstances:
        return MeshInstances(*map(function, vars(self).values()))

    def moved(self, linear: Float[Tensor, "*#b 3 3"], offset: Float[Tensor, "*#b 3"]) -> MeshInstances:
        """The instances after x -> linear x + offset (both broadcast over the batch shape)."""
        moved = torch.einsum("...ij,...j->...i", linear.expand_as(self.linear), self.offset) + offset
        return MeshInstances(self.mesh, linear @ self.linear, moved, self.shape, self.texture, self.material)

    def scaled(self, size: Float[Tensor, "*b"], offset: Float[Tensor, "*b 3"]) -> MeshInstances:
        """The instances after x -> size x + offset, size with the batch shape."""
        linear = self.linear * size[..., None, None]
        moved = self.offset * size[..., None] + offset
        return MeshInstances(self.mesh, linear, moved, self.shape, self.texture, self.material)

    def where(self, alive: Bool[Tensor, "*b"]) -> MeshInstances:
        """Only those alive; the others become ``NO_MESH``."""
        return MeshInstances(torch.where(alive, self.mesh, NO_MESH), self.linear, self.offset, self.shape, self.texture,
                      self.material)  # fmt: skip


def boxes(
    centre: Float[Tensor, "*b 3"],
    half: Float[Tensor, "*b 3"],
    texture: Int64[Tensor, "*b"],
    material: Float[Tensor, "*b m"],
    detail: int = 0,
    **shape: Shaped[Tensor, "..."] | float,
) -> MeshInstances:
    """Axis-aligned solids. detail: level, 0 to 2; shape: fields by name."""
    row = shape_rows(centre[..., 0], **shape)
    mesh = torch.full(centre.shape[:-1], detail, dtype=torch.int64, device=centre.device)
    return MeshInstances(mesh, torch.diag_embed(half), centre, row, texture, material)


def random_rotation(rng: CounterRNG, *shape: int) -> Float[Tensor, "*b 3 3"]:
    """Rotations of all directions, [*keys, *shape, 3, 3]."""
    quaternion = rng.normal(*shape, 4)
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def rotation_z(angle: Float[Tensor, "*b"]) -> Float[Tensor, "*b 3 3"]:
    """Rotations about z by radians."""
    c, s, o = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return torch.stack([c, -s, o, s, c, o, o, o, o + 1], -1).unflatten(-1, (3, 3))


def colour_matrix(
    hue: Float[Tensor, "*b"],
    saturation: Float[Tensor, "*b"],
    contrast: Float[Tensor, "*b"],
    tint: Float[Tensor, "*b 3"],
) -> Float[Tensor, "*b 12"]:
    """Rows of 12 numbers: c -> M c + t: hue turned (radians), saturation, contrast about 0.5, tint."""
    c, s = torch.cos(hue), torch.sin(hue)
    third, r = 1.0 / 3.0, 1.0 / math.sqrt(3.0)
    grey = constant(((1.0 - third, -third, -third), (-third, 1.0 - third, -third), (-third, -third, 1.0 - third)),
                    hue.device)  # fmt: skip
    cross = constant(((0.0, -r, r), (r, 0.0, -r), (-r, r, 0.0)), hue.device)
    chroma = c[..., None, None] * grey + s[..., None, None] * cross
    matrix = (third + saturation[..., None, None] * chroma) * (contrast[..., None] * tint)[..., None]
    offset = 0.5 * (1.0 - contrast)[..., None] * tint
    return torch.cat([matrix.flatten(-2), offset], -1)


STYLES = {
    # weights of plain, generated, real; families of the generated ones (None: all of them)
    "any": (0.18, 0.47, 0.35, None),
    "object": (0.12, 0.53, 0.35, None),
    "package": (0.1, 0.6, 0.3, (9, 10, 11, 11, 4, 5, 13)),
    "furniture": (0.3, 0.42, 0.28, (3, 3, 3, 1, 2, 12, 4, 14)),
    "fabric": (0.08, 0.62, 0.3, (14, 14, 14, 12, 5, 4, 6, 8)),
    "tabletop": (0.3, 0.6, 0.1, (3, 3, 3, 3, 2)),
    "wall": (0.6, 0.2, 0.2, (1, 7, 4, 5, 12, 13, 0)),
    "floor": (0.2, 0.4, 0.4, (3, 3, 7, 5, 12, 1, 2)),
    "picture": (0.0, 0.35, 0.65, (10, 11, 9, 1, 8)),
    "ground": (0.05, 0.6, 0.35, (1, 1, 7, 8, 2, 1, 5)),
    "foliage": (0.0, 0.8, 0.2, (1, 1, 1, 8, 2, 6)),
    "facade": (0.3, 0.45, 0.25, (7, 7, 7, 4, 5, 13, 1)),
    "roof": (0.3, 0.5, 0.2, (7, 4, 3, 1, 12)),
    "window": (0.6, 0.3, 0.1, (4, 5, 13, 10)),
    "paint": (0.75, 0.25, 0.0, (4, 13, 10, 11)),
}


def random_materials(
    rng: CounterRNG, bank: TextureBank, count: int, style: str | tuple[str, ...] = "any"
) -> tuple[Int64[Tensor, "*keys n"], Float[Tensor, "*keys n m"]]:
    """Random materials, ``count`` for each key: texture numbers and rows of ``MATERIAL_FIELDS``.

    style: one of ``STYLES``, or one for each of the ``count`` materials.
    """
    styles = (style,) * count if isinstance(style, str) else style
    if len(styles) != count:
        raise ValueError(f"{len(styles)} styles for {count} materials")

    def flags(*names: str) -> Bool[Tensor, " n"]:
        return constant(tuple(name in names for name in styles), rng.device, torch.bool)

    def numbers(of: dict[str, float], other: float) -> Float[Tensor, " n"]:
        return constant(tuple(of.get(name, other) for name in styles), rng.device)

    shares = [(a, b, c if bank.num_real else 0.0) for a, b, c, _ in (STYLES[name] for name in styles)]
    edges = constant(tuple((a / (a + b + c), (a + b) / (a + b + c)) for a, b, c in shares), rng.device)
    pick, family, which, real, strong, shade, wild, glossy, fitted, quarter, grey, lift = rng.uniform(12, count).unbind(
        len(rng.batch)
    )
    source = (pick[..., None] >= edges).sum(-1)
    lists = [STYLES[name][3] or tuple(range(1, len(FAMILIES))) for name in styles]
    longest = max(map(len, lists))
    padded = tuple(number for one in lists for number in (*one, *[0] * (longest - len(one))))
    choices = constant(padded, rng.device, torch.int64)
    lengths = constant(tuple(map(len, lists)), rng.device)
    family = choices[(family * lengths).to(torch.int64) + torch.arange(count, device=rng.device) * longest]
    which = (which * (NUM_PATTERNS // len(FAMILIES))).to(torch.int64)
    plain = source == 0
    made = torch.where(plain, 0, family) + len(FAMILIES) * which
    real = NUM_PATTERNS + (real * max(1, bank.num_real)).to(torch.int64)
    texture = torch.where(source == 2, real, made)
    tint = natural_colours(rng, count)
    # Walls and pictures are pale, walls and floors mostly greyish.
    pale = constant(tuple(0.5 if name in ("wall", "picture", "facade") else 0.0 for name in styles), rng.device)[
        :, None
    ]
    tint = torch.lerp(tint, tint.amax(-1, keepdim=True), pale)
    greyish = (flags("wall", "floor", "facade", "roof", "tabletop") & (grey < 0.7))[..., None]
    mean = tint.mean(-1, keepdim=True)
    tint = torch.where(greyish, mean + (tint - mean) * 0.3, tint)
    tint = torch.where((plain | (strong < 0.12))[..., None], tint, (0.75 + 0.35 * shade)[..., None])
    # Objects are mostly brighter than chance makes them: their colours are scaled up, hues kept.
    lowest = numbers({"object": 1.0, "fabric": 1.0, "furniture": 0.85, "facade": 0.9}, 0.0) * (0.3 + 0.7 * lift)
    tint = tint * (lowest[..., None] / tint.amax(-1, keepdim=True).clamp_min(0.05)).clamp(1.0, 5.0)
    calm = flags("wall", "floor", "furniture", "tabletop")
    wild = (source == 1) & (wild < numbers({"wall": 0.1, "floor": 0.1, "furniture": 0.1, "tabletop": 0.1}, 0.5))
    low, spread, contrast, dull, shiny, gloss, stretch = rng.ranges(
        (0.0, 0.4), (0.2, 0.9), (0.7, 1.1), (0.0, 0.04), (0.04, 0.35), (math.log(8.0), math.log(120.0)),
        (0.8, 1.25), shape=(count,),
    )  # fmt: skip
    saturation = torch.where(calm, spread, 0.6 + low * 1.375)
    hue = torch.where(wild, rng.uniform(count, high=2 * math.pi), rng.normal(count, std=0.1))
    contrast = torch.where(plain, 1.0, contrast)
    specular = torch.where(glossy < 0.35, shiny, dull)
    # One in three prints a whole picture on each patch, the others repeat by length.
    fit = (fitted < numbers({"package": 0.85, "picture": 0.85}, 0.3)).float()
    size = rng.log_uniform(count, low=0.4, high=2.5)
    scale = torch.where(fit > 0, 1.0, size)
    across = torch.where(fit > 0, 1.0, size * stretch)
    turned = (quarter < 0.3) * (1.0 - fit)
    zero = constant(0.0, rng.device).expand(fit.shape)
    rest = torch.stack([specular, torch.exp(gloss), zero, fit, scale, across], -1)
    shift = rng.uniform(count, 2) * (1.0 - fit[..., None])
    last = torch.stack([turned, zero, zero], -1)
    return texture, torch.cat([colour_matrix(hue, saturation, contrast, tint), rest, shift, last], -1)
