"""Where training scenes come from: procedural ones made on the fly, scene folders, shards, or a mix.

    source = TrainSource(plan, seed=0, rank=0, world=1, device=device)
    examples = source.examples(step=17, image_hw=(128, 128), count=ViewCount(8, 8, 1), scenes=32)

What a step sees is a function of (seed, step, rank): a resumed run makes the same pool again and goes on exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from data_tools.shards.read import find_shards, is_shards
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.prefetch import Prefetcher
from nvs_app.training.sampling import (
    Augmentation,
    Examples,
    PoolOptions,
    draw_views,
    make_examples,
    sample_views,
    step_generator,
)
from nvs_app.training.schedule import ViewCount
from nvs_app.training.shard_source import ShardPool

ON_DEVICE_BYTES = 8 * 2**30  # scene folders up to this size are kept on the device, larger ones in memory


@runtime_checkable
class Pool(Protocol):
    """A source of one resolution: some scenes of a step, as uint8 images [b, k, 3, h, w], context first."""

    def draw(self, step: int, scenes: int, count: ViewCount, stream: int) -> PosedImages: ...


class ProceduralPool:
    """A window that slides over the endless list of procedural scenes, kept on the device as uint8.

    At step t the pool holds `size` consecutive scenes, starting at t * fresh rounded down to whole batches of
    `generate` scenes; scene i lies in slot i % size. So a scene is drawn about `reuse` times in its life, with other
    views each time, and what the pool holds is a function of the step alone.

    make: (indices, num_views, image_hw) -> PosedImages of uint8, e.g. a ProceduralSource's batch.
    Rank r of n uses scenes r, r + n, ….
    prefetcher: makes the next batch in the background; what the pool holds stays the same.
    """

    def __init__(
        self,
        make: Callable[[list[int], int, tuple[int, int]], PosedImages],
        options: PoolOptions,
        generate: int,
        prefetcher: Prefetcher | None = None,
    ) -> None:
        self.make, self.options, self.generate, self.prefetcher = make, options, generate, prefetcher
        self.ahead: tuple[int, Callable[[], PosedImages]] | None = None  # the batch on its way
        self.size = max(1, math.ceil(options.size / generate)) * generate
        self.first: int | None = None
        self.images = self.c2w = self.fxfycxcy = torch.empty(0)
        self.depth: Tensor | None = None

    def advance(self, step: int) -> None:
        """Make the pool hold what belongs to `step`."""
        first = int(step * self.options.fresh) // self.generate * self.generate
        if self.first is None or not self.first <= first < self.first + self.size:
            missing = range(first, first + self.size, self.generate)
        else:
            missing = range(self.first + self.size, first + self.size, self.generate)
        for start in missing:
            self._fill(start)
        self.first = first
        upcoming = first + self.size
        if self.prefetcher is not None and (self.ahead is None or self.ahead[0] != upcoming):
            self.ahead = (upcoming, self.prefetcher.start(lambda: self._made(upcoming)))

    def _made(self, start: int) -> PosedImages:
        indices = [i * self.options.world + self.options.rank for i in range(start, start + self.generate)]
        return self.make(indices, self.options.views, self.options.image_hw)

    def _fill(self, start: int) -> None:
        ahead, self.ahead = self.ahead, None
        posed = None if ahead is None else ahead[1]()  # waited for in any case: the generator serves one at a time
        if posed is None or ahead is None or ahead[0] != start:
            posed = self._made(start)
        if not self.images.numel():
            device = posed.images.device
            self.images = torch.empty((self.size, *posed.images.shape[1:]), dtype=torch.uint8, device=device)
            self.c2w = torch.empty(self.size, *posed.cameras.c2w.shape[1:], device=device)
            self.fxfycxcy = torch.empty(self.size, *posed.cameras.fxfycxcy.shape[1:], device=device)
            if posed.depth is not None:  # float16: half a thousandth, and half of the memory
                self.depth = torch.empty(self.size, *posed.depth.shape[1:], dtype=torch.float16, device=device)
        slots = slice(start % self.size, start % self.size + self.generate)
        self.images[slots] = posed.images
        self.c2w[slots] = posed.cameras.c2w
        self.fxfycxcy[slots] = posed.cameras.fxfycxcy
        if self.depth is not None and posed.depth is not None:
            self.depth[slots] = posed.depth

    def draw(self, step: int, scenes: int, count: ViewCount, stream: int) -> PosedImages:
        self.advance(step)
        generator = step_generator(self.options.seed, step, stream, self.images.device)
        # Without replacement while the pool is large enough; no number travels to the host.
        chosen = torch.rand(self.size, generator=generator, device=self.images.device).argsort()
        chosen = chosen.repeat(-(-scenes // self.size))[:scenes]
        c2w = self.c2w[chosen]
        views = sample_views(c2w, count.context, count.target, self.options.even_view_prob, generator)
        rows = chosen[:, None]
        cameras = Cameras(self.c2w[rows, views], self.fxfycxcy[rows, views], self.options.image_hw)
        return PosedImages(self.images[rows, views], cameras, None if self.depth is None else self.depth[rows, views])


class FolderPool:
    """Scenes from disk, loaded once at a resolution as uint8. Needs two views or more a scene."""

    def __init__(self, scenes: list, options: PoolOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        image_hw = options.image_hw
        total = sum(len(scene) for scene in scenes) * 3 * image_hw[0] * image_hw[1]
        self.store = device if total <= ON_DEVICE_BYTES else torch.device("cpu")
        self.images: list[Tensor] = []
        self.cameras: list[Cameras] = []
        for scene in scenes:
            posed = scene.load(None, image_hw)
            self.images.append(posed.images.mul(255).round().to(torch.uint8).to(self.store))
            self.cameras.append(posed.cameras.to("cpu"))

    def draw(self, step: int, scenes: int, count: ViewCount, stream: int) -> PosedImages:
        # Views are chosen on the host: scenes differ in length, and their images may be there too.
        generator = step_generator(self.options.seed, step, stream, "cpu")
        which = torch.randint(len(self.images), (scenes,), generator=generator).tolist()
        return draw_views(self.images, self.cameras, which, count, self.options.even_view_prob, generator, self.device)


@dataclass(frozen=True)
class SourcePlan:
    """What to train on. shares: "procedural", a folder or shards -> weight; the rest as in TrainConfig."""

    shares: dict[str, float]
    kinds: dict[str, float] | None = None
    assets: Path | None = None
    pool: int = 1024
    pool_views: int = 24
    generate: int = 16
    reuse: float = 8.0
    even_view_prob: float = 0.5
    prefetch: bool = False
    depth: bool = False
    augmentation: Augmentation = field(default_factory=Augmentation)


def open_scenes(path: Path, option: str) -> list:
    """The scenes at a path: a scene, a file of many scenes, or a folder of either. Raises NVSError."""
    from data_tools.readers import open_scenes as read_scenes

    try:
        return list(read_scenes(path))
    except NVSError as error:
        scenes: list = []
        for folder in sorted(path.iterdir()) if path.is_dir() else []:
            try:
                scenes.extend(read_scenes(folder))
            except NVSError:
                continue
        if not scenes:
            raise NVSError(f"{option} {path}: neither a scene nor a folder of scenes ({error})") from error
        return scenes


class TrainSource:
    """The examples of a step, from one pool for each share of the plan and each resolution."""

    def __init__(self, plan: SourcePlan, seed: int, rank: int, world: int, device: torch.device) -> None:
        self.plan, self.seed, self.rank, self.world, self.device = plan, seed, rank, world, device
        self.shards = {name: find_shards(name) for name in plan.shares if is_shards(name)}
        self.scenes = {
            name: open_scenes(Path(name), "--data.sources")
            for name in plan.shares
            if name != "procedural" and name not in self.shards
        }
        self.procedural = make_procedural(plan, device, seed) if "procedural" in plan.shares else None
        self.pools: dict[tuple[str, tuple[int, int], float], Pool] = {}

    def _pool(self, name: str, image_hw: tuple[int, int], scenes: int, sizes: Sequence[tuple[int, int]]) -> Pool:
        # Sizes that alternate: a pool is drawn from in one of `turns` steps. A size may be named more than once.
        turns = len(sizes) / sizes.count(image_hw) if image_hw in sizes else 1.0
        gone = [k for k in self.pools if k[1] not in (image_hw, *sizes) or (k[1] == image_hw and k[2] != turns)]
        for other in gone:
            del self.pools[other]  # the curriculum only goes forward
        key = (name, image_hw, turns)
        if key not in self.pools:
            plan = self.plan
            # No more memory than at 128x128, but never less than two steps' scenes.
            size = max(2 * scenes, min(plan.pool, round(plan.pool * 128 * 128 / (image_hw[0] * image_hw[1]))))
            share = plan.shares[name] / sum(plan.shares.values())
            fresh = scenes * share / plan.reuse / turns
            options = PoolOptions(
                image_hw, size, plan.pool_views, fresh, plan.even_view_prob, self.seed, self.rank, self.world
            )
            if name == "procedural":
                assert self.procedural is not None
                prefetcher = Prefetcher(self.device) if plan.prefetch else None
                self.pools[key] = ProceduralPool(self.procedural, options, plan.generate, prefetcher)
            elif name in self.shards:
                self.pools[key] = ShardPool(self.shards[name], options, self.device)
            else:
                self.pools[key] = FolderPool(self.scenes[name], options, self.device)
        return self.pools[key]

    def prepare(self, step: int, image_hw: tuple[int, int], usual: int, sizes: Sequence[tuple[int, int]] = ()) -> None:
        """Load or make what a step needs, so that the step itself is a usual one."""
        for name in self.plan.shares:
            pool = self._pool(name, image_hw, usual, sizes)
            if isinstance(pool, (ProceduralPool, ShardPool)):
                pool.advance(step)

    def counts(self, step: int, scenes: int) -> dict[str, int]:
        """How many of a step's scenes come from each share: rounded down, the rest drawn by the fractions."""
        total = sum(self.plan.shares.values())
        exact = {name: scenes * weight / total for name, weight in self.plan.shares.items()}
        counts = {name: int(number) for name, number in exact.items()}
        left = scenes - sum(counts.values())
        if left:
            fractions = torch.tensor([exact[name] - counts[name] for name in exact]) + 1e-9
            generator = step_generator(self.seed, step, 7, "cpu")
            for index in torch.multinomial(fractions, left, replacement=True, generator=generator).tolist():
                counts[list(exact)[index]] += 1
        return {name: number for name, number in counts.items() if number}

    def examples(
        self, step: int, image_hw: tuple[int, int], count: ViewCount, scenes: int, usual: int,
        sizes: Sequence[tuple[int, int]] = (),
    ) -> Examples:  # fmt: skip
        """The step's examples on the device.

        scenes: how many scenes; usual: how many in an average step at this resolution (it sets how fast the
        procedural pool moves, so it must not depend on the step); sizes: what steps alternate between, none for
        `image_hw` alone.
        """
        drawn = []
        numbers = self.counts(step, scenes)
        for index, name in enumerate(self.plan.shares):
            pool = self._pool(name, image_hw, usual, sizes)
            if not numbers.get(name):
                continue
            drawn.append(pool.draw(step, numbers[name], count, stream=16 + 64 * self.rank + index))
        generator = step_generator(self.seed, step, 8 + 64 * self.rank, self.device)
        return make_examples(_joined(drawn), count.context, self.plan.augmentation, generator)


def _joined(parts: list[PosedImages]) -> PosedImages:
    """One batch; depth is NaN, not known, for the scenes of a source that has none."""
    if len(parts) == 1:
        return parts[0]
    depth = None
    if any(part.depth is not None for part in parts):
        unknown = [part.images[:, :, 0].half() * torch.nan if part.depth is None else part.depth for part in parts]
        depth = torch.cat(unknown)
    return PosedImages(torch.cat([p.images for p in parts]), Cameras.cat([p.cameras for p in parts], dim=0), depth)


def make_procedural(
    plan: SourcePlan, device: torch.device, seed: int
) -> Callable[[list[int], int, tuple[int, int]], PosedImages]:
    """The generator of procedural scenes as (indices, num_views, image_hw) -> PosedImages of uint8."""
    from data_tools.procedural import ProceduralSource

    source = ProceduralSource(device, seed=seed, assets=plan.assets, mix=plan.kinds)

    def make(indices: list[int], num_views: int, image_hw: tuple[int, int]) -> PosedImages:
        with torch.no_grad():
            return source.batch(indices, num_views, image_hw, depth=plan.depth)

    return make
