"""One renderer for all tests of this folder: a context and its shaders take half a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.assets.asset import normalise
from data_tools.assets.cameras import look_at_centre
from data_tools.assets.render_task import RenderOptions, RenderTask, _turn_up, load_asset
from data_tools.assets.renderer import AssetRenderer

SIDE = 64


@pytest.fixture(scope="session")
def renderer() -> AssetRenderer:
    return AssetRenderer((SIDE, SIDE))


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., RenderTask]:
    """A task of one file, rendered small into tmp_path/out."""

    def make(path: Path, **options: Any) -> RenderTask:
        chosen = RenderOptions(**{"views": 3, "image_hw": (SIDE, SIDE), **options})
        return RenderTask(path.name, path.stem, str(path), str(path.parent), str(tmp_path / "out"), chosen)

    return make


@pytest.fixture
def look(renderer: AssetRenderer, tmp_path: Path, task: Callable[..., RenderTask]) -> Callable[..., np.ndarray]:
    """Float RGBA in [0, 1] of a file, or of a GLB's bytes, seen from a point; 60 degrees, z up, from the front -y."""

    def show(source: Path | bytes, eye: tuple[float, float, float] = (0.0, -2.0, 0.0), **how: Any) -> np.ndarray:
        if isinstance(source, bytes):
            (tmp_path / "look.glb").write_bytes(source)
            source = tmp_path / "look.glb"
        _, asset = load_asset(task(source), source)
        normalise(asset)
        _turn_up(asset)
        focal = 0.5 * SIDE / np.tan(np.radians(30.0))
        with renderer.load(asset, **how) as model:
            pixels = renderer.draw(
                model, look_at_centre(np.array(eye, float)), np.array([focal, focal, SIDE / 2, SIDE / 2])
            )
        return pixels.astype(np.float64) / 255.0

    return show
