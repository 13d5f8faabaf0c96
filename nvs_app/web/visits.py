"""What the page's events do for a visitor: enter, open an example, … Each takes the visitor from the request.

Functions given to gradio are wrapped by `told`: a user's mistake becomes one sentence in the page, and no traceback.
"""

from __future__ import annotations

import contextlib
import functools
import html
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from data_tools.sfm import Cancelled
from nvs_app.errors import NVSError
from nvs_app.web.access import owner_of_request
from nvs_app.web.hub import Hub
from nvs_app.web.opening import Opened
from nvs_app.web.sessions import Session


def told(function: Callable) -> Callable:
    """A user's mistake becomes one sentence in the page, and no traceback in the log."""

    @contextlib.contextmanager
    def sentences() -> Iterator[None]:
        try:
            yield
        except Cancelled as error:
            raise gr.Error("Cancelled.", print_exception=False, duration=4, title="") from error
        except NVSError as error:
            words = " ".join(str(error).split())
            raise gr.Error(words, print_exception=False, duration=12, title="") from error

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def steps(*values: Any) -> Iterator[Any]:
            with sentences():
                yield from function(*values)

        return steps

    @functools.wraps(function)
    def once(*values: Any) -> Any:
        with sentences():
            return function(*values)

    return once


class Visits:
    """The page's events that concern the visit and the scene that is looked at."""

    def __init__(self, hub: Hub):
        self.hub = hub

    def session(self, request: gr.Request) -> Session:
        """The visit behind a request; API clients get theirs with the first call."""
        return self.hub.store.of_page(str(request.session_hash), owner_of_request(request))

    def enter(self, kept: str, request: gr.Request) -> str:
        """A page opens: its visit's token. After a reload (`kept`: the token before) the visit goes on."""
        owner = owner_of_request(request)
        session = self.hub.store.find(kept, owner)
        if session is None or session.away_since is None:  # None: it is open in another tab
            session = self.hub.store.of_page(str(request.session_hash), owner)
        self.hub.store.bind(str(request.session_hash), session)
        session.touch()
        return session.token

    def first(self, request: gr.Request) -> Iterator[str]:
        """The scene of the visit, or the first example."""
        session = self.session(request)
        if session.scene is not None:
            yield facts_html(session.scene)
        elif self.hub.examples:
            yield from self.example(next(iter(self.hub.examples)), request)

    def example(self, name: str, request: gr.Request) -> Iterator[str]:
        """Opens an example; what is known of it as HTML."""
        session = self.session(request)
        if not self.hub.has_example(name):
            session.tell({"type": "notice", "words": f"Encoding {name} …"})
        self.hub.show(session, self.hub.example(name))
        yield facts_html(session.scene)


def facts_html(opened: Opened) -> str:
    """What was read, in small."""
    if not opened.context_jpegs:
        return "<p class='nvs-note'>From a state file: the photos are not here.</p>"
    pictures = "".join(f"<img src='{uri}' alt='context view {i}'>" for i, uri in enumerate(opened.context_jpegs))
    count = len(opened.split.context) if opened.split else len(opened.context_jpegs)
    words = f"The network has read {count} of {len(opened.cameras)} photos of {html.escape(opened.name)}"
    return f"<div class='nvs-strip'><span>{words}, in {opened.seconds:.1f} s.</span>{pictures}</div>"
