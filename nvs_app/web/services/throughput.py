"""How fast this machine encodes and finds cameras: guessed, then probed, then corrected by what really happened."""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol, runtime_checkable

import torch

from data_tools.structure_from_motion.pairs import ALIKE, EXHAUSTIVE, choose_pairs
from data_tools.structure_from_motion.worker import ENLARGE_BELOW
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages
from nvs_app.web.services.cost import encoding_flops
from nvs_app.web.services.uploads import Source

# Structure from motion on one core, from runs over 8 to 50 photos: seconds a megapixel of feature search, a pair of
# photos compared, a squared number of photos mapped; of reading and resizing, a megapixel.
FEATURES, PAIR, MAPPING, READ = 0.30, 0.085, 0.014, 0.06


@runtime_checkable
class Planned(Protocol):
    """What is asked of an `Estimate`: operations of its encoding, and seconds by stage."""

    @property
    def flops(self) -> float: ...

    @property
    def seconds(self) -> dict[str, float]: ...


class ThroughputEstimator:
    """Rates of this machine for one renderer. Safe to use from several threads."""

    def __init__(self, renderer: Renderer):
        self._lock = threading.Lock()
        self._renderer = renderer
        # A guess until it is measured: GFLOP a second of a core, or of a GPU.
        cores = torch.get_num_threads()
        self._flops = 200e12 if renderer.device.type == "cuda" else 40e9 * cores
        self._sfm = 1.0
        self.measured = False

    @property
    def flops(self) -> float:
        """Floating-point operations a second that an encoding reaches."""
        return self._flops

    @property
    def sfm(self) -> float:
        """How much longer structure from motion takes here than the model says."""
        return self._sfm

    def probe(self) -> float:
        """Times a small encoding (under a second on two cores) and returns `flops`; the second call costs nothing.

        It computes on the renderer's device: call it where nothing else does.
        """
        if self.measured:
            return self._flops
        # A GPU needs more tokens to be busy.
        views, side = (8, 256) if self._renderer.device.type == "cuda" else (2, 128)
        posed = small_capture(views, side)
        self._renderer.encode(small_capture(1, 64))  # the first call sets things up
        start = time.perf_counter()
        self._renderer.encode(posed).fast_weights[-1].w0.cpu()  # the copy waits for the GPU
        seconds = time.perf_counter() - start
        flops = encoding_flops(self._renderer, views, (side, side)) / max(seconds, 1e-6)
        with self._lock:
            if not self.measured:
                self._flops, self.measured = flops, True
        return self._flops

    def encoded(self, plan: Planned, seconds: float | int) -> None:
        """An encoding that was estimated took this long."""
        if seconds <= 0 or plan.flops < 1e9:  # too short to tell
            return
        rate = plan.flops / float(seconds)
        with self._lock:
            self._flops = rate if not self.measured else (self._flops * rate) ** 0.5
            self.measured = True

    def reconstructed(self, plan: Planned, seconds: dict[str, float]) -> None:
        """Structure from motion that was estimated took this long by stage (`PhotoReport.seconds`)."""
        stages = ("features", "matches", "cameras")
        expected = sum(plan.seconds.get(stage, 0.0) for stage in stages)
        real = sum(seconds.get(stage, 0.0) for stage in stages)
        if expected > 0 and real > 0:
            with self._lock:
                factor = min(max(real / expected, 0.1), 10.0)
                self._sfm = min(max(self._sfm * factor**0.5, 0.05), 20.0)


def view_seconds(source: Source, views: int, encode: float) -> dict[str, float]:
    """Seconds of reading `views` of a source, and of encoding."""
    share = views / source.available
    pixels = sum(height * width for height, width in source.image_hws) * share
    return {"read": READ * pixels / 1e6 / min(8, _cores()), "encode": encode}


def sfm_seconds(source: Source, factor: float) -> dict[str, float]:
    """Seconds of each stage of structure from motion, for a source without cameras; empty for others.

    factor: how much slower than the machine that was measured (`ThroughputEstimator.sfm`).
    """
    if source.scene is not None:
        return {}
    count, cores = source.available, min(16, _cores())
    limit = source.options.max_size or (1600 if count <= 80 else 1200 if count <= 200 else 1000)
    searched = megapixels = 0.0
    for height, width in source.image_hws:
        scale = min(1.0, limit / max(height, width))
        own = height * width * scale**2 / 1e6
        # Small images are searched at twice their size too.
        searched += own * (4.0 if max(height, width) * scale < ENLARGE_BELOW else 1.0)
        megapixels += height * width / 1e6
    ordered = source.frames_in_video is not None
    pairs = len(choose_pairs(count, ordered, None)[0])
    if count > EXHAUSTIVE:
        pairs += int(0.6 * count * (ALIKE // 2 if ordered else ALIKE))
    seconds = {
        "photos": READ * megapixels / cores,
        "features": factor * FEATURES * searched / cores,
        "matches": factor * PAIR * pairs / cores,
        "cameras": factor * MAPPING * count**2 / cores,
    }
    if source.frames_in_video is not None:
        frames = source.frames_in_video or 900
        decoded = frames * source.image_hws[0][0] * source.image_hws[0][1] / 1e6
        seconds = {"frames": 0.004 * decoded + 0.008 * min(frames, 3000), **seconds}
    return seconds


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def small_capture(views: int, side: int) -> PosedImages:
    """Grey images around a point, to time an encoding with."""
    angle = torch.arange(views) * (6.28 / views)
    eye = torch.stack((3 * angle.cos(), 3 * angle.sin(), torch.ones(views)), -1)
    c2w = look_at(eye, torch.zeros(views, 3), torch.tensor([0.0, 0.0, 1.0]).expand(views, 3))
    lens = torch.tensor([float(side), float(side), side / 2, side / 2]).expand(views, 4)
    return PosedImages(torch.full((views, 3, side, side), 0.5), Cameras(c2w, lens, (side, side)))
