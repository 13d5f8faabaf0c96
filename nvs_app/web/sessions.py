"""Visitors: each has a session with a secret name, a folder of its own, and limits; it ends with the visit.

    store = SessionStore(root, SessionLimits())
    session = store.create(owner)              # owner: what the visitor's cookie and login say
    store.find(session.token, owner)           # None for anybody else, whatever he knows

A session is reached only with its token (192 random bits) by the owner it was made for. Files, scenes and states hang
on the session and go with it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nvs_app.errors import NVSError
from nvs_app.web.protocol import EndedMessage, Message, NoticeMessage, SceneMessage

MIB = 1 << 20
ENDED_IDLE = "This visit has ended because nothing happened for {minutes:g} minutes. Reload the page to start again."
ENDED_FULL = "This visit has ended because others were waiting for a place. Reload the page to start again."


@dataclass(frozen=True)
class SessionLimits:
    """What visitors may use.

    Attributes:
        sessions: visitors at the same time. address_sessions, address_sockets: of them, and of open viewers, from one
            address.
        idle_seconds: a visit in which nothing was asked for so long ends.
        away_seconds: a visit whose page is closed ends after so long; a reload in time finds it again.
        upload_files, upload_bytes: of one upload. upload_pixels: of one image.
        session_bytes: all files of a session; uploads and exports beyond are refused.
        context_views: most views that may be read at once.
        frame_side: longest side of a frame for the viewer, pixels. cpu_frame_pixels: its height times width, where a
            CPU renders it: one frame keeps all others waiting.
        video_frames, video_side: of an exported video.
        sharpen_seconds: of one sharpening, which keeps others' encodings waiting.
    """

    sessions: int = 64
    address_sessions: int = 16
    address_sockets: int = 24
    idle_seconds: float | int = 30 * 60
    away_seconds: float | int = 3 * 60
    upload_files: int = 1000
    upload_bytes: int = 1024 * MIB
    upload_pixels: int = 100_000_000
    session_bytes: int = 4096 * MIB
    context_views: int = 4096
    frame_side: int = 1024
    cpu_frame_pixels: int = 512 * 1024
    video_frames: int = 1800
    video_side: int = 1024
    sharpen_seconds: int = 120

    def frame_pixels(self, device: torch.device) -> int:
        """The most pixels that a frame for the viewer may have, rendered on this device."""
        return self.frame_side**2 if device.type == "cuda" else min(self.cpu_frame_pixels, self.frame_side**2)


@dataclass
class Session:
    """One visit.

    Attributes:
        address: where its first request came from; empty where that is not known.
        scene: what the viewer shows (an `opening.LoadedScene`); `revision` grows with each new one.
        other: one of the same capture that is shown beside it, or None.
        source: what can be encoded (an `uploads.SceneInput`). model: the chosen checkpoint and device.
        tray: what was brought to be reconstructed (a `gathering.Tray`).
        job, video, geometry: work under way; progress: what is known of how far the job is.
        memory: what was computed for the current scene.
        downloads: files that gradio hands out; outside of `folder`, and removed with it.
        arriving: held while an upload is looked at, so that each adds to what came before.
    """

    token: str
    owner: str
    folder: Path
    limits: SessionLimits
    address: str = ""
    created: float = field(default_factory=time.monotonic)
    active: float = field(default_factory=time.monotonic)
    away_since: float | None = field(default_factory=time.monotonic)
    scene: Any = None
    other: Any = None
    revision: int = 0
    job: Any = None
    video: Any = None
    geometry: Any = None
    progress: Any = None
    source: Any = None
    tray: Any = None
    model: tuple[str | None, str | None] = (None, None)
    memory: dict[str, Any] = field(default_factory=dict)
    ended: str | None = None
    downloads: Path | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    arriving: threading.Lock = field(default_factory=threading.Lock)
    _listeners: list[Callable[[Message], None]] = field(default_factory=list)
    unheard: NoticeMessage | None = None  # told before the page's line was open, which begins with it

    def touch(self) -> None:
        """The visitor did something."""
        self.active = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether work of this visit is under way."""
        return any(job is not None and not job.done for job in (self.job, self.video, self.geometry))

    def listen(self, listener: Callable[[Message], None]) -> Callable[[], None]:
        """Messages to the page go to the newest listener, until the returned function is called; the one before
        learns that another page took over."""
        with self.lock:
            before = list(self._listeners)
            self._listeners = [listener]
            self.away_since = None
        for old in before:
            old(EndedMessage("This visit goes on in another tab."))

        def leave() -> None:
            with self.lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)
                if not self._listeners:
                    self.away_since = time.monotonic()

        return leave

    def tell(self, message: Message) -> None:
        """Sends a message to the page, if one is open."""
        with self.lock:
            listeners = list(self._listeners)
            if isinstance(message, NoticeMessage):
                self.unheard = None if listeners else message
        for listener in listeners:
            listener(message)

    def show(self, scene: Any) -> None:
        """Makes `scene` the one that is looked at."""
        with self.lock:
            self.unheard = None
            self.scene = scene
            self.revision += 1
            self.memory.clear()
            message = self.scene_message()
        if message:
            self.tell(message)

    def scene_message(self) -> SceneMessage | None:
        """What the viewer must know of the scene, or None without one."""
        with self.lock:
            if self.scene is None:
                return None
            return SceneMessage(self.revision, self.scene.for_viewer())

    def room(self, what: str, wanted: int = 0) -> None:
        """Raises NVSError when the session's files and `wanted` more bytes exceed the limit."""
        used = folder_bytes(self.folder) + (folder_bytes(self.downloads) if self.downloads else 0)
        if used + wanted > self.limits.session_bytes:
            raise NVSError(
                f"{what}: this visit may keep {self.limits.session_bytes // MIB} MB of files and has "
                f"{used // MIB} MB; use fewer or smaller files, or reload the page to start afresh"
            )

    def download(self, name: str) -> Path:
        """Where a file that is handed out is written; one of the same name before is replaced."""
        assert self.downloads is not None
        self.room(name)
        folder = self.downloads / secrets.token_hex(4)
        folder.mkdir(parents=True)
        for other in self.downloads.glob(f"*/{name}"):
            other.unlink(missing_ok=True)
        return folder / name

    def new_folder(self, name: str) -> Path:
        """A new empty folder inside the session's."""
        folder = self.folder / f"{name}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        return folder


