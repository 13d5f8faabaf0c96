"""Options of a training run: on the command line, in files, of earlier versions."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from train_fakes import make_scene, records, tiny_config

from nvs_app.cli.train import read_command_line, to_words
from nvs_app.errors import NVSError
from nvs_app.model.checkpoint import load_checkpoint
from nvs_app.model.config import PRESETS
from nvs_app.training import trainer as train
from nvs_app.training.config import TrainConfig
from nvs_app.training.config_file import dotted, make_config, option_types, plain, read_options, write_options
from nvs_app.training.old_options import NEW_NAMES, from_old, read_shares

OLD_RUN = Path(__file__).parent / "old_run"  # state.pt and the checkpoint's config.json of a run before version 0.3


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"steps": 0}, "--minutes"),
        ({"steps": -1}, "no length"),
        ({"optimizer": {"muon_lr": 0.0}}, "--optimizer.muon-lr"),
        ({"optimizer": {"grad_skip_factor": 0.5}}, "--optimizer.grad-skip-factor"),
        ({"views": {"even_view_prob": 1.5}}, "--views.even-view-prob"),
        ({"views": {"counts": [(8, 8, 1)]}}, "--data.pool-views"),
        ({"views": {"counts": [(0, 8, 1)]}}, "--views.counts"),
        ({"views": {"resolutions": [(20, 20, 0)]}}, "multiples of the patch"),
        ({"views": {"resolutions": [(128, 128, 0.5), (64, 64, 0)]}}, "--views.resolutions"),
        ({"views": {"resolutions": [(128, 128, 0.5)]}}, "--views.resolutions"),
        ({"views": {"scenes": {"16": 0}}}, "--views.scenes"),
        ({"views": {"scenes": {"16": "x"}}}, "views.scenes 16"),
        ({"output": {"export": "float16"}}, "output.export"),
        ({"resume": "maybe"}, "resume: 'maybe', expected auto, always, never"),
        ({"data": {"sources": {"procedural": 0}}}, "--data.sources"),
        ({"model": {"config_override": {"dim": 12, "width": 3}}}, "unknown 'width'"),
        ({"model": {"config_override": {"value_patch_skip": "yes"}}}, "value_patch_skip='yes' is not of type bool"),
        ({"model": {"preset": "large"}}, "--model.preset"),
        ({"name": "a/b"}, "--name"),
        ({"optimizer": {"muon_lrr": 0.1}}, "did you mean optimizer.muon_lr"),
        ({"out": 3}, "out: 3 is not of type Path"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, changes: dict, option: str) -> None:
    with pytest.raises(NVSError, match=option) as caught:
        tiny_config(**({"out": tmp_path} | changes))
    assert "\n" not in str(caught.value)


def test_network_of_preset_and_override(tmp_path: Path) -> None:
    def network(**model: Any):
        return make_config({"out": tmp_path, "steps": 1, "model": model}).model_config

    assert network() == PRESETS["small"]
    assert network(config_override={"dim": 192, "blocks": 4}).fast_head_dim == 192
    assert network(preset="tiny", config_override={"blocks": 12}).dim == PRESETS["tiny"].dim
    assert network(config_override={"value_patch_skip": True, "rotary": ""}).rotary == ""


def test_scenes_of_a_step_follow_tokens(tmp_path: Path) -> None:
    config = make_config({"out": tmp_path, "steps": 1, "views.resolutions": [(128, 128, 0), (256, 256, 0.5)]})
    assert config.usual_scenes((128, 128)) == 32
    assert config.usual_scenes((256, 256)) == 8
    config = make_config({"out": tmp_path, "steps": 1, "views.scenes": {"128": 5}})
    assert config.usual_scenes((128, 128)) == 5


def test_command_line_file_and_dataclass_agree(tmp_path: Path) -> None:
    assert NEW_NAMES.keys() >= {"init_change", "balance", "spike", "spread"}
    assert set(NEW_NAMES.values()) <= set(option_types())
    config = tiny_config(tmp_path / "run", minutes=1.5, model={"checkpointing": True}, detail={"head_views": [1, 2]})
    file = write_options(config)
    assert make_config(plain(config)) == config == read_command_line(["--config", str(file)])
    words = to_words({name: value for name, value in read_options(file)[0].items() if value is not None})
    assert read_command_line(words) == config
    given = read_command_line(
        [f"--config={file}", "--optimizer.muon-lr", "0.5", "--views.scenes", "16", "2", "24", "1"]
    )
    assert given.optimizer.muon_lr == 0.5 and given.views.scenes == {"16": 2, "24": 1} and given.minutes == 1.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "1"], "missing --out"),
        (["--out", "x", "--steps", "1", "--optimizer.muon-lr", "abc"], "--optimizer.muon-lr: could not convert"),
        (["--out", "x", "--steps", "1", "--optimizer.grad-skip", "3"], "did you mean --optimizer.grad-skip-factor?"),
        (["--out", "x", "--steps", "1", "--mirrr", "3"], "did you mean --augmentation.mirror?"),
        (["--out", "x", "--steps", "1", "--resume", "maybe"], "Expected one of"),
        (["--out", "x", "--steps", "1", "--views", "8:8,4"], "better use --views.counts"),
        (["--out", "x", "--steps", "1", "--views"], "expected a value"),
        (["--config", "/absent.json"], "--config /absent.json: cannot be read"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(words: list[str], said: str) -> None:
    with pytest.raises(NVSError) as caught:
        read_command_line(words)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_help_is_grouped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        read_command_line(["--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0 and "optimizer options" in out and "--optimizer.grad-skip-factor FLOAT" in out
    assert "Gradients are clipped" not in out
    with pytest.raises(SystemExit):
        read_command_line(["--help-verbose"])
    assert "Gradients are clipped" in capsys.readouterr().out


OLD_WORDS = """--out RUN --minutes 2 --model small,dim=128,key_length=2.0,fast_start=shared --kinds object=0.5,room=0.5
    --data procedural=2,shards:a/{x,y}-{00..12}.tar --resolutions 128:0,144x256:0.8 --views 4:12:3,8:8 --no-state
    --scenes 128=20,144x256=5 --spike 7 --spread=0.25 --balance 0.5 --eval-scenes a,b --lact-scale 0.5,1 --head-views 4
    --schedule cosine --prefetch --scale-jitter 0.1 --export int8 --device cpu"""


@pytest.mark.parametrize("without_tyro", [False, True])
def test_old_options_are_read_with_one_note(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, without_tyro: bool
) -> None:
    if without_tyro:
        monkeypatch.setitem(sys.modules, "tyro", None)
    config = read_command_line(OLD_WORDS.split())
    new = {
        "out": "RUN",
        "minutes": 2,
        "device": "cpu",
        "model.config_override": {"dim": 128, "qk_scale": "2.0", "share_initial_weights": True},
        "data.kinds": {"object": 0.5, "room": 0.5},
        "data.sources": {"procedural": 2, "shards:a/{x,y}-{00..12}.tar": 1},
        "data.prefetch": True,
        "views.resolutions": [(128, 128, 0), (144, 256, 0.8)],
        "views.counts": [(4, 12, 3), (8, 8, 1)],
        "views.scenes": {"128": 20, "144x256": 5},
        "views.even_view_prob": 0.25,
        "augmentation.scale": 0.1,
        "detail.lact_scales": [0.5, 1],
        "detail.head_views": [4],
        "loss.inverse_mse_power": 0.5,
        "optimizer.grad_skip_factor": 7,
        "schedule.kind": "cosine",
        "evaluation.scenes": ["a", "b"],
        "output.state": False,
        "output.export": "int8",
    }
    assert config == make_config(new)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("note: ")
    for renamed in ("--spike is now --optimizer.grad-skip-factor", "--balance is now --loss.inverse-mse-power"):
        assert renamed in said
    assert "--minutes" not in said and "--device" not in said


def test_a_machine_without_tyro_trains_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path)
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert read_command_line(["--config", str(write_options(config)), "--steps", "9"]).steps == 9
    with pytest.raises(NVSError, match="package 'tyro' is not installed.*--config"):
        read_command_line(["--out", "x", "--steps", "1", "--optimizer.muon-lr", "0.1"])


def test_old_initial_checkpoints() -> None:
    words = ["--out", "x", "--steps", "1", "--model", "small,dim=9", "--init", "NAME", "--init-change", "key_length=2"]
    config = read_command_line(words)
    assert config.model.init == "NAME" and config.model.config_override == {"qk_scale": "2"}
    with pytest.raises(NVSError, match="--init beside it"):
        read_command_line(["--out", "x", "--steps", "1", "--config-override", "write_steps=2"])
    published, _ = from_old({"model": '{"dim": 64, "blocks": 1}'})
    assert make_config({"out": "x", "steps": 1} | published).model_config.fast_head_dim == 64


def test_shares() -> None:
    assert read_shares("a=2,b") == {"a": 2.0, "b": 1.0}
    text = "shards:a/{x,y}-{00..12}.tar=2, b.tar,http://h/s.tar?key=abc,https://h/s.tar?v=3=0.5,procedural=1"
    assert read_shares(text) == {
        "shards:a/{x,y}-{00..12}.tar": 2.0,
        "b.tar": 1.0,
        "http://h/s.tar?key=abc": 1.0,
        "https://h/s.tar?v=3": 0.5,
        "procedural": 1.0,
    }
    for wrong in ("a=x", "=3"):
        with pytest.raises(ValueError):
            read_shares(wrong)


def test_options_of_a_card_of_an_earlier_version(repo: Path) -> None:
    """The bundled checkpoint's card holds the flat options of its run."""
    values, notes = read_options(repo / "checkpoints" / "lact-detail-32m" / "config.json")
    assert "out" not in values and "--spread is now --views.even-view-prob" in notes
    config = make_config({"out": "x"} | values)
    assert config.views.resolutions == ((256, 256, 0.0), (256, 256, 0.0), (288, 512, 0.0))
    assert config.data.sources == {"procedural": 1.0} and config.optimizer.grad_skip_factor == 6.0


