"""How fast a device encodes and renders, beside how fast it could: times, memory, and floors of the same run.

    ceilings = Ceilings.of(renderer.device, renderer.dtype)
    row = encoding(renderer, plain, tokens=32768, image_hw=(256, 256), repeats=5, ceilings=ceilings)
    row["median_ms"], row["plain_ms"], row["floor_ms"], row["peak_gib"], row["difference"]

Random photos and cameras on a circle: the time does not depend on what is in them. The floor of a task is the larger of
two times: its products at the rate at which this device multiplies large matrices, and its weights at the rate at which
it copies, both measured here and now. No implementation is much faster than the floor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nvs_app.distributed import World
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.model.flops import lact_flops
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages

Row = dict[str, Any]


def circle(views: int, image_hw: tuple[int, int], turn: float = 0.0) -> Cameras:
    """Cameras [views] on a circle around what they look at."""
    height, width = image_hw
    angle = torch.linspace(0, 2 * torch.pi, views + 1)[:views] + turn
    eye = torch.stack((2 * angle.cos(), 2 * angle.sin(), torch.full_like(angle, 0.7)), dim=-1)
    c2w = look_at(eye, torch.zeros(views, 3), torch.tensor([0.0, 0.0, 1.0]).expand(views, 3))
    fxfycxcy = torch.tensor([1.2 * height, 1.2 * height, width / 2, height / 2]).expand(views, 4)
    return Cameras(c2w, fxfycxcy, image_hw)


def random_photos(views: int, image_hw: tuple[int, int]) -> PosedImages:
    """Photos of noise, uint8 on the CPU, as they come from files."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (views, 3, *image_hw), dtype=torch.uint8, generator=generator)
    return PosedImages(pixels, circle(views, image_hw))


def finish(device: torch.device) -> None:
    """Waits until the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(what: Callable[[], object], device: torch.device, repeats: int) -> Row:
    """ "median_ms" and "best_ms" of some repeats after two that warm up, and "peak_gib" on a GPU."""
    for _ in range(2):  # memory pools and kernels; what is recorded as a graph is recorded the second time
        what()
    finish(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        what()
        finish(device)
        times.append(1e3 * (time.perf_counter() - start))
    row: Row = {"median_ms": statistics.median(times), "best_ms": min(times)}
    if device.type == "cuda":
        row["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return row


@dataclass(frozen=True)
class Ceilings:
    """What the device does at best: floating-point operations a second in large products of `dtype`, and bytes read and
    written a second by a large copy."""

    flops: float
    bytes: float

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype) -> Ceilings:
        """Measured on random data: on zeros a GPU multiplies faster than it ever will again."""
        side, size = (8192, 2**29) if device.type == "cuda" else (768, 2**24)
        a, b = torch.randn(2, side, side, device=device).to(dtype)
        product = timed(lambda: a @ b, device, 10)["median_ms"]
        source = torch.randn(size, device=device)
        there = torch.empty_like(source)
        copy = timed(lambda: there.copy_(source), device, 10)["median_ms"]
        return cls(2e3 * side**3 / product, 2e3 * 4 * size / copy)

    def floor_ms(self, flops: float, moved: float) -> float:
        """Milliseconds below which work of so many operations and bytes cannot come."""
        return 1e3 * max(flops / self.flops, moved / self.bytes)


def _weights_bytes(renderer: Renderer) -> float:
    config, size = renderer.model.config, torch.finfo(renderer.dtype).bits // 8
    fast = 3 * config.num_fast_heads * config.fast_head_dim * config.fast_hidden
    linear = (8 + 2 * config.mlp_multiplier) * config.dim**2
    return float(size * config.blocks * (fast + linear))


def encoding(
    renderer: Renderer,
    plain: Renderer | None,
    tokens: int,
    image_hw: tuple[int, int],
    repeats: int,
    ceilings: Ceilings,
    world: World | None = None,
    profile: int = 0,
) -> tuple[Row, SceneState]:
    """Encodes photos of `tokens` tokens in all, or a few more; `plain`: the reference, timed once if given; world: the
    processes that do it together, all with the same arguments; profile: how many kernels "kernels" names."""
    per_view = renderer.plan_encode(image_hw).tokens
    views = max(1, -(-tokens // per_view))
    photos = random_photos(views, image_hw)
    row = timed(lambda: renderer.encode(photos, world=world), renderer.device, repeats)
    state = renderer.encode(photos, world=world)
    flops = lact_flops(renderer.model.config, views * per_view, 0, per_view)
    share = 1 if world is None else min(world.size, views)
    row |= {"views": views, "tokens": views * per_view, "image_hw": list(image_hw)}
    row["floor_ms"] = ceilings.floor_ms(flops, _weights_bytes(renderer)) / share
    if profile:
        row["kernels"] = kernels(lambda: renderer.encode(photos, world=world), renderer.device, profile)
    if plain is not None:
        row["plain_ms"] = timed(lambda: plain.encode(photos), plain.device, 1)["median_ms"]
        row["difference"] = weights_difference(plain.encode(photos), state)
    return row, state


def rendering(
    renderer: Renderer,
    plain: Renderer | None,
    state: SceneState,
    image_hw: tuple[int, int],
    views: int,
    repeats: int,
    ceilings: Ceilings,
    profile: int = 0,
) -> Row:
    """Renders `views` views at once, which stay on the device; "difference": of the images, in [0, 1], at most."""
    cameras = circle(views, image_hw, 0.3)

    def seen(by: Renderer) -> Tensor:
        return torch.cat(list(by.stream(state, cameras, on_device=True)))

    row = timed(lambda: seen(renderer), renderer.device, repeats)
    plan = renderer.plan_render(image_hw, state)
    flops = lact_flops(renderer.model.config, 0, views * plan.tokens, plan.tokens)  # without the detail head
    row |= {"views": views, "tokens": views * plan.tokens, "image_hw": list(image_hw)}
    row["floor_ms"] = ceilings.floor_ms(flops, _weights_bytes(renderer))
    row["views_per_s"] = 1e3 * views / row["median_ms"]
    if profile:
        row["kernels"] = kernels(lambda: seen(renderer), renderer.device, profile)
    if plain is not None:
        row["plain_ms"] = timed(lambda: seen(plain), plain.device, max(1, repeats // 2))["median_ms"]
        row["difference"] = float((seen(renderer) - seen(plain)).abs().max())
    return row


def kernels(what: Callable[[], object], device: torch.device, count: int) -> list[tuple[str, int, float]]:
    """The `count` kernels (on a CPU, operations) that took longest when `what` ran once: name, calls, milliseconds."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    what()
    finish(device)
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        what()
        finish(device)
    rows = []
    for event in profiler.key_averages():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        rows.append((str(event.key), int(event.count), spent / 1e3))
    return sorted(rows, key=lambda row: -row[2])[:count]


def weights_difference(one: SceneState, other: SceneState) -> float:
    """The largest relative difference of two scenes' fast weights, |a - b| / |a| of a matrix."""
    pairs = [(a, b) for x, y in zip(one.fast_weights, other.fast_weights, strict=True) for a, b in zip(x, y)]
    return max(float((a - b).norm() / a.norm()) for a, b in pairs)
