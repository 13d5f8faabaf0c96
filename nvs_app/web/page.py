"""The page: scenes on the left, the viewer in the middle, what can be done with a scene on the right.

The viewer's own script (viewer.js, line.js) talks to the server over a WebSocket (wire.py); everything else is
gradio, and reachable from Python through gradio's client.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from nvs_app.engine.evaluate import device_name
from nvs_app.scenes.images import read_image
from nvs_app.web.hub import Hub
from nvs_app.web.opening import jpeg_uri
from nvs_app.web.visits import Visits, told

HERE = Path(__file__).parent
STYLES = ("page.css", "viewer.css")
SCRIPTS = ("viewer.js", "line.js")
TITLE = "Novel views from fast weights"
TAGLINE = "A few photos are written once into the weights of a network. Any other view is drawn from those weights."


def build_page(hub: Hub) -> gr.Blocks:
    """The page as gradio Blocks, not yet launched (see `launch_options`)."""
    visits = Visits(hub)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(600, 3600)) as page:
        token = gr.Textbox(visible=False)
        gr.HTML(_header(hub), elem_id="nvs-header")
        with gr.Row(elem_id="nvs-main"):
            with gr.Column(elem_id="nvs-scenes", min_width=0):
                gr.HTML("<h2>Examples</h2>")
                examples = _examples(hub)
            with gr.Column(elem_id="nvs-middle", min_width=0):
                gr.HTML((HERE / "stage.html").read_text("utf-8"), elem_id="nvs-view", padding=False)
            with gr.Column(elem_id="nvs-tools", min_width=0):
                facts = gr.HTML("", elem_id="nvs-facts")

        # The visit first, so that the viewer's line is open while the example is still being encoded.
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        entered = page.load(told(visits.enter), token, token, js="() => window.nvs.kept()", queue=False, **quiet)
        entered = entered.then(None, token, None, js="(token) => window.nvs.connect(token)", **quiet)
        entered.then(told(visits.first), None, facts, concurrency_limit=None, **quiet)

        def pick(event: gr.EventData, request: gr.Request):
            yield from visits.example(str(event.value), request)

        examples.select(told(pick), None, facts, concurrency_limit=None, **quiet)
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
    scripts = "".join(f"<script>{(HERE / name).read_text('utf-8')}</script>" for name in SCRIPTS)
    return {
        "theme": theme,
        "css_paths": [HERE / name for name in STYLES],
        "head": scripts,
        "footer_links": [],
        "show_error": True,
        "quiet": True,
    }


def _examples(hub: Hub) -> gr.HTML:
    """Buttons with a picture; `select` tells which."""
    cards = []
    for name in hub.examples:
        picture = _thumbnail(hub.examples[name])
        image = f"<img src='{picture}' alt=''>" if picture else ""
        label = html.escape(name)
        cards.append(f"<button type='button' data-name='{label}'>{image}<span>{label}</span></button>")
    script = """element.addEventListener('click', (event) => {
      const button = event.target.closest('[data-name]');
      if (button) trigger('select', {value: button.dataset.name});
    });"""
    value = f"<div class='nvs-cards'>{''.join(cards)}</div>"
    return gr.HTML(value, js_on_load=script, elem_id="nvs-examples", padding=False)


def _thumbnail(path: Path) -> str | None:
    """The first picture of an example, small, as a data URI."""
    folder = path if path.is_dir() else path.parent
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    return jpeg_uri(read_image(found[0]), longest=160) if found else None


def _header(hub: Hub) -> str:
    renderer = hub.renderer()
    card = renderer.card
    millions = sum(p.numel() for p in renderer.model.parameters()) / 1e6
    facts = (str(card.get("name") or "model"), f"{millions:.3g} M parameters", device_name(renderer.device))
    chips = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
    return f"<header><div><h1>{TITLE}</h1><p>{TAGLINE}</p></div><ul>{chips}</ul></header>"
