"""How the camera answers a hand at the edge of what the photos cover, and a finger on the stick."""

from __future__ import annotations

import numpy as np
import pytest
from serving import closed, drag, opened, wait

# Degrees above the plane of the photos' cameras, seen from what they look at; and how the scene says how far it may go.
HEIGHT = """() => {
  const { view, scene } = nvs.viewer, way = view.eye.map((x, i) => x - scene.focus[i]);
  const long = Math.hypot(...way), up = Math.hypot(...scene.up);
  return Math.asin(way.reduce((sum, x, i) => sum + x * scene.up[i], 0) / long / up) * 180 / Math.PI; }"""


@pytest.mark.browser
def test_beyond_the_photos_a_drag_goes_on_slowly_and_is_told(page) -> None:
    page.evaluate("nvs.viewer.reset()")
    told = page.locator("[data-nvs=beyond]")
    heights = [page.evaluate(HEIGHT)]
    for pixels in (40, 160, 40, -20):  # within; far over the edge; beyond; back
        drag(page, 0, pixels, steps=10)
        heights.append(page.evaluate(HEIGHT))
    within, _, beyond, back = np.diff(heights)
    assert within > 5 and 0.2 * within < beyond < 0.4 * within  # one may go on
    assert back == pytest.approx(-within / 2, rel=0.05)  # nothing holds whoever comes back
    told.get_by_text("higher than any photo").wait_for()
    page.get_by_role("button", name="Back", exact=True).click()
    told.wait_for(state="hidden")


@pytest.mark.browser
def test_a_finger_flies_with_the_stick(browser, address: str) -> None:
    page = opened(browser, address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})

    def camera() -> np.ndarray:
        return np.array(page.evaluate("nvs.viewer.camera().c2w")).reshape(4, 4)

    def middle(name: str) -> tuple[float, float]:
        box = page.locator(f"[data-nvs={name}]").bounding_box()
        assert min(box["width"], box["height"]) >= 44
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    page.locator("[data-nvs=fly]").tap()
    before, (x, y) = camera(), middle("stick")
    fingers("touchStart", (x, y))
    fingers("touchMove", (x, y - 40))  # ahead
    wait(page, f"Math.hypot(...nvs.viewer.view.eye.map((x, i) => x - {before[:3, 3].tolist()}[i])) > 0.3")
    fingers("touchEnd")
    after = camera()
    moved = after[:3, 3] - before[:3, 3]
    assert moved @ before[:3, 2] > 0.99 * np.linalg.norm(moved)
    page.wait_for_timeout(150)
    assert np.array_equal(camera(), after)  # it stands still again
    fingers("touchStart", middle("rise"))
    wait(page, f"Math.hypot(...nvs.viewer.view.eye.map((x, i) => x - {after[:3, 3].tolist()}[i])) > 0.1")
    fingers("touchEnd")
    up, rise = np.array(page.evaluate("nvs.viewer.view.up")), camera()[:3, 3] - after[:3, 3]
    assert rise @ up > 0.99 * np.linalg.norm(rise)
    after, box = camera(), page.locator("#nvs-stage canvas").bounding_box()
    at = (box["x"] + 0.7 * box["width"], box["y"] + 0.4 * box["height"])
    fingers("touchStart", at)
    fingers("touchMove", (at[0] - 60, at[1]))
    fingers("touchEnd")
    looked = camera()
    assert np.allclose(looked[:3, 3], after[:3, 3]) and looked[:3, 2] @ after[:3, 0] > 0.05  # to the right, from there
    page.locator("[data-nvs=fly]").click()
    page.locator("[data-nvs=stick]").wait_for(state="hidden")
    page.evaluate("nvs.viewer.view.dolly(9); nvs.viewer.move()")
    told = page.locator("[data-nvs=beyond]")
    told.wait_for()
    photos = page.get_by_role("button", name="+ Your photos").bounding_box()
    assert told.bounding_box()["y"] >= photos["y"] + photos["height"]  # neither lies under the other
    closed(page)
