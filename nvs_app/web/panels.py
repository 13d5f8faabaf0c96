"""The parts of the page around the viewer, as gradio components without events (page.py wires them)."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from nvs_app.errors import NVSError
from nvs_app.rendering.device import device_name
from nvs_app.scenes.images import read_image
from nvs_app.web.app_state import AppState
from nvs_app.web.cards import list_cards
from nvs_app.web.services.geometry import KINDS as GEOMETRY
from nvs_app.web.services.opening import jpeg_uri
from nvs_app.web.services.videos import KINDS
from nvs_app.web.ui import fill

TITLE = "Fast-Weight Views"
TAGLINE = "Upload a few photos, explore the scene from new viewpoints."
COMPARE = "window.nvs.compare = (index) => trigger('select', {value: index});"
UPLOADS = ["image", "video", ".heic", ".heif", ".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".torch", ".safetensors"]


@dataclass(frozen=True)
class Scenes:
    """The left column: examples, uploads, settings of the reconstruction. `go` to `splats_stop` are pressed by the
    page's own buttons over the viewer."""

    examples: gr.HTML
    upload: gr.File
    camera: gr.UploadButton
    brought: gr.HTML
    plan: gr.HTML
    views: gr.Slider
    size: gr.Dropdown
    encode: gr.Button
    grow: gr.Button
    go: gr.Button
    cancel: gr.Button
    capture: gr.Button
    splats: gr.Button
    splats_stop: gr.Button


@dataclass(frozen=True)
class Tools:
    """The right column: a tab for each thing that can be done with a scene."""

    facts: gr.HTML
    tabs: list[gr.Tab]
    hold: gr.Button
    release: gr.Button
    sharpen: gr.Button
    seconds: gr.Slider
    plot: gr.Plot
    lost: gr.HTML
    truth_choice: gr.Dropdown
    truth: gr.HTML
    path_load: gr.UploadButton
    path_save: gr.Button
    video_kind: gr.Radio
    video: gr.Button
    video_cancel: gr.Button
    video_progress: gr.HTML
    video_files: gr.File
    take: dict[str, gr.Button]
    geometry_kind: gr.Dropdown
    geometry: gr.Button
    geometry_cancel: gr.Button
    geometry_progress: gr.HTML
    files: gr.File
    kept: gr.Dropdown
    kept_open: gr.Button
    share: gr.Button
    unshare: gr.Button
    model: gr.Dropdown
    device: gr.Radio
    card: gr.HTML
    model_use: gr.Button


def scenes_panel(app_state: AppState) -> Scenes:
    """Left column."""
    gr.HTML("<h2>Examples</h2>", padding=False)
    examples = _examples(app_state)
    gr.HTML("<h2>Your photos</h2>", padding=False)
    upload = gr.File(
        label="Drop photos, a video, or a zip",
        file_count="multiple",
        file_types=UPLOADS,
        height=128,
        elem_id="nvs-upload",
        show_label=False,
    )
    gr.HTML(
        "<p class='nvs-note nvs-small'>Photos, a video, a zip of either, or a scene with cameras in any usual format. "
        "<span class='nvs-fine'>Drop files or a folder anywhere, paste images, or <button type='button' "
        f"class='nvs-link' data-nvs-folder data-nvs-bytes='{app_state.limits.upload_bytes}'>choose a folder</button>."
        "</span></p>"
        "<p class='nvs-note nvs-small' data-nvs='brought' role='status'></p>",
        padding=False,
    )
    camera = gr.UploadButton(
        "Take photos", file_count="multiple", file_types=["image"], size="md", elem_id="nvs-camera"
    )
    brought = gr.HTML("", elem_id="nvs-brought", padding=False)
    with gr.Accordion("Advanced", open=False, elem_id="nvs-advanced"):
        plan = gr.HTML("", elem_id="nvs-plan", padding=False)
        with gr.Row(elem_id="nvs-reading", equal_height=True):
            views = gr.Slider(1, 28, 8, step=1, label="Input views", elem_id="nvs-views", buttons=[])
            size = gr.Dropdown([], label="Size", elem_id="nvs-size", interactive=True)
        encode = gr.Button("Reconstruct", interactive=False, elem_id="nvs-encode")
        words = (
            "Or add photos of the same capture up to so many views, without reading those before again: faster, and "
            "nearly the same. Photos without cameras join when all are reconstructed again."
        )
        gr.HTML(f"<p class='nvs-note nvs-small'>{words}</p>", padding=False)
        grow = gr.Button("Add views", elem_id="nvs-grow", size="sm")
    with gr.Row(elem_classes="nvs-hidden"):
        pressed = ("go", "cancel", "capture", "splats-do", "splats-stop")
        hidden = [gr.Button(elem_id=f"nvs-{name}") for name in pressed]
    return Scenes(examples, upload, camera, brought, plan, views, size, encode, grow, *hidden)


