"""What a training run does when: learning rate, resolution, numbers of views, the clock.

Everything is a function of the step and of `progress`, a number that goes from 0 (first step) to 1 (end), so
that a resumed run continues as if it had never stopped. Progress is the larger of step / steps and trained
seconds / available seconds; `TrainingClock` turns `--minutes` into the latter.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

from nvs_app.errors import NVSError

_IMPORTED = time.monotonic()
LEAST_FACTOR = 0.02  # of the learning rate, at the end of a run


def learning_rate_factor(
    progress: float, step: int, warmup_steps: int, kind: str = "wsd", decay_share: float = 0.4
) -> float:
    """Multiplier of the base learning rates, in (0, 1].

    The warm-up is linear in steps: in wall-clock time it would be over before the first compiled step. "wsd"
    stays at 1 and falls linearly to `LEAST_FACTOR` over the last `decay_share` of the run; "cosine" falls all along;
    "constant" does not fall.
    """
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    progress = min(1.0, max(0.0, progress))
    if kind == "wsd":
        left = 1.0 if progress <= 1 - decay_share else (1 - progress) / decay_share
    elif kind == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * progress))
    elif kind == "constant":
        return warm
    else:
        raise NVSError(f"--schedule.kind: {kind!r} is unknown, expected wsd, cosine or constant")
    return warm * (LEAST_FACTOR + (1 - LEAST_FACTOR) * left)


def ema_decay(step: int, decay: float) -> float:
    """Decay of the weight average at a step: it warms up, so that the first weights are soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


@dataclass(frozen=True)
class Stage:
    """A resolution (height, width) and the progress at which it starts."""

    image_hw: tuple[int, int]
    begins: float


def resolutions_at(stages: list[Stage], progress: float) -> list[tuple[int, int]]:
    """The sizes (height, width) trained at this progress, in turn."""
    latest = max(stage.begins for stage in stages if stage.begins <= progress)
    return [stage.image_hw for stage in stages if stage.begins == latest]


def resolution_at(stages: list[Stage], progress: float, step: int) -> tuple[int, int]:
    """The (height, width) of a step."""
    sizes = resolutions_at(stages, progress)
    return sizes[step % len(sizes)]


@dataclass(frozen=True)
class ViewCount:
    """Numbers of context and target views of a step, and how often they are drawn (relative weight)."""

    context: int
    target: int
    weight: float

    @property
    def total(self) -> int:
        return self.context + self.target


def draw_view_count(counts: list[ViewCount], uniform: float) -> ViewCount:
    """The entry that a uniform number in [0, 1) falls on. Every rank draws the same, so that no rank waits."""
    left = uniform * sum(count.weight for count in counts)
    for count in counts:
        left -= count.weight
        if left < 0:
            return count
    return counts[-1]


def process_age() -> float:
    """Seconds since this process started, imports included (Linux; elsewhere since this module's import).

    Under torchrun the parent counts: its own start takes seconds too.
    """
    since_import = time.monotonic() - _IMPORTED
    process = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else "self"
    try:
        with open(f"/proc/{process}/stat") as file:
            started = int(file.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
        with open("/proc/uptime") as file:
            age = float(file.read().split()[0]) - started
    except (OSError, ValueError, IndexError):
        return since_import
    # Some sandboxes report 0 as every start; ten minutes of imports are not believable either.
    return age if started > 0 and since_import <= age + 1 and age < since_import + 600 else since_import


class TrainingClock:
    """Wall-clock budget of a run that may be spread over several processes.

    minutes: the whole run, every process from its start (imports and compilation) to its exit; 0 = no limit.
    process_minutes: this process alone; 0 = no limit.
    wall_before, trained_before: seconds that earlier processes took, and trained (after compilation).
    """

    def __init__(
        self,
        minutes: float,
        process_minutes: float,
        wall_before: float = 0.0,
        trained_before: float = 0.0,
        reserve: float = 15.0,
    ) -> None:
        self.offset = process_age() - time.monotonic()
        self.minutes, self.process_minutes = minutes, process_minutes
        self.wall_before, self.trained_before = wall_before, trained_before
        self.reserve_asked = reserve
        self.ready: float | None = None  # age at which the first (compiling) step of this process had ended
        self.saving = self.evaluating = 0.0  # longest measured seconds

    def age(self) -> float:
        """Seconds since this process started."""
        return time.monotonic() + self.offset

    def wall(self) -> float:
        """Seconds of all processes of the run."""
        return self.wall_before + self.age()

    def trained(self) -> float:
        """Seconds of training of all processes, without imports and the first step."""
        return self.trained_before + (0.0 if self.ready is None else self.age() - self.ready)

    def first_step_done(self) -> None:
        self.ready = self.age()

    def reserve(self, limit: float) -> float:
        """Seconds kept for the last evaluation and save, out of `limit` seconds."""
        measured = 2.0 * self.saving + 1.5 * self.evaluating + 3.0
        wanted = max(measured, self.reserve_asked / 2) if self.saving else self.reserve_asked
        return min(wanted, 0.4 * limit)

    def progress(self) -> float:
        """Trained share of the time that there is for training, in [0, 1]; 0 without `minutes`."""
        if not self.minutes or self.ready is None:
            return 0.0
        limit = 60 * self.minutes
        available = self.trained_before + limit - self.reserve(limit) - self.wall_before - self.ready
        return min(1.0, self.trained() / available) if available > 0 else 1.0

    def over(self, step_seconds: float = 0.0) -> bool:
        """True when another step of `step_seconds` would leave too little time to evaluate and save."""
        if self.minutes:
            limit = 60 * self.minutes
            if self.wall() + step_seconds + self.reserve(limit) >= limit:
                return True
        limit = 60 * self.process_minutes
        return bool(limit) and self.age() + step_seconds + self.reserve(limit) >= limit

    def left(self) -> float:
        """Seconds until this process must have ended (infinite without limits)."""
        limits = [
            60 * self.minutes - self.wall() if self.minutes else math.inf,
            60 * self.process_minutes - self.age() if self.process_minutes else math.inf,
        ]
        return min(limits)
