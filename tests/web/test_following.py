"""Two pages of one visit follow the same work, as before and after a reload: both learn how it ended."""

from __future__ import annotations

import time

import gradio as gr
import pytest

from nvs_app.web.access import COOKIE, owner_of
from nvs_app.web.app_state import AppState
from nvs_app.web.event_handlers import EventHandlers
from nvs_app.web.services.jobs import Job
from nvs_app.web.services.progress import Progress


@pytest.mark.parametrize("cancelled", [True, False])
def test_both_pages_get_their_buttons_back(app_state: AppState, cancelled: bool) -> None:
    going = [True]

    def work(job: Job) -> None:
        while going:
            job.report("features", 0.5)
            time.sleep(0.01)

    session = app_state.store.create(owner_of({COOKIE: "me"}, None))
    app_state.begin(session, work, Progress({"features": 5.0}))
    job, handlers = session.job, EventHandlers(app_state)
    pages = [handlers._follow(session) for _ in range(2)]
    for page in pages:
        button = next(page)[4]
        assert isinstance(button, gr.Button) and not button.interactive
    job.cancel() if cancelled else going.clear()
    for page in pages:
        assert isinstance(list(page)[-1][4], gr.Button), "whether anything can be reconstructed is said anew"
    assert session.job is None