def test_a_run_of_an_earlier_version_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = make_scene(tmp_path / "scene", views=8)
    shutil.copytree(OLD_RUN, tmp_path / "run")
    words = ["--config", str(OLD_RUN / "config.json"), "--out", str(tmp_path / "run"), "--steps", "5"]
    config = read_command_line([*words, "--data.sources", str(scene), "1"])
    train.run(config)
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "--balance is now" in err and "resuming" in out
    assert [record["step"] for record in records(config.out)] == [4, 5]
    card = load_checkpoint(config.out / "checkpoint").card
    assert card["steps"] == 5 and card["options"]["loss"]["inverse_mse_power"] == 0.5
    assert isinstance(read_command_line(["--config", str(config.out / "train.json")]), TrainConfig)
    # And options of such a run can be taken from the card of the new checkpoint, too.
    again, notes = read_options(config.out / "checkpoint" / "config.json")
    assert not notes and again["optimizer.grad_skip_factor"] == 7.0


def test_files_that_hold_no_options(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    for content in ("[]", "{oops", json.dumps({"card": {}}), json.dumps({"optimizer": {"momentum": 1}})):
        file.write_text(content)
        with pytest.raises(NVSError, match="--config .*run.json: "):
            read_options(file)
    assert dotted({"data": {"sources": {"a": 1}}, "seed": 2}) == {"data.sources": {"a": 1}, "seed": 2}
