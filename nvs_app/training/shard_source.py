"""Training scenes from shards: a window that slides over an endless, shuffled list of shards.

    pool = ShardPool(find_shards("data/shard-{000000..000127}.tar"), options, device)
    posed = pool.draw(step=17, scenes=32, count=ViewCount(8, 8, 1), stream=16)

What the window holds at a step is a function of (seed, step, rank), as everywhere in `training.sources`: a resumed run
reads the same shards again and goes on exactly. Shards are read whole and in order, so disks and servers see
sequential reads; the window is the shuffle buffer. The next shard is fetched and decoded in a thread.
"""

from __future__ import annotations

import math
import random
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from data_tools.shards.read import ShardSet, read_shard
from data_tools.shards.tar_stream import shown
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.posed import PosedImages
from nvs_app.training.sampling import PoolOptions, draw_views, step_generator
from nvs_app.training.schedule import ViewCount


def shard_order(total: int, seed: int, epoch: int) -> list[int]:
    """The shards of an epoch, shuffled by (seed, epoch): the same in every process."""
    order = list(range(total))
    random.Random(f"shards {seed} {epoch}").shuffle(order)
    return order


def warn(text: str) -> None:
    """One line about a sample that is left out."""
    print(f"left out: {text}", file=sys.stderr, flush=True)


@dataclass
class LoadedShard:
    """The scenes of one shard as uint8 [v, 3, h, w] with their cameras. cut: not all views of every scene."""

    images: list[Tensor]
    cameras: list[Cameras]
    cut: bool = False


class ShardPool:
    """Some shards' scenes, decoded at one resolution, in memory.

    At step t the pool holds `window` consecutive shards of this rank's endless list from number int(t * pace) on.
    The list goes through all shards once an epoch, shuffled; rank r of n takes places r, r + n, … of it (where there
    are fewer shards than ranks, all of them, and scenes r, r + n, … of each). Where all of a rank's shards fit, they
    are kept and only read again for other views of scenes with more than `views`.

    Of a scene with more views than are kept, a random choice is, another each time that the shard is read. A malformed
    sample is left out with a line on stderr. Raises NVSError for a malformed or unreachable shard.
    """

    def __init__(self, shards: ShardSet, options: PoolOptions, device: torch.device) -> None:
        self.shards, self.options, self.device = shards, options, device
        total, world = len(shards.urls), options.world
        self.by_scene = total < world  # too few shards: everyone reads all, and takes every so-many-th scene
        mean = shards.scenes or sum(1 for _ in read_shard(shards.urls[0], warn)) or 1.0
        self.pace = options.fresh / mean
        wanted = max(1, math.ceil(options.size / mean))
        self.own = list(range(total)) if self.by_scene else list(range(total))[options.rank :: world]
        self.all_fit = wanted >= (total if self.by_scene else -(-total // world))  # the same for every rank
        self.window = len(self.own) if self.all_fit else wanted
        self.held: dict[int, LoadedShard] = {}
        self.told: set[str] = set()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self.ahead: dict[int, Future[LoadedShard]] = {}

    def place(self, number: int) -> int:
        """Which shard is number `number` of this rank's endless list."""
        if self.all_fit:  # in turn, so that any window holds each once
            return self.own[number % len(self.own)]
        total = len(self.shards.urls)
        epoch, slot = divmod(number if self.by_scene else number * self.options.world + self.options.rank, total)
        return shard_order(total, self.options.seed, epoch)[slot]

    def advance(self, step: int) -> None:
        """Make the pool hold what belongs to `step`."""
        first = int(step * self.pace)
        numbers = range(first, first + self.window)
        if self.held and numbers[0] in self.held and numbers[-1] in self.held:
            return
        before, self.held = self.held, {}
        for number in numbers:
            kept = before.get(number)
            # A shard that was kept whole is the same each time that it is read.
            again = before.get(number - self.window) if self.all_fit else None
            if kept is None and again is not None and not again.cut:
                kept = again
            self.held[number] = kept or self._take(number)
        if not any(loaded.images for loaded in self.held.values()):
            raise NVSError(
                f"--data.sources {shown(self.shards.urls[0])}: no scene of two views or more for process "
                f"{self.options.rank} of {self.options.world} in {self.window} shard(s)"
            )
        self.ahead = {number: future for number, future in self.ahead.items() if number > numbers[-1]}
        for number in range(numbers[-1] + 1, numbers[-1] + 1 + max(1, math.ceil(self.pace))):
            again = self.held.get(number - self.window) if self.all_fit else None
            if number not in self.ahead and (again is None or again.cut):
                self.ahead[number] = self.thread.submit(self._load, number)

    def _take(self, number: int) -> LoadedShard:
        future = self.ahead.pop(number, None)
        return self._load(number) if future is None else future.result()

    def _load(self, number: int) -> LoadedShard:
        """Read, choose and decode; a function of `number`."""
        loaded = LoadedShard([], [])
        url, options = self.shards.urls[self.place(number)], self.options
        generator = step_generator(options.seed, number, 9 + 64 * options.rank, "cpu")
        for index, scene in enumerate(read_shard(url, self._warn_once)):
            if self.by_scene and index % options.world != options.rank:
                continue
            kept: list[int] | None = None
            if len(scene) > options.views:
                kept = sorted(torch.randperm(len(scene), generator=generator)[: options.views].tolist())
            try:
                if len(scene) < 2:
                    raise NVSError(f"{shown(url)}: {scene.name}: one view, two or more are needed")
                posed = scene.load(kept, options.image_hw)
            except NVSError as error:
                self._warn_once(str(error))
                continue
            loaded.cut |= kept is not None
            loaded.images.append(posed.images.mul_(255).round_().to(torch.uint8))
            loaded.cameras.append(posed.cameras)
        return loaded

    def _warn_once(self, text: str) -> None:
        if text not in self.told:
            self.told.add(text)
            warn(text)

    def draw(self, step: int, scenes: int, count: ViewCount, stream: int) -> PosedImages:
        """Some scenes of the step, none twice while there are enough, as uint8 [b, k, 3, h, w], context first."""
        self.advance(step)
        if self.all_fit:  # by shard, so that a process that came later holds them in the same order
            loads = [self.held[number] for number in sorted(self.held, key=lambda n: n % self.window)]
        else:
            loads = [self.held[number] for number in sorted(self.held)]
        images = [views for loaded in loads for views in loaded.images]
        cameras = [each for loaded in loads for each in loaded.cameras]
        generator = step_generator(self.options.seed, step, stream, "cpu")
        which = torch.randperm(len(images), generator=generator).repeat(-(-scenes // len(images)))[:scenes].tolist()
        return draw_views(images, cameras, which, count, self.options.even_view_prob, generator, self.device)
