"""Random numbers that depend on nothing but (seed, scene, stream, slot).

A counter-based integer hash in int64 tensor arithmetic gives the same bits on every device, whichever other
scenes share the batch, so scene i is a pure function of (seed, i).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def mix(x: Tensor) -> Tensor:
    """A 32-bit integer finaliser (xor-shift-multiply) on the low half of int64 values; result in [0, 2^32)."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def scene_keys(seed: int, indices: Tensor) -> Tensor:
    """A 32-bit key of every scene: int64 [s] from the seed and int64 scene indices [s]."""
    key = mix(torch.full_like(indices, (seed & _MASK) ^ 0x5BF03635))
    key = mix(key + ((seed >> 32) & _MASK) * 0x9E3779B1)
    return mix(mix(key + indices) ^ ((indices >> 32) & _MASK) * 0x85EBCA77)


class Draws:
    """A row of uniform numbers for each scene, handed out in the order in which the code asks for them.

    One table is hashed at once: on a GPU a scene asks for thousands of numbers in hundreds of places, and
    hashing at each of them would be all launch overhead.
    """

    def __init__(self, keys: Tensor, stream: str, columns: int) -> None:
        salt = mix(keys + zlib.crc32(stream.encode()))
        slots = torch.arange(columns, device=keys.device, dtype=torch.int64) * 0x9E3779B1
        bits = mix(mix(salt[..., None] + slots) + salt[..., None])
        # 24 bits fit a float32 exactly: the numbers are the same on every device.
        self._table = (bits >> 8).to(torch.float32) * 2.0**-24
        self._next = 0
        self.batch = keys.shape
        self.device = keys.device

    def uniform(self, *shape: int, low: float | Tensor = 0.0, high: float | Tensor = 1.0) -> Tensor:
        """Uniform in [low, high), [*keys, *shape]."""
        count = math.prod(shape)
        values = self._table[..., self._next : self._next + count]
        if values.shape[-1] < count:
            raise RuntimeError(f"random table of {self._table.shape[-1]} columns is too short")
        self._next += count
        values = values.reshape(*self.batch, *shape)
        return values * (high - low) + low

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """Uniform in the logarithm between low and high (both > 0)."""
        return torch.exp(self.uniform(*shape, low=math.log(low), high=math.log(high)))

    def normal(self, *shape: int, std: float | Tensor = 1.0) -> Tensor:
        """About normal: the centred sum of three uniforms, so bounded by 3 std."""
        return (self.uniform(3, *shape).sum(len(self.batch)) - 1.5) * 2.0 * std

    def chance(self, probability: float | Tensor, *shape: int) -> Tensor:
        """True with the given probability."""
        return self.uniform(*shape) < probability

    def pick(self, weights: Sequence[float], *shape: int) -> Tensor:
        """An index of ``weights``, drawn with those relative weights; int64."""
        value = self.uniform(*shape)
        total, edge, index = float(sum(weights)), 0.0, torch.zeros_like(value, dtype=torch.int64)
        for weight in weights[:-1]:
            edge += weight / total
            index = index + (value >= edge)
        return index

    def integer(self, high: int | Tensor, *shape: int) -> Tensor:
        """Uniform integer in [0, high); int64."""
        return (self.uniform(*shape) * high).to(torch.int64)
