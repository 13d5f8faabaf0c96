"""How far a job is, in words for the page: stage, share of the whole, time left; and what is found on the way.

progress = Progress({"features": 8.0, "encode": 3.0})       # seconds by stage, as they were estimated
progress.message(step)     # {"type": "work", "stage": "Finding features", "share": 0.4, "left": "about 5 s left"}
Preview(path).fresh()      # cameras and points that structure from motion has found since the last call
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from nvs_app.web.services.jobs import JobProgress
from nvs_app.web.services.machine import seconds_words
from nvs_app.web.work_messages import SparseMessage, WorkMessage

STAGES = {
    "unpack": "Unpacking",
    "frames": "Choosing frames",
    "photos": "Preparing photos",
    "features": "Finding features",
    "matches": "Matching photos",
    "cameras": "Placing cameras",
    "scene": "Writing the scene",
    "read": "Reading photos",
    "encode": "Reconstructing",
    "sharpen": "Sharpening",
    "add": "Adding photos",
}
LEAST_SECONDS = 0.3  # of a stage that was thought to take none
PACE = (0.25, 4.0)  # how much faster or slower than estimated it may be taken to be
SURE = 0.08  # share of the estimate after which the time that was taken says more than the estimate


class Progress:
    """A job's way through its stages. seconds: by stage, estimated; those of STAGES that are missing are not shown.
    cancelled: what is said when it was stopped."""

    def __init__(self, seconds: Mapping[str, float], cancelled: str = "The next start goes on from here."):
        self.cancelled = cancelled
        self.seconds = {name: max(seconds[name], LEAST_SECONDS) for name in STAGES if name in seconds}
        self._furthest = 0.0
        self._began: float | None = None

    def share(self, stage: str, fraction: float) -> float:
        """The share of the whole that is done, 0 to 1; it never goes back."""
        names = list(STAGES)
        before = [name for name in self.seconds if stage in names and names.index(name) < names.index(stage)]
        done = sum(self.seconds[name] for name in before) + fraction * self.seconds.get(stage, 0.0)
        self._furthest = max(self._furthest, min(1.0, done / max(sum(self.seconds.values()), 1e-9)))
        return self._furthest

    def left(self, share: float, elapsed: float) -> float:
        """Seconds left after `elapsed` of them: by the estimate, and more and more by how fast it really went."""
        total = sum(self.seconds.values())
        if share <= 0.0:
            return total
        pace = min(max(elapsed / (share * total), PACE[0]), PACE[1])
        trust = min(1.0, share / SURE)
        return (1.0 - share) * total * (1.0 + trust * (pace - 1.0))

    def message(self, step: JobProgress) -> WorkMessage:
        """What the page shows of a step."""
        if step.position:
            others = "1 other is" if step.position == 1 else f"{step.position} others are"
            return WorkMessage("Waiting", f"{others} before you")
        if self._began is None:  # the time in the row does not count
            self._began = step.seconds
        share = self.share(step.stage, step.fraction)
        left = self.left(share, step.seconds - self._began)
        words = f"about {seconds_words(left)} left" if left >= 1 else "a moment left"
        stage = STAGES.get(step.stage, "Starting")
        return WorkMessage(stage, step.words, round(share, 4), words)


class Preview:
    """The file in which structure from motion tells what it has found; path: None where there is none."""

    def __init__(self, path: Path | None):
        self.path = path
        self._seen = 0

    def fresh(self) -> SparseMessage | None:
        """What is new since the last call; None otherwise."""
        try:
            changed = self.path.stat().st_mtime_ns if self.path is not None else 0
            if self.path is None or changed == self._seen:
                return None
            self._seen = changed
            found = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return SparseMessage(found["cameras"], found["points"])