def tools_panel(app_state: AppState) -> Tools:
    """Right column."""
    facts = gr.HTML("", elem_id="nvs-facts", padding=False)
    quiet: dict[str, Any] = {"size": "sm"}
    with gr.Tabs(elem_id="nvs-tabs"):
        with gr.Tab("Compare", id="truth", elem_id="nvs-tab-truth") as truth_tab:
            words = "Photos that were not used, beside the rendering from the same camera."
            gr.HTML(f"<p class='nvs-note'>{words}</p>", padding=False)
            truth_choice = gr.Dropdown([], label="Held-out photo", elem_id="nvs-held-out", interactive=True)
            truth = gr.HTML("", elem_id="nvs-truth", padding=False, js_on_load=COMPARE)
            with gr.Row(elem_classes="nvs-take", equal_height=True):
                gr.HTML(fill("beside.html"), padding=False)
                hold = gr.Button("Hold", elem_id="nvs-hold", min_width=84, scale=0, **quiet)
                release = gr.Button("Stop", elem_id="nvs-release", min_width=84, scale=0, **quiet)
            with gr.Row(elem_classes="nvs-take", equal_height=True):
                words = "The network learns from this scene's own photos; some of them only say when it is best."
                gr.HTML(f"<p><b>Sharpen</b><br>{words}</p>", padding=False)
                sharpen = gr.Button("Sharpen", elem_id="nvs-sharpen", min_width=84, scale=0, **quiet)
            most = app_state.limits.sharpen_seconds
            seconds = gr.Slider(
                min(5, most), most, min(60, most), step=5, label="Seconds at most", elem_id="nvs-seconds", buttons=[]
            )
        with gr.Tab("Cameras", id="cameras", elem_id="nvs-tab-cameras") as cameras_tab:
            gr.HTML("<p class='nvs-note'>Click a camera to look from there.</p>", padding=False)
            plot = gr.Plot(show_label=False, elem_id="nvs-plot")
            lost = gr.HTML("", padding=False)
        with gr.Tab("Path", id="path", elem_id="nvs-tab-path") as path_tab:
            gr.HTML(fill("path.html"), padding=False)
            video_kind = gr.Radio(list(KINDS), value="MP4", label="Video", elem_id="nvs-video-kind")
            gr.HTML(fill("path_export.html"), padding=False)
            video_progress = gr.HTML("", elem_id="nvs-video-progress", padding=False)
            with gr.Row(elem_classes="nvs-hidden"):  # pressed by the page's own, which know what is possible
                path_save, video, video_cancel = (
                    gr.Button(elem_id=f"nvs-{name}-do") for name in ("path-save", "video", "video-cancel")
                )
            video_files = gr.File(label="Files", visible=False, elem_id="nvs-video-files", file_count="multiple")
            with gr.Row():
                path_load = gr.UploadButton(
                    "Load path", file_types=[".json"], file_count="multiple", elem_id="nvs-path-load", **quiet
                )
            gr.HTML(
                "<p class='nvs-note nvs-small'>Paths are nerfstudio's camera path files. For one that its viewer drew, "
                "choose the run's dataparser_transforms.json along with it.</p>",
                padding=False,
            )
        with gr.Tab("Export", id="take", elem_id="nvs-tab-take") as take_tab:
            words = {
                "snapshot": ("Snapshot", "The current view as a PNG that remembers its camera."),
                "state": ("Scene file", "The fast weights, to render without the photos. Upload it to go on."),
                "scene": ("Photos and cameras", "transforms.json and the photos, as nerfstudio reads them."),
                "colmap": ("COLMAP", "The same cameras as a COLMAP project."),
            }
            take = {}
            for name, (label, line) in words.items():
                with gr.Row(elem_classes="nvs-take", equal_height=True):
                    gr.HTML(f"<p><b>{label}</b><br>{line}</p>", padding=False)
                    take[name] = gr.Button("Make", elem_id=f"nvs-take-{name}", min_width=84, scale=0, **quiet)
            with gr.Row(elem_classes="nvs-take", equal_height=True):
                geometry_kind = gr.Dropdown(
                    list(GEOMETRY), label="Geometry, in the cameras' own frame", elem_id="nvs-geometry-kind",
                    interactive=True,
                )  # fmt: skip
                geometry = gr.Button("Make", elem_id="nvs-geometry", min_width=84, scale=0, **quiet)
                geometry_cancel = gr.Button("Cancel", elem_id="nvs-geometry-cancel", min_width=84, scale=0, **quiet)
            geometry_progress = gr.HTML("", elem_id="nvs-geometry-progress", padding=False)
            files = gr.File(label="Files", visible=False, elem_id="nvs-files", file_count="multiple")
            with gr.Row(visible=app_state.keep is not None, elem_classes="nvs-take", equal_height=True):
                gr.HTML("<p><b>Keep here</b><br>On this server, also when it restarts.</p>", padding=False)
                take["keep"] = gr.Button("Keep", elem_id="nvs-take-keep", min_width=84, scale=0, **quiet)
            with gr.Row(visible=app_state.keep is not None, elem_classes="nvs-take"):
                kept = gr.Dropdown([], label="Kept scenes of this browser", elem_id="nvs-kept", interactive=True)
                kept_open = gr.Button("Open", elem_id="nvs-kept-open", min_width=84, scale=0, **quiet)
            with gr.Row(visible=app_state.keep is not None, elem_classes="nvs-take"):
                gr.HTML(fill("share.html"), padding=False)
                share = gr.Button("Share", elem_id="nvs-share", min_width=84, scale=0, **quiet)
                unshare = gr.Button("Stop", elem_id="nvs-unshare", min_width=84, scale=0, **quiet)
        with gr.Tab("Model", id="model", elem_id="nvs-tab-model") as model_tab:
            cards = {card.name: card for card in list_cards() if not card.problem}
            here = str(app_state.renderer().card.get("name", ""))
            names = list(dict.fromkeys([*cards, here]))
            model = gr.Dropdown(names, value=here, label="Checkpoint", elem_id="nvs-model", interactive=True)
            devices = app_state.devices()
            device = gr.Radio(
                devices, value=str(app_state.renderer().device), label="Device", elem_id="nvs-device",
                visible=len(devices) > 1,
            )  # fmt: skip
            model_use = gr.Button("Reconstruct with this model", elem_id="nvs-model-use", **quiet)
            card = gr.HTML(card_html(here), elem_id="nvs-card", padding=False)
    tabs = [truth_tab, cameras_tab, path_tab, take_tab, model_tab]
    return Tools(
        facts, tabs, hold, release, sharpen, seconds, plot, lost, truth_choice, truth, path_load, path_save,
        video_kind, video, video_cancel, video_progress, video_files, take, geometry_kind, geometry, geometry_cancel,
        geometry_progress, files, kept, kept_open, share, unshare, model, device, card, model_use,
    )  # fmt: skip


