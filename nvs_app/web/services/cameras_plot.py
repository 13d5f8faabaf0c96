"""The cameras of a scene as a plotly figure: frusta by group, thumbnails, sparse points, a click leads to the view.

    figure = cameras_figure(scene, split, thumbnails(scene), points=scene_points(scene))

One trace a group. Every vertex of a camera has `customdata` [index of the view]; `layout.meta` holds the thumbnails
and names by index. Plotly's hover labels cannot show images: cameras_plot.js shows the thumbnail beside the
pointer and turns a click into an event that names the view.

The figure's frame is the scene's own, turned so that up is +z, moved so that what the cameras look at is the origin.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image

from data_tools.readers.archives import open_image
from data_tools.readers.points import Points, scene_points
from nvs_app.errors import NVSError
from nvs_app.geometry.normalize import normalize_context
from nvs_app.scenes.images import BROKEN, data_uri
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit

__all__ = ["cameras_figure", "scene_points", "thumbnails"]

MAX_POINTS = 3000
THUMBNAIL = 64  # pixels of the longer side
PALETTE = 48  # colours that points are shown in
GROUPS = ("input views", "held out", "not used", "no camera found")
# Told apart also by those who see no red or no green (Okabe and Ito), and by their symbols.
COLOURS = {
    False: dict(zip(GROUPS, ("#0072b2", "#d55e00", "#7f8896", "#b0006d"))),
    True: dict(zip(GROUPS, ("#56b4e9", "#e69f00", "#8d97a5", "#f08cc8"))),
}
# Of these plotly draws the glyphs of a font: only such as every font has.
SYMBOLS = dict(zip(GROUPS, ("circle", "diamond", "square", "square-open")))
# One stroke over a pyramid's edges: corners 0 to 3 (top left, top right, bottom right, bottom left), apex 4, and 5, a
# tip above the top edge that shows which way is up.
STROKE = (1, 5, 0, 1, 2, 3, 0, 4, 1, 2, 4, 3)
APEX = STROKE.index(4)


def cameras_figure(
    scene: Scene,
    split: ViewSplit | None = None,
    thumbnails: Sequence[str] = (),
    unregistered: Mapping[str, str] | None = None,
    points: Points | None = None,
    dark: bool = False,
) -> Any:
    """The figure; about 200 kB as JSON for 100 cameras with thumbnails.

    Args:
        scene: its cameras are shown, no image is read.
        split: which views were read and which are held out; the others are "not used". None: all are "not used".
        thumbnails: data URIs by view (see `thumbnails`), or none.
        unregistered: names of photos without a camera -> why; they stand in a row beside the scene.
        points: sparse points in the scene's frame, or None.
        dark: for a dark page.

    Returns:
        plotly.graph_objects.Figure
    """
    import plotly.graph_objects as go

    transform = normalize_context(scene.c2w, "auto").to(torch.float64)
    c2w = transform.apply_c2w(scene.c2w.double()).numpy()
    corners = _frusta(scene, c2w)
    names = [path.name for path in scene.image_paths]
    figure = go.Figure()
    extent = _extent(c2w)
    if points is not None and len(points):
        _add_points(figure, points, transform, extent, dark)
    for group, indices in _groups(len(scene), split).items():
        if indices:
            figure.add_trace(_camera_trace(go, group, indices, corners, names, COLOURS[dark][group]))
    if unregistered:
        figure.add_trace(_missing_trace(go, unregistered, extent, COLOURS[dark][GROUPS[3]]))
    figure.update_layout(**_layout(dark, list(thumbnails), names))
    return figure


def thumbnails(scene: Scene) -> list[str]:
    """A small JPEG of every view as data URI; empty for an image that cannot be read. Milliseconds an image."""

    def one(index: int) -> str:
        try:
            return _thumbnail(scene, index)
        except (NVSError, *BROKEN):
            return ""

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, range(len(scene))))


def _groups(count: int, split: ViewSplit | None) -> dict[str, list[int]]:
    context = set(split.context) if split else set()
    target = set(split.target) - context if split else set()
    return {
        "input views": sorted(context),
        "held out": sorted(target),
        "not used": [index for index in range(count) if index not in context | target],
    }


def _extent(c2w: np.ndarray) -> float:
    """How far cameras stand from the origin, wild ones apart."""
    return float(np.median(np.linalg.norm(c2w[:, :3, 3], axis=1))) or 1.0


def _frusta(scene: Scene, c2w: np.ndarray) -> np.ndarray:
    """Six points of each camera, [n, 6, 3] (see STROKE), of a size that keeps neighbours apart."""
    positions = c2w[:, :3, 3]
    size = 0.16 * _extent(c2w)
    if 1 < len(c2w) <= 2000:
        distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
        np.fill_diagonal(distance, np.inf)
        size = max(0.25 * size, min(size, 0.8 * float(np.median(distance.min(1)))))
    fx, fy, cx, cy = scene.fxfycxcy.double().numpy().T
    height, width = scene.image_hws.double().numpy().T
    left, right, top, bottom = -cx / fx, (width - cx) / fx, -cy / fy, (height - cy) / fy
    zero, one = np.zeros_like(left), np.ones_like(left)
    middle, tip = (left + right) / 2, top - 0.35 * (bottom - top)
    rays = [
        (left, top, one), (right, top, one), (right, bottom, one), (left, bottom, one), (zero, zero, zero),
        (middle, tip, one),
    ]  # fmt: skip
    local = np.stack([np.stack(ray, axis=1) for ray in rays], axis=1)
    # The same area for every lens: a long one would be a needle.
    local *= (size / np.sqrt((right - left) * (bottom - top)))[:, None, None] * [1.0, 1.0, 0.8]
    return np.einsum("nij,nkj->nki", c2w[:, :3, :3], local) + positions[:, None]


def _camera_trace(go: Any, group: str, indices: list[int], corners: np.ndarray, names: list[str], colour: str) -> Any:
    strokes = corners[indices][:, list(STROKE)]
    gaps = np.full((len(indices), 1, 3), np.nan)
    path = np.concatenate([strokes, gaps], axis=1).reshape(-1, 3).astype(np.float32)
    length = len(STROKE) + 1
    sizes = np.zeros((len(indices), length), np.uint8)
    sizes[:, APEX] = 5
    data = [[index] for index in indices for _ in range(length)]
    words = [f"{names[index]} ({group})" for index in indices for _ in range(length)]
    return go.Scatter3d(
        x=path[:, 0], y=path[:, 1], z=path[:, 2],
        mode="lines+markers",
        name=f"{group} ({len(indices)})",
        line={"color": colour, "width": 3},
        marker={"size": sizes.reshape(-1), "color": colour, "symbol": SYMBOLS[group], "line": {"width": 0}},
        connectgaps=False,
        customdata=data,
        hovertext=words,
        hoverinfo="text",
    )  # fmt: skip


def _missing_trace(go: Any, unregistered: Mapping[str, str], extent: float, colour: str) -> Any:
    """Photos without a camera have no place in the world: a row below the cameras."""
    count = len(unregistered)
    x = (np.arange(count) - (count - 1) / 2) * min(0.25, 2.5 / max(count, 1)) * extent
    return go.Scatter3d(
        x=x.astype(np.float32),
        y=np.full(count, -1.2 * extent, np.float32),
        z=np.full(count, -0.6 * extent, np.float32),
        mode="markers",
        name=f"{GROUPS[3]} ({count})",
        marker={"size": 5, "color": colour, "symbol": SYMBOLS[GROUPS[3]]},
        customdata=[[-1]] * count,
        hovertext=[f"{name}: {why}"[:160] for name, why in unregistered.items()],
        hoverinfo="text",
    )


def _add_points(figure: Any, points: Points, transform: Any, extent: float, dark: bool) -> None:
    import plotly.graph_objects as go

    xyz = transform.apply_points(torch.from_numpy(points.xyz).double()).numpy()
    # Far points would shrink all that matters: what lies within a few camera distances is shown.
    near = np.flatnonzero(np.linalg.norm(xyz, axis=1) < 2.5 * extent)
    shown = Points(xyz[near].astype(np.float32), points.rgb[near]).sample(MAX_POINTS)
    if not len(shown):
        return
    image = Image.fromarray(shown.rgb[None]).quantize(PALETTE, Image.Quantize.MEDIANCUT)
    numbers = np.asarray(image).reshape(-1).astype(np.uint8)
    palette = np.array((image.getpalette() or [])[: 3 * PALETTE], dtype=np.uint8).reshape(-1, 3)
    last = max(1, len(palette) - 1)
    scale = [[index / last, f"rgb({r},{g},{b})"] for index, (r, g, b) in enumerate(palette.tolist())]
    scale = scale if len(scale) > 1 else [[0.0, scale[0][1]], [1.0, scale[0][1]]]
    figure.add_trace(
        go.Scatter3d(
            x=shown.xyz[:, 0], y=shown.xyz[:, 1], z=shown.xyz[:, 2],
            mode="markers",
            name=f"points ({len(points):,})",
            marker={"size": 1.8, "color": numbers, "colorscale": scale, "cmin": 0, "cmax": last, "opacity": 0.9},
            hoverinfo="skip",
        )
    )  # fmt: skip


def _layout(dark: bool, thumbnails: list[str], names: list[str]) -> dict[str, Any]:
    ink = "#d5dbe3" if dark else "#39424e"
    axis = {"visible": False, "showspikes": False}
    return {
        "template": None,
        "meta": {"thumbnails": thumbnails, "names": names},
        "scene": {
            "aspectmode": "data",  # one unit is one unit along every axis
            "xaxis": axis,
            "yaxis": axis,
            "zaxis": axis,
            "camera": {
                "up": {"x": 0, "y": 0, "z": 1},
                "eye": {"x": 0.45, "y": -1.45, "z": 0.75},
                "center": {"x": 0, "y": 0, "z": -0.08},
            },
            "dragmode": "turntable",
            "bgcolor": "rgba(0,0,0,0)",
        },
        "paper_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": ink, "family": "system-ui, sans-serif"},
        "legend": {"orientation": "h", "x": 0, "y": 0, "yanchor": "top", "itemsizing": "constant"},
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "uirevision": "cameras",  # the reader's own turn of the figure stays when it is drawn again
        "hoverlabel": {"font": {"size": 12}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "rgba(127,136,150,0.8)", "activecolor": "#6366f1"},
    }


def _thumbnail(scene: Scene, index: int) -> str:
    if scene.encoded or scene.orientations:
        pixels = scene.read(index)
        image = Image.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    else:
        with open_image(scene.image_paths[index]) as image:
            image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))  # decodes a JPEG at a fraction of its size
            image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX, reducing_gap=2.0)
            image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return data_uri(image, quality=60, optimize=True)
