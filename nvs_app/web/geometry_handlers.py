"""What the page's events about geometry do for a visitor: exports, and splats for the page's own viewer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gradio as gr

from data_tools.structure_from_motion.job import Cancelled
from nvs_app.errors import NVSError
from nvs_app.web.arguments import text
from nvs_app.web.event_handlers import EventHandlers
from nvs_app.web.markup import meter_html, note_html, problem_html
from nvs_app.web.protocol import NoticeMessage
from nvs_app.web.services.geometry import VIEWER, Geometry


class GeometryHandlers:
    """The events; visitors are those of the page's other events."""

    def __init__(self, event_handlers: EventHandlers):
        self.session = event_handlers.session
        self.geometry = Geometry(event_handlers.app_state)

    def export(self, kind: str, request: gr.Request) -> Iterator[tuple]:
        """Makes a file; updates of [progress, files]."""
        job = self.geometry.export(self.session(request), text("kind", kind))
        try:
            for step in job.follow():
                words = f"Waiting: {step.position} before yours" if step.position else step.words or "Starting"
                yield meter_html(step.fraction, words, "Export"), gr.skip()
            made = job.result()
        except NVSError as error:
            yield note_html("Cancelled.") if isinstance(error, Cancelled) else problem_html(told(error)), gr.skip()
            return
        yield note_html(f"{made.file.name}: {made.words}."), gr.File([str(made.file)], visible=True)

    def cancel(self, request: gr.Request) -> None:
        """Stops the export; `export` or `splats` tells it."""
        work: Any = self.session(request).geometry
        if work is not None:
            work.cancel()

    def splats(self, request: gr.Request) -> str:
        """Makes splats for the page's own viewer; what its script must know, as JSON."""
        session = self.session(request)
        try:
            job = self.geometry.export(session, VIEWER)
            for step in job.follow():
                session.tell(NoticeMessage(f"Making splats: {step.words or 'waiting'} ({100 * step.fraction:.0f} %)"))
            made = job.result()
        except NVSError as error:
            return json.dumps({"error": "" if isinstance(error, Cancelled) else told(error)})
        return json.dumps({"look": made.look, "words": made.words, "revision": made.revision})


def told(error: NVSError) -> str:
    """On one line."""
    return " ".join(str(error).split())
