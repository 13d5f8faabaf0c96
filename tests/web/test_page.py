"""The page in a real headless browser, and the server's own mistakes."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT

REPO = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    config = PRESETS["tiny"]
    save_checkpoint(folder / "tiny", LaCT(config).state_dict(), config, {"train_image_hw": [64, 64]})
    return folder


def start(checkpoints: Path, *words: object) -> subprocess.Popen:
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


@pytest.fixture(scope="module")
def address(checkpoints: Path, small_scene: Path) -> Iterator[str]:
    """The page, served by a child process that offers one small scene first."""
    server = start(checkpoints, "--scene", small_scene, "--context", 3, "--port", free_port())
    said, deadline = "", time.monotonic() + 120
    try:
        while "The page is at" not in said:
            assert server.poll() is None and time.monotonic() < deadline, said
            if select.select([server.stdout], [], [], 1)[0]:
                said += server.stdout.readline()
        yield re.search(r"http://\S+", said)[0]
    finally:
        server.send_signal(signal.SIGINT)
        try:
            rest, _ = server.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            raise
    assert "Traceback" not in rest, rest
    assert server.returncode in (0, 130), rest


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if not CHROMIUM.exists() and os.environ.get("CI") != "true":
        pytest.skip("no /usr/bin/chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address: str) -> Iterator:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    outside: list[str] = []
    errors: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else outside.append(r.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#nvs-comparison img", timeout=60_000)
    yield page
    page.close()
    assert outside == [], "the page asked others for something"
    assert errors == []


def picture(page) -> str:
    return page.get_attribute("#nvs-view img", "src")


def caption(page) -> str:
    return page.inner_text("#nvs-view figcaption")


def wait_for(page, what, timeout: float = 30.0):
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, f"waited in vain; the view says {caption(page)!r}"
        page.wait_for_timeout(50)


@pytest.mark.browser
def test_opens_with_a_rendered_scene(page) -> None:
    width = page.evaluate("document.querySelector('#nvs-view img').naturalWidth")
    assert width == 128 and "128 × 128 px" in caption(page) and re.search(r"\d+ ms", caption(page))
    assert page.locator("#nvs-inputs img").count() == 3
    assert page.locator("#nvs-comparison img").count() == 2
    assert re.search(r"PSNR\s+\d+\.\d\d dB", page.inner_text("#nvs-comparison"))


@pytest.mark.browser
def test_dragging_a_slider_turns_the_view(page) -> None:
    before = picture(page)
    page.click("#nvs-resolution label:has-text('256')")
    wait_for(page, lambda: "256 × 256 px" in caption(page))
    slider = page.locator("#nvs-azimuth input[type=range]")
    box = slider.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(8):
        page.mouse.move(x + 8 * step, y)
        page.wait_for_timeout(60)
    wait_for(page, lambda: "128 × 128 px" in caption(page))  # smaller while it is held
    dragged = picture(page)
    page.mouse.up()
    wait_for(page, lambda: "256 × 256 px" in caption(page))  # and whole when let go
    turned = picture(page)
    assert len({before, dragged, turned}) == 3
    assert float(slider.input_value()) > 20
    # The keyboard reaches the sliders too.
    slider.focus()
    page.keyboard.press("ArrowLeft")
    wait_for(page, lambda: picture(page) != turned)
    page.click("#nvs-reset")
    wait_for(page, lambda: float(slider.input_value()) == 0)


@pytest.mark.browser
def test_held_out_view_is_chosen(page) -> None:
    before = page.inner_text("#nvs-comparison")
    page.click("#nvs-held-out input")
    page.locator("#nvs-held-out [role=option], [role=option]").first.click()
    wait_for(page, lambda: page.inner_text("#nvs-comparison") != before)


@pytest.mark.browser
def test_a_wrong_folder_is_one_sentence_and_the_scene_stays(page) -> None:
    page.fill("#nvs-path-text input, #nvs-path-text textarea", "/absent/scene")
    page.click("#nvs-open")
    page.get_by_text("/absent/scene: no such file or folder").first.wait_for(timeout=30_000)
    assert page.locator("text=Traceback").count() == 0
    page.wait_for_selector("#nvs-view img")
    before = picture(page)
    page.locator("#nvs-elevation input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    wait_for(page, lambda: picture(page) != before)  # the next request works


@pytest.mark.browser
def test_a_folder_is_opened(page, small_scene: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(small_scene, tmp_path / "another")
    page.fill("#nvs-path-text input, #nvs-path-text textarea", str(tmp_path / "another"))
    page.locator("#nvs-path-text input, #nvs-path-text textarea").press("Enter")
    page.wait_for_selector("#nvs-view img[alt='Rendered view of another']", timeout=30_000)
    assert page.locator("#nvs-scenes input:checked").count() == 0


@pytest.mark.browser
def test_fits_a_phone(browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(address)
    page.wait_for_selector("#nvs-comparison img", timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#nvs-view img").bounding_box()["width"] > 320
    page.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--checkpoint", "absent"), "error: checkpoint absent: not found"),
        (("--auth", "nobody"), "error: --auth: expected USER:PASSWORD"),
    ],
)
def test_server_mistakes(checkpoints: Path, words: tuple, said: str) -> None:
    server = start(checkpoints, *words)
    out, _ = server.communicate(timeout=120)
    assert server.returncode == 2 and said in out and "Traceback" not in out


def test_port_in_use(checkpoints: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = start(checkpoints, "--port", taken.getsockname()[1])
        out, _ = server.communicate(timeout=120)
    assert server.returncode == 2 and "cannot listen there" in out and "Traceback" not in out
