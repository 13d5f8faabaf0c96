"""Learning rates, curriculum, clock and options of a training run."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest
from train_fakes import tiny_config

from nvs_app.cli import train as cli_train
from nvs_app.errors import NVSError
from nvs_app.training import schedule
from nvs_app.training.config import TrainConfig, field_help, parse_model
from nvs_app.training.schedule import (
    TrainingClock,
    draw_view_count,
    learning_rate_factor,
    parse_resolutions,
    parse_views,
)


def test_learning_rate() -> None:
    def factor(progress: float, step: int = 1000, kind: str = "wsd") -> float:
        return learning_rate_factor(progress, step, 10, kind, decay_share=0.4, floor=0.0)

    assert factor(0.0, step=0) == pytest.approx(0.1)
    assert factor(0.0, step=4) == pytest.approx(0.5)
    assert factor(0.3) == factor(0.6) == 1.0
    assert factor(0.8) == pytest.approx(0.5)
    assert factor(1.0) == pytest.approx(0.0, abs=1e-9)
    assert factor(0.5, kind="cosine") == pytest.approx(0.5)
    assert factor(0.9, kind="constant") == 1.0
    assert learning_rate_factor(1.0, 1000, 10, floor=0.02) == pytest.approx(0.02)
    with pytest.raises(NVSError, match="--schedule"):
        factor(0.0, kind="linear")


def test_resolutions() -> None:
    stages = parse_resolutions("128:0,256x320:0.8")
    assert schedule.resolution_at(stages, 0.0, 7) == schedule.resolution_at(stages, 0.79, 8) == (128, 128)
    assert schedule.resolution_at(stages, 0.8, 7) == schedule.resolution_at(stages, 1.0, 8) == (256, 320)
    both = parse_resolutions("64:0,64:0.5,128:0.5")
    assert schedule.resolutions_at(both, 0.4) == [(64, 64)]
    assert schedule.resolutions_at(both, 0.9) == [(64, 64), (128, 128)]
    assert [schedule.resolution_at(both, 0.5, step) for step in (4, 5)] == [(64, 64), (128, 128)]
    for bad in ("128:0.5", "128:0,256:1.5", "wide:0", "128:0.5,64:0", ""):
        with pytest.raises(NVSError, match="--resolutions"):
            parse_resolutions(bad)


def test_view_counts_are_drawn_by_weight() -> None:
    counts = parse_views("4:12:3,8:8")
    assert draw_view_count(counts, 0.0).context == draw_view_count(counts, 0.74).context == 4
    assert draw_view_count(counts, 0.76).context == draw_view_count(counts, 0.999999).context == 8
    for bad in ("4", "0:4", "4:4:0", "a:b"):
        with pytest.raises(NVSError, match="--views"):
            parse_views(bad)


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


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"steps": 0}, "--minutes"),
        ({"steps": -1}, "no length"),
        ({"muon_lr": 0.0}, "--muon-lr"),
        ({"even_view_prob": 1.5}, "--even-view-prob"),
        ({"views": "8:8"}, "--pool-views"),
        ({"resolutions": "20:0"}, "multiples of the patch"),
        ({"export": "float16"}, "--export"),
        ({"resume": "maybe"}, "--resume"),
        ({"data": "procedural=0"}, "--data"),
        ({"scenes": "16=x"}, "--scenes"),
        ({"model": "dim=12,width=3"}, "--model"),
        ({"model": "large"}, "--model"),
        ({"model": "{oops"}, "--model"),
        ({"name": "a/b"}, "--name"),
        ({"grad_skip_factor": 0.5}, "--grad-skip-factor"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, changes: dict, option: str) -> None:
    with pytest.raises(NVSError, match=option) as caught:
        tiny_config(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_model_option() -> None:
    small = parse_model("small")
    assert parse_model("dim=192,blocks=4").fast_head_dim == 192
    assert parse_model("small,blocks=12").blocks == 12
    assert parse_model("small,blocks=12").dim == small.dim
    assert parse_model('{"dim": 64, "blocks": 1}').dim == 64
    assert parse_model("rotary=").rotary == ""
    assert parse_model("value_patch_skip=true").value_patch_skip and not small.value_patch_skip
    with pytest.raises(NVSError, match="value_patch_skip='yes' is not of type bool"):
        parse_model("value_patch_skip=yes")


def test_scenes_of_a_step_follow_tokens(tmp_path: Path) -> None:
    config = TrainConfig(tmp_path, steps=1, resolutions="128:0,256:0.5", model="small")
    assert config.usual_scenes((128, 128)) == 32
    assert config.usual_scenes((256, 256)) == 8
    config = TrainConfig(tmp_path, steps=1, scenes="128=5")
    assert config.usual_scenes((128, 128)) == 5


def test_command_line_is_the_dataclass(tmp_path: Path) -> None:
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(field_help(TrainConfig)) == names
    parser = argparse.ArgumentParser()
    cli_train.add_parser(parser.add_subparsers(dest="command"))
    config = tiny_config(tmp_path / "run", minutes=1.5, checkpointing=True)
    args = parser.parse_args(cli_train.to_arguments(config))
    assert TrainConfig(**{name: getattr(args, name) for name in names}) == config
    assert "--muon-lr" in parser._subparsers._group_actions[0].choices["train"].format_help()  # type: ignore
