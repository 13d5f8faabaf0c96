"""Learning rates, curriculum, clock of a training run."""

from __future__ import annotations

import pytest

from nvs_app.errors import NVSError
from nvs_app.training import schedule
from nvs_app.training.schedule import (
    Stage,
    TrainingClock,
    ViewCount,
    draw_view_count,
    learning_rate_factor,
)


def test_learning_rate() -> None:
    def factor(progress: float, step: int = 1000, kind: str = "wsd") -> float:
        return learning_rate_factor(progress, step, 10, kind, decay_share=0.4)

    assert factor(0.0, step=0) == pytest.approx(0.1)
    assert factor(0.0, step=4) == pytest.approx(0.5)
    assert factor(0.3) == factor(0.6) == 1.0
    assert factor(0.8) == pytest.approx(0.51)
    assert factor(1.0) == pytest.approx(0.02)
    assert factor(0.5, kind="cosine") == pytest.approx(0.51)
    assert factor(0.9, kind="constant") == 1.0
    with pytest.raises(NVSError, match="--schedule.kind"):
        factor(0.0, kind="linear")


def test_resolutions() -> None:
    stages = [Stage((128, 128), 0.0), Stage((256, 320), 0.8)]
    assert schedule.resolution_at(stages, 0.0, 7) == schedule.resolution_at(stages, 0.79, 8) == (128, 128)
    assert schedule.resolution_at(stages, 0.8, 7) == schedule.resolution_at(stages, 1.0, 8) == (256, 320)
    both = [Stage((64, 64), 0.0), Stage((64, 64), 0.5), Stage((128, 128), 0.5)]
    assert schedule.resolutions_at(both, 0.4) == [(64, 64)]
    assert schedule.resolutions_at(both, 0.9) == [(64, 64), (128, 128)]
    assert [schedule.resolution_at(both, 0.5, step) for step in (4, 5)] == [(64, 64), (128, 128)]


def test_view_counts_are_drawn_by_weight() -> None:
    counts = [ViewCount(4, 12, 3.0), ViewCount(8, 8, 1.0)]
    assert draw_view_count(counts, 0.0).context == draw_view_count(counts, 0.74).context == 4
    assert draw_view_count(counts, 0.76).context == draw_view_count(counts, 0.999999).context == 8


def test_average_decay_warms_up() -> None:
    assert schedule.ema_decay(0, 0.999) == pytest.approx(0.1)
    assert schedule.ema_decay(10**6, 0.999) == 0.999


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, float], TrainingClock]:
    """A clock whose time is set by the test: 10 minutes, process 60 s old."""
    now = {"age": 60.0}
    clock = TrainingClock(10.0, 0.0, reserve=20.0)
    monkeypatch.setattr(clock, "age", lambda: now["age"])
    return now, clock


def test_clock_follows_the_wall(clock: tuple[dict[str, float], TrainingClock]) -> None:
    now, c = clock
    assert c.progress() == 0.0  # nothing trained yet, however long the imports took
    c.first_step_done()
    now["age"] = 60 + (600 - 20 - 60) / 2
    assert c.progress() == pytest.approx(0.5)
    assert not c.over()
    now["age"] = 579.0
    assert not c.over()
    assert c.over(step_seconds=2.0)  # another step would end too late
    now["age"] = 580.0
    assert c.over()
    assert c.progress() == pytest.approx(1.0)
    c.saving = 20.0
    assert c.reserve(600.0) >= 40.0  # a slow save is given time


def test_clock_goes_on_after_a_resume() -> None:
    first = TrainingClock(10.0, 0.0, reserve=20.0)
    now = 50.0
    first.age = lambda: now  # type: ignore[method-assign]
    first.first_step_done()
    now = 300.0
    second = TrainingClock(10.0, 0.0, first.wall(), first.trained(), reserve=20.0)
    later = 0.0
    second.age = lambda: later  # type: ignore[method-assign]
    later = 40.0
    second.first_step_done()
    assert second.progress() == pytest.approx(250 / (250 + 300 - 20 - 40))
    later = 280.0
    assert second.over()
    assert second.progress() == pytest.approx(1.0)


def test_process_minutes_ends_the_process_not_the_schedule() -> None:
    c = TrainingClock(20.0, 5.0, reserve=20.0)
    now = 30.0
    c.age = lambda: now  # type: ignore[method-assign]
    c.first_step_done()
    now = 285.0
    assert c.over()
    assert c.progress() == pytest.approx(255 / (1200 - 20 - 30))
    assert c.left() == pytest.approx(15.0)
