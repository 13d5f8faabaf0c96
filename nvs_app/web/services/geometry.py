"""Geometry that visitors take away: splats, points, a mesh; and splats for the page's own viewer.

job = geometry.export(session, "Points (PLY)")      # in the row of videos, with progress and Cancel
made = job.result()
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nvs_app.errors import NVSError
from nvs_app.export.files import harmonics_degree, write_points, write_splats
from nvs_app.export.fusion import fuse
from nvs_app.export.glb import write_glb
from nvs_app.export.html import first_look, write_html
from nvs_app.export.mesh import mesh_of
from nvs_app.export.shading import shaded
from nvs_app.export.splats import FILL_TOLERANCE, splats_of, thinned
from nvs_app.export.texture import textured
from nvs_app.export.views import SurfaceViews, fine_photos
from nvs_app.model.state import SceneState, context_cameras
from nvs_app.rendering.device import bytes_words
from nvs_app.rendering.views import RenderedViews
from nvs_app.web.app_state import AppState
from nvs_app.web.services.jobs import Job
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.services.videos import file_stem
from nvs_app.web.sessions import Session

KINDS = {
    "Splats (PLY)": "_splats.ply",
    "Splats (.splat)": ".splat",
    "Splats in a page (HTML)": ".html",
    "Points (PLY)": "_points.ply",
    "Mesh (GLB)": ".glb",
}
VIEWER = "viewer"  # what the page's own viewer shows; nobody chooses it
MOST = 500_000
"""Splats of a page: what a phone's GPU draws, and 16 MB on their way there."""


@dataclass(frozen=True)
class MadeGeometry:
    """A file, what is in it in words, how the viewer starts to look at it, and of which scene of the visit it is."""

    file: Path
    words: str
    look: dict[str, Any]
    revision: int


class Geometry:
    """Exports of visitors' scenes as geometry."""

    def __init__(self, app_state: AppState):
        self.app_state = app_state

    def export(self, session: Session, kind: str) -> Job:
        """Puts an export into the row; the visitor's older one is cancelled. Result: `MadeGeometry`.

        Raises NVSError for an unknown kind, and where the scene knows no depth.
        """
        opened = self.app_state.require_scene(session)
        if kind not in (*KINDS, VIEWER):
            raise NVSError(f"export: {kind!r} is no kind, expected one of {', '.join(KINDS)}")
        if opened.no_depth:
            raise NVSError(f"This scene knows no depth: {opened.no_depth}")
        if session.geometry is not None:
            session.geometry.cancel()
        lane = f"{session.token}:geometry"

        revision = session.revision

        def work(job: Job) -> MadeGeometry:
            def tell(fraction: float | int, words: str) -> None:
                session.touch()
                job.report("geometry", float(fraction), words)

            views = self._views(lane, opened, tell)
            out = session.download(f"{file_stem(opened.name)}{KINDS.get(kind, '_viewer.splat')}")
            words = self._write(out, views, kind, tell, opened)
            look = {**first_look(views.cameras, views.background), "offset": list(views.offset)}
            made = MadeGeometry(out, f"{words}, {bytes_words(out.stat().st_size)}", look, revision)
            if kind == VIEWER:
                session.memory[VIEWER] = made
            return made

        session.geometry = self.app_state.videos.submit(work)
        return session.geometry

    def _views(self, lane: str, opened: LoadedScene, tell: Any) -> SurfaceViews:
        """Depth of the scene's photos, each in a turn of its own between the frames of others."""
        state: SceneState = self.app_state.state(opened)
        cameras = context_cameras(state)
        if state.context is None or cameras is None:
            raise NVSError("This scene was encoded without a detail head, which is what knows depth.")
        parts = []
        for view in range(len(cameras)):
            tell(0.6 * view / len(cameras), f"Depth of photo {view + 1} of {len(cameras)}")
            with self.app_state.scheduler.turn(lane):
                parts.append(opened.renderer.render(state, cameras[view : view + 1], depth=True))
        photos = state.context.images[0].cpu()
        images = photos.float() / 255 if photos.dtype == torch.uint8 else photos.float()
        return SurfaceViews.of(images, cameras, RenderedViews.cat(parts))

    def _write(self, out: Path, views: SurfaceViews, kind: str, tell: Any, opened: LoadedScene) -> str:
        """Writes one kind; what is in it, in words."""

        def fusing(share: float | int) -> None:
            tell(0.6 + 0.35 * share, "Comparing depths")

        if out.suffix == ".glb":
            mesh = mesh_of(views, progress=lambda share: fusing(0.6 * share))
            cameras = context_cameras(self.app_state.state(opened))
            photos = None if cameras is None else fine_photos(opened.scene, cameras)
            mesh = textured(mesh, views, photos, progress=lambda share: tell(0.81 + 0.14 * share, "Texture"))
            write_glb(out, mesh, views.offset)
            return mesh.words
        points = kind.startswith("Points")
        surfels = fuse(views, progress=fusing) if points else fuse(views, 2, FILL_TOLERANCE, True, fusing)
        if not len(surfels):
            raise NVSError("The photos agree on no surface; more photos, closer together, may help.")
        if points:
            write_points(out, surfels, views.offset)
            return f"{len(surfels):,} points"
        degree, start = harmonics_degree(out), splats_of(surfels)
        splats = shaded(start, surfels, views, degree, lambda share: tell(0.95 + 0.05 * share, "Colours"))
        if kind == VIEWER or out.suffix == ".html":
            splats = thinned(splats, MOST)
        if out.suffix == ".html":
            write_html(out, splats, first_look(views.cameras, views.background), opened.name)
        else:
            write_splats(out, splats, views.offset)
        return f"{len(splats):,} splats"
