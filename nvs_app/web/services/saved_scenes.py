"""Encoded scenes that visitors keep on the server, in the folder of `--keep`, over restarts.

Each lies in a folder of its own with a secret name: the state, the scene with its photos, and a note that says whose
it is (a digest of the visitor's cookie and login). Only he finds it again. Who brings neither cookie nor login has no
identity of his own, and keeps nothing.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from data_tools.readers import open_scene
from nvs_app.errors import NVSError
from nvs_app.model.state import SceneState
from nvs_app.rendering.device import bytes_words
from nvs_app.scenes.views import ViewSplit
from nvs_app.web.access import is_anonymous
from nvs_app.web.app_state import AppState
from nvs_app.web.services.kept_limits import PINNED, gone, make_room, remember_gone
from nvs_app.web.services.opening import LoadedScene, jpeg_uri, open_state, why_no_depth
from nvs_app.web.services.uploads import SceneInput
from nvs_app.web.services.viewpoint import Viewpoint
from nvs_app.web.sessions import Session, folder_bytes

NAME = re.compile(r"[A-Za-z0-9_-]{20,64}")


def keep(app_state: AppState, session: Session) -> str:
    """Keeps the scene that is looked at; returns its secret name. Raises NVSError."""
    root, opened = _root(app_state), app_state.require_scene(session)
    if is_anonymous(session.owner):
        raise NVSError("keep: allow this page's cookie or log in; without them nobody could tell the scene is yours")
    name = secrets.token_urlsafe(18)
    temporary = root / f".{name}.tmp"
    temporary.mkdir(parents=True, mode=0o700)
    try:
        app_state.state(opened).save(temporary / "state.safetensors")
        if opened.scene is not None:
            opened.scene.save(temporary / "scene")
        note = {
            "name": opened.name,
            "owner": session.owner,
            "when": time.strftime("%Y-%m-%d %H:%M"),
            "context": opened.split.context if opened.split else [],
            "target": opened.split.target if opened.split else [],
            "image_hw": list(opened.image_hw),
            "checkpoint": str(opened.renderer.card.get("name", "")),
            "seconds": opened.seconds,
        }
        (temporary / "note.json").write_text(json.dumps(note), encoding="utf-8")
        os.replace(temporary, root / name)
        os.utime(root / name)
        _make_room(app_state, root, session.owner, name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return name


def kept(app_state: AppState, session: Session) -> list[tuple[str, str]]:
    """The visitor's kept scenes: (secret name, words), the newest first."""
    if app_state.keep is None or not app_state.keep.is_dir() or is_anonymous(session.owner):
        return []
    found = []
    for folder in app_state.keep.iterdir():
        note = _note(folder)
        if note is not None and secrets.compare_digest(str(note.get("owner")), session.owner):
            found.append((str(note.get("when")), folder.name, f"{note.get('name')} · {note.get('when')}"))
    return [(name, words) for _, name, words in sorted(found, reverse=True)]


def room_words(app_state: AppState, session: Session) -> str:
    """What a visitor is told beside the list of what he keeps: what it takes, what goes next, and what went."""
    mine = [name for name, _ in kept(app_state, session)]
    if app_state.keep is None or is_anonymous(session.owner):
        return ""
    root, limits = app_state.keep, app_state.kept_limits
    words = []
    if mine:
        used, most = sum(folder_bytes(root / name) for name in mine), min(limits.owner_bytes, limits.all_bytes)
        words.append(f"They take {bytes_words(used)} of {bytes_words(most)}.")
        loose = [name for name in mine if not (root / name / PINNED).exists()]
        if loose:
            oldest = min(loose, key=lambda name: _touched(root / name))
            words.append(f"Where room is short the oldest goes first: {_words(root / oldest)}.")
    lost = gone(root, session.owner) if root.is_dir() else []
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        words.append(f"Removed to make room: {', '.join(lost[:3])}{more}.")
    return " ".join(words)


