"""Random numbers that depend on nothing but (seed, scene, stream, slot).

A counter-based integer hash in int64 tensor arithmetic gives the same bits on every device, whichever other
scenes share the batch, so scene i is a pure function of (seed, i).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

_MASK = 0xFFFFFFFF


def hash32(x: Int64[Tensor, "*b"]) -> Int64[Tensor, "*b"]:
    """A 32-bit integer finaliser (xor-shift-multiply) on the low half of int64 values; result in [0, 2^32)."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def scene_keys(seed: int, indices: Int64[Tensor, " s"]) -> Int64[Tensor, " s"]:
    """A 32-bit key of every scene: int64 [s] from the seed and int64 scene indices [s]."""
    key = hash32(torch.full_like(indices, (seed & _MASK) ^ 0x5BF03635))
    key = hash32(key + ((seed >> 32) & _MASK) * 0x9E3779B1)
    return hash32(hash32(key + indices) ^ ((indices >> 32) & _MASK) * 0x85EBCA77)


def uniform_table(keys: Int64[Tensor, "*keys"], salt: int, columns: int) -> Float[Tensor, "*keys columns"]:
    """Uniform numbers in [0, 1) of int64 keys, float32 [*keys, columns]; one kernel on a GPU."""
    if keys.device.type == "cuda":
        from data_tools.procedural.rng_triton import uniform_table_triton

        return uniform_table_triton(keys, salt, columns)
    own = hash32(keys + salt)[..., None]
    slots = torch.arange(columns, device=keys.device, dtype=torch.int64) * 0x9E3779B1
    bits = hash32(hash32(own + slots) + own)
    # 24 bits fit a float32 exactly: the numbers are the same on every device.
    return (bits >> 8).to(torch.float32) * 2.0**-24


@lru_cache(maxsize=512)
def constant(values: tuple | float, device: torch.device, dtype: torch.dtype = torch.float32) -> Shaped[Tensor, "..."]:
    """A tensor of (nested) tuples of numbers, made once: each copy to a GPU would wait for it. Do not change it."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


class CounterRNG:
    """A row of uniform numbers for each scene, handed out in the order in which the code asks for them.

    One table is hashed at once: on a GPU a scene asks for thousands of numbers in hundreds of places, and
    hashing at each of them would be all launch overhead. For the same reason there are methods that return several
    quantities at once.
    """

    def __init__(self, keys: Int64[Tensor, "*keys"], stream: str, columns: int) -> None:
        self._table = uniform_table(keys, zlib.crc32(stream.encode()), columns)
        self._next = 0
        self.batch = keys.shape
        self.device = keys.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "..."]:
        """Uniform in [low, high), [*keys, *shape]."""
        count = math.prod(shape)
        values = self._table[..., self._next : self._next + count]
        if values.shape[-1] < count:
            raise RuntimeError(f"random table of {self._table.shape[-1]} columns is too short")
        self._next += count
        values = values.reshape(*self.batch, *shape)
        if low == 0.0:
            return values if high == 1.0 else values * high
        return values * (high - low) + low

    def ranges(self, *bounds: tuple[float, float], shape: tuple[int, ...] = ()) -> tuple[Float[Tensor, "*b"], ...]:
        """Uniform in each (low, high), [*keys, *shape] each."""
        ones = (1,) * len(shape)
        low = constant(tuple(b[0] for b in bounds), self.device).view(-1, *ones)
        span = constant(tuple(b[1] - b[0] for b in bounds), self.device).view(-1, *ones)
        return (self.uniform(len(bounds), *shape) * span + low).unbind(len(self.batch))

    def log_ranges(self, *bounds: tuple[float, float], shape: tuple[int, ...] = ()) -> tuple[Float[Tensor, "*b"], ...]:
        """Uniform in the logarithm between each low and high (> 0), [*keys, *shape] each."""
        logs = self.ranges(*((math.log(low), math.log(high)) for low, high in bounds), shape=shape)
        return tuple(torch.exp(torch.stack(logs)).unbind(0))

    def log_uniform(self, *shape: int, low: float, high: float) -> Float[Tensor, "..."]:
        """Uniform in the logarithm between low and high (both > 0)."""
        return torch.exp(self.uniform(*shape, low=math.log(low), high=math.log(high)))

    def normal(self, *shape: int, std: float = 1.0) -> Float[Tensor, "..."]:
        """About normal: the centred sum of three uniforms, so bounded by 3 std."""
        total = self.uniform(3, *shape).sum(len(self.batch)) - 1.5
        return total * (2.0 * std)

    def bernoulli(self, probability: float | Float[Tensor, "..."], *shape: int) -> Bool[Tensor, "..."]:
        """True with the given probability."""
        return self.uniform(*shape) < probability

    def choice(self, weights: Sequence[float], *shape: int) -> Int64[Tensor, "..."]:
        """An index of ``weights``, drawn with those relative weights; int64."""
        total = float(sum(weights))
        edges = tuple(sum(weights[: k + 1]) / total for k in range(len(weights) - 1))
        value = self.uniform(*shape)
        if not edges:
            return torch.zeros_like(value, dtype=torch.int64)
        return (value[..., None] >= constant(edges, self.device)).sum(-1)

    def randint(self, high: int, *shape: int) -> Int64[Tensor, "..."]:
        """Uniform integer in [0, high); int64."""
        return (self.uniform(*shape) * high).to(torch.int64)
