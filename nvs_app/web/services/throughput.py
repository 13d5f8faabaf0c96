"""How fast this machine encodes and finds cameras: guessed, then corrected by what really happened."""

from __future__ import annotations

import os
import threading
from typing import Protocol, runtime_checkable

import torch

from data_tools.structure_from_motion.pairs import ALIKE, EXHAUSTIVE, choose_pairs
from data_tools.structure_from_motion.worker import ENLARGE_BELOW
from nvs_app.rendering.renderer import Renderer
from nvs_app.web.services.uploads import SceneInput

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
        # A guess until it is measured: GFLOP a second of a core, or of a GPU.
        cores = torch.get_num_threads()
        self._flops = 200e12 if renderer.device.type == "cuda" else 40e9 * cores
        self._sfm, self._sfm_known = 1.0, renderer.device.type == "cuda"  # a GPU's speed says nothing of the cores'
        self.measured = False

    @property
    def flops(self) -> float:
        """Floating-point operations a second that an encoding reaches."""
        return self._flops

    @property
    def sfm(self) -> float:
        """How much longer structure from motion takes here than the model says."""
        return self._sfm

    def encoded(self, plan: Planned, seconds: float | int) -> None:
        """An encoding that was estimated took this long."""
        if seconds <= 0 or plan.flops < 1e9:  # too short to tell
            return
        rate = plan.flops / float(seconds)
        with self._lock:
            if not self._sfm_known:  # slow cores are slow at structure from motion too; fast products promise nothing
                self._sfm, self._sfm_known = min(max(self._flops / rate, 1.0), 4.0), True
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
                self._sfm, self._sfm_known = min(max(self._sfm * factor**0.5, 0.05), 20.0), True


def view_seconds(source: SceneInput, views: int, encode: float) -> dict[str, float]:
    """Seconds of reading `views` of a source, and of encoding."""
    share = views / source.available
    pixels = sum(height * width for height, width in source.image_hws) * share
    return {"read": READ * pixels / 1e6 / min(8, _cores()), "encode": encode}


def sfm_seconds(source: SceneInput, factor: float) -> dict[str, float]:
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