def share(app_state: AppState, session: Session, name: str, on: bool = True) -> str:
    """Gives a kept scene of this visitor a secret address of its own (or the one it has), under which anybody may look
    at it; on=False: takes it away. Returns the address's secret, empty when it is off. Raises NVSError."""
    if not name or name not in dict(kept(app_state, session)):
        raise NVSError("There is no such kept scene of yours.")
    folder = _root(app_state) / name
    note = _note(folder) or {}
    note["shared"] = (note.get("shared") or secrets.token_urlsafe(18)) if on else ""
    temporary = folder / f"note.{secrets.token_hex(4)}.tmp"
    temporary.write_text(json.dumps(note), encoding="utf-8")
    os.replace(temporary, folder / "note.json")
    return str(note["shared"])


def open_shared(app_state: AppState, session: Session, secret: str) -> LoadedScene:
    """Opens the scene that somebody shares under a secret. Raises NVSError where nobody does, or not any more."""
    if app_state.keep is not None and app_state.keep.is_dir() and NAME.fullmatch(secret):
        for folder in app_state.keep.iterdir():
            shared = str((_note(folder) or {}).get("shared") or "")
            if shared and secrets.compare_digest(shared, secret):
                return _open(app_state, session, folder)
    raise NVSError("This link leads nowhere any more: whoever shared the scene has taken it back.")


def reopen(app_state: AppState, session: Session, name: str) -> LoadedScene:
    """Opens a kept scene of this visitor. Raises NVSError."""
    if not name or name not in dict(kept(app_state, session)):
        raise NVSError("There is no such kept scene of yours.")
    return _open(app_state, session, _root(app_state) / name)


def _open(app_state: AppState, session: Session, folder: Path) -> LoadedScene:
    note = _note(folder) or {}
    checkpoint = str(note.get("checkpoint") or "") or None
    renderer = app_state.renderer(checkpoint, session.model[1])
    hw = (int(note["image_hw"][0]), int(note["image_hw"][1]))
    key = secrets.token_hex(8)
    scene = open_scene(folder / "scene") if (folder / "scene").is_dir() else None
    if scene is None:
        opened = open_state(folder / "state.safetensors", renderer, app_state.states, str(note["name"]))
    else:
        state = SceneState.load(folder / "state.safetensors", renderer.device)
        app_state.states.put(key, state)
        cameras = scene.cameras(None, hw)
        split = ViewSplit([int(i) for i in note["context"]], [int(i) for i in note["target"]])
        images = [jpeg_uri(image) for image in scene.load(split.context[:24], hw).images]
        opened = LoadedScene(
            str(note["name"]), renderer, key, cameras, scene, split, hw, Viewpoint.of(cameras[split.context]), images,
            seconds=float(note["seconds"]), no_depth=why_no_depth(renderer, state),
        )  # fmt: skip
        session.source = SceneInput.of(scene, opened.name)
    app_state.show(session, opened)
    return opened


def _root(app_state: AppState) -> Path:
    if app_state.keep is None:
        raise NVSError("This server keeps no scenes; start it with --keep FOLDER.")
    return app_state.keep


def _make_room(app_state: AppState, root: Path, owner: str, name: str) -> None:
    """`make_room`; whose scenes went to make it is told, also where there is not enough in the end."""
    before = {folder: (_owner(folder), _words(folder)) for folder in root.iterdir() if folder.name != name}
    try:
        make_room(root, owner, _owner, app_state.kept_limits)
    finally:
        for folder, (whose, words) in before.items():
            if whose is not None and not folder.exists():
                remember_gone(root, folder.name, whose, words)


def _touched(folder: Path) -> float:
    """When it was kept or shared; 0 where it has gone meanwhile."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _words(folder: Path) -> str:
    """A kept scene for a sentence that the page takes as marked up: its name's letters and figures, and when."""
    note = _note(folder) or {}
    name = "".join(letter if letter.isalnum() else " " for letter in str(note.get("name")))
    return f"“{' '.join(name.split())}” ({note.get('when')})"


def _owner(folder: Path) -> str | None:
    note = _note(folder)
    return None if note is None else str(note.get("owner"))


def _note(folder: Path) -> dict | None:
    if not NAME.fullmatch(folder.name):
        return None
    try:
        note = json.loads((folder / "note.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None
