"""What the tabs show of a scene: where its cameras stand, how close renderings come to held-out photos."""

from __future__ import annotations

import threading
from typing import Any

from data_tools.readers.points import uploaded_points
from nvs_app.errors import NVSError
from nvs_app.web.app_state import AppState
from nvs_app.web.services.cameras_plot import cameras_figure, thumbnails
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.services.truth import (
    Truth,
    TruthView,
    compare,
    held_out,
    views_at_once,
)
from nvs_app.web.services.videos import Videos
from nvs_app.web.sessions import Session

TABLE_VIEWS = 6  # compared at once on opening the tab
PLOT_THUMBNAILS = 200


class SceneInspector:
    """Cameras and truth of the scenes of visitors. What was computed is kept until the scene changes."""

    def __init__(self, app_state: AppState, videos: Videos):
        self.app_state, self.videos = app_state, videos
        self._examples: dict[str, dict[str, Any]] = {}  # by state: what was computed of examples serves everybody
        self._guard = threading.Lock()

    def _memory(self, session: Session, opened: LoadedScene) -> dict[str, Any]:
        if self.app_state.example_cache.keeps(opened.state_key):
            return self._examples.setdefault(opened.state_key, {})
        return session.memory

    def cameras(self, session: Session, dark: bool) -> Any:
        """The plot of the cameras; None where the photos are not here (a state alone)."""
        opened = self.app_state.require_scene(session)
        scene = opened.scene
        if scene is None:
            return None
        memory = self._memory(session, opened)
        if "thumbnails" not in memory:
            memory["thumbnails"] = thumbnails(scene) if len(scene) <= PLOT_THUMBNAILS else ()
        return cameras_figure(
            scene,
            opened.split,
            memory["thumbnails"],
            opened.unregistered,
            uploaded_points(scene),
            dark,
        )

    def held_out(self, session: Session) -> list[tuple[str, int]]:
        """The held-out views to choose from: (words, index)."""
        opened = self.app_state.require_scene(session)
        if opened.scene is None or opened.split is None:
            return []
        return [(f"{i} · {opened.scene.image_paths[i].name}", i) for i in opened.split.target]

    def truth(self, session: Session, index: int | None = None) -> tuple[TruthView | None, Truth | None]:
        """One held-out view beside its photo (a chosen one or the first of the table), and the table of some."""
        opened = self.app_state.require_scene(session)
        if opened.scene is None or opened.split is None or not opened.split.target:
            return None, None
        memory = self._memory(session, opened)
        with self._guard:
            one_by_one = memory.setdefault("comparing", threading.Lock())
        with one_by_one:  # who asks while the table is being made waits for it
            table = memory.get("truth")
            if table is None:
                table = memory["truth"] = self._compare(session, opened, held_out(opened.split, TABLE_VIEWS))
        if index is None:
            return table.views[0], table
        if index not in opened.split.target:
            raise NVSError(f"view {index} is not held out")
        found = next((view for view in table.views if view.index == index), None)
        with one_by_one:
            return found or self._compare(session, opened, [index]).views[0], table

    def _compare(self, session: Session, opened: LoadedScene, indices: list[int]) -> Truth:
        # A lane for each scene: the comparison of the one before, still under way, is not broken off with an error.
        lane = f"{session.token}:truth:{opened.state_key}"
        assert opened.scene is not None
        return compare(
            lambda part: self.videos.draw(lane, opened, part),
            opened.scene,
            indices,
            opened.image_hw,
            chunk=views_at_once(opened.renderer.plan_render(opened.image_hw).render_hw),
        )
