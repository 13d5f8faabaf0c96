"""`--add-views I,J,K` and `--stream` of `render`: more photos for a scene file; scenes too long to be read at once."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nvs_app.cli.common import indices, stage
from nvs_app.errors import NVSError
from nvs_app.model.state import SceneState, context_cameras
from nvs_app.rendering.adding import CHUNK, add_views, encode_again, encode_stream
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.scene import Scene

HOW = {"exact": encode_again, "fast": add_views}


def add_adding_options(parser: argparse.ArgumentParser) -> None:
    """--add-views, --add-how, --stream."""
    group = parser.add_argument_group("more photos, and films")
    group.add_argument(
        "--add-views",
        type=indices,
        metavar="I,J,K",
        help="write these views of SCENE, too, into the --state FILE that is there; those that it has are left out",
    )
    group.add_argument(
        "--add-how",
        choices=tuple(HOW),
        default="exact",
        help="exact: encode all photos of FILE and the new ones again; fast: a further step on the new ones alone,"
        " approximate (default: exact)",
    )
    group.add_argument(
        "--stream",
        action="store_true",
        help=f"encode the input views (all, unless --context says how many) {CHUNK} at a time, in their order, while"
        " they are read: memory does not grow with their number",
    )


def check_adding(args: argparse.Namespace) -> None:
    """Raises NVSError for options that go with nothing."""
    if args.add_views is None:
        return
    if args.state is None or len(args.scenes) != 1 or not Path(args.state).is_file():
        raise NVSError("--add-views: into a --state FILE that is there, from one SCENE; give both")


def with_views(
    renderer: Renderer, state: SceneState, scene: Scene, views: Sequence[int], how: str, file: Path
) -> tuple[SceneState, str]:
    """A state with more views of a scene, and what was done, in words. Raises NVSError."""
    remembered = context_cameras(state)
    if remembered is None:
        raise NVSError(f"--add-views: {file} does not tell its cameras; encode the scene again")
    wrong = [view for view in views if view >= len(scene)]
    if wrong:
        raise NVSError(f"--add-views {wrong[0]}: {scene.name} has {len(scene)} views, counted from 0")
    distances = (scene.c2w[list(views)].double()[:, None] - remembered.c2w.double()[None]).abs().amax((-1, -2)).amin(1)
    new = [view for view, distance in zip(views, distances.tolist(), strict=True) if distance > 1e-5]
    if len(new) < len(views):
        print(f"note: {file} has {len(views) - len(new)} of these {len(views)} views already", file=sys.stderr)
    if not new:
        return state, f"state from {file}"
    posed = scene.load(new, remembered.image_hw)
    start = time.perf_counter()
    with stage(f"adding {len(new)} views ({how})"):
        state = HOW[how](renderer, state, posed)
    return state, f"{len(new)} views added ({how}) to {file} in {time.perf_counter() - start:.1f} s"


def encoded_stream(renderer: Renderer, scene: Scene, context: Sequence[int], image_hw: tuple[int, int]) -> SceneState:
    """The views `context` of a scene, encoded while they are read."""
    groups = [list(context[first : first + CHUNK]) for first in range(0, len(context), CHUNK)]
    chunks = (scene.load(group, image_hw) for group in groups)
    with stage(f"encoding {len(context)} views, {CHUNK} at a time", len(context)) as tell:
        return encode_stream(
            renderer, chunks, scene.cameras(list(context), image_hw), progress=lambda count, state: tell(count)
        )
