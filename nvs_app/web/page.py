"""The first page: pick a scene, orbit around it with sliders, compare held-out views with their photos.

Pictures travel as data URIs inside `gr.HTML`: no file is written for a frame. While a slider moves, a smaller
picture follows; when it is let go, the chosen resolution is drawn. Of many waiting moves only the last is drawn.
"""

from __future__ import annotations

import contextlib
import functools
import html
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from nvs_app.engine.evaluate import device_name
from nvs_app.errors import NVSError
from nvs_app.web.orbit import DISTANCE_RANGE, ELEVATION_RANGE, FOV_RANGE
from nvs_app.web.studio import Comparison, Encoded, Studio, jpeg_uri

CSS = Path(__file__).with_name("page.css")
SCRIPT = Path(__file__).with_name("page.js")
RESOLUTIONS = (128, 256, 512)
TITLE = "Novel views from fast weights"
TAGLINE = (
    "A few posed photos are written once into the weights of a network. "
    "Any other camera is then drawn from those weights alone."
)


def build_page(studio: Studio, examples: dict[str, Path], allow_paths: bool = True) -> gr.Blocks:
    """The page as gradio Blocks, not yet launched (see `launch_options`).

    examples: scenes to offer, by name; the first is opened when the page is.
    allow_paths: offer the field for a folder on the server's disk; not for pages that others can reach.
    """
    names = list(examples)
    first_words = _message("Opening the first scene …" if names else "Open a scene folder to begin.")
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        opened = gr.State(None)  # path of this visitor's scene
        held = gr.Checkbox(False, visible=False)  # filled in by page.js: a slider is being dragged
        gr.HTML(_header(studio), elem_id="nvs-header")
        with gr.Row(elem_id="nvs-main", equal_height=False):
            with gr.Column(scale=7, min_width=340):
                view = gr.HTML(first_words, elem_id="nvs-view")
                inputs_strip = gr.HTML("", elem_id="nvs-inputs")
            with gr.Column(scale=4, min_width=300, elem_id="nvs-controls"):
                gr.HTML("<h2>Scene</h2>")
                choice = gr.Radio(
                    names, value=names[0] if names else None, show_label=False, container=False,
                    elem_id="nvs-scenes", visible=bool(names),
                )  # fmt: skip
                with gr.Row(visible=allow_paths, elem_id="nvs-path", equal_height=True):
                    path = gr.Textbox(
                        label="Scene folder", show_label=False, container=False, scale=5, max_lines=1,
                        placeholder="or a scene folder on this machine", elem_id="nvs-path-text",
                    )  # fmt: skip
                    open_button = gr.Button("Open", scale=1, min_width=72, elem_id="nvs-open")
                gr.HTML("<h2>Camera</h2>")
                plain: dict[str, Any] = {"buttons": []}  # gradio's own reset knows nothing of the scene
                sliders = [
                    gr.Slider(-180, 180, 0, step=1, label="Azimuth, degrees", elem_id="nvs-azimuth", **plain),
                    gr.Slider(
                        *ELEVATION_RANGE, 20, step=1, label="Elevation, degrees", elem_id="nvs-elevation", **plain
                    ),
                    gr.Slider(
                        *DISTANCE_RANGE, 1, step=0.01, label="Distance (1 as captured)", elem_id="nvs-distance", **plain
                    ),
                    gr.Slider(*FOV_RANGE, 50, step=1, label="Field of view, degrees", elem_id="nvs-fov", **plain),
                ]
                resolution = gr.Radio(
                    [(f"{side} px", side) for side in RESOLUTIONS],
                    value=256 if studio.renderer.device.type == "cuda" else _nearest(studio.image_hw[0]),
                    label="Resolution",
                    elem_id="nvs-resolution",
                )
                reset = gr.Button("Reset camera", size="sm", elem_id="nvs-reset")
        with gr.Column(elem_id="nvs-truth"):
            with gr.Row(equal_height=True):
                gr.HTML(
                    "<h2>Held-out views</h2><p>Photos that the network has not seen, beside its drawing "
                    "from the same camera.</p>",
                    elem_id="nvs-truth-title",
                )
                held_out = gr.Dropdown([], label="Photo", elem_id="nvs-held-out", scale=0, min_width=300)
            comparison = gr.HTML("", elem_id="nvs-comparison")

        def show(encoded: Encoded, camera: list[float], side: int) -> str:
            azimuth, elevation, distance, fov = camera
            cameras = encoded.orbit.camera(azimuth, elevation, distance, fov, (side, side))
            image, milliseconds = studio.draw(encoded, cameras)
            return _view(jpeg_uri(image), side, milliseconds, encoded)

        def compare(encoded: Encoded, index: int | None) -> str:
            if index is None:
                return "<p class='nvs-note'>This scene has no photo to hold out.</p>"
            return _comparison(studio.compare(encoded, int(index)), index)

        def open_scene(folder: str | None, side: int, before: str | None, *camera: float) -> Iterator[tuple]:
            """Outputs: opened, view, inputs strip, four sliders, held-out choice, comparison."""
            if not folder:
                raise NVSError("Type the path of a scene folder, or pick an example.")
            rest = [gr.skip()] * 7
            yield gr.skip(), _message(f"Encoding {Path(folder).name} …"), *rest
            try:
                encoded = studio.open(folder)
            except NVSError as error:
                # The scene that was there stays; the sentence comes on top of it.
                old = show(studio.open(before), list(camera), side) if before else _message(str(error), problem=True)
                yield gr.skip(), old, *rest
                raise
            start = start_of(encoded)
            targets = encoded.split.target
            labels = [(f"{i} · {encoded.scene.image_paths[i].name}", i) for i in targets]
            middle = targets[len(targets) // 2] if targets else None
            # The view first; the comparison needs a second rendering.
            drawn = show(encoded, start, side), _strip(encoded)
            yield folder, *drawn, *start, gr.Dropdown(labels, value=middle), gr.skip()
            yield *[gr.skip()] * 8, compare(encoded, middle)

        def open_example(name: str | None, *others: Any) -> Iterator[tuple]:
            yield from open_scene(str(examples[name]) if name else None, *others)

        def open_path(folder: str | None, *others: Any) -> Iterator[tuple]:
            for outputs in open_scene(folder.strip() if folder else None, *others):
                picked = None if isinstance(outputs[0], str) else gr.skip()  # no example is picked any more
                yield *outputs, picked

        def turn(folder: str | None, azimuth, elevation, distance, fov, side: int, is_held: bool) -> str:
            drawn = max(64, side // 2) if is_held else side  # half the side is a quarter of the tokens
            return show(_require(studio, folder), [azimuth, elevation, distance, fov], drawn)

        def start_again(folder: str | None, side: int) -> tuple:
            encoded = _require(studio, folder)
            return *start_of(encoded), show(encoded, start_of(encoded), side)

        def compare_view(folder: str | None, index: int | None) -> str:
            return compare(_require(studio, folder), index)

        everything = [opened, view, inputs_strip, *sliders, held_out, comparison]
        computing: dict[str, Any] = {
            "show_progress": "hidden",
            "concurrency_id": "renderer",
            "concurrency_limit": 4,
        }
        now = [resolution, opened, *sliders]
        newest_wins = {**computing, "trigger_mode": "always_last"}
        # One event for moving and letting go: of two, the late one of a small picture could overtake the other.
        moves = [event for slider in sliders for event in (slider.input, slider.release)]
        moved = {"fn": told(turn), "inputs": [opened, *sliders, resolution, held], "outputs": view, **newest_wins}
        gr.on([*moves, resolution.input], js="(...values) => [...values.slice(0, -1), window.nvsHeld]", **moved)
        if names:
            page.load(told(open_example), [choice, *now], everything, **computing)
        choice.input(told(open_example), [choice, *now], everything, **computing)
        for trigger in (open_button.click, path.submit):
            trigger(told(open_path), [path, *now], [*everything, choice], **computing)
        reset.click(told(start_again), [opened, resolution], [*sliders, view], **computing)
        held_out.input(told(compare_view), [opened, held_out], comparison, **newest_wins)
    return page


def launch_options() -> dict[str, Any]:
    """What gradio wants at launch to show the page as meant; fonts are the system's, nothing is fetched."""
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
    theme = gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        font=sans,
        font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"),
    )
    head = f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>"
    return {
        "theme": theme,
        "css_paths": [CSS],
        "head": head,
        "footer_links": [],
        "show_error": True,
        "quiet": True,
    }


def told(function: Callable) -> Callable:
    """A user's mistake becomes one sentence in the page, and no traceback in the log."""

    @contextlib.contextmanager
    def sentences() -> Iterator[None]:
        try:
            yield
        except NVSError as error:
            raise gr.Error(str(error), print_exception=False, duration=12) from error

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def steps(*values: Any) -> Iterator[Any]:
            with sentences():
                yield from function(*values)

        return steps

    @functools.wraps(function)
    def once(*values: Any) -> Any:
        with sentences():
            return function(*values)

    return once


def start_of(encoded: Encoded) -> list[float]:
    """Values of the four sliders for the first look at a scene."""
    orbit = encoded.orbit
    return [round(orbit.azimuth), round(orbit.elevation), round(orbit.distance, 2), round(orbit.fov)]


def _require(studio: Studio, folder: str | None) -> Encoded:
    if not folder:
        raise NVSError("Open a scene first.")
    return studio.open(folder)


def _nearest(side: int) -> int:
    return min(RESOLUTIONS, key=lambda resolution: abs(resolution - side))


def _header(studio: Studio) -> str:
    card = studio.renderer.card
    millions = sum(p.numel() for p in studio.renderer.model.parameters()) / 1e6
    facts = (str(card.get("name") or "model"), f"{millions:.3g} M parameters", device_name(studio.renderer.device))
    pills = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
    return f"<header><div><h1>{TITLE}</h1><p>{TAGLINE}</p></div><ul>{pills}</ul></header>"


def _message(text: str, problem: bool = False) -> str:
    kind, role = ("nvs-problem", "alert") if problem else ("nvs-waiting", "status")
    return f"<figure class='nvs-frame {kind}'><div role='{role}'>{html.escape(text)}</div></figure>"


def _view(uri: str, side: int, milliseconds: float, encoded: Encoded) -> str:
    name = html.escape(encoded.scene.name)
    views = len(encoded.split.context)
    return (
        f"<figure class='nvs-frame'><img src='{uri}' alt='Rendered view of {name}'>"
        f"<figcaption><span><b>{milliseconds:.0f} ms</b> a frame</span><span>{side} × {side} px</span>"
        f"<span>{views} photos encoded in {encoded.seconds:.1f} s</span></figcaption></figure>"
    )


def _strip(encoded: Encoded) -> str:
    pictures = "".join(
        f"<img src='{uri}' alt='Input photo {index}' title='Input photo {index}'>"
        for uri, index in zip(encoded.context_jpegs, encoded.split.context)
    )
    return f"<div class='nvs-strip'><span>The network has seen</span>{pictures}</div>"


def _comparison(comparison: Comparison, index: int) -> str:
    def picture(uri: str, words: str, caption: str) -> str:
        return f"<figure><img src='{uri}' alt='{words} {index}'><figcaption>{caption}</figcaption></figure>"

    return (
        "<div class='nvs-pair'>"
        + picture(comparison.rendered, "Rendering of view", "Drawn")
        + picture(comparison.photo, "Photo of view", "Photo")
        + f"<dl><div><dt>PSNR</dt><dd>{comparison.psnr:.2f} <small>dB</small></dd></div>"
        + f"<div><dt>SSIM</dt><dd>{comparison.ssim:.3f}</dd></div></dl></div>"
    )
