"""nerfstudio's method has every option that `Renderer` has."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path

import pytest
from cli_scenes import HEAD, write_scenes

from nvs_app.errors import NVSError
from nvs_app.integrations.nerfstudio.__main__ import prepare
from nvs_app.model.lact import LaCT
from nvs_app.rendering.plan import LaCTResolution
from nvs_app.rendering.renderer import Renderer

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:nerfstudio.*", "ignore::FutureWarning", "ignore::DeprecationWarning:viser.*"
)
OPTIONS = {"precision": "precision", "compile": "compile", "detail": "detail", "views": "look_at", "lact": "lact_scale"}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The pipeline's configuration for a scene and a checkpoint with a detail head."""
    write_scenes(tmp_path)
    monkeypatch.setenv("NVS_CHECKPOINTS", str(tmp_path / "checkpoints"))
    prepare()
    from nvs_app.integrations.nerfstudio.method import lact

    own = copy.deepcopy(lact.config.pipeline)
    own.datamanager.data, own.datamanager.num_context, own.model.checkpoint = tmp_path / "one", 3, "detailed"
    own.datamanager.dataparser.eval_mode, own.datamanager.dataparser.train_split_fraction = "fraction", 0.5
    return own


def test_they_reach_the_renderer(config, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen; the rest is the checkpoint's own, and the configuration names it."""
    assert set(inspect.signature(Renderer.from_checkpoint).parameters) - {"name", "device"} == set(OPTIONS)
    assert all(hasattr(config.model, name) for name in OPTIONS.values())
    compiled: list[LaCT] = []
    monkeypatch.setattr(LaCT, "fuse", lambda network, dtype, compile: compiled.append(network) if compile else None)
    config.model.look_at, config.model.precision, config.model.compile = 2, "bf16", True
    config.model.lact_scale = 1.0
    model = config.setup(device="cpu", test_mode="test").model
    renderer = model.renderer
    of_card = LaCTResolution.of_card(renderer.card)
    assert (renderer.detail, renderer.views, renderer.precision, compiled) == (True, 2, "bf16", [renderer.model])
    assert renderer.lact == LaCTResolution(1.0, of_card.least, of_card.most)
    assert (config.model.lact_least, config.model.lact_most) == (of_card.least, of_card.most)
    assert renderer.plan_render((48, 64)).lact_hw != Renderer(renderer.model, "cpu").plan_render((48, 64)).lact_hw
    state = model.encoded()
    assert state.context is not None


def test_defaults_are_the_checkpoints(config) -> None:
    config.resolve()
    model = Renderer.from_checkpoint("detailed", "cpu")
    own = LaCTResolution(config.model.lact_scale, config.model.lact_least, config.model.lact_most)
    assert own == model.lact and config.model.look_at == HEAD.views and not config.model.compile


def test_impossible_and_useless_values_are_told(config) -> None:
    config.model.lact_scale = 2.0
    with pytest.raises(NVSError, match="expected a scale in"):
        config.resolve()
    for checkpoint, detail in (("tiny", True), ("detailed", False)):
        for option in ("look_at", "lact_scale", "lact_least", "lact_most"):
            wrong = copy.deepcopy(config)
            wrong.model.lact_scale, wrong.model.checkpoint, wrong.model.detail = None, checkpoint, detail
            setattr(wrong.model, option, 2)
            with pytest.raises(NVSError, match=f"{option}: 2, but no detail head renders"):
                wrong.resolve()
