"""`--adapt SECONDS`: some weights of the network optimised on a scene's own input views, see `nvs_app.adaptation`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from nvs_app.adaptation.adapt import AdaptConfig, Adapted, adapt
from nvs_app.cli.common import positive_float, stage
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages


def add_adapt_option(parser: argparse.ArgumentParser) -> None:
    """--adapt."""
    parser.add_argument(
        "--adapt",
        type=positive_float,
        metavar="SECONDS",
        help="optimise how the network reads this scene, on its input views alone, for so long at most; some of them"
        " train nothing and say when it is best. Ctrl-C keeps the best so far",
    )


def adapt_scene(renderer: Renderer, posed: PosedImages, state: SceneState, seconds: float, name: str) -> Adapted:
    """What `adapt` finds; progress goes to stderr, and Ctrl-C ends it. Raises NVSError."""
    with interruptible() as stop, stage(f"{name}: adapting, {seconds:g} s at most") as tell:
        found = adapt(renderer, posed, state, AdaptConfig(seconds), lambda step: tell(step.share), stop)
    print(f"note: {name}: {found.words}", file=sys.stderr)
    return found


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed inside; a second one interrupts as usual. In the main thread alone."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number, frame) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
