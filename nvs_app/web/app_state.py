"""What all visitors share: the renderers, the encoded states, the row of jobs, the rendering thread, the sessions.

app_state = AppState(renderer, examples)
session = app_state.store.create("owner")
app_state.show(session, app_state.example("object chair"))
frame = app_state.frame(session.scene, camera)
app_state.close()
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from data_tools.readers import open_scene
from nvs_app.errors import NVSError, reading
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.views import ViewSplit, choose_views
from nvs_app.web.scheduler import RenderScheduler
from nvs_app.web.services.frame_plan import FrameCost
from nvs_app.web.services.jobs import Job, JobQueue
from nvs_app.web.services.kept_limits import KeptLimits
from nvs_app.web.services.machine import trim_memory
from nvs_app.web.services.opening import ExampleCache, LoadedScene, StageCallback, open_scene_for_viewing
from nvs_app.web.services.states import StateCache
from nvs_app.web.services.surfaces import OutputImage, coverage, depth_in_colours, surface_point
from nvs_app.web.sessions import Session, SessionLimits, SessionStore, temporary_root

KEPT_RENDERERS = 2  # the first one always stays
OF_DEPTH = {"depth": depth_in_colours, "coverage": coverage}  # outputs that are made of a view's geometry


@dataclass(frozen=True)
class RenderedFrame:
    """A rendered view [3, h, w] in [0, 1], on the renderer's device, the milliseconds that the model took, and what
    else the header of its frame says."""

    image: Float[Tensor, "3 h w"]
    model_ms: float
    facts: dict[str, Any] = field(default_factory=dict)


class AppState:
    """The one object behind the page, its socket and its API."""

    def __init__(
        self,
        renderer: Renderer,
        examples: dict[str, Path],
        num_context: int = 8,
        limits: SessionLimits | None = None,
        state_bytes: int = 2 << 30,
        keep: Path | None = None,
    ):
        self.root = temporary_root()
        self.examples = examples
        self.num_context = num_context
        self.keep = keep
        self.kept_limits = KeptLimits()
        self.states = StateCache(self.root / "states", state_bytes)
        # A GPU is quick, and its recordings (`rendering.cuda_graphs`) are of one thread.
        self.scheduler = RenderScheduler(relief=not torch.cuda.is_available())
        self.jobs = JobQueue("encoder")
        self.videos = JobQueue("videos")
        self.packer = ThreadPoolExecutor(1, "packer")  # frames into JPEGs; one thread keeps them in order
        self.store = SessionStore(self.root / "visits", limits, self._forget)
        self.example_cache = ExampleCache()
        self._first = renderer
        self._renderers: OrderedDict[tuple[str, str], Renderer] = OrderedDict()
        self._costs: dict[tuple[str, str, int], FrameCost] = {}  # of a network on a device, by size
        self._lock = threading.Lock()
        self._stop, self._freed = threading.Event(), threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="sweeper", daemon=True)
        self._sweeper.start()

    @property
    def limits(self) -> SessionLimits:
        return self.store.limits

    def renderer(self, checkpoint: str | None = None, device: str | None = None) -> Renderer:
        """The renderer of a checkpoint in checkpoints/ on a device; loads it on the first call. Raises NVSError."""
        first = str(self._first.card.get("name", ""))
        here = str(self._first.device)
        name, where = checkpoint or first, device or here
        if (name, where) == (first, here):
            return self._first
        with self._lock:
            if (name, where) not in self._renderers:
                # Only by name: a visitor must not open folders of this machine.
                if "/" in name or "\\" in name or name.startswith("."):
                    raise NVSError(f"checkpoint: {name!r} is not a name in checkpoints/")
                without = self._first.model.detail_head is not None and not self._first.detail  # asked for at the start
                self._renderers[(name, where)] = Renderer.from_checkpoint(
                    name, where, detail=not without, views=self._first.views
                )
                while len(self._renderers) >= KEPT_RENDERERS:
                    if next(iter(self._renderers)) == (name, where):
                        break
                    self._renderers.popitem(last=False)
            self._renderers.move_to_end((name, where))
            return self._renderers[(name, where)]

    def devices(self) -> list[str]:
        """The devices that may be chosen."""
        return [*(f"cuda:{i}" if i else "cuda" for i in range(torch.cuda.device_count())), "cpu"]

    def example(self, name: str, renderer: Renderer | None = None, report: StageCallback | None = None) -> LoadedScene:
        """An example, encoded on the first call. Raises NVSError."""
        if name not in self.examples:
            raise NVSError(f"example {name!r}: there is none of that name, expected one of {', '.join(self.examples)}")
        path, renderer = self.examples[name], renderer or self._first

        def make() -> LoadedScene:
            with reading(name):
                scene = open_scene(path)
            count = min(self.num_context, len(scene) - 1)  # one view at least is held out
            split = choose_views(scene, count) if count else ViewSplit([0], [])
            return open_scene_for_viewing(scene, split, renderer, self.states, None, report)

        def there(opened: LoadedScene) -> bool:
            return self.states.has(opened.state_key)

        return self.example_cache.get(self._example_key(name, renderer), make, there)

    @staticmethod
    def _example_key(name: str, renderer: Renderer) -> tuple[str, str, str]:
        return (name, str(renderer.card.get("hash", "")), str(renderer.device))

    def state(self, opened: LoadedScene) -> SceneState:
        """The encoded state of a scene."""
        return self.states.get(opened.state_key)

    def show(self, session: Session, opened: LoadedScene) -> None:
        """Makes a scene the one that a visitor looks at; the one before is forgotten. A visit that has ended
        meanwhile keeps nothing."""
        before, other = session.scene, session.other
        if session.ended:
            self._drop(opened)
            return
        session.show(opened)
        if before is not None and before.state_key != opened.state_key and before is not other:
            self._drop(before)
        if other is not None and not opened.of_capture(other):
            self.hold(session, None)

    def hold(self, session: Session, other: LoadedScene | None) -> None:
        """Makes a scene the one that is shown beside those that come, as long as they are of the same capture; None: no
        scene. The one before is forgotten, unless it is looked at."""
        before, session.other = session.other, other
        if before is not None and before is not other and before is not session.scene:
            self._drop(before)

    def frame(self, opened: LoadedScene, camera: Cameras, output: str = "image", quick: bool = False) -> RenderedFrame:
        """Renders one camera [1] now, in the calling thread: for `scheduler.submit`, which keeps the turns.

        output: "image", or one of OF_DEPTH; quick: see `Renderer.stream`. Raises NVSError for those where the scene
        knows no depth."""
        state = self.state(opened)
        start = time.perf_counter()
        # Left on the device: as bytes it is a quarter of what would have to be copied.
        depth = output in OF_DEPTH
        rendered = next(opened.renderer.stream(state, camera[:1], on_device=True, depth=depth, quick=quick))
        shown = OF_DEPTH[output](rendered) if depth else OutputImage(rendered[0])
        if shown.image.is_cuda:
            torch.cuda.current_stream(shown.image.device).synchronize()
        model_ms = 1e3 * (time.perf_counter() - start)
        self._cost(opened, camera.image_hw).add(camera.image_hw, model_ms, quick)
        return RenderedFrame(shown.image, model_ms, shown.facts)

    def frame_seconds(self, opened: LoadedScene, hw: tuple[int, int], quick: bool) -> float:
        """How long a frame (height, width) will take, by those of about its size that were rendered for anybody; 0
        before the first."""
        return (self._cost(opened, hw).expected(hw, quick) or 0.0) / 1e3

    def _cost(self, opened: LoadedScene, hw: tuple[int, int]) -> FrameCost:
        renderer, size = opened.renderer, (hw[0] * hw[1]).bit_length() // 2  # a pixel of a tiny frame costs more
        key = (str(renderer.card.get("hash", "")), str(renderer.device), size)
        return self._costs.setdefault(key, FrameCost())

    def point(self, opened: LoadedScene, camera: Cameras, at: tuple[float, float]) -> dict[str, Any]:
        """The surface under a place of a camera's view, see `surface_point`: {"point", "depth"}, null where there is
        none; in the calling thread, as `frame`. Raises NVSError where the scene knows no depth."""
        found = surface_point(opened.renderer.render(self.state(opened), camera[:1], depth=True), camera, at)
        return {"point": found[0].tolist() if found else None, "depth": found[1] if found else None}

    def require_scene(self, session: Session) -> LoadedScene:
        """The scene that a visitor looks at. Raises NVSError when there is none yet."""
        opened = session.scene
        if opened is None:
            raise NVSError("There is no scene yet: open an example or encode your photos first.")
        return opened

    def begin(self, session: Session, work: Callable[[Job], Any], progress: Any) -> Job:
        """Puts a visitor's work into the row of the encodings, in place of his older one."""
        if session.job is not None:
            session.job.cancel()
        session.job, session.progress = self.jobs.submit(work), progress
        return session.job

    def close(self) -> None:
        """Ends visits and threads and removes all temporary files."""
        self._stop.set()
        self.store.close()
        for part in (self.jobs, self.videos, self.scheduler):
            part.close()
        self.packer.shutdown()
        shutil.rmtree(self.root, ignore_errors=True)

    def _drop(self, opened: LoadedScene) -> None:
        if not self.example_cache.keeps(opened.state_key):
            self.states.drop(opened.state_key)

    def _forget(self, session: Session) -> None:
        self._freed.set()
        if session.scene is not None:
            self._drop(session.scene)
        if session.other is not None:
            self._drop(session.other)

    def _sweep(self) -> None:
        shortest = min(self.limits.away_seconds, self.limits.idle_seconds)
        while not self._stop.wait(min(10.0, shortest / 4)):
            freed = self._freed.is_set()
            self._freed.clear()
            if freed:  # a while ago: the visit's scene and images are gone by now
                trim_memory()
            self.store.sweep()
