"""Scenes of a benchmark, loaded ahead by threads while the network renders.

ahead = Prefetcher(benchmark, settings, entries, device)
for entry, take in ahead:
    loaded = take()          # waits for it; raises what loading raised
    ahead.fill(ahead.depth)  # the next ones meanwhile
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.evaluation.baselines import nearest_views
from nvs_app.evaluation.protocols.base import Benchmark, Entry, Settings, view_name
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.views import ViewSplit

ON_DEVICE_BYTES = 4 * 2**30  # a scene up to this size is moved to the GPU whole, before its turn


@dataclass
class Case:
    """One scene at one number of context views. Rows are rows of `Loaded.images`, on its device."""

    split: ViewSplit
    context_rows: Tensor
    target_rows: Tensor
    nearest_rows: Tensor
    """For each target, the row of the nearest context view."""
    context_cameras: Cameras
    target_cameras: Cameras


@dataclass
class Loaded:
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

    def depths(self, rows: Tensor, device: torch.device) -> Tensor | None:
        """The depth of some of the images, on the device; None where it is not known."""
        return None if self.depth is None else self.depth[rows].to(device, non_blocking=True)

    def pixels(self, rows: Tensor, device: torch.device) -> Tensor:
        """Some of the images, on the device."""
        return self.images[rows].to(device, non_blocking=True)


def load(benchmark: Benchmark, settings: Settings, entry: Entry, device: torch.device) -> Loaded:
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
    return Loaded(entry.name, str(views.root), images, cases, failed, files, image_hw, remarks, took, depth)


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


class Prefetcher:
    """Iterates over entries in their order; some are loaded in the background at any time.

    On a GPU each thread works on a stream of its own, so that copies and generated scenes do not wait for the network.
    """

    def __init__(self, benchmark: Benchmark, settings: Settings, entries: list[Entry], device: torch.device) -> None:
        self.benchmark, self.settings, self.device = benchmark, settings, device
        self.rest = iter(entries)
        self.waiting: deque[tuple[Entry, Future]] = deque()
        self.threads = self.depth = 1  # on a CPU the network needs the cores itself
        if device.type == "cuda":
            self.device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
            self.threads, self.depth = benchmark.loaders, max(benchmark.ahead, benchmark.loaders)
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="scenes", initializer=self._set_up)

    def _set_up(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            torch.cuda.set_stream(torch.cuda.Stream(self.device))  # of this thread alone

    def _load(self, entry: Entry) -> tuple[Loaded, torch.cuda.Event | None]:
        with torch.no_grad():
            loaded = load(self.benchmark, self.settings, entry, self.device)
        return loaded, None if self.device.type != "cuda" else torch.cuda.current_stream().record_event()

    def fill(self, depth: int) -> None:
        """Begins to load scenes until `depth` are on their way."""
        while len(self.waiting) < depth and (entry := next(self.rest, None)) is not None:
            self.waiting.append((entry, self.pool.submit(self._load, entry)))

    def __iter__(self) -> Iterator[tuple[Entry, Callable[[], Loaded]]]:
        try:
            self.fill(1)  # alone, so that memory and the first times are the network's; `fill` by the caller ends it
            while self.waiting:
                entry, future = self.waiting.popleft()
                yield entry, functools.partial(self._take, future)
                self.fill(self.depth)
        finally:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, future: Future) -> Loaded:
        loaded, event = future.result()
        if event is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(event)
            tensors = [loaded.images] if loaded.depth is None else [loaded.images, loaded.depth]
            for case in loaded.cases.values():
                tensors += [case.context_rows, case.target_rows, case.nearest_rows]
            for tensor in tensors:
                if tensor.is_cuda:
                    tensor.record_stream(current)  # its memory is not reused before this stream has read it
        return loaded
