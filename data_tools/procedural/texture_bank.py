"""All textures of a source in one flat array of packed texels with their mip levels.

Textures are numbered: generated patterns first, then real surfaces, the atlases of the scanned objects, skies, prints.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int32, Int64, UInt8
from torch import Tensor

from data_tools.procedural.patterns import FAMILIES, PATTERN_SIZE, make_patterns, pattern_keys
from data_tools.procedural.prints import EACH, PRINTS, make_prints, print_keys
from data_tools.procedural.sky import OVERCAST, SKIES, SKY_HW, make_skies, sky_keys

LEVELS = 5
"""Mip levels of a texture that repeats."""
ATLAS_LEVELS = 2
"""Atlases have gutters of two pixels: deeper levels would mix neighbouring charts."""
NUM_PATTERNS = 64 * len(FAMILIES)


def pack_rgb(image: UInt8[Tensor, "n 3 h w"]) -> Int32[Tensor, "n h w"]:
    """Texels with red in the low byte: one gather reads all channels."""
    r, g, b = image.to(torch.int32).unbind(1)
    return r | g << 8 | b << 16


def _levels(image: UInt8[Tensor, "n 3 h w"], count: int) -> list[Int32[Tensor, "n _"]]:
    """Box-filtered pyramid, each level flattened."""
    levels = [pack_rgb(image).flatten(1)]
    current = image.to(torch.float32)
    for _ in range(count - 1):
        current = F.adaptive_avg_pool2d(current, (max(1, current.shape[2] // 2), max(1, current.shape[3] // 2)))
        levels.append(pack_rgb((current + 0.5).to(torch.uint8)).flatten(1))
    return levels


class TextureBank:
    """Texels of all textures.

    Attributes:
        texels: int32 [total], packed RGB.
        table: int32 [textures, 8]: start of each of the five levels, width, height, 1 where it repeats (else clamped).
        num_real: real surfaces, numbered from ``NUM_TILES``; atlas j has number ``NUM_TILES + num_real + j``.
        first_sky: number of the first of ``SKIES`` skies.
        first_print: number of the first of ``PRINTS`` prints.
    """

    def __init__(
        self,
        device: torch.device,
        seed: int,
        surfaces: list[UInt8[Tensor, "3 _ _"]],
        atlases: list[UInt8[Tensor, "3 _ _"]],
    ) -> None:
        """Surfaces and atlases: uint8 [3, H, W] on the CPU. Patterns, skies and prints are made now on a GPU, when
        first used on a CPU."""
        self.device, self.seed, self.num_real = device, seed, len(surfaces)
        sides = [PATTERN_SIZE >> level for level in range(LEVELS)]
        self._pattern_texels = sum(side * side for side in sides)
        images: list[Int32[Tensor, " _"]] = []
        starts: list[list[int]] = []
        end = NUM_PATTERNS * self._pattern_texels
        for group, count in ((surfaces, LEVELS), (atlases, ATLAS_LEVELS)):
            for image in group:
                levels = _levels(image[None], count)
                row = []
                for level in levels:
                    row.append(end)
                    end += level.shape[1]
                    images.append(level[0])
                row += [row[-1]] * (LEVELS - count)
                starts.append([*row, image.shape[2], image.shape[1], int(count == LEVELS)])
        self.first_sky, self._first_texel = NUM_PATTERNS + len(starts), end
        area = SKY_HW[0] * SKY_HW[1]
        sizes = [area >> (2 * level) for level in range(LEVELS)]
        self._sky_texels = sum(sizes)
        below = np.cumsum([end, *sizes[:-1]])
        for number in range(SKIES):
            starts.append([*(below + number * self._sky_texels).tolist(), SKY_HW[1], SKY_HW[0], 1])
        end += SKIES * self._sky_texels
        first = np.cumsum([0, *[side * side for side in sides[:-1]]])

        def squares(begin: int, count: int) -> list[list[int]]:
            return [
                [*(first + begin + k * self._pattern_texels).tolist(), PATTERN_SIZE, PATTERN_SIZE, 1]
                for k in range(count)
            ]

        self.first_print, self._print_texel = NUM_PATTERNS + len(starts), end
        table = squares(0, NUM_PATTERNS) + starts + squares(end, PRINTS)
        end += PRINTS * self._pattern_texels
        self.table = torch.tensor(np.array(table), dtype=torch.int32).to(device)
        self.texels = torch.zeros(end, dtype=torch.int32, device=device)
        if images:
            self.texels[NUM_PATTERNS * self._pattern_texels : self._first_texel] = torch.cat(images).to(device)
        self._made = torch.zeros(NUM_PATTERNS + SKIES + PRINTS, dtype=torch.bool)
        if device.type != "cpu":
            for start in range(0, NUM_PATTERNS, 32 * len(FAMILIES)):
                self._make(torch.arange(start, min(NUM_PATTERNS, start + 32 * len(FAMILIES))))
            self._make_skies(torch.arange(SKIES))
            self._make_prints(torch.arange(PRINTS))

    def ensure(self, textures: Int64[Tensor, " n"]) -> None:
        """Make what is generated among these texture numbers; a no-op on a GPU, where all exists already."""
        if self.device.type == "cpu":
            numbers = torch.unique(textures)
            patterns, late = numbers[numbers < NUM_PATTERNS], numbers[numbers >= self.first_sky] - self.first_sky
            late = late[~self._made[NUM_PATTERNS + late]]
            self._make(patterns[~self._made[patterns]])
            self._make_skies(late[late < SKIES])
            self._make_prints(late[late >= SKIES] - SKIES)

    def _make_skies(self, numbers: Int64[Tensor, " n"]) -> None:
        if len(numbers):
            chosen = numbers.to(self.device)
            skies = make_skies(sky_keys(self.seed, chosen), chosen >= SKIES - OVERCAST)
            texels = self.texels[self._first_texel : self._print_texel].view(SKIES, self._sky_texels)
            texels[chosen] = torch.cat(_levels(skies, LEVELS), 1)
            self._made[NUM_PATTERNS + numbers] = True

    def _make_prints(self, numbers: Int64[Tensor, " n"]) -> None:
        texels = self.texels[self._print_texel :].view(PRINTS, self._pattern_texels)
        for sort in range(PRINTS // EACH):
            chosen = numbers[numbers // EACH == sort].to(self.device)
            if len(chosen):
                texels[chosen] = torch.cat(_levels(make_prints(sort, print_keys(self.seed, chosen)), LEVELS), 1)
        self._made[NUM_PATTERNS + SKIES + numbers] = True

    def _make(self, numbers: Int64[Tensor, " n"]) -> None:
        texels = self.texels[: NUM_PATTERNS * self._pattern_texels].view(NUM_PATTERNS, -1)
        for family in range(len(FAMILIES)):
            chosen = numbers[numbers % len(FAMILIES) == family]
            if len(chosen):
                chosen = chosen.to(self.device)
                patterns = make_patterns(family, pattern_keys(self.seed, chosen))
                texels[chosen] = torch.cat(_levels(patterns, LEVELS), 1)
        self._made[numbers] = True


def read_surfaces(folder: Path) -> list[UInt8[Tensor, "3 _ _"]]:
    """The images of a folder as uint8 [3, H, W], in the order of their names."""
    import cv2  # not on every machine that trains

    surfaces = []
    for path in sorted(folder.glob("*.jpg")):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is not None:
            surfaces.append(torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1).contiguous())
    return surfaces
