"""What the page's events do for a visitor. Each takes the visitor from the request and returns gradio updates.

Functions given to gradio are wrapped by `report_user_errors`: a user's mistake becomes one sentence, and no traceback.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from data_tools.readers.isolated import isolated
from data_tools.structure_from_motion.job import Cancelled
from nvs_app.errors import NVSError
from nvs_app.scenes.nerfstudio_frame import DATAPARSER_FILE, FRAME_FILE, read_frame
from nvs_app.web.access import address_of, owner_of_request
from nvs_app.web.app_state import AppState
from nvs_app.web.arguments import text, whole
from nvs_app.web.markup import (
    action,
    brought_html,
    compare_html,
    inputs_html,
    meter_html,
    note_html,
    photos_html,
    plan_html,
    problem_html,
    took,
    unregistered_html,
)
from nvs_app.web.panels import card_html
from nvs_app.web.protocol import NoticeMessage
from nvs_app.web.services import saved_scenes
from nvs_app.web.services.encoding import Encoding
from nvs_app.web.services.exports import save_colmap, save_scene, save_snapshot
from nvs_app.web.services.gathering import Tray
from nvs_app.web.services.inspector import SceneInspector
from nvs_app.web.services.more import grow
from nvs_app.web.services.paths import load_path
from nvs_app.web.services.sharpening import sharpen
from nvs_app.web.services.videos import Videos, file_stem, view_from_page
from nvs_app.web.sessions import Session
from nvs_app.web.ui import fill
from nvs_app.web.work_messages import BesideMessage, WorkedMessage


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

    # -- entering, and the scene: updates of [facts, plan, views, size, encode, photos, brought]

    def enter(self, kept: str, request: gr.Request) -> str:
        """A page opens: its visit's token. After a reload (`kept`: the token before) the visit goes on."""
        owner = owner_of_request(request)
        session = self.app_state.store.find(kept, owner)
        if session is None or session.away_since is None:  # None: it is open in another tab
            session = self.app_state.store.of_page(str(request.session_hash), owner, address_of(request))
        self.app_state.store.bind(str(request.session_hash), session)
        session.touch()
        return session.token

    def first(self, wanted: str, request: gr.Request) -> tuple:
        """The scene that the page's address asks for ("shared:SECRET" or "example:NAME"), that of the visit, or the
        first example."""
        session = self.session(request)
        kind, _, name = text("wanted", wanted).partition(":")
        if kind == "shared":
            try:
                saved_scenes.open_shared(self.app_state, session, name)
            except NVSError as error:
                session.tell(NoticeMessage(str(error)))
                return self._shown(session)
            self.encoding.put_away(session)
            return self._shown(session)
        if kind == "example" and name in self.app_state.examples:
            return self.example(name, request)
        if session.scene is not None or session.tray is not None:
            return self._shown(session)
        if not self.app_state.examples:
            session.tell(NoticeMessage("Drop photos to begin."))
            return self._shown(session)
        return self.example(next(iter(self.app_state.examples)), request)

    def example(self, name: str, request: gr.Request) -> tuple:
        """Opens an example."""
        session = self.session(request)
        self.encoding.bring_example(session, name)
        return self._shown(session)

    def receive(self, files: list[str] | None, request: gr.Request) -> tuple:
        """Uploads arrive and join those before; as `_shown`, and the field for files is emptied."""
        session = self.session(request)
        if not files:
            return (gr.skip(),) * 8
        try:
            self.encoding.gather(session, files)
        except NVSError as error:
            # Not raised: the field would keep the refused files, and bring them again with the next ones.
            tray = session.tray or Tray()
            session.tray = replace(tray, said=" ".join(error.told.split()), open=True)
        return *self._shown(session), None

    def photos(self, action: str, key: str, request: gr.Request) -> tuple:
        """What is done with what was brought: "remove" one, "clear", "hide" or "show" all; "scene" takes one of
        several, key: PIECE:NUMBER."""
        session = self.session(request)
        if action == "scene":
            piece, _, number = key.partition(":")
            self.encoding.choose(session, piece, int(number) if number.isdecimal() else -1)
            return self._shown(session)
        tray = session.tray or Tray()
        if action == "remove":
            tray = tray.without(key)
        elif action == "clear":
            tray = Tray()
        elif action in ("hide", "show"):
            tray = replace(tray, said="", open=action == "show")
        self.encoding.use(session, tray if tray.pieces else replace(tray, open=False))
        return self._shown(session)

    def plan(self, views: float, size: str | None, request: gr.Request) -> tuple:
        """The estimate for other settings; as `_shown` without facts."""
        return self._shown(self.session(request), whole("views", views), size)[1:]

    def encode(self, views: float, size: str | None, request: gr.Request) -> Iterator[tuple]:
        """Reconstructs; the page is told the steps. Then as `_shown`."""
        session = self.session(request)
        self.encoding.encode(session, whole("views", views), size)
        yield from self._follow(session)

    def resume(self, request: gr.Request) -> Iterator[tuple]:
        """A reloaded page follows the work that is still under way, or learns how it ended; as `_shown`."""
        session = self.session(request)
        if session.job is not None:
            yield from self._follow(session)
        yield (gr.skip(),) * 7

    def _follow(self, session: Session) -> Iterator[tuple]:
        job, progress = session.job, session.progress
        yield (*(gr.skip(),) * 4, gr.Button(interactive=False), gr.skip(), gr.skip())  # one after the other
        try:
            for step in job.follow():
                session.touch()
                session.tell(progress.message(step))
            job.result()
            session.tell(WorkedMessage())
        except Cancelled:
            if session.job not in (job, None):  # a newer one of the same page took its place
                yield (gr.skip(),) * 7
                return
            if session.job is job:  # else told by another page that followed it, as before a reload
                session.tell(WorkedMessage(words=progress.cancelled))
        except NVSError as error:
            session.tell(WorkedMessage(" ".join(error.told.split())))
        except Exception as error:  # ours: the page is told, the log has the rest
            session.tell(WorkedMessage(f"The work failed ({type(error).__name__})."))
            raise
        finally:
            if session.job is job and job.done:  # told
                session.job = None
        yield self._shown(session)

    def sharpen(self, seconds: float, request: gr.Request) -> Iterator[tuple]:
        """Adapts the network to the scene; the page is told the steps. Then as `_shown`."""
        session = self.session(request)
        sharpen(self.app_state, session, whole("seconds", seconds))
        yield from self._follow(session)

    def grow(self, views: float, request: gr.Request) -> Iterator[tuple]:
        """Adds photos until so many are read; the page sees the scene grow. Then as `_shown`."""
        session = self.session(request)
        grow(self.app_state, session, whole("views", views))
        yield from self._follow(session)

    def cancel(self, request: gr.Request) -> None:
        """Stops the work under way; who follows it tells so."""
        job = self.session(request).job
        if job is not None:
            job.cancel()

    # -- tabs

    def refresh(self, which: str, dark: bool, request: gr.Request) -> tuple:
        """What the tab that is open shows of the present scene; updates of [plot, lost, choice, truth, kept]."""
        session = self.session(request)
        nothing, revision = gr.skip(), session.revision
        if session.scene is None:
            return (nothing,) * 5
        self._beside(session)
        if which == "cameras":
            figure = self.inspector.cameras(session, dark)
            return figure, unregistered_html(session.scene), nothing, nothing, nothing
        if which == "truth":
            choices = self.inspector.held_out(session)
            view, table = self.inspector.truth(session)
            if session.revision != revision:  # another scene came meanwhile, and its own refresh
                return (nothing,) * 5
            choice = gr.Dropdown(choices, value=view.index if view else None, visible=bool(choices))
            return nothing, nothing, choice, compare_html(view, table), nothing
        if which == "take":
            return (nothing,) * 4 + (self._kept(session),)
        return (nothing,) * 5

    def capture(self, request: gr.Request) -> None:
        """The page is told what lies over the view."""
        session = self.session(request)
        if session.scene is not None:
            session.tell(self.inspector.capture(session))

    def hold(self, request: gr.Request) -> None:
        """The current scene stays, to be shown beside others of its capture."""
        session = self.session(request)
        opened = self.app_state.require_scene(session)
        if opened.scene is None:
            raise NVSError("This scene came as a scene file: its photos are not here to reconstruct them otherwise.")
        self.app_state.hold(session, opened)
        words = "Held. Now reconstruct the same photos with other settings under Advanced, or with another model."
        gr.Info(words, duration=8, title="")
        self._beside(session)

    def release(self, request: gr.Request) -> None:
        """Nothing is shown beside the scene any more."""
        self.app_state.hold(self.session(request), None)
        self._beside(self.session(request))

    @staticmethod
    def _beside(session: Session) -> None:
        """The page is told what is shown beside its scene."""
        other, opened = session.other, session.scene
        shown = other is not None and opened is not None and other is not opened
        session.tell(BesideMessage(other.words if shown else "", opened.words if shown else "", other is not None))

    def truth(self, index: int | None, request: gr.Request) -> str:
        """Another held-out view."""
        return compare_html(
            *self.inspector.truth(self.session(request), None if index is None else whole("view", index))
        )

    def model_card(self, name: str) -> str:
        """The card of a checkpoint."""
        return card_html(text("checkpoint", name))

    def use_model(self, name: str, device: str, views: float, size: str | None, request: gr.Request) -> tuple:
        """Another checkpoint or device: the estimate for it; encoding the scene is the next step."""
        session = self.session(request)
        name, device = text("checkpoint", name), text("device", device)
        self.app_state.renderer(name, device)  # refuses now what cannot be loaded
        session.model = (name, device)
        return self._shown(session, whole("views", views), size)[1:]

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
        """Exports a video; updates of [progress, files]."""
        session = self.session(request)
        try:
            job = self.videos.export(session, parsed(spec), kind)
            for step in job.follow():
                words = f"Waiting: {step.position} before yours" if step.position else step.words or "Rendering"
                yield meter_html(step.fraction, words), gr.skip()
            files, command = job.result()
        except NVSError as error:
            words = " ".join(str(error).split())
            yield note_html("Cancelled.") if isinstance(error, Cancelled) else problem_html(words), gr.skip()
            return
        note = fill("export_ready.html", command=command)
        files = gr.File([str(file) for file in files], visible=True)
        yield note, files

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

    def share(self, name: str | None, request: gr.Request) -> Any:
        """A kept scene gets a link; the link's secret for the page's script, which knows the address."""
        return saved_scenes.share(self.app_state, self.session(request), name or "")

    def unshare(self, name: str | None, request: gr.Request) -> Any:
        """Takes the link of a kept scene back."""
        saved_scenes.share(self.app_state, self.session(request), name or "", on=False)
        gr.Info("The link leads nowhere any more.", duration=6, title="")
        return ""

    def reopen(self, name: str | None, request: gr.Request) -> tuple:
        """Opens a kept scene."""
        session = self.session(request)
        saved_scenes.reopen(self.app_state, session, name or "")
        self.encoding.put_away(session)
        return self._shown(session)

    def _kept(self, session: Session) -> Any:
        found = [(words, name) for name, words in saved_scenes.kept(self.app_state, session)]
        room = saved_scenes.room_words(self.app_state, session)
        return gr.Dropdown(found, value=found[0][1] if found else None, info=room)

    def _shown(self, session: Session, views: int | None = None, size: str | None = None) -> tuple:
        """All that the page says of the scene and of what can be reconstructed, with these settings."""
        opened = session.scene
        plan = None
        if session.source is not None:
            same = views is None and opened is not None and not (session.tray is not None and session.tray.open)
            if same and opened.split is not None:  # as the shown scene was made
                views, size = len(opened.split.context), f"{opened.image_hw[1]}x{opened.image_hw[0]}"
            plan = self.encoding.plan(session, views, size)
        photos, brought = photos_html(session.tray, plan), brought_html(session.tray)
        facts = inputs_html(opened) if opened is not None else gr.skip()
        if plan is None:
            button = gr.Button("Reconstruct", interactive=False)
            return facts, plan_html(None), gr.skip(), gr.skip(), button, photos, brought
        found = plan.estimate
        possible = not found.problems and (session.job is None or session.job.done)
        own = f"{found.image_hw[1]}x{found.image_hw[0]}"
        sizes = plan.sizes if own in [value for _, value in plan.sizes] else [*plan.sizes, (own, own)]
        return (
            facts,
            plan_html(plan),
            gr.Slider(1, max(2, plan.source.available), found.views, visible=plan.source.available > 1),
            gr.Dropdown(sizes, value=own),
            gr.Button(f"{action(plan)} ({took(plan)})", interactive=possible),
            photos,
            brought,
        )


def parsed(spec: str) -> Any:
    """JSON that the page's script sent."""
    try:
        return json.loads(spec or "null")
    except (ValueError, RecursionError) as error:
        raise NVSError("the camera path could not be read") from error