def card_html(name: str) -> str:
    """What is written about a checkpoint."""
    found = next((card for card in list_cards() if card.name == name), None)
    return found.to_html() if found else f"<p class='nvs-note'>{html.escape(name)}: no card in checkpoints/.</p>"


def header_html(app_state: AppState) -> str:
    """Title, one sentence, and what renders."""
    renderer = app_state.renderer()
    card = renderer.card
    millions = sum(p.numel() for p in renderer.model.parameters()) / 1e6
    threads = torch.get_num_threads()
    cores = f"CPU, {threads} thread{'' if threads == 1 else 's'}"  # `device_name` is what reports write
    device = cores if renderer.device.type == "cpu" else device_name(renderer.device)
    facts = (str(card.get("name") or "model"), f"{millions:.3g} M parameters", device)
    chips = "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)
    return fill("header.html", title=TITLE, tagline=TAGLINE, chips_html=chips)


def _examples(app_state: AppState) -> gr.HTML:
    """Buttons with an image; `select` tells which."""
    cards = []
    for name in app_state.examples:
        image = _thumbnail(app_state.examples[name])
        shown = f"<img src='{image}' alt='' draggable='false'>" if image else ""
        label = html.escape(name)
        cards.append(f"<button type='button' data-name='{label}'>{shown}<span>{label}</span></button>")
    script = """element.addEventListener('click', (event) => {
      const button = event.target.closest('[data-name]');
      if (button) trigger('select', {value: button.dataset.name});
    });"""
    value = f"<div class='nvs-cards'>{''.join(cards)}</div>"
    return gr.HTML(value, js_on_load=script, elem_id="nvs-examples", padding=False)


def _thumbnail(path: Path) -> str | None:
    """The first image of an example, small, as a data URI."""
    folder = path if path.is_dir() else path.parent
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    try:
        return jpeg_uri(read_image(found[0]), longest=160) if found else None
    except NVSError:  # the example itself tells when it is opened
        return None
