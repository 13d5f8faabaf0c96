"""The page in a real browser: headless Chromium against the application started as a user starts it."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from looks import POOR_CONTRAST, SMALL, UNNAMED
from serving import advanced, at_rest, closed, drag, free_port, opened, start, wait

from data_tools.readers import open_scene
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.images import to_uint8
from nvs_app.scenes.views import choose_views
from nvs_app.web import server
from nvs_app.web.services.viewpoint import camera_from_page


@pytest.fixture
def page(browser, address: str) -> Iterator:
    page = opened(browser, address)
    yield page
    closed(page)


def turned_by(before: dict, after: dict) -> float:
    """Degrees between two viewing directions."""
    first, second = (np.array(shown["camera"]["c2w"]).reshape(4, 4)[:3, 2] for shown in (before, after))
    return float(np.degrees(np.arccos(np.clip(first @ second, -1, 1))))


@pytest.mark.browser
def test_opens_orbiting_and_a_drag_shows_what_the_renderer_draws(page, checkpoints: Path, small_scene: Path) -> None:
    wait(page, "nvs.viewer.auto")  # it turns gently by itself
    first = page.evaluate("nvs.viewer.shown.camera.c2w")
    wait(page, f"JSON.stringify(nvs.viewer.shown.camera.c2w) !== '{first}'")
    page.evaluate("nvs.viewer.format = 'png'")
    page.select_option("[data-nvs=side]", "128")
    drag(page, 1, 0)
    before = at_rest(page)
    assert page.evaluate("nvs.viewer.auto") is False  # the hand has taken over
    drag(page, 120, -60, lift=False)
    small = page.evaluate("nvs.viewer.shown.header.hw")
    page.mouse.up()
    after = at_rest(page)
    assert 10 < turned_by(before, after) < 80 and not np.array_equal(before["pixels"], after["pixels"])
    assert small[0] <= 128 and after["header"]["hw"][0] == 128
    scene = open_scene(small_scene)
    renderer = Renderer.from_checkpoint(checkpoints / "tiny", "cpu")
    state = renderer.encode(scene.load(choose_views(scene, 3).context, (64, 64)))
    drawn = to_uint8(renderer.render(state, camera_from_page(after["camera"], 1024))[0]).numpy()
    assert drawn.shape == after["pixels"].shape
    assert np.abs(drawn.astype(int) - after["pixels"].astype(int)).max() <= 1  # rounding with other thread counts
    assert "ms model" in page.inner_text("[data-nvs=timing]")


@pytest.mark.browser
def test_hand_wheel_keys_and_controls_move_the_camera(page) -> None:
    page.evaluate("nvs.viewer.format = 'png'")
    drag(page, 1, 0)
    views = [at_rest(page)]

    def eye(shown: dict) -> np.ndarray:
        return np.array(shown["camera"]["c2w"]).reshape(4, 4)[:3, 3]

    page.keyboard.down("Shift")
    drag(page, 80, 0)
    page.keyboard.up("Shift")
    views.append(at_rest(page))
    assert turned_by(*views[-2:]) < 0.1 and np.abs(eye(views[-1]) - eye(views[-2])).max() > 0.1  # shift pans
    drag(page, 0, 60, button="right")
    views.append(at_rest(page))
    assert turned_by(*views[-2:]) < 0.1
    page.mouse.wheel(0, -300)
    views.append(at_rest(page))
    assert turned_by(*views[-2:]) < 0.1 and np.abs(eye(views[-1]) - eye(views[-2])).max() > 0.1
    box = page.locator("#nvs-stage canvas").bounding_box()
    page.mouse.dblclick(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    views.append(at_rest(page))
    assert turned_by(*views[-2:]) > 3 and np.allclose(eye(views[-1]), eye(views[-2]), atol=1e-4)
    for key in ("w", "ArrowLeft", "e"):
        page.locator("#nvs-stage canvas").focus()
        page.keyboard.down(key)
        page.wait_for_timeout(150)
        page.keyboard.up(key)
        views.append(at_rest(page))
        assert not np.allclose(eye(views[-1]), eye(views[-2]), atol=1e-3), key
    page.locator("[data-nvs=fov]").fill("80")
    assert at_rest(page)["camera"]["fov"] == 80
    page.select_option("[data-nvs=up]", "+x")
    right = np.array(at_rest(page)["camera"]["c2w"]).reshape(4, 4)[:3, 0]
    assert abs(right[0]) < 1e-3  # level: the horizon is square to the up axis
    page.click("[data-nvs=reset]")
    views.append(at_rest(page))
    start_at = page.evaluate("nvs.viewer.scene.c2w")
    assert np.allclose(views[-1]["camera"]["c2w"], start_at, atol=1e-4)
    assert page.locator("#nvs-stage canvas").get_attribute("aria-label").startswith("Rendered view of")


@pytest.mark.browser
def test_a_preview_bears_a_frame_of_before_its_start(page) -> None:
    """A browser dates a frame to its beginning, which may lie before the click that it comes after."""
    page.evaluate(
        """() => {
            const scene = nvs.viewer.scene, views = [90, 60, 30].map((fov) => ({ c2w: scene.c2w, fov }));
            nvs.viewer.play(views, 2, false);
            nvs.viewer.playing.start += 400;
        }"""
    )
    wait(page, "nvs.viewer.playing?.index === 0")
    wait(page, "!nvs.viewer.playing")
    assert at_rest(page)["camera"]["fov"] == 30


@pytest.mark.browser
def test_the_line_comes_back_and_a_reload_goes_on(page) -> None:
    token = page.evaluate("nvs.token")
    drag(page, 1, 0)
    page.evaluate("nvs.line.socket.close()")
    wait(page, "document.querySelector('#nvs-stage').dataset.line === 'lost'")
    wait(page, "document.querySelector('#nvs-stage').dataset.line === 'open'")
    number = page.evaluate("nvs.viewer.shown.id")
    drag(page, 40, 0)
    wait(page, f"nvs.viewer.shown.id > {number}")
    page.reload()
    wait(page, "window.nvs?.viewer?.shown", 60)
    assert page.evaluate("nvs.token") == token


@pytest.mark.browser
def test_two_visitors_side_by_side(browser, address: str, page) -> None:
    other = opened(browser, address)
    mine, theirs = page.evaluate("nvs.token"), other.evaluate("nvs.token")
    assert mine != theirs
    for visitor in (page, other):
        visitor.evaluate("nvs.viewer.format = 'png'")
        drag(visitor, 1, 0)
    still = at_rest(other)
    drag(page, 100, 0)
    at_rest(page)
    assert at_rest(other)["id"] == still["id"]  # nothing of mine arrives there
    # With my token, another visitor's browser gets nothing: the cookie is not mine.
    code = other.evaluate(
        """(token) => new Promise((resolve) => {
          const line = new WebSocket(`ws://${location.host}/nvs/socket?visit=${token}`);
          line.onmessage = () => resolve('a message'); line.onclose = (event) => resolve(event.code); })""",
        mine,
    )
    assert code == 4401
    closed(other)


@pytest.mark.browser
def test_fits_a_phone_and_follows_a_finger(browser, address: str) -> None:
    page = opened(browser, address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#nvs-stage canvas").bounding_box()
    assert box["width"] >= 340 and box["y"] + box["height"] < 844
    touch = page.context.new_cdp_session(page)
    x, y = box["x"] + 100, box["y"] + 100

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})

    fingers("touchStart", (x, y))
    before = page.evaluate("nvs.viewer.camera().c2w")
    fingers("touchMove", (x + 60, y + 10))
    fingers("touchEnd")
    wait(page, f"nvs.viewer.camera().c2w.some((x, i) => Math.abs(x - {before}[i]) > 0.1)")
    distance = page.evaluate("nvs.viewer.view.distance")
    fingers("touchStart", (x, y), (x + 60, y))
    fingers("touchMove", (x - 20, y), (x + 100, y))
    fingers("touchEnd")
    assert page.evaluate("nvs.viewer.view.distance") < 0.8 * distance  # a pinch comes closer
    assert page.evaluate("scrollY") == 0
    before = page.evaluate("nvs.viewer.camera().c2w")
    fingers("touchStart", (x, y), (x + 60, y))
    fingers("touchMove", (x + 30, y + 20), (x + 90, y + 20))
    fingers("touchEnd")
    after = page.evaluate("nvs.viewer.camera().c2w")
    turn = [i for i in range(12) if i % 4 != 3]
    assert np.allclose(np.array(after)[turn], np.array(before)[turn], atol=1e-6)  # two fingers side by side pan
    assert np.abs(np.array(after) - np.array(before)).max() > 0.05
    page.touchscreen.tap(x + 120, y)
    page.touchscreen.tap(x + 120, y)
    wait(page, f"nvs.viewer.camera().c2w.some((x, i) => i % 4 !== 3 && Math.abs(x - {after}[i]) > 0.02)")  # looks there
    closed(page)


@pytest.mark.browser
def test_motion_is_not_forced_upon_anybody(browser, address: str) -> None:
    page = opened(browser, address, reduced_motion="reduce")
    assert page.evaluate("nvs.viewer.auto") is False
    closed(page)


@pytest.mark.browser
def test_frames_follow_the_hand_at_a_lower_resolution(page) -> None:
    """And at rest the view comes at the one that was chosen: both are sizes that the server has sent."""
    page.select_option("[data-nvs=side]", "512")
    drag(page, 1, 0)
    rest = at_rest(page)["header"]
    assert rest["hw"] == page.evaluate("nvs.viewer.plan.rest.at(-1).hw") and min(rest["hw"]) == 512
    assert page.is_disabled("[data-nvs=side] option[value='1024']")  # more than a CPU is asked for
    page.evaluate(
        """() => { window.headers = [];
            addEventListener('nvs-frame', (event) => headers.push(event.detail.header), true);
            const drag = { hw: [96, 104], quality: 70, quick: true }, take = nvs.viewer.takePlan.bind(nvs.viewer);
            nvs.viewer.takePlan = (plan) => take({ ...plan, drag });
            nvs.viewer.takePlan(nvs.viewer.plan); }"""
    )
    drag(page, 60, 0)
    assert min(at_rest(page)["header"]["hw"]) == 512
    assert page.evaluate("headers")[0]["hw"] == [96, 104]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--checkpoint", "absent"), "error: checkpoint absent: not found"),
        (("--auth", "nobody"), "error: --auth: expected USER:PASSWORD"),
    ],
)
def test_server_mistakes(checkpoints: Path, words: tuple, said: str) -> None:
    server = start(checkpoints, "--port", free_port(), *words)
    out, _ = server.communicate(timeout=120)
    assert server.returncode == 2 and said in out and "Traceback" not in out


def test_options_reach_gradio(app_state, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict = {}
    page = SimpleNamespace(
        launch=lambda **options: given.update(options), local_url="local", share_url="public", block_thread=lambda: None
    )
    monkeypatch.setattr("nvs_app.web.page.build_page", lambda app_state: page)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    words = ["--share", "--auth", "me:a:b", "--root-path", "/views", "--host", "0.0.0.0", "--port", "1234"]
    server._serve(app_state, server.build_parser().parse_args(words))
    assert given["share"] is True and given["auth"] == ("me", "a:b") and given["root_path"] == "/views"
    assert (given["server_name"], given["server_port"]) == ("0.0.0.0", 1234)
    server._serve(app_state, server.build_parser().parse_args([]))
    assert given["share"] is False and given["auth"] is None and given["server_name"] == "127.0.0.1"
    assert given["max_file_size"] == app_state.limits.upload_bytes


def test_port_in_use(checkpoints: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = start(checkpoints, "--port", taken.getsockname()[1])
        out, _ = server.communicate(timeout=120)
    assert server.returncode == 2 and "cannot listen there" in out and "Traceback" not in out


@pytest.mark.browser
def test_the_photos_cameras_lie_over_the_view_and_lead_there(browser, address: str, small_scene: Path) -> None:
    page = opened(browser, address, reduced_motion="reduce")
    photos = open_scene(small_scene).c2w.numpy()

    def eye() -> np.ndarray:
        return np.array(at_rest(page)["camera"]["c2w"]).reshape(4, 4)[:3, 3]

    page.evaluate("nvs.viewer.view.dolly(2.2); nvs.viewer.hand(); nvs.viewer.move()")
    at_rest(page)
    page.click("[data-nvs=cameras]")
    wait(page, "nvs.overlay.places().length >= 3")
    place = page.evaluate("nvs.overlay.places()[0]")
    box = page.locator("#nvs-stage canvas").first.bounding_box()
    page.mouse.move(box["x"] + place["middle"][0], box["y"] + place["middle"][1])
    assert "click to look from there" in page.locator("#nvs-stage canvas").first.get_attribute("title")
    page.mouse.down()
    page.mouse.up()
    wait(page, f"Math.abs(nvs.viewer.view.eye[0] - {photos[place['index']][0, 3]}) < 1e-3")
    assert np.allclose(eye(), photos[place["index"]][:3, 3], atol=1e-3)
    # An input view, and a row of the comparison, lead to their cameras too.
    wait(page, "document.querySelector('#nvs-truth tbody button')")
    for where in ("#nvs-facts [data-nvs-view] >> nth=1", "#nvs-truth tbody [data-nvs-held] >> nth=1"):
        index = int(page.get_attribute(where, "data-nvs-view"))
        page.click(where)
        wait(page, f"Math.abs(nvs.viewer.view.eye[0] - {photos[index][0, 3]}) < 1e-3")
        assert np.allclose(eye(), photos[index][:3, 3], atol=1e-3)
    wait(page, f"document.querySelector('.nvs-split img').alt === 'Photo {index}'")
    page.click("[data-nvs=cameras]")
    assert page.locator(".nvs-over-canvas").count() == 0
    closed(page)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_and_controls_have_names(
    browser, address: str, photos: list[Path], scheme: str, tmp_path: Path
) -> None:
    page = opened(browser, address, color_scheme=scheme, reduced_motion="reduce")
    wait(page, "document.querySelector('#nvs-truth img')", 60)
    for tab in ("Compare", "Cameras", "Path", "Export", "Model"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(400)
        if tab == "Export":  # with all that it says
            page.click("#nvs-take-keep")
            page.get_by_text("They take").wait_for()
        assert page.evaluate(POOR_CONTRAST) == [], tab
        assert page.evaluate(UNNAMED) == [], tab
    page.click("[data-nvs=details]")
    page.evaluate("nvs.viewer.hand(); nvs.viewer.view.dolly(3.5); nvs.viewer.move()")
    page.locator("[data-nvs=beyond-words]").wait_for()
    page.locator(".nvs-chips span").first.wait_for()
    assert page.evaluate(POOR_CONTRAST) == []  # over the image
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    page.set_input_files("#nvs-upload input[type=file]", [str(path) for path in (*photos, tmp_path / "bad.jpg")])
    page.locator(".nvs-go").wait_for()
    assert page.evaluate(POOR_CONTRAST) == [] and page.evaluate(UNNAMED) == []
    page.evaluate(
        "document.querySelector('.nvs-photos footer .nvs-link').style.setProperty('color', '#999', 'important')"
    )
    page.wait_for_timeout(500)  # colours change slowly
    assert scheme == "dark" or len(page.evaluate(POOR_CONTRAST)) == 1  # it would be seen
    page.locator("[data-nvs-help]").first.click()
    page.get_by_role("dialog", name="Keys and gestures").wait_for()
    page.keyboard.press("Escape")
    page.locator("#nvs-stage canvas").focus()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for(state="hidden")
    closed(page)


@pytest.mark.browser
def test_a_phone_brings_photos_and_sees_them_without_a_scroll(
    browser, address: str, small_scene: Path, tmp_path: Path
) -> None:
    page = opened(browser, address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    archive = shutil.make_archive(str(tmp_path / "brought"), "zip", small_scene)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Your photos").tap()
    chooser.value.set_files(archive)
    go = page.locator(".nvs-go")
    go.wait_for()
    assert page.evaluate("scrollY") == 0 and go.bounding_box()["y"] + go.bounding_box()["height"] < 844
    go.tap()
    wait(page, "nvs.viewer.scene.name === 'brought' && document.querySelector('[data-nvs=work]').hidden", 60)
    box = page.locator("#nvs-stage canvas").bounding_box()
    assert 0 <= box["y"] and box["y"] + box["height"] < 844 and page.evaluate("scrollY") == 0
    page.get_by_role("tab", name="Path").tap()  # far below; the viewer stays in sight
    page.locator("[data-path=add]").tap()
    page.locator("[data-path=keys] li").wait_for()
    page.mouse.wheel(0, 3000)
    page.wait_for_timeout(400)
    assert page.evaluate("scrollY") > 300 and page.locator("#nvs-stage canvas").bounding_box()["y"] >= 0
    assert page.evaluate(SMALL) == []
    advanced(page)
    page.evaluate("document.querySelector('#nvs-views').scrollIntoView(); scrollBy(0, -120)")  # under the viewer
    page.wait_for_timeout(400)
    label = page.locator("#nvs-views [data-testid=block-info]").bounding_box()
    at = f"document.elementFromPoint({label['x'] + 4}, {label['y'] + 4})"
    assert 0 < label["y"] < 300 and page.evaluate(f"Boolean({at}.closest('#nvs-middle'))")  # nothing shines through
    closed(page)
