"""The application as a child process, and helpers for pages in a browser."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
# As tools/setup.sh looks for it.
_FOUND = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
CHROMIUM = Path(next(_FOUND, "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def start(checkpoints: Path, *words: object) -> subprocess.Popen:
    """`python app.py WORDS` with the checkpoints of a folder."""
    environment = {
        **os.environ,
        "NVS_CHECKPOINTS": str(checkpoints),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "no_proxy": "*",  # gradio asks its own address whether it is up
    }
    return subprocess.Popen(
        [sys.executable, "app.py", *map(str, words)],
        cwd=REPO,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(checkpoints: Path, *words: object) -> Iterator[str]:
    """The address of a server that runs until the block is left; it must end well and say no traceback."""
    server = start(checkpoints, "--port", free_port(), *words)
    said, deadline = "", time.monotonic() + 300  # a machine may be slow
    try:
        while "The page is at" not in said:
            assert server.poll() is None and time.monotonic() < deadline, said
            assert server.stdout is not None
            if select.select([server.stdout], [], [], 1)[0]:
                said += server.stdout.readline()
        yield re.search(r"http://\S+", said)[0].rstrip("/")
    finally:
        server.send_signal(signal.SIGINT)
        try:
            rest, _ = server.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            raise
    assert "Traceback" not in rest, rest
    assert server.returncode in (0, 130), rest


def opened(browser, address: str, path: str = "/", **options):
    """A page of a visitor of his own whose viewer has drawn something; it must ask nobody else for anything."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    context.set_default_timeout(60_000)  # a machine may be slow, and two workers share it
    page = context.new_page()
    page.outside, page.faults = [], []
    fine = (address, address.replace("http", "ws"), "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(fine) else page.outside.append(request.url))
    page.on("websocket", lambda line: None if line.url.startswith(fine) else page.outside.append(line.url))
    page.on("pageerror", lambda error: page.faults.append(error.stack or str(error)))
    page.goto(address + path)
    wait(page, "window.nvs?.viewer?.shown", 60)
    return page


def closed(page) -> None:
    """Closes a page, and looks whether it behaved."""
    page.context.close()
    assert page.outside == [], "the page asked others for something"
    assert page.faults == [], page.faults


def wait(page, what: str, seconds: float = 60) -> None:
    """Until an expression of JavaScript holds."""
    page.wait_for_function(what, timeout=1000 * seconds)


def advanced(page) -> None:
    """Opens the settings of the reconstruction."""
    page.locator("#nvs-advanced > button").click()
    page.locator("#nvs-encode").wait_for()


def drag(page, x: float, y: float, steps: int = 6, button: str = "left", lift: bool = True) -> None:
    """Drags over the image by some pixels."""
    box = page.locator("#nvs-stage canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down(button=button)
    for step in range(1, steps + 1):
        page.mouse.move(box["x"] + box["width"] / 2 + x * step / steps, box["y"] + box["height"] / 2 + y * step / steps)
        page.wait_for_timeout(30)
    if lift:
        page.mouse.up(button=button)


def at_rest(page) -> dict:
    """What the viewer shows once it is sharp: camera, header, and the image as uint8 [h, w, 3]."""
    still = "nvs.viewer.dirty === null && !nvs.viewer.ladder.length && !nvs.viewer.sent.size && !nvs.viewer.auto"
    wait(page, f"{still} && nvs.viewer.shown.id === nvs.viewer.number")  # what has come is shown a moment later
    shown = page.evaluate(
        "({...nvs.viewer.shown, data: btoa(String.fromCharCode(...nvs.viewer.shown.data))})",
    )
    shown["pixels"] = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["data"]))).convert("RGB"))
    return shown
