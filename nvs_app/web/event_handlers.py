"""What the page's events do for a visitor. Each takes the visitor from the request and returns gradio updates.

Functions given to gradio are wrapped by `told`: a user's mistake becomes one sentence in the page, and no traceback.
"""

from __future__ import annotations

import contextlib
import functools
import html
import inspect
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import gradio as gr

from data_tools.readers.isolated import isolated
from data_tools.structure_from_motion.job import Cancelled
from nvs_app.errors import NVSError
from nvs_app.scenes.nerfstudio_frame import DATAPARSER_FILE, FRAME_FILE, read_frame
from nvs_app.web.access import address_of, owner_of_request
from nvs_app.web.app_state import AppState
from nvs_app.web.panels import card_html
from nvs_app.web.protocol import NoticeMessage
from nvs_app.web.services import saved_scenes
from nvs_app.web.services.encoding import Encoding, Gathered, Plan, plan_html, progress_html, ready_html
from nvs_app.web.services.exports import save_colmap, save_scene, save_snapshot
from nvs_app.web.services.inspector import SceneInspector, truth_html, unregistered_html
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.services.paths import load_path
from nvs_app.web.services.videos import Videos, file_stem, view_from_page
from nvs_app.web.sessions import Session


def told(function: Callable) -> Callable:
    """A user's mistake becomes one sentence in the page, and no traceback in the log."""

    @contextlib.contextmanager
    def sentences() -> Iterator[None]:
        try:
            yield
        except Cancelled as error:
            raise gr.Error("Cancelled.", print_exception=False, duration=4, title="") from error
        except CancelledError as error:  # a newer request of the same visit took its place
            raise gr.Error("A newer request took its place.", print_exception=False, duration=4, title="") from error
        except NVSError as error:
            words = html.escape(" ".join(str(error).split()), quote=False)
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


