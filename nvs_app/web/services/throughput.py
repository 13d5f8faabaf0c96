"""How fast this machine encodes and finds cameras: guessed, then corrected by what really happened."""

from __future__ import annotations

import threading

import torch

from data_tools.structure_from_motion.pairs import ALIKE, EXHAUSTIVE, choose_pairs
from data_tools.structure_from_motion.worker import ENLARGE_BELOW
from nvs_app.machine import cores
from nvs_app.rendering.renderer import Renderer
from nvs_app.web.services.uploads import SceneInput

# Structure from motion on one core, from runs over 8 to 50 photos: seconds a megapixel of feature search, a pair of
# photos compared, a squared number of photos mapped; of reading and resizing, a megapixel.
FEATURES, PAIR, MAPPING, READ = 0.30, 0.085, 0.014, 0.06


class ThroughputEstimator:
    """Rates of this machine for one renderer. Safe to use from several threads.

    Attributes:
        flops: floating-point operations a second that an encoding reaches.
        sfm: how much longer structure from motion takes here than the model says.
        measured: whether `flops` was measured, or is a guess.
    """

    def __init__(self, renderer: Renderer):
        self._lock = threading.Lock()
        # A guess until it is measured: GFLOP a second of a core, or of a GPU.
        cores = torch.get_num_threads()
        self.flops = 200e12 if renderer.device.type == "cuda" else 40e9 * cores
        self.sfm, self._sfm_known = 1.0, renderer.device.type == "cuda"  # a GPU's speed says nothing of the cores'
        self.measured = False

    def encoded(self, flops: float, seconds: float | int) -> None:
        """An encoding of so many operations took this long."""
        if seconds <= 0 or flops < 1e9:  # too short to tell
            return
        rate = flops / float(seconds)
        with self._lock:
            if not self._sfm_known:  # slow cores are slow at structure from motion too; fast products promise nothing
                self.sfm, self._sfm_known = min(max(self.flops / rate, 1.0), 4.0), True
            self.flops = rate if not self.measured else (self.flops * rate) ** 0.5
            self.measured = True

    def reconstructed(self, estimated: dict[str, float], seconds: dict[str, float]) -> None:
        """Structure from motion took this long by stage (`PhotoReport.seconds`), and was estimated to take so long."""
        stages = ("features", "matches", "cameras")
        expected, real = (sum(took.get(stage, 0.0) for stage in stages) for took in (estimated, seconds))
        if expected > 0 and real > 0:
            with self._lock:
                factor = min(max(real / expected, 0.1), 10.0)
                self.sfm, self._sfm_known = min(max(self.sfm * factor**0.5, 0.05), 20.0), True


def view_seconds(source: SceneInput, views: int, encode: float) -> dict[str, float]:
    """Seconds of reading `views` of a source, and of encoding."""
    share = views / source.available
    pixels = sum(height * width for height, width in source.image_hws) * share
    return {"read": READ * pixels / 1e6 / min(8, cores()), "encode": encode}


def sfm_seconds(source: SceneInput, factor: float) -> dict[str, float]:
    """Seconds of each stage of structure from motion, for a source without cameras; empty for others.

    factor: how much slower than the machine that was measured (`ThroughputEstimator.sfm`).
    """
    if source.scene is not None:
        return {}
    count, threads = source.available, min(16, cores())
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
        "photos": READ * megapixels / threads,
        "features": factor * FEATURES * searched / threads,
        "matches": factor * PAIR * pairs / threads,
        "cameras": factor * MAPPING * count**2 / threads,
    }
    if source.frames_in_video is not None:
        frames = source.frames_in_video or 900
        decoded = frames * source.image_hws[0][0] * source.image_hws[0][1] / 1e6
        seconds = {"frames": 0.004 * decoded + 0.008 * min(frames, 3000), **seconds}
    return seconds