class SessionStore:
    """All visits. `on_end` is called with each session that ends, before its folder is removed."""

    def __init__(
        self, root: Path, limits: SessionLimits | None = None, on_end: Callable[[Session], None] | None = None
    ):
        self.root = root
        self.limits = limits or SessionLimits()
        self.on_end = on_end
        self._sessions: dict[str, Session] = {}
        self._pages: dict[str, tuple[str, str]] = {}  # gradio's own name of a page -> its owner, and the token
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._sessions)

    def create(self, owner: str, address: str = "") -> Session:
        """A new visit. When all places are taken, or all of its address, the visit (of that address) that is away for
        longest gives way.

        Raises NVSError when everybody is there or has work under way."""
        self.sweep()
        with self._lock:
            here = [session for session in self._sessions.values() if address and session.address == address]
            if len(here) >= self.limits.address_sessions:
                self._give_way(here, f"There are {len(here)} visits from your address already; close one of them.")
            if len(self._sessions) >= self.limits.sessions:
                places = f"All {self.limits.sessions} places are taken just now; try again in some minutes."
                self._give_way(list(self._sessions.values()), places)
            token = secrets.token_urlsafe(24)
            # Not the token: a path may be read in a message, and must not open the session.
            folder = self.root / secrets.token_hex(16)
            folder.mkdir(parents=True, mode=0o700)
            session = Session(token, owner, folder, self.limits, address)
            # Beside the visits: gradio hands out what lies there to whoever knows the (secret) name.
            session.downloads = self.root.parent / "gradio" / secrets.token_hex(24)
            self._sessions[token] = session
            return session

    def _give_way(self, sessions: list[Session], otherwise: str) -> None:
        """Ends the visit that is away for longest. Raises NVSError with these words where there is none."""
        away = [session for session in sessions if session.away_since is not None and not session.busy]
        if not away:
            raise NVSError(otherwise)
        self.end(min(away, key=lambda session: session.away_since or 0.0), ENDED_FULL)

    def find(self, token: str | None, owner: str) -> Session | None:
        """The session of this token, if it is this owner's."""
        with self._lock:
            session = self._sessions.get(token or "")
        if session is None or not secrets.compare_digest(session.owner.encode(), owner.encode()):
            return None
        return session

    def of_page(self, page: str, owner: str, address: str = "") -> Session:
        """The session of a page or API client that gradio calls `page`; made when there is none.

        Raises NVSError where the page is another owner's: its name alone, which others may learn, opens nothing."""
        with self._lock:
            theirs, token = self._pages.get(page, (owner, None))
            if not secrets.compare_digest(theirs.encode(), owner.encode()):
                raise NVSError("This page belongs to another visit. Reload it to start your own.")
            session = self.find(token, owner)
            if session is None:
                session = self.create(owner, address)
                self._pages[page] = (owner, session.token)
        session.touch()
        return session

    def bind(self, page: str, session: Session) -> None:
        """From now on `page` is this session (its page was reloaded)."""
        with self._lock:
            self._pages[page] = (session.owner, session.token)

    def sweep(self) -> None:
        """Ends visits that are idle or away for too long."""
        now = time.monotonic()
        with self._lock:
            for session in list(self._sessions.values()):
                if session.busy:
                    continue
                idle = now - session.active > self.limits.idle_seconds
                away = session.away_since is not None and now - session.away_since > self.limits.away_seconds
                if away and now - session.active > self.limits.away_seconds or idle:
                    self.end(session, ENDED_IDLE.format(minutes=self.limits.idle_seconds / 60))

    def end(self, session: Session, why: str) -> None:
        """Ends a visit: the page is told, its work cancelled, its files removed."""
        with self._lock:
            if self._sessions.pop(session.token, None) is None:
                return
            self._pages = {page: known for page, known in self._pages.items() if known[1] != session.token}
        session.ended = why
        session.tell(EndedMessage(why))
        for work in (session.job, session.video, session.geometry):
            if work is not None:
                work.cancel()
        if self.on_end is not None:
            self.on_end(session)
        session.scene = None
        session.memory.clear()
        shutil.rmtree(session.folder, ignore_errors=True)
        if session.downloads is not None:
            shutil.rmtree(session.downloads, ignore_errors=True)

    def close(self) -> None:
        """Ends all visits."""
        with self._lock:
            for session in list(self._sessions.values()):
                self.end(session, "The server has been stopped.")


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # removed meanwhile
                continue
    return total


def temporary_root() -> Path:
    """A new folder for the files of visits, named after this process; those of processes that are gone, and left
    theirs behind, are removed."""
    parent = Path(tempfile.gettempdir())
    for folder in parent.glob("nvs-web-*-*"):
        number = folder.name.split("-")[2]
        if number.isdigit() and not _alive(int(number)) and folder.is_dir() and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"nvs-web-{os.getpid()}-"))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
