"""The page's whole application, as the server makes it, for tests of routes, headers and uploads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradio.routes import App
from serving import free_port
from starlette.testclient import TestClient

from nvs_app.web.app_state import AppState
from nvs_app.web.page import build_page, launch_options
from nvs_app.web.server import app_options
from nvs_app.web.upload_limits import UploadStore

BOUNDARY = "----a-boundary"


@contextlib.contextmanager
def application(app_state: AppState, store: UploadStore, auth: Any = None, embed: str | None = None) -> Iterator[App]:
    """gradio's application with our layers, as the server starts it; auth: (user, password)."""
    page = build_page(app_state)
    options = app_options(app_state, store, None, embed)
    page.launch(server_port=free_port(), auth=auth, prevent_thread_lock=True, app_kwargs=options, **launch_options())
    try:
        yield page.app
    finally:
        page.close()


def visitor(app: App, address: str = "192.0.2.1", **headers: str) -> TestClient:
    """A browser of its own."""
    return TestClient(app, base_url="http://views.example", headers=headers, client=(address, 50000))


def form(*files: tuple[str, bytes], end: bool = True) -> bytes:
    """The body of an upload."""
    parts = []
    for name, data in files:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def upload(client: TestClient, *files: tuple[str, bytes], **options: Any) -> Any:
    """Sends files as the page's field does."""
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return client.post("/gradio_api/upload", content=options.get("body", form(*files)), headers=kind)


def stored(folder: Path) -> list[Path]:
    """All files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
