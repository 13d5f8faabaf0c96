"""More photos of the same capture for a scene that is open, by further steps on the new ones alone: it grows with them.

Photos without cameras have no place in a scene yet: all of them are reconstructed again, see `encoding`.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.rendering.adding import add_views
from nvs_app.scenes.views import ViewSplit
from nvs_app.web.app_state import AppState
from nvs_app.web.services.jobs import Job
from nvs_app.web.services.opening import LoadedScene, jpeg_uri
from nvs_app.web.services.progress import Progress
from nvs_app.web.sessions import Session

CHUNK = 4  # photos after which the grown scene is shown


def grow(app_state: AppState, session: Session, views: int) -> Job:
    """Adds photos of the capture, those farthest from the ones read, until `views` are read: work in the row of the
    encodings, in place of a visitor's older one, whose result is the scene. Raises NVSError where there are
    none to add."""
    opened = app_state.require_scene(session)
    if opened.scene is None or opened.split is None:
        raise NVSError("This scene came as a scene file: there are no more photos of it here.")
    count, most = len(opened.split.context), min(len(opened.scene), session.limits.context_views)
    if not count < views <= most:
        raise NVSError(f"{views} input views: the scene has read {count} of {most}; choose more of them first.")
    new = farthest(opened.scene.c2w, opened.split.context, views - count)

    def work(job: Job) -> LoadedScene:
        grown = opened
        for first in range(0, len(new), CHUNK):
            job.report("add", first / len(new), f"{first} of {len(new)} photos")
            grown = _grown(app_state, grown, new[first : first + CHUNK])
            app_state.show(session, grown)
        return grown

    seconds = opened.seconds / count * len(new)
    return app_state.begin(session, work, Progress({"add": seconds}, "Cancelled. What was added stays."))


def _grown(app_state: AppState, opened: LoadedScene, new: list[int]) -> LoadedScene:
    assert opened.scene is not None and opened.split is not None
    posed, start = opened.scene.load(new, opened.image_hw), time.perf_counter()
    state = add_views(opened.renderer, app_state.state(opened), posed)
    seconds = opened.seconds + time.perf_counter() - start
    key = secrets.token_hex(8)
    app_state.states.put(key, state)
    target = [view for view in opened.split.target if view not in new]
    shown = [*opened.context_jpegs, *(jpeg_uri(image) for image in posed.images)][:24]
    return replace(
        opened, state_key=key, split=ViewSplit([*opened.split.context, *new], target), context_jpegs=shown,
        seconds=seconds,
    )  # fmt: skip


def farthest(c2w: Float[Tensor, "n 4 4"], read: list[int], count: int) -> list[int]:
    """`count` views more, each the farthest from those before, by position and half as much by direction."""
    centres = c2w[:, :3, 3] - c2w[:, :3, 3].mean(0)
    features = torch.cat([centres / centres.norm(dim=-1).mean().clamp_min(1e-6), 0.5 * c2w[:, :3, 2]], -1)
    distances, found = torch.cdist(features, features), list(read)
    for _ in range(count):
        nearest = distances[:, found].amin(1)
        nearest[found] = -1.0
        found.append(int(nearest.argmax()))
    return found[len(read) :]
