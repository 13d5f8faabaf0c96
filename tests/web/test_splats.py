"""Splats drawn by the browser itself: in the page, without a request to the server, and in a file from the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import WITH_HEAD
from PIL import Image
from serving import closed, opened, serving, wait

from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.lact import LaCT


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, small_scene: Path) -> Iterator[str]:
    """A server whose network sees a wall in each view."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    model = LaCT(WITH_HEAD)
    assert model.detail_head is not None
    with torch.no_grad():
        model.detail_head.guide.prior.bias[2] = 5.0
    save_checkpoint(folder / "flat", model.state_dict(), WITH_HEAD, {"train_image_hw": [40, 40], "default": True})
    with serving(folder, "--scene", small_scene, "--context", 4) as address:
        yield address


def looks(page, file: Path, what: str) -> float:
    """How much the pixels of an element differ from each other."""
    page.locator(what).screenshot(path=file)
    return float(np.asarray(Image.open(file).convert("RGB"), np.float32).std(axis=(0, 1)).mean())


@pytest.mark.browser
def test_splats_are_drawn_without_the_server_and_in_a_saved_file(browser, address: str, tmp_path: Path) -> None:
    page = opened(browser, address, reduced_motion="reduce", viewport={"width": 900, "height": 700})
    page.click("[data-nvs=splats]")
    wait(page, "nvs.splats.state.error || (nvs.splats.state.on && nvs.splats.state.view.drawn > 0)")
    assert page.evaluate("nvs.splats.state.error") == ""
    count = page.evaluate("nvs.splats.state.view.count")
    assert count > 100 and page.evaluate("nvs.splats.state.view.drawn") == count
    assert looks(page, tmp_path / "page.png", ".nvs-splats-canvas") > 5

    # The hand turns it while nothing at all is asked of the server.
    page.evaluate(
        "() => { window.sent = []; const send = nvs.line.send.bind(nvs.line);"
        " nvs.line.send = (message) => { sent.push(message.type); return send(message); }; }"
    )
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    before = page.evaluate("[nvs.splats.state.view.frames, nvs.viewer.camera().c2w.join()]")
    drag_over(page)
    wait(page, f"nvs.splats.state.view.frames > {before[0]}")
    assert page.evaluate("nvs.viewer.camera().c2w.join()") != before[1]
    assert page.evaluate("sent") == [] and requests == []
    # Frames of the server again.
    page.click("[data-nvs=splats]")
    wait(page, "sent.includes('frame') && document.querySelector('.nvs-splats-canvas').hidden")

    page.get_by_role("tab", name="Export").click()
    file = exported(page, "Splats in a page (HTML)", ".html", "[\\d,]+ splats, [\\d.]+ [kM]B", tmp_path)
    closed(page)

    alone = browser.new_context(offline=True).new_page()
    asked: list[str] = []
    alone.on("request", lambda request: asked.append(request.url))
    alone.goto(file.as_uri())
    for _ in range(300):  # what waits by itself evaluates text, which this page does not let
        if alone.evaluate("window.nvsView ? nvsView.drawn : 0"):
            break
        alone.wait_for_timeout(50)
    assert alone.evaluate("nvsView.drawn") == alone.evaluate("nvsView.count") > 100
    assert "splats" in alone.inner_text("#words")
    alone.wait_for_timeout(200)
    assert looks(alone, tmp_path / "alone.png", "#splats") > 5
    assert all(url.startswith(("file:", "blob:")) for url in asked), asked
    alone.context.close()


def exported(page, kind: str, ends: str, told: str, folder: Path) -> Path:
    """What the Export tab makes, saved; `told`: what the page says of it."""
    page.locator("#nvs-geometry-kind input").click()
    page.get_by_role("option", name=kind).click()
    page.click("#nvs-geometry")
    wait(page, f"/\\{ends}: {told}/.test(document.querySelector('#nvs-geometry-progress').textContent)")
    with page.expect_download() as download:
        page.locator(f"#nvs-files a[download$='{ends}']").click()
    file = folder / f"saved{ends}"
    download.value.save_as(file)
    return file


def drag_over(page) -> None:
    box = page.locator(".nvs-splats-canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 10, steps=3)
    page.mouse.up()
