"""The page: scenes on the left, the viewer in the middle, what can be done with a scene on the right.

The viewer's own script (ui/viewer.js, ui/connection.js) talks to the server over a WebSocket
(viewer_connection.py); everything else is gradio. api.py adds the functions for Python programs.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from nvs_app.web.api import add_api
from nvs_app.web.app_state import AppState
from nvs_app.web.arguments import PageBlocks, text, value_of, whole
from nvs_app.web.event_handlers import EventHandlers
from nvs_app.web.geometry_handlers import GeometryHandlers
from nvs_app.web.panels import TITLE, Scenes, Tools, header_html, scenes_panel, tools_panel
from nvs_app.web.ui import FOLDER as UI
from nvs_app.web.ui import fill
from nvs_app.web.user_errors import report_user_errors

STYLES = ("page.css", "viewer.css", "tools.css")
SCRIPTS = (
    "viewer.js", "depth.js", "connection.js", "splats.js", "path.js", "cameras_plot.js", "drop.js", "work.js",
    "help.js", "overlay.js", "beside.js", "fly.js", "page.js",
)  # fmt: skip
FRESH = "() => window.nvs.fresh()"
# Buttons in the grid of photos, and those beside it, do this.
PHOTOS = "window.nvs.photos = (action, key) => trigger('select', {value: {action, key: key || ''}});"
BROUGHT = "() => { window.dispatchEvent(new Event('nvs-brought')); }"
DARK = "document.body.classList.contains('dark')"


def build_page(app_state: AppState) -> gr.Blocks:
    """The page as gradio Blocks, not yet launched (see `launch_options`)."""
    event_handlers = EventHandlers(app_state)
    # Not gradio's own deletion of files: it walks a set that requests change. Uploads and downloads have owners here.
    with PageBlocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(header_html(app_state), elem_id="nvs-header", padding=False)
        with gr.Row(elem_id="nvs-main"):
            with gr.Column(elem_id="nvs-scenes", min_width=0):
                scenes = scenes_panel(app_state)
            with gr.Column(elem_id="nvs-middle", min_width=0):
                gr.HTML(fill("stage.html"), elem_id="nvs-view", padding=False)
                photos = gr.HTML("", elem_id="nvs-photos", padding=False, js_on_load=PHOTOS)
            with gr.Column(elem_id="nvs-tools", min_width=0):
                tools = tools_panel(app_state)
        add_api(event_handlers)  # first: its names are those that programs use
        _wire(page, event_handlers, scenes, photos, tools)
    return page


def _wire(page: gr.Blocks, event_handlers: EventHandlers, scenes: Scenes, photos: gr.HTML, tools: Tools) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    # Whatever may wait for the rendering thread or the encoder must not keep other visitors' events from starting.
    free: dict[str, Any] = {**quiet, "concurrency_limit": None}
    token, spec, view, wanted, link = (gr.Textbox(visible=False) for _ in range(5))
    which, dark = gr.Textbox("truth", visible=False), gr.Checkbox(visible=False)
    scene = [tools.facts, scenes.plan, scenes.views, scenes.size, scenes.encode, photos, scenes.brought]
    shown = [tools.plot, tools.lost, tools.truth_choice, tools.truth, tools.kept]

    def then_refresh(event: Any) -> Any:
        # The first view of a new scene comes before what the tabs have to compute.
        js = f"async (which) => {{ await window.nvs.settled(); return [which, {DARK}]; }}"
        done = event.then(report_user_errors(event_handlers.refresh), [which, dark], shown, js=js, **free)
        return done.then(None, None, None, js=FRESH, **quiet)

    # The visit first, so that the viewer's line is open while the example is still being encoded.
    entered = page.load(
        report_user_errors(event_handlers.enter), token, token, js="() => window.nvs.kept()", queue=False, **quiet
    )
    entered = entered.then(None, token, None, js="(token) => window.nvs.connect(token)", **quiet)
    opened = entered.then(
        report_user_errors(event_handlers.first), wanted, scene, js="() => window.nvs.wanted()", **free
    )
    then_refresh(opened)
    then_refresh(opened.then(report_user_errors(event_handlers.resume), None, scene, **free))

    def pick(event: gr.EventData, request: gr.Request):
        return event_handlers.example(text("example", value_of(event)), request)

    then_refresh(scenes.examples.select(report_user_errors(pick), None, scene, **free))

    def act(event: gr.EventData, request: gr.Request):
        what, key = text("action", value_of(event, "action")), text("key", value_of(event, "key"))
        return event_handlers.photos(what, key, request)

    photos.select(report_user_errors(act), None, scene, **free)

    for brought in (scenes.upload, scenes.camera):
        field = [brought] if brought is scenes.upload else [scenes.upload]
        arrived = brought.upload(report_user_errors(event_handlers.receive), brought, [*scene, *field], **free)
        arrived.then(None, None, None, js=BROUGHT, **quiet)
        then_refresh(arrived)
    planned = {
        "fn": report_user_errors(event_handlers.plan),
        "inputs": [scenes.views, scenes.size],
        "outputs": scene[1:],
    }
    gr.on([scenes.views.input, scenes.size.input], trigger_mode="always_last", **planned, **free)
    do = {"fn": report_user_errors(event_handlers.encode), "inputs": [scenes.views, scenes.size], "outputs": scene}
    then_refresh(gr.on([scenes.encode.click, scenes.go.click], **do, **free))
    then_refresh(scenes.grow.click(report_user_errors(event_handlers.grow), scenes.views, scene, **free))
    scenes.cancel.click(report_user_errors(event_handlers.cancel), None, None, queue=False, **quiet)

    for tab in tools.tabs:
        js = f"() => ['{tab.id}', {DARK}]"
        tab.select(None, None, [which, dark], js=js, **quiet)
        tab.select(report_user_errors(event_handlers.refresh), [which, dark], shown, js=js, **free).then(
            None, None, None, js=FRESH, **quiet
        )
    scenes.capture.click(report_user_errors(event_handlers.capture), None, None, **free)
    tools.hold.click(report_user_errors(event_handlers.hold), None, None, **free)
    tools.release.click(report_user_errors(event_handlers.release), None, None, **free)
    sharpened = tools.sharpen.click(report_user_errors(event_handlers.sharpen), tools.seconds, scene, **free)
    then_refresh(sharpened)
    compared = tools.truth_choice.input(
        report_user_errors(event_handlers.truth), tools.truth_choice, tools.truth, **free
    )
    compared.then(None, None, None, js=FRESH, **quiet)

    def compare(event: gr.EventData, request: gr.Request):
        view = whole("view", value_of(event))
        return view, event_handlers.truth(view, request)

    row = tools.truth.select(report_user_errors(compare), None, [tools.truth_choice, tools.truth], **free)
    row.then(None, None, None, js=FRESH, **quiet)

    spec_js = "(...values) => [window.nvs.path.spec(), ...values.slice(1)]"
    loaded = tools.path_load.upload(report_user_errors(event_handlers.path_load), tools.path_load, spec, **free)
    loaded.then(None, spec, None, js="(text) => window.nvs.path.load(text)", **quiet)
    tools.path_save.click(report_user_errors(event_handlers.path_save), spec, tools.video_files, js=spec_js, **free)
    video = [tools.video_progress, tools.video_files]
    exported = tools.video.click(
        report_user_errors(event_handlers.video), [spec, tools.video_kind], video, js=spec_js, **free
    )
    exported.then(None, None, None, js="() => window.nvs.path.exported()", **quiet)
    tools.video_cancel.click(report_user_errors(event_handlers.video_cancel), None, None, queue=False, **quiet)

    view_js = "() => JSON.stringify(window.nvs.viewer.still())"
    for what in ("snapshot", "state", "scene", "colmap"):

        def take(view: str, request: gr.Request, what: str = what):
            return event_handlers.take(what, view, request)

        tools.take[what].click(report_user_errors(take), view, tools.files, js=view_js, **free)
    geometry, made = GeometryHandlers(event_handlers), [tools.geometry_progress, tools.files]
    tools.geometry.click(report_user_errors(geometry.export), tools.geometry_kind, made, **free)
    splats = scenes.splats.click(report_user_errors(geometry.splats), None, link, **free)
    splats.then(None, link, None, js="(text) => window.nvs.splats.take(text)", **quiet)
    for stop in (tools.geometry_cancel, scenes.splats_stop):
        stop.click(report_user_errors(geometry.cancel), None, None, queue=False, **quiet)
    tools.take["keep"].click(report_user_errors(event_handlers.keep), None, tools.kept, **free)
    # A link on the page is that of the scene that was chosen before.
    tools.kept.change(None, None, None, js="() => window.nvs.shared('')", **quiet)
    then_refresh(tools.kept_open.click(report_user_errors(event_handlers.reopen), tools.kept, scene, **free))

    for button, handler in ((tools.share, event_handlers.share), (tools.unshare, event_handlers.unshare)):
        told_link = button.click(report_user_errors(handler), tools.kept, link, **free)
        told_link.success(None, link, None, js="(secret) => window.nvs.shared(secret)", **quiet)

    tools.model.input(report_user_errors(event_handlers.model_card), tools.model, tools.card, **free)
    chosen = [tools.model, tools.device, scenes.views, scenes.size]
    used = tools.model_use.click(report_user_errors(event_handlers.use_model), chosen, scene[1:], **free)
    then_refresh(used.success(**do, **free))


def launch_options() -> dict[str, Any]:
    """What gradio wants at launch to show the page as meant; fonts are the system's, nothing is fetched."""
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
    theme = gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        font=sans,
        font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"),
    ).set(button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700")
    scripts = "".join(f"<script>{(UI / name).read_text('utf-8')}</script>" for name in SCRIPTS if (UI / name).exists())
    return {
        "theme": theme,
        "css_paths": [UI / name for name in STYLES],
        "head": scripts,
        "footer_links": [],
        "show_error": True,
        "quiet": True,
    }
