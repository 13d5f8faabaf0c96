"""More photos for an encoded scene, and scenes that are read bit by bit.

    state = add_views(renderer, state, posed)                        # fast: a further step on the new ones alone
    state = encode_again(renderer, state, posed)                     # exact: all photos again
    state = encode_stream(renderer, chunks, cameras, keep=64)        # a long film: memory does not grow with it

With a detail head a state holds its photos, so that either way needs nothing else but its file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import normalize_context
from nvs_app.model.detail import ContextViews
from nvs_app.model.more import spread_out, write_more
from nvs_app.model.state import SceneState, context_cameras
from nvs_app.rendering.inputs import cameras_text, floats, photos_of
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages

CHUNK = 16  # views that are written in one step
KEEP = 64  # photos that a detail head goes on looking at


def add_views(renderer: Renderer, state: SceneState, posed: PosedImages) -> SceneState:
    """Writes more views [v] into a state, some at a time, in its own frame and scale; what it knew before stays as it
    is, but for the fast weights' steps. Approximate, see `write_more`; the time is that of the new views alone.

    posed: cameras in the scene's own frame, images of the size of those before. Raises NVSError for other sizes, and
    for a state that does not tell its cameras.
    """
    for first in range(0, len(posed), CHUNK):
        state = _further(renderer, state, posed[list(range(first, min(first + CHUNK, len(posed))))])
    return state


def encode_again(renderer: Renderer, state: SceneState, posed: PosedImages) -> SceneState:
    """Encodes the photos of a state together with more of them. Frame and scale are found anew from all cameras;
    weights of the scene's own stay. Raises NVSError for other sizes, and for a state without photos."""
    before = photos_of(state)
    if before is None:
        raise NVSError("add: the scene file holds no photos (it was encoded without a detail head); encode all of them")
    _same_size(before.cameras.image_hw, posed)
    both = PosedImages(
        torch.cat([before.float().images, posed.float().images.to(before.images.device)]),
        Cameras.cat([before.cameras, posed.cameras.to(before.cameras.device)], dim=0),
    )
    return replace(renderer.encode(both), adapted=state.adapted)


def encode_stream(
    renderer: Renderer,
    chunks: Iterable[PosedImages],
    cameras: Cameras | None = None,
    keep: int = KEEP,
    progress: Callable[[int, SceneState], None] | None = None,
) -> SceneState:
    """Encodes views while they are read: the first chunk as `Renderer.encode` does, each further one by a step of its
    own (`add_views`). Memory is that of a chunk, of the fast weights and of `keep` photos, however long it is.

    chunks: views [v] of one size, v may differ; only one chunk is held at a time. cameras: those of all chunks, or of
        many of them, where they are known before: frame and scale come from them, else from the first chunk's. keep:
        photos for a detail head; of more, those that lie nearest to others go. progress: called after each chunk with
        the number of views so far and the state, which is complete as far as it goes.

    Raises NVSError where there is no view, and for chunks of several sizes.
    """
    transform = None
    if cameras is not None:
        transform = normalize_context(cameras.c2w.cpu()[None], renderer.preset)
    state, count = None, 0
    for chunk in chunks:
        count += len(chunk)
        state = renderer.encode(chunk, transform) if state is None else _further(renderer, state, chunk, count)
        state = _thinned(state, keep)
        if progress is not None:
            progress(count, state)
    if state is None:
        raise NVSError("encode: the stream holds no view")
    return state


def _further(renderer: Renderer, state: SceneState, posed: PosedImages, count: int | None = None) -> SceneState:
    """One further step; count: of all views with these, where the state does not hold them all."""
    remembered = context_cameras(state)
    if remembered is None or state.transform is None:
        raise NVSError("add: the state does not tell its cameras; encode the scene again")
    inputs = renderer.inputs(posed, state.transform)
    hw = remembered.image_hw if state.context is None else tuple(state.context.cameras.image_hw)
    _same_size((hw[0], hw[1]), PosedImages(inputs.photos, inputs.cameras))
    views = len(inputs.photos)
    with renderer.inference(f"add: {views} views", "give fewer views at once"):
        small = inputs.normalised.scaled_to(inputs.plan.lact_hw)
        share = views / (count or len(remembered) + views)
        photos = inputs.photos[None] if inputs.plan.detail else None
        there = state.to(renderer.device)
        images = floats(inputs.small, renderer.device)[None]
        found = write_more(renderer.model, there, images, small, share, photos, inputs.normalised)
    cameras = Cameras.cat([remembered, inputs.cameras.to("cpu")], dim=0)
    meta = {**state.meta, "context_cameras": cameras_text(cameras)}
    for digest in ("photos", "streamed"):  # of the photos before
        meta.pop(digest, None)
    return replace(found, meta=meta)


def _thinned(state: SceneState, keep: int) -> SceneState:
    """At most `keep` photos and cameras."""
    cameras = context_cameras(state)
    if cameras is None or len(cameras) <= keep:
        return state
    rows = spread_out(cameras.c2w, keep)
    context = state.context
    if context is not None:
        context = ContextViews(context.images[:, rows], context.cameras[:, rows], context.features[:, rows])
    return replace(state, context=context, meta={**state.meta, "context_cameras": cameras_text(cameras[rows])})


def _same_size(image_hw: tuple[int, int], posed: PosedImages) -> None:
    if tuple(posed.cameras.image_hw) != tuple(image_hw):
        own, other = ("x".join(map(str, hw)) for hw in (posed.cameras.image_hw, image_hw))
        raise NVSError(f"add: images of {own}, the scene was encoded from {other}; resize them with their cameras")