class EventHandlers:
    """The events of the page."""

    def __init__(self, app_state: AppState):
        self.app_state = app_state
        self.encoding = Encoding(app_state)
        self.videos = Videos(app_state)
        self.inspector = SceneInspector(app_state, self.videos)

    def session(self, request: gr.Request) -> Session:
        """The visit behind a request; API clients get theirs with the first call."""
        page, owner = str(request.session_hash), owner_of_request(request)
        return self.app_state.store.of_page(page, owner, address_of(request))

    # -- entering, and the scene: updates of [facts, plan, views, size, encode]

    def enter(self, kept: str, request: gr.Request) -> str:
        """A page opens: its visit's token. After a reload (`kept`: the token before) the visit goes on."""
        owner = owner_of_request(request)
        session = self.app_state.store.find(kept, owner)
        if session is None or session.away_since is None:  # None: it is open in another tab
            session = self.app_state.store.of_page(str(request.session_hash), owner, address_of(request))
        self.app_state.store.bind(str(request.session_hash), session)
        session.touch()
        return session.token

    def first(self, request: gr.Request) -> tuple:
        """The scene of the visit, or the first example."""
        session = self.session(request)
        if session.scene is not None:
            return self._opened(session, session.scene)
        if not self.app_state.examples:
            session.tell(NoticeMessage("Drop photos to begin."))
            return (gr.skip(),) * 5
        return self.example(next(iter(self.app_state.examples)), request)

    def example(self, name: str, request: gr.Request) -> tuple:
        """Opens an example."""
        session = self.session(request)
        return self._opened(session, self.encoding.bring_example(session, name))

    def receive(self, files: list[str] | None, request: gr.Request) -> tuple:
        """Uploads arrive; as `_opened`, and the field for files is emptied."""
        session = self.session(request)
        if not files:
            return (gr.skip(),) * 6
        try:
            found = self.encoding.receive(session, files, join=True)
        except NVSError as error:
            # Not raised: the field would keep the refused files, and bring them again with the next ones.
            words = html.escape(" ".join(str(error).split()))
            problem = f"<p class='nvs-problem-line' role='alert'>{words}</p>"
            return gr.skip(), problem, gr.skip(), gr.skip(), gr.Button(interactive=session.source is not None), None
        if isinstance(found, Gathered):
            words = f"<p class='nvs-source' role='status'>{html.escape(found.words)}</p>"
            return gr.skip(), words, gr.skip(), gr.skip(), gr.Button(interactive=False), None
        if isinstance(found, LoadedScene):
            return *self._opened(session, found), None
        return gr.skip(), *self._planned(found), None

    def quiet(self, request: gr.Request) -> Any:
        """What was said of an encoding goes when another scene is there; update of progress."""
        job = self.session(request).job
        return "" if job is None or job.done else gr.skip()

    def plan(self, views: float, size: str | None, request: gr.Request) -> tuple:
        """The estimate for other settings; updates of [plan, views, size, encode]."""
        return self._planned(self.encoding.plan(self.session(request), int(views), size))

    def encode(self, views: float, size: str | None, request: gr.Request) -> Iterator[tuple]:
        """Encodes; updates of [progress, encode, cancel, facts]."""
        session = self.session(request)
        before = session.revision
        job = self.encoding.encode(session, int(views), size)
        reconstructs = session.source.scene is None
        busy = gr.Button(visible=False), gr.Button(visible=True)
        idle = gr.Button(visible=True, interactive=True), gr.Button(visible=False)
        try:
            for words in progress_html(job.follow(), reconstructs):
                session.touch()
                yield words, *busy, gr.skip()
            opened = job.result()
        except Cancelled:
            if session.job is not job:  # a newer one of the same page took its place
                return
            words = "Cancelled. The next start goes on from here."
            yield f"<div class='nvs-progress'><p role='status'>{words}</p></div>", *idle, gr.skip()
            return
        except NVSError as error:
            words = html.escape(" ".join(str(error).split()))
            yield f"<p class='nvs-problem-line' role='alert'>{words}</p>", *idle, gr.skip()
            return
        except Exception as error:  # ours: the page is told, the log has the rest
            name = html.escape(type(error).__name__)
            yield f"<p class='nvs-problem-line' role='alert'>The encoding failed ({name}).</p>", *idle, gr.skip()
            raise
        if session.revision >= before:
            yield ready_html(opened), *idle, facts_html(opened)

    def cancel(self, request: gr.Request) -> None:
        """Stops the encoding; `encode` tells it."""
        self.encoding.cancel(self.session(request))

    # -- tabs

    def refresh(self, which: str, dark: bool, request: gr.Request) -> tuple:
        """What the tab that is open shows of the present scene; updates of [plot, lost, choice, truth, kept]."""
        session = self.session(request)
        nothing, revision = gr.skip(), session.revision
        if session.scene is None:
            return (nothing,) * 5
        if which == "cameras":
            figure = self.inspector.cameras(session, dark)
            return figure, unregistered_html(session.scene), nothing, nothing, nothing
        if which == "truth":
            choices = self.inspector.held_out(session)
            view, table = self.inspector.truth(session)
            if session.revision != revision:  # another scene came meanwhile, and its own refresh
                return (nothing,) * 5
            choice = gr.Dropdown(choices, value=view.index if view else None, visible=bool(choices))
            return nothing, nothing, choice, truth_html(view, table), nothing
        if which == "take":
            return (nothing,) * 4 + (self._kept(session),)
        return (nothing,) * 5

    def truth(self, index: int | None, request: gr.Request) -> str:
        """Another held-out view."""
        return truth_html(*self.inspector.truth(self.session(request), None if index is None else int(index)))

    def model_card(self, name: str) -> str:
        """The card of a checkpoint."""
        return card_html(name)

    def use_model(self, name: str, device: str, views: float, size: str | None, request: gr.Request) -> tuple:
        """Another checkpoint or device: the estimate for it; encoding the scene is the next step."""
        session = self.session(request)
        self.app_state.renderer(name, device)  # refuses now what cannot be loaded
        session.model = (name, device)
        return self._planned(self.encoding.plan(session, int(views), size))

    # -- paths and videos

    def path_load(self, files: list[str] | None, request: gr.Request) -> str:
        """A camera path file as a timeline for the page's script; with nerfstudio's file of the frame it is in."""
        opened = self.app_state.require_scene(self.session(request))
        paths = [Path(file) for file in files or []]
        frames = [path for path in paths if path.name in (DATAPARSER_FILE, FRAME_FILE)]
        drawn = [path for path in paths if path not in frames]
        if len(drawn) != 1 or len(frames) > 1:
            raise NVSError(f"choose one camera path, and {DATAPARSER_FILE} with it where nerfstudio's viewer drew it")
        try:
            loaded = isolated(load_path, drawn[0], what=drawn[0].name)
            root = opened.scene.root if opened.scene else None
            frame = isolated(read_frame, frames[0], root, what=frames[0].name) if frames else None
        except NVSError as error:
            raise NVSError(re.sub(r"\S*/(?=[^/\s]+)", "", str(error))) from error
        return json.dumps(self.videos.loaded(loaded, frame).to_dict())

    def path_save(self, spec: str, request: gr.Request) -> Any:
        """The path as a file."""
        return gr.File([str(self.videos.save(self.session(request), parsed(spec)))], visible=True)

    def video(self, spec: str, kind: str, request: gr.Request) -> Iterator[tuple]:
        """Exports a video; updates of [progress, export, cancel, files]."""
        session = self.session(request)
        busy = gr.Button(visible=False), gr.Button(visible=True), gr.skip()
        idle = gr.Button(visible=True), gr.Button(visible=False)
        try:
            job = self.videos.export(session, parsed(spec), kind)
            for step in job.follow():
                words = f"Waiting: {step.position} before yours" if step.position else step.words or "Rendering"
                yield meter_html(step.fraction, words), *busy
            files, command = job.result()
        except NVSError as error:
            words = html.escape(" ".join(str(error).split()))
            told_off = f"<p class='nvs-problem-line' role='alert'>{words}</p>"
            cancelled = "<p class='nvs-note' role='status'>Cancelled.</p>"
            yield cancelled if isinstance(error, Cancelled) else told_off, *idle, gr.skip()
            return
        note = (
            "<p class='nvs-note' role='status'><b>Ready.</b> The same from the command line, with the encoded state "
            f"from “Take away” beside the path:</p><pre class='nvs-command'>{html.escape(command)}</pre>"
        )
        files = gr.File([str(file) for file in files], visible=True)
        yield note, *idle, files

    def video_cancel(self, request: gr.Request) -> None:
        """Stops the video; `video` tells it."""
        video = self.session(request).video
        if video is not None:
            video.cancel()

    # -- taking away

    def take(self, what: str, view: str, request: gr.Request) -> Any:
        """Makes a file of the scene: "snapshot", "state", "scene" or "colmap"."""
        session = self.session(request)
        return gr.File([str(self.made(session, what, view))], visible=True)

    def made(self, session: Session, what: str, view: str) -> Path:
        """The file behind `take`."""
        opened = self.app_state.require_scene(session)
        stem = file_stem(opened.name)
        if what == "state":
            return self.videos.save_state(session)
        if what == "snapshot":
            image, camera = self.videos.still(session, view_from_page(view))
            facts = {"scene": opened.name, "checkpoint": str(opened.renderer.card.get("name", ""))}
            return save_snapshot(image, camera, session.download(f"{stem}.png"), facts)
        if opened.scene is None:
            raise NVSError(f"{opened.name}: it came as a state file; the photos are not here")
        out = session.download(f"{stem}_{what}.zip")
        return save_scene(opened.scene, out) if what == "scene" else save_colmap(opened.scene, out)

    def keep(self, request: gr.Request) -> Any:
        """Keeps the scene on the server."""
        session = self.session(request)
        saved_scenes.keep(self.app_state, session)
        words = "Kept. This browser finds it under “Kept scenes”, also after the server was restarted."
        gr.Info(words, duration=6, title="")
        return self._kept(session)

    def reopen(self, name: str | None, request: gr.Request) -> tuple:
        """Opens a kept scene."""
        session = self.session(request)
        return self._opened(session, saved_scenes.reopen(self.app_state, session, name or ""))

    def _kept(self, session: Session) -> Any:
        found = [(words, name) for name, words in saved_scenes.kept(self.app_state, session)]
        return gr.Dropdown(found, value=found[0][1] if found else None)

    def _opened(self, session: Session, opened: LoadedScene) -> tuple:
        if session.source is None:
            note = "<p class='nvs-note'>Opened from a state file. Upload its photos to encode them otherwise.</p>"
            return facts_html(opened), note, gr.skip(), gr.skip(), gr.Button(interactive=False)
        count = len(opened.split.context) if opened.split else None
        size = f"{opened.image_hw[1]}x{opened.image_hw[0]}"
        return facts_html(opened), *self._planned(self.encoding.plan(session, count, size))

    @staticmethod
    def _planned(plan: Plan) -> tuple:
        found = plan.estimate
        size = f"{found.image_hw[1]}x{found.image_hw[0]}"
        sizes = plan.sizes if size in [value for _, value in plan.sizes] else [*plan.sizes, (size, size)]
        return (
            plan_html(plan),
            gr.Slider(1, max(2, plan.source.available), found.views, visible=plan.source.available > 1),
            gr.Dropdown(sizes, value=size),
            gr.Button(interactive=not found.problems),
        )


