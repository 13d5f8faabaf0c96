"""Sharpening for a visitor: his own scene changes, what others look at does not."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from data_tools.structure_from_motion.job import Cancelled
from nvs_app.adaptation import adapt as adaptation
from nvs_app.errors import NVSError
from nvs_app.model.state import SceneState
from nvs_app.web.app_state import AppState
from nvs_app.web.services.encoding import Encoding
from nvs_app.web.services.sharpening import sharpen
from nvs_app.web.sessions import Session


@pytest.fixture(params=["app_state", "headed_hub"])
def hub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AppState:
    hub = request.getfixturevalue(request.param)
    hub.num_context = 5
    # A random network does not get better in a second; here every measurement is better than the one before.
    figures = itertools.count(10.0)
    monkeypatch.setattr(adaptation._Run, "measure", lambda run, adapted: (next(figures), 0.01))
    return hub


def visitor(hub: AppState) -> Session:
    session = hub.store.create("somebody")
    Encoding(hub).bring_example(session, "small scene")
    return session


def test_only_the_visitors_own_scene_changes(hub: AppState, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "CLEAR_GAIN", 0.01)  # it has few views, and gains little
    mine, others = visitor(hub), visitor(hub)
    opened = mine.scene
    assert others.scene.state_key == opened.state_key  # an example is encoded once for all
    before = hub.frame(opened, opened.cameras[:1]).image.clone()
    job = sharpen(hub, mine, 1)
    sharpened = job.result()
    assert mine.scene is sharpened and others.scene is opened
    assert "Adapted in" in sharpened.sharpened and hub.state(opened).adapted is None
    state = hub.state(sharpened)
    assert SceneState.load(state.save(tmp_path / "scene.safetensors")).adapted is not None
    assert not torch.equal(hub.frame(sharpened, opened.cameras[:1]).image, before)
    assert torch.equal(hub.frame(opened, opened.cameras[:1]).image, before)


def test_what_cannot_be_sharpened_and_cancel(hub: AppState) -> None:
    session = visitor(hub)
    for seconds in (0, 121):
        with pytest.raises(NVSError, match="from 1 to 120 on this server"):
            sharpen(hub, session, seconds)
    opened = session.scene
    job = sharpen(hub, session, 120)
    for step in job.follow():
        if step.fraction > 0:
            job.cancel()
    with pytest.raises(Cancelled):
        job.result()
    assert session.scene is opened
    session.scene = replace(opened, split=replace(opened.split, context=[0, 1, 2]))
    with pytest.raises(NVSError, match="3 input views, expected 4 or more"):
        sharpen(hub, session, 60)
    session.scene = replace(opened, scene=None, split=None)  # a scene file alone
    job = sharpen(hub, session, 1)
    if hub.state(opened).context is None:
        with pytest.raises(NVSError, match="its file holds none"):
            job.result()
    else:
        assert job.result().sharpened
