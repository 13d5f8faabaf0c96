"""Scenes of a benchmark, loaded ahead by threads while the network renders.

upcoming = UpcomingScenes(benchmark, settings, entries, device)
for entry, take in upcoming:
    scene = take()                 # waits for it; raises what loading raised
    upcoming.fill(upcoming.depth)  # the next ones meanwhile
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.evaluation.baselines import nearest_views
from nvs_app.evaluation.protocols.base import Benchmark, Entry, Settings, view_name
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.prefetch import Prefetcher
from nvs_app.scenes.views import ViewSplit

ON_DEVICE_BYTES = 4 * 2**30  # a scene up to this size is moved to the GPU whole, before its turn


@dataclass
class Case:
    """One scene at one number of context views. Rows are rows of `BenchmarkScene.images`, on its device."""

    split: ViewSplit
    context_rows: Tensor
    target_rows: Tensor
    nearest_rows: Tensor
    """For each target, the row of the nearest context view."""
    context_cameras: Cameras
    target_cameras: Cameras

    def rows(self) -> list[Tensor]:
        """The three tensors of rows."""
        return [self.context_rows, self.target_rows, self.nearest_rows]


@dataclass
class BenchmarkScene:
    """The images of a scene that any of its cases needs: float32 [n, 3, H, W] in [0, 1]; cameras on the CPU."""

    name: str
    root: str
    images: Tensor
    cases: dict[int, Case]
    failed: dict[int, str]
    """Numbers of context views that this scene cannot serve, and why."""
    files: dict[int, str]
    image_hw: tuple[int, int]
    remarks: list[str]
    load_s: float
    depth: Tensor | None = None
    """Where it is known, float32 [n, H, W], see `PosedImages`; on the device of `images`."""

    def tensors(self) -> list[Tensor]:
        """All tensors that may be on a GPU."""
        rows = [rows for case in self.cases.values() for rows in case.rows()]
        return [self.images, *([] if self.depth is None else [self.depth]), *rows]

    def depths(self, rows: Tensor, device: torch.device) -> Tensor:
        """The depth of some of the images, where it is known, on the device."""
        assert self.depth is not None
        return self.depth[rows].to(device, non_blocking=True)

    def pixels(self, rows: Tensor, device: torch.device) -> Tensor:
        """Some of the images, on the device."""
        return self.images[rows].to(device, non_blocking=True)


def load_scene(benchmark: Benchmark, settings: Settings, entry: Entry, device: torch.device) -> BenchmarkScene:
    """Opens a scene, chooses its views and loads every image that is needed, once. Raises NVSError."""
    started = time.perf_counter()
    views = entry.open()
    splits: dict[int, ViewSplit] = {}
    failed: dict[int, str] = {}
    for count in settings.contexts:
        try:
            splits[count] = benchmark.split(views, count, settings)
        except NVSError as error:
            failed[count] = str(error)
    if not splits:
        raise NVSError(next(iter(failed.values())))
    needed = sorted({index for split in splits.values() for index in (*split.context, *split.target)})
    row = {index: number for number, index in enumerate(needed)}
    image_hw = benchmark.size(views, settings)
    posed = views.load(needed, image_hw)
    cameras = posed.cameras.to("cpu")
    cases = {count: _case(split, row, cameras) for count, split in splits.items()}
    images = _ready(posed, device)
    for case in cases.values():
        for name in ("context_rows", "target_rows", "nearest_rows"):
            setattr(case, name, getattr(case, name).to(images.device))
    files = {index: view_name(views, index) for index in needed}
    remarks = [*getattr(getattr(views, "scene", views), "notes", ()), *benchmark.remarks(views, settings)]
    took = time.perf_counter() - started
    depth = None if posed.depth is None else posed.depth.float().to(images.device)
    return BenchmarkScene(entry.name, str(views.root), images, cases, failed, files, image_hw, remarks, took, depth)


def _case(split: ViewSplit, row: dict[int, int], cameras: Cameras) -> Case:
    context = torch.tensor([row[index] for index in split.context])
    target = torch.tensor([row[index] for index in split.target])
    nearest = context[nearest_views(cameras.c2w[context], cameras.c2w[target])]
    return Case(split, context, target, nearest, cameras[context], cameras[target])


def _ready(posed: PosedImages, device: torch.device) -> Tensor:
    """Float images where the network will want them."""
    if device.type != "cuda" or posed.images.device.type == "cuda":
        return posed.float().images
    # From pinned memory the copy runs beside the network's work.
    images = posed.images.pin_memory()
    whole = 4 * images.numel() <= ON_DEVICE_BYTES
    images = images.to(device, non_blocking=True) if whole else images
    return images.float() / 255.0 if images.dtype == torch.uint8 else images


class UpcomingScenes:
    """Iterates over entries in their order, with a function that waits for the scene; some are loaded meanwhile."""

    def __init__(self, benchmark: Benchmark, settings: Settings, entries: list[Entry], device: torch.device) -> None:
        self.benchmark, self.settings, self.device = benchmark, settings, device
        self.rest = iter(entries)
        self.waiting: deque[tuple[Entry, Callable[[], BenchmarkScene]]] = deque()
        on_gpu = device.type == "cuda"  # on a CPU the network needs the cores itself
        self.depth = max(benchmark.ahead, benchmark.loaders) if on_gpu else 1
        self.prefetcher = Prefetcher(device, benchmark.loaders if on_gpu else 1)

    def _load(self, entry: Entry) -> BenchmarkScene:
        with torch.no_grad():
            return load_scene(self.benchmark, self.settings, entry, self.prefetcher.device)

    def fill(self, depth: int) -> None:
        """Begins to load scenes until `depth` are on their way."""
        while len(self.waiting) < depth and (entry := next(self.rest, None)) is not None:
            self.waiting.append((entry, self.prefetcher.start(functools.partial(self._load, entry))))

    def __iter__(self) -> Iterator[tuple[Entry, Callable[[], BenchmarkScene]]]:
        try:
            self.fill(1)  # alone, so that memory and the first times are the network's; `fill` by the caller ends it
            while self.waiting:
                yield self.waiting.popleft()
                self.fill(self.depth)
        finally:
            self.prefetcher.close()
