"""What opening an input will take on this machine: views, tokens, time and memory, before the work starts.

    throughput = ThroughputEstimator(renderer)
    plan = estimate(source, renderer, throughput, views=16, image_hw=(256, 256))
    print(plan.sentence)                               # and plan.rows for a table
    throughput.encoded(plan.flops, seconds)            # what it really took makes the next one better

Tokens are exact. Memory and time are models fitted to measurements; the tests hold memory to a factor of two.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from statistics import median

import torch

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, crop_resize_cameras
from nvs_app.rendering.cost import SPARE, encoding_bytes, encoding_flops
from nvs_app.rendering.device import bytes_words, free_memory
from nvs_app.rendering.plan import RenderPlan
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit, choose_views, default_views
from nvs_app.web.services.machine import count_words, seconds_words
from nvs_app.web.services.throughput import ThroughputEstimator, sfm_seconds, view_seconds
from nvs_app.web.services.uploads import SceneInput, size_words

MAX_TOKENS = 2**20
MAX_SIDE = 2048


@dataclass(frozen=True)
class Estimate:
    """What opening a source will take.

    Attributes:
        source: what it is of.
        views: how many views the network reads.
        image_hw: size that they are brought to. plan: what of it is read, and LaCT's resolution.
        tokens_per_view, tokens: of one view, and of all.
        resized: how many of the source's images change their scale.
        cropped: how many lose a part. largest_cut: share of the image that is lost where most is, 0 to 1.
        flops: of the encoding.
        seconds: by stage: "frames", "photos", "features", "matches", "cameras" where cameras have to be found; "read";
            "encode".
        memory: bytes that the encoding takes on the renderer's device. free: what is free there.
        reading: bytes that reading the images takes in main memory.
        device: where it runs. measured: whether the speed of encoding was measured, or is a guess.
        problems: why it cannot be done like this, a sentence each.
    """

    source: SceneInput
    views: int
    image_hw: tuple[int, int]
    plan: RenderPlan
    tokens_per_view: int
    tokens: int
    resized: int
    cropped: int
    largest_cut: float
    flops: float
    seconds: dict[str, float]
    memory: int
    free: int
    reading: int
    device: str
    measured: bool
    problems: tuple[str, ...] = field(default_factory=tuple)

    @property
    def available(self) -> int:
        """How many views the source has at most."""
        return self.source.available

    @property
    def fits(self) -> bool:
        """Whether it can be done."""
        return not self.problems

    @property
    def total_seconds(self) -> float:
        """Of all stages."""
        return sum(self.seconds.values())

    @property
    def sentence(self) -> str:
        """All that matters in one or two sentences, or what is wrong."""
        if self.problems:
            return " ".join(self.problems)
        find = sum(self.seconds.values()) - self.seconds["read"] - self.seconds["encode"]
        words = f"{self.source.words}: " if self.source.scene is not None else f"{self.source.words}: finding their "
        words += "" if self.source.scene is not None else f"cameras takes about {seconds_words(find)}; then "
        words += f"{self.views} used at {self.size}, {count_words(self.tokens)} tokens, "
        words += f"about {seconds_words(self.seconds['read'] + self.seconds['encode'])} "
        words += f"and {bytes_words(self.memory)} of memory. {self.changes}"
        return words[0].upper() + words[1:]

    @property
    def size(self) -> str:
        """The size they are used at, and what becomes of it."""
        (height, width), (lact_height, lact_width) = self.plan.render_hw, self.plan.lact_hw
        lact = f" (LaCT at {lact_width}×{lact_height})" if self.plan.lact_hw != self.plan.render_hw else ""
        return f"{width}×{height}{lact}"

    @property
    def changes(self) -> str:
        """What happens to the images."""
        if not self.resized and not self.cropped:
            return "The images stay as they are."
        parts = [f"{_of(self.resized, self.available)} resized"] if self.resized else []
        if self.cropped:
            lost = f"up to {self.largest_cut:.0%} of an image is cut off"
            parts.append(f"{_of(self.cropped, self.available)} cropped ({lost})")
        text = " and ".join(parts)
        return f"{text[0].upper()}{text[1:]}."

    @property
    def rows(self) -> list[tuple[str, str]]:
        """For a table of two columns."""
        stages = {
            "frames": "Choosing frames of the video",
            "photos": "Preparing photos",
            "features": "Finding features",
            "matches": "Comparing photos",
            "cameras": "Placing cameras",
            "read": "Reading images",
            "encode": "Encoding",
        }
        rows = [
            ("Input", f"{self.source.words}, {size_words(self.source.image_hws)}"),
            ("Input views", f"{self.views} of {self.available}, evenly by camera position"),
            ("Size", self.size),
            ("Tokens", f"{self.tokens:,} ({self.tokens_per_view:,} a view; {MAX_TOKENS:,} at most)"),
            ("Images", self.changes),
            *((stages[stage], f"about {seconds_words(value)}") for stage, value in self.seconds.items()),
            ("Time in all", f"about {seconds_words(self.total_seconds)}{'' if self.measured else ' (a rough guess)'}"),
            ("Memory", f"{bytes_words(self.memory)} of {bytes_words(self.free)} free on {self.device}"),
        ]
        rows += [("Left out", f"{name}: {why}") for name, why in list(self.source.skipped.items())[:5]]
        rows += [("Note", note) for note in self.source.notes[:12]]
        return [*rows, *(("Problem", problem) for problem in self.problems)]


def estimate(
    source: SceneInput,
    renderer: Renderer,
    throughput: ThroughputEstimator | None = None,
    views: int | None = None,
    image_hw: tuple[int, int] | None = None,
) -> Estimate:
    """What opening a source will take.

    Args:
        source: from `inspect`.
        renderer: that will encode it.
        throughput: of this machine; a guess unless given.
        views: that the network reads; `default_views` unless given.
        image_hw: size that images are brought to; the size of the checkpoint's training unless given.

    Raises:
        NVSError: no view asked for, or a size beyond 1 to 2048 pixels. What does not fit is no error: see `problems`.
    """
    throughput = throughput or ThroughputEstimator(renderer)
    patch = renderer.patch
    image_hw = image_hw or renderer.train_image_hw
    views = default_views(source.available) if views is None else views
    if views < 1:
        raise NVSError(f"{views} views: expected one or more")
    if not all(patch <= side <= MAX_SIDE for side in image_hw):
        raise NVSError(f"size {image_hw[1]}×{image_hw[0]}: expected {patch} to {MAX_SIDE} pixels a side")
    views = min(views, source.available)
    plan = renderer.plan_encode(image_hw)
    tokens = views * plan.tokens
    cut_of = {hw: _cut(hw, image_hw, plan.render_hw) for hw in set(source.image_hws)}
    cuts = [cut_of[hw] for hw in source.image_hws]
    flops = encoding_flops(renderer, views, image_hw)
    memory, reading = encoding_bytes(renderer, views, image_hw), _reading_bytes(source, views, image_hw)
    free, free_main = free_memory(renderer.device), free_memory(torch.device("cpu"))
    on_cpu = renderer.device.type != "cuda"
    problems = []
    if tokens > MAX_TOKENS:
        problems.append(
            f"{views} views of {image_hw[1]}×{image_hw[0]} are {tokens:,} tokens, {MAX_TOKENS:,} at most: take "
            f"{max(1, MAX_TOKENS // plan.tokens)} views or fewer, or a smaller size."
        )
    elif memory > SPARE * free or reading + (memory if on_cpu else 0) > SPARE * free_main:
        needed, there = (memory, free) if memory > SPARE * free else (reading, free_main)
        words = f"It needs {bytes_words(needed)} of memory and {bytes_words(there)} are free"
        problems.append(f"{words}: take fewer views or a smaller size.")
    return Estimate(
        source=source,
        views=views,
        image_hw=image_hw,
        plan=plan,
        tokens_per_view=plan.tokens,
        tokens=tokens,
        resized=sum(scaled for scaled, _ in cuts),
        cropped=sum(cut > 0.005 for _, cut in cuts),
        largest_cut=max(cut for _, cut in cuts),
        flops=flops,
        seconds={**sfm_seconds(source, throughput.sfm), **view_seconds(source, views, flops / throughput.flops)},
        memory=max(memory, reading) if on_cpu else memory,
        free=free,
        reading=reading,
        device=str(renderer.device),
        measured=throughput.measured,
        problems=tuple(problems),
    )


def most_views(source: SceneInput, renderer: Renderer, image_hw: tuple[int, int]) -> int:
    """The largest number of views that fits in MAX_TOKENS and in memory, at least 1: where a slider may end."""
    low, high = 1, source.available
    while low < high:
        middle = (low + high + 1) // 2
        fits = estimate(source, renderer, None, middle, image_hw).fits
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def sizes_for(source: SceneInput, renderer: Renderer) -> list[tuple[str, tuple[int, int]]]:
    """Sizes to choose from, (label, (height, width)): squares as in training, and the whole image at as many
    tokens, where the images are no squares."""
    known = renderer.card.get("trained_image_hws")
    sides = sorted({hw[0] for hw in known if isinstance(hw, list) and len(hw) == 2} if isinstance(known, list) else ())
    sides = [side for side in sides if type(side) is int and 0 < side <= MAX_SIDE] or [renderer.train_image_hw[0]]
    aspect = median(width / height for height, width in source.image_hws)
    patch, found = renderer.patch, []
    for side in dict.fromkeys([*sides, min(MAX_SIDE, 2 * sides[-1])]):
        found.append((f"{side}×{side}, centre crop", (side, side)))
        height = max(patch, round(side / aspect**0.5 / patch) * patch)
        width = max(patch, round(side * aspect**0.5 / patch) * patch)
        if (height, width) != (side, side) and max(height, width) <= MAX_SIDE:
            found.append((f"{width}×{height}, whole image", (height, width)))
    return found


def context_split(scene: Scene, views: int, hold_out: bool = True) -> ViewSplit:
    """Which views the network reads: `views` of them, evenly by camera position; the others are targets.

    hold_out: keep one view at least as a target, where there are two. All are read otherwise, if asked for.
    """
    count = len(scene)
    if views < 1:
        raise NVSError(f"scene {scene.name}: {views} views, expected one or more")
    if count == 1 or (views >= count and not hold_out):
        return ViewSplit(list(range(count)), [])
    return choose_views(scene, min(views, count - 1))


def _cut(stored: tuple[int, int], image_hw: tuple[int, int], read_hw: tuple[int, int]) -> tuple[bool, float]:
    """Whether an image changes its scale, and the share of its area that is cut off."""
    blank = Cameras(torch.eye(4), torch.ones(4), stored)
    fx, fy = crop_resize_cameras(blank, image_hw).fxfycxcy[:2].tolist()
    kept = (read_hw[0] / fy) * (read_hw[1] / fx) / (stored[0] * stored[1])
    return abs(fx - 1) > 1e-6 or abs(fy - 1) > 1e-6, max(0.0, 1.0 - kept)


def _reading_bytes(source: SceneInput, views: int, image_hw: tuple[int, int]) -> int:
    """Main memory while images are read: each thread holds one at its full size, as bytes and as floats."""
    threads = min(8, os.cpu_count() or 1, views)
    largest = max(height * width for height, width in source.image_hws)
    return views * 12 * image_hw[0] * image_hw[1] + threads * 30 * largest


def _of(count: int, total: int) -> str:
    return "all images are" if count == total else f"{count} of {total} images are"
