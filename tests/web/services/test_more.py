"""A scene that grows by photos of its capture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data_tools.structure_from_motion.job import Cancelled
from nvs_app.errors import NVSError
from nvs_app.model.state import context_cameras
from nvs_app.rendering.adding import add_views
from nvs_app.web.app_state import AppState
from nvs_app.web.services import more
from nvs_app.web.services.encoding import Encoding
from nvs_app.web.services.more import farthest


def test_photos_come_some_at_a_time(headed_hub: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(more, "CHUNK", 1)
    session, others = headed_hub.store.create("me"), headed_hub.store.create("they")
    for visit in (session, others):
        Encoding(headed_hub).bring_example(visit, "small scene")
    opened, revision = session.scene, session.revision
    grown = more.grow(headed_hub, session, 5).result()
    assert session.revision == revision + 2 and session.scene is grown  # shown after each photo
    assert len(grown.split.context) == 5 and len(grown.split.target) == 1 and len(grown.context_jpegs) == 5
    assert grown.split.context[:3] == opened.split.context and others.scene is opened
    state = headed_hub.state(grown)
    assert len(context_cameras(state)) == 5 and len(context_cameras(headed_hub.state(opened))) == 3
    by_hand = headed_hub.state(opened)
    for view in grown.split.context[3:]:
        by_hand = add_views(opened.renderer, by_hand, opened.scene.load([view], opened.image_hw))
    camera = opened.cameras[:1]
    assert torch.equal(opened.renderer.render(state, camera), opened.renderer.render(by_hand, camera))


def test_nothing_to_add_and_cancel(app_state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    session = app_state.store.create("me")
    Encoding(app_state).bring_example(session, "small scene")
    for views in (3, 7):
        with pytest.raises(NVSError, match=f"{views} input views: the scene has read 3 of 6"):
            more.grow(app_state, session, views)
    monkeypatch.setattr(more, "CHUNK", 1)
    monkeypatch.setattr(more, "_grown", lambda app_state, opened, new: (session.job.cancel(), opened)[1])
    with pytest.raises(Cancelled):
        more.grow(app_state, session, 5).result()
    session.scene = replace(session.scene, scene=None, split=None)
    with pytest.raises(NVSError, match="no more photos of it here"):
        more.grow(app_state, session, 5)


def test_the_farthest_come_first() -> None:
    c2w = torch.eye(4).repeat(5, 1, 1)
    c2w[:, 0, 3] = torch.tensor([0.0, 1.0, 2.0, 5.0, 9.0])
    assert farthest(c2w, [0], 3) == [4, 3, 2]
