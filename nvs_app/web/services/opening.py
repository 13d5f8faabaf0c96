"""From an input to a scene that can be looked at: choose views, load, encode, and keep what the page needs."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.state import SceneState, context_cameras
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.images import to_uint8
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit
from nvs_app.web.services.states import StateCache
from nvs_app.web.services.truth import image_uri
from nvs_app.web.services.viewpoint import Viewpoint

StageCallback = Callable[[str, float, str], None]


@dataclass(frozen=True)
class LoadedScene:
    """A scene that is ready to be looked at.

    Attributes:
        name: for people.
        renderer: that encoded it and renders it; the one that exports use.
        state_key: its state in the `StateCache`.
        cameras: [v] of the whole capture; of a state that was brought alone, its context cameras.
        scene, split: the photos and what was read of them; None where only a state was brought.
        image_hw: size of the context images.
        viewpoint: the first look.
        context_jpegs: the context images, small, as data URIs.
        unregistered: photos without a camera, and why.
        seconds: time of encoding.
        no_depth: why the scene knows no depth, a sentence; empty where it does.
        sharpened: what sharpening it came to, a sentence; empty where it was not.
    """

    name: str
    renderer: Renderer
    state_key: str
    cameras: Cameras
    scene: Scene | None
    split: ViewSplit | None
    image_hw: tuple[int, int]
    viewpoint: Viewpoint
    context_jpegs: list[str] = field(default_factory=list)
    unregistered: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    no_depth: str = ""
    sharpened: str = ""

    @property
    def read(self) -> Cameras:
        """The cameras [k] of the photos that were read: where they are, the scene is known best."""
        return self.cameras if self.split is None else self.cameras[self.split.context]

    @property
    def words(self) -> str:
        """How it was made: "8 input views at 256×256, NAME"."""
        count = len(self.split.context) if self.split is not None else len(self.cameras)
        height, width = self.image_hw
        return f"{count} input view{'s' * (count > 1)} at {width}×{height}, {self.renderer.card.get('name', 'model')}"

    def of_capture(self, other: LoadedScene) -> bool:
        """Whether the same photos and cameras are behind it, so that a camera of one is one of the other."""
        return self.scene is not None and other.scene is not None and self.scene.root == other.scene.root

    def for_viewer(self) -> dict[str, Any]:
        """What the page's script must know."""
        return {"name": self.name, **self.viewpoint.for_page(), "no_depth": self.no_depth}


def open_scene_for_viewing(
    scene: Scene,
    split: ViewSplit,
    renderer: Renderer,
    cache: StateCache,
    image_hw: tuple[int, int] | None = None,
    report: StageCallback | None = None,
    **facts: Any,
) -> LoadedScene:
    """Reads the context views and encodes them.

    report: progress(stage, fraction, words) with the stages "read" and "encode"; what it raises stops the work.
    facts: further attributes of `LoadedScene`.

    Raises NVSError as `Scene.load` and `Renderer.encode` do.
    """
    tell = report or (lambda *_: None)
    image_hw = image_hw or renderer.train_image_hw
    count = len(split.context)
    tell("read", 0.0, f"{count} images")
    context = scene.load(split.context, image_hw)
    tell("encode", 0.0, f"{count} views of {image_hw[1]}×{image_hw[0]}")
    start = time.perf_counter()
    state = renderer.encode(context, progress=lambda fraction: tell("encode", fraction, f"{count} views"))
    seconds = time.perf_counter() - start
    key = secrets.token_hex(8)
    cache.put(key, state)
    cameras = scene.cameras(None, image_hw)
    return LoadedScene(
        scene.name.replace("_", " "),
        renderer,
        key,
        cameras,
        scene,
        split,
        image_hw,
        Viewpoint.of(cameras[split.context]),
        [jpeg_uri(image) for image in context.images[:24]],
        seconds=seconds,
        no_depth=why_no_depth(renderer, state),
        **facts,
    )


def open_state(path: Path, renderer: Renderer, cache: StateCache, name: str) -> LoadedScene:
    """A scene from a state file alone: it can be looked at and filmed; photos to compare with there are none.

    Raises NVSError for a file of another kind, a state of another checkpoint or one without cameras."""
    state = SceneState.load(path, renderer.device)
    cameras = context_cameras(state)
    if cameras is None:
        raise NVSError(f"{path.name}: the state does not tell its cameras; encode the scene again")
    try:
        renderer.render(state, cameras[:1].scaled_to((16, 16)))  # refuses a state of another network
    except (RuntimeError, ValueError) as error:
        raise NVSError(f"{path.name}: the state does not fit the checkpoint; encode the scene again") from error
    key = secrets.token_hex(8)
    cache.put(key, state)
    hw, first, why = cameras.image_hw, Viewpoint.of(cameras), why_no_depth(renderer, state)
    return LoadedScene(name, renderer, key, cameras, None, None, hw, first, no_depth=why)


def why_no_depth(renderer: Renderer, state: SceneState) -> str:
    """Why a scene knows no depth, a sentence for people; empty where it does."""
    if renderer.model.detail_head is None:
        return "This checkpoint has no detail head, which is what knows depth."
    if not renderer.detail:
        return "The server was started without the detail head, which is what knows depth."
    if state.context is None:
        return "The scene was encoded without a detail head, which is what knows depth; encode it again."
    return ""


class ExampleCache:
    """Encoded examples, shared by all visitors and kept; the first who asks has it encoded, the others wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[Any, threading.Lock] = {}
        self._opened: dict[Any, LoadedScene] = {}

    def get(self, key: Any, make: Callable[[], LoadedScene], there: Callable[[LoadedScene], bool]) -> LoadedScene:
        """What is kept under a key and is `there` still, or is made now."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._opened or not there(self._opened[key]):
                self._opened[key] = make()
            return self._opened[key]

    def keeps(self, state_key: str) -> bool:
        """Whether a state belongs to an example, so that the end of a visit must not drop it."""
        return any(opened.state_key == state_key for opened in list(self._opened.values()))


def jpeg_uri(image: Float[Tensor, "3 h w"], longest: int = 96) -> str:
    """An image in [0, 1] as a data URI; made smaller when a side exceeds `longest`."""
    image = Image.fromarray(to_uint8(image).cpu().numpy())
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return image_uri(np.asarray(image), "JPEG")


def find_examples(folder: Path, extra: Sequence[Path] = ()) -> dict[str, Path]:
    """Scenes to offer, by name: `extra` first, then the folders inside `folder` that hold a camera file."""
    known = ("transforms.json", "opencv_cameras.json", "transforms_train.json")
    bundled = [
        path
        for path in sorted(folder.iterdir() if folder.is_dir() else ())
        if any((path / name).is_file() for name in known)
    ]
    found: dict[str, Path] = {}
    for path in [*extra, *bundled]:
        resolved = path.expanduser().resolve()
        name = (resolved.stem if resolved.suffix == ".json" else resolved.name).replace("_", " ")
        found.setdefault(name if name not in found else f"{name} ({resolved.parent.name})", path)
    return found
