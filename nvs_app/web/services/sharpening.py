"""Sharpen: the network adapted to the scene that a visitor looks at, on its own photos; see `nvs_app.adaptation`."""

from __future__ import annotations

import secrets
from dataclasses import replace

from nvs_app.adaptation.adapt import AdaptConfig, adapt, check_possible
from nvs_app.adaptation.adapt import Progress as Step
from nvs_app.errors import NVSError
from nvs_app.model.state import SceneState
from nvs_app.rendering.inputs import photos_of
from nvs_app.scenes.posed import PosedImages
from nvs_app.web.app_state import AppState
from nvs_app.web.services.jobs import Job
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.services.progress import Progress
from nvs_app.web.sessions import Session


def sharpen(app_state: AppState, session: Session, seconds: int) -> Job:
    """Puts it into the row of the encodings; a visitor's older work is cancelled. The job's result is the scene, under
    a new state: an example that others look at stays as it is. Raises NVSError where there are too few views to learn
    from, or too little memory."""
    opened = app_state.require_scene(session)
    most = session.limits.sharpen_seconds
    if not 1 <= seconds <= most:
        raise NVSError(f"{seconds} seconds: from 1 to {most} on this server")
    if opened.split is not None:
        check_possible(opened.renderer, len(opened.split.context), opened.image_hw)

    def work(job: Job) -> LoadedScene:
        job.report("sharpen", 0.0)
        state = app_state.state(opened)

        def tell(step: Step) -> None:
            job.report("sharpen", step.share, f"{step.best:.2f} dB, {step.before:.2f} before")

        found = adapt(opened.renderer, photos(opened, state), state, AdaptConfig(float(seconds)), tell)
        key = opened.state_key
        if found.state.adapted is not None:
            key = secrets.token_hex(8)
            app_state.states.put(key, found.state)
        words = found.words[0].upper() + found.words[1:] + "."
        sharpened = replace(opened, state_key=key, sharpened=words)
        app_state.show(session, sharpened)
        return sharpened

    return app_state.begin(session, work, Progress({"sharpen": float(seconds)}, "The scene is as it was."))


def photos(opened: LoadedScene, state: SceneState) -> PosedImages:
    """The views that a scene was encoded from. Raises NVSError where they are not here."""
    if opened.scene is not None and opened.split is not None:
        return opened.scene.load(opened.split.context, opened.image_hw)
    found = photos_of(state)
    if found is None:
        raise NVSError("The photos of this scene are not here, and its file holds none to learn from.")
    return found
