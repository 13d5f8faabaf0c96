"""What the page does, without the page: opens and encodes scenes, draws views, compares with held-out photos."""

from __future__ import annotations

import base64
import io
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from data_tools.readers import open_scene
from nvs_app.engine.metrics import psnr, ssim, to_uint8
from nvs_app.engine.renderer import Renderer
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.state import SceneState
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit, choose_views
from nvs_app.web.orbit import Orbit

KEPT_SCENES = 6  # encoded scenes held in memory; the one unused for longest goes first


@dataclass(frozen=True)
class Encoded:
    """A scene that is ready to be looked at.

    Attributes:
        scene, split, state: what was opened, which views were read, what they were written into.
        orbit: the frame of the sliders.
        image_hw: size of the context pictures and of the comparison.
        context_jpegs: the context pictures, small, as data URIs.
        seconds: time that encoding took.
    """

    scene: Scene
    split: ViewSplit
    state: SceneState
    orbit: Orbit
    image_hw: tuple[int, int]
    context_jpegs: list[str]
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """A held-out view: rendering and photo as data URIs, and how close they are."""

    rendered: str
    photo: str
    psnr: float
    ssim: float


class Studio:
    """One renderer, shared by all visitors: one thing is computed at a time, encoded scenes are kept for a while."""

    def __init__(self, renderer: Renderer, image_hw: tuple[int, int], num_context: int = 8):
        self.renderer = renderer
        self.image_hw = image_hw
        self.num_context = num_context
        self._computing = threading.Lock()
        self._scenes: OrderedDict[str, Encoded] = OrderedDict()

    def open(self, path: str | Path) -> Encoded:
        """The encoded scene of a folder; encodes it on the first call. Raises NVSError."""
        key = str(Path(path).expanduser().resolve())
        with self._computing:
            if key not in self._scenes:
                self._scenes[key] = self._encode(Path(key))
                while len(self._scenes) > KEPT_SCENES:
                    self._scenes.popitem(last=False)
            self._scenes.move_to_end(key)
            return self._scenes[key]

    def prepare(self, path: str | Path) -> None:
        """As `open`, for a thread of its own: a mistake is printed, and told again to whoever opens the scene."""
        try:
            self.open(path)
        except NVSError as error:
            print(f"error: {error}", file=sys.stderr)

    def _encode(self, path: Path) -> Encoded:
        try:
            scene = open_scene(path)
        except OSError as error:
            raise NVSError(f"{path}: cannot be read ({error.strerror or error})") from error
        count = min(self.num_context, len(scene) - 1)  # one view at least is held out
        split = choose_views(scene, count) if count else ViewSplit([0], [])
        context = scene.load(split.context, self.image_hw)
        start = time.perf_counter()
        state = self.renderer.encode(context)
        seconds = time.perf_counter() - start
        return Encoded(
            scene,
            split,
            state,
            Orbit.around(scene.cameras(None, self.image_hw)),
            self.image_hw,
            [jpeg_uri(image, longest=96) for image in context.images],
            seconds,
        )

    def draw(self, encoded: Encoded, cameras: Cameras) -> tuple[Float[Tensor, "3 h w"], float]:
        """The first of `cameras` drawn, and the milliseconds that it took (waiting for others not counted)."""
        with self._computing:
            start = time.perf_counter()
            image = self.renderer.render(encoded.state, cameras[:1])[0]
            return image, 1e3 * (time.perf_counter() - start)

    def compare(self, encoded: Encoded, index: int) -> Comparison:
        """A held-out view beside its photo. Raises NVSError when the view does not exist."""
        truth = encoded.scene.load([index], encoded.image_hw)
        with self._computing:
            rendered = self.renderer.render(encoded.state, truth.cameras)
        return Comparison(
            jpeg_uri(rendered[0]),
            jpeg_uri(truth.images[0]),
            float(psnr(rendered, truth.images)[0]),
            float(ssim(rendered, truth.images)[0]),
        )


def jpeg_uri(image: Float[Tensor, "3 h w"], longest: int | None = None) -> str:
    """A picture in [0, 1] as a data URI; made smaller when a side exceeds `longest`."""
    picture = Image.fromarray(to_uint8(image).cpu().numpy())
    if longest is not None:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


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
