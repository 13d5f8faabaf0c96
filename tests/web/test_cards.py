"""Cards of checkpoints: complete for ours, harmless for anyone's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from nvs_app.model.checkpoint import default_checkpoint, save_checkpoint
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.web.cards import list_cards, read_card

EVIL = "<script>alert(1)</script> [x](javascript:alert(1)) **b** \n# head"


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NVS_CHECKPOINTS", str(tmp_path))
    return tmp_path


def save(folder: Path, **card: object) -> Path:
    config = PRESETS["tiny"]
    return save_checkpoint(folder, LaCT(config).state_dict(), config, card)


def change(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_bundled_checkpoints_have_whole_cards(repo: Path) -> None:
    cards = list_cards()
    assert {card.name for card in cards} == {p.parent.name for p in (repo / "checkpoints").glob("*/config.json")}
    assert cards[0].default and not any(card.default for card in cards[1:])
    for card in cards:
        assert card.problem is None and card.summary and card.licence and card.data
        assert re.fullmatch(r"[\d.]+ [MG]", card.parameters) and card.train_image_hw and card.bytes > 10**6
        measured = json.loads((repo / "checkpoints" / card.name / "config.json").read_text())["card"]
        has_psnr = any(what.startswith("PSNR") and "dB" in value for what, value in card.figures)
        assert card.figures and has_psnr == bool(measured.get("held_out_psnr"))
        assert card.choice[1] == card.name and card.parameters in card.choice[0]
        assert "CC" in card.to_html() and "GFLOP" in card.to_html()


def test_default_first_and_broken_last(checkpoints: Path) -> None:
    for name in ("b", "a", "c"):
        save(checkpoints / name, default=name == "b")
    save(checkpoints / "0 gone")
    next((checkpoints / "0 gone").glob("*.safetensors")).unlink()
    (checkpoints / "1 text").mkdir()
    (checkpoints / "1 text/config.json").write_text("{")
    cards = list_cards()
    assert [(card.name, card.default) for card in cards] == [
        ("b", True), ("a", False), ("c", False), ("0 gone", False), ("1 text", False),
    ]  # fmt: skip
    assert [card.name for card in cards if card.problem] == ["0 gone", "1 text"]
    assert "is missing" in cards[-2].problem and "cannot be used" in cards[-1].choice[0]
    for broken in ("0 gone", "1 text"):
        for path in (checkpoints / broken).iterdir():
            path.unlink()
    assert default_checkpoint() == list_cards()[0].name == "b"
    save(checkpoints / "a", default=True)
    assert [(card.name, card.default) for card in list_cards()] == [("a", False), ("b", False), ("c", False)]


def test_nothing_of_a_card_is_markup(checkpoints: Path) -> None:
    save(
        checkpoints / "evil",
        summary=EVIL,
        licence=EVIL,
        data={EVIL: [EVIL, {"x": EVIL}]},
        held_out_psnr={EVIL: {EVIL: 1.0}},
        steps=3,
        device=EVIL,
    )
    card = read_card("evil")
    page = card.to_html()
    assert "<script" not in page and "&lt;script&gt;" in page
    tags = set(re.findall(r"</?([a-z0-9]+)", page))
    assert tags <= {"section", "h3", "small", "p", "dl", "div", "dt", "dd"}


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"parameters": "many", "train_image_hw": "256", "steps": [], "held_out_psnr": 3, "data": 7},
        {"parameters": True, "train_image_hw": [256], "train_seconds": "x", "data": [[["a"]]]},
        {"parameters": 10**40, "train_image_hw": [10**9, -1], "steps": 10**30, "held_out_psnr": {"a": "b"}},
        {"summary": "x" * 10**6, "data": ["y" * 10**5] * 1000, "licence": {"a": 1}},
    ],
)
def test_cards_of_any_content(checkpoints: Path, card: dict) -> None:
    save(checkpoints / "odd", **card)
    shown = read_card("odd")
    assert shown.problem is None and shown.network.startswith("LaCT, width 64")
    assert len(shown.to_html()) < 60_000
    assert shown.choice[1] == "odd"


@pytest.mark.parametrize(
    "values",
    [{"model": 3}, {"model": {"dim": "x"}}, {"model": {"dim": -1}}, {"card": [1]}, {"shards": 5}, {"shards": [1]}],
)
def test_descriptions_of_any_content(checkpoints: Path, values: dict) -> None:
    change(save(checkpoints / "odd"), **values)
    card = list_cards()[0]
    assert card.name == "odd" and (card.problem is not None) == ("card" not in values)
    assert "\n" not in (card.problem or "") and "odd" in card.to_html()


def test_no_checkpoints(checkpoints: Path) -> None:
    assert list_cards() == []
    assert read_card("absent").problem.startswith("checkpoint absent: not found")


def test_one_checkpoint_needs_no_mark(checkpoints: Path) -> None:
    torch.manual_seed(0)
    save(checkpoints / "only")
    assert list_cards()[0].default and "default" in list_cards()[0].to_html()
