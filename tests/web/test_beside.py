"""Two reconstructions of the same photos in one view."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import advanced, at_rest, drag, wait

from data_tools.readers import open_scene
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.images import to_uint8
from nvs_app.scenes.views import choose_views
from nvs_app.web.services.viewpoint import camera_from_page


@pytest.mark.browser
def test_two_reconstructions_side_by_side(page, checkpoints: Path, small_scene: Path) -> None:
    """From three and from five of the same photos, with one camera; another capture ends it."""
    page.evaluate("nvs.viewer.format = 'png'")
    page.select_option("[data-nvs=side]", "128")
    page.click("#nvs-hold")
    page.get_by_text("Held. Now").first.wait_for()
    advanced(page)
    page.locator("#nvs-views input[type=number]").fill("5")
    page.locator("#nvs-views input[type=number]").press("Enter")
    page.locator("#nvs-plan").get_by_text("5 used").first.wait_for()
    page.click("#nvs-encode")
    page.locator("[data-nvs=beside]").get_by_text("3 input views").wait_for(timeout=30_000)
    assert "5 input views" in page.inner_text("[data-nvs=beside]")
    drag(page, 40, 10)
    right = at_rest(page)
    wait(page, "nvs.beside.shown && nvs.beside.shown.camera === nvs.viewer.shown.camera")
    left = page.evaluate("btoa(String.fromCharCode(...nvs.beside.shown.data))")
    left = np.asarray(Image.open(io.BytesIO(base64.b64decode(left))).convert("RGB"))
    renderer, scene = Renderer.from_checkpoint(checkpoints / "tiny", "cpu"), open_scene(small_scene)
    for count, shown in ((3, left), (5, right["pixels"])):
        state = renderer.encode(scene.load(choose_views(scene, count).context, (64, 64)))
        made = to_uint8(renderer.render(state, camera_from_page(right["camera"], 1024))[0]).numpy()
        assert np.abs(made.astype(int) - shown.astype(int)).max() <= 1, count
    page.click("#nvs-examples [data-name='object chair']")
    page.locator("[data-nvs=beside]").wait_for(state="hidden", timeout=60_000)