def parsed(spec: str) -> Any:
    """JSON that the page's script sent."""
    try:
        return json.loads(spec or "null")
    except (ValueError, RecursionError) as error:
        raise NVSError("the camera path could not be read") from error


def meter_html(fraction: float, words: str) -> str:
    """A bar with words."""
    return (
        f"<div class='nvs-progress'><div class='nvs-meter' role='progressbar' aria-valuenow='{100 * fraction:.0f}' "
        f"aria-valuemin='0' aria-valuemax='100' aria-label='Video'><i style='width:{100 * fraction:.1f}%'></i></div>"
        f"<p role='status'><span>{html.escape(words)}</span><span>{100 * fraction:.0f} %</span></p></div>"
    )


def facts_html(opened: LoadedScene) -> str:
    """What was read, in small."""
    if not opened.context_jpegs:
        return "<p class='nvs-note'>From a state file: the photos are not here.</p>"
    images = "".join(f"<img src='{uri}' alt='context view {i}'>" for i, uri in enumerate(opened.context_jpegs))
    count = len(opened.split.context) if opened.split else len(opened.context_jpegs)
    words = f"The network has read {count} of {len(opened.cameras)} photos of {html.escape(opened.name)}"
    return f"<div class='nvs-strip'><span>{words}, in {opened.seconds:.1f} s.</span>{images}</div>"
