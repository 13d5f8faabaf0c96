"""The page's functions for Python programs, through gradio's client.

    from gradio_client import Client, handle_file

    client = Client("http://127.0.0.1:7860")
    client.predict("object chair", api_name="/open_example")
    image = client.predict({"turn": 30}, 256, 256, api_name="/render")

A client is a visitor like any other: what it encodes is its own, and goes when it is away for some minutes.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from data_tools.structure_from_motion.job import Cancelled
from nvs_app.errors import NVSError
from nvs_app.web.arguments import whole
from nvs_app.web.event_handlers import EventHandlers
from nvs_app.web.services.encoding import facts, parse_size
from nvs_app.web.services.exports import save_snapshot
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.services.videos import views_for_page
from nvs_app.web.user_errors import report_user_errors


def add_api(event_handlers: EventHandlers) -> None:
    """Adds the functions to the Blocks that are being built."""
    app_state = event_handlers.app_state

    def examples() -> list[str]:
        """Names of the example scenes."""
        return list(app_state.examples)

    def open_example(name: str, request: gr.Request) -> dict[str, Any]:
        """Opens an example by its name; what is known of it."""
        return facts(event_handlers.encoding.bring_example(event_handlers.session(request), name))

    def encode(files: list[str], views: float | None, size: str | None, request: gr.Request) -> dict[str, Any]:
        """Encodes photos, a zip, a video or a state file. views: how many are read (null: chosen); size:
        WIDTHxHEIGHT ("": the checkpoint's). Waits until it is done; what is known of the scene."""
        session = event_handlers.session(request)
        found = event_handlers.encoding.receive(session, files or [])
        if isinstance(found, LoadedScene):
            return facts(found)
        if size:
            parse_size(size)
        job = event_handlers.encoding.encode(session, whole("views", views) if views else None, size or None)
        try:
            for _ in job.follow():
                session.touch()
            return facts(job.result())
        except Cancelled as error:
            raise NVSError("cancelled by a newer encoding of the same client") from error

    def cameras(request: gr.Request) -> list[dict[str, Any]]:
        """The cameras of the capture: {"c2w": 16 numbers row by row (OpenCV axes), "fov": degrees} each."""
        return views_for_page(app_state.require_scene(event_handlers.session(request)).cameras)["views"]

    def render(view: Any, height: float, width: float, request: gr.Request) -> str:
        """Renders a view {"c2w": ..., "fov": ...}, exactly as videos do, into a PNG file; null: the first look."""
        session = event_handlers.session(request)
        opened = app_state.require_scene(session)
        view = view or opened.viewpoint.for_page()
        if not isinstance(view, dict):
            raise NVSError('view: expected {"c2w": 16 numbers, "fov": degrees}')
        image, camera = event_handlers.videos.still(
            session, {**view, "hw": [whole("height", height), whole("width", width)]}
        )
        return str(save_snapshot(image, camera, session.download("view.png"), {"scene": opened.name}))

    def truth(view: float | None, request: gr.Request) -> dict[str, Any]:
        """PSNR and SSIM of a held-out view (null: the first), and the means over some held-out views."""
        found, table = event_handlers.inspector.truth(
            event_handlers.session(request), None if view is None else whole("view", view)
        )
        if found is None or table is None:
            raise NVSError("no view of this scene is held out")
        return {
            "view": found.index, "psnr": found.psnr, "ssim": found.ssim,
            "mean_psnr": table.psnr, "mean_ssim": table.ssim, "views": [v.index for v in table.views],
        }  # fmt: skip

    def video(path: Any, kind: str, request: gr.Request) -> list[str]:
        """Renders a path ({"preset": "orbit", "seconds": 4, "fps": 24, "image_hw": [256, 256]} or {"timeline":
        {"keyframes": [{"c2w", "fov", "seconds"}], "fps", "loop", "image_hw"}}) to "MP4", "GIF" or "PNG (zip)"; the
        video, and the path as nerfstudio's JSON."""
        session = event_handlers.session(request)
        job = event_handlers.videos.export(session, path, kind)
        for _ in job.follow():
            session.touch()
        return [str(file) for file in job.result()[0]]

    def take(what: str, request: gr.Request) -> str:
        """A file of the scene: "state", "scene" or "colmap"."""
        if what not in ("state", "scene", "colmap"):
            raise NVSError(f"take {what!r}: expected state, scene or colmap")
        return str(event_handlers.made(event_handlers.session(request), what, ""))

    with gr.Row(visible=False):
        button = gr.Button()
        text, words = gr.Textbox(label="name"), gr.Textbox(label="size")
        number, height, width = gr.Number(label="views"), gr.Number(label="height"), gr.Number(label="width")
        answer, asked = gr.JSON(label="answer"), gr.JSON(label="view")
        files, file, made = gr.File(file_count="multiple", label="files"), gr.File(), gr.File(file_count="multiple")
    for name, function, inputs, output in (
        ("examples", examples, [], answer),
        ("open_example", open_example, [text], answer),
        ("encode", encode, [files, number, words], answer),
        ("cameras", cameras, [], answer),
        ("render", render, [asked, height, width], file),
        ("truth", truth, [number], answer),
        ("video", video, [asked, text], made),
        ("take_away", take, [text], file),
    ):
        button.click(
            report_user_errors(function), inputs, output, api_name=name, show_progress="hidden", concurrency_limit=None
        )
