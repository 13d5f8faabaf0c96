"""Depth, coverage, the surface under the cursor and the gentle turn, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from serving import at_rest, closed, drag, opened, serving, wait

from data_tools.readers import open_scene
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.images import to_uint8
from nvs_app.scenes.views import choose_views
from nvs_app.web.services.surfaces import coverage, depth_in_colours, sure, surface_point
from nvs_app.web.services.viewpoint import camera_from_page


@pytest.fixture(scope="module")
def address(checkpoints: Path, small_scene: Path) -> Iterator[str]:
    with serving(checkpoints, "--scene", small_scene, "--context", 3, "--checkpoint", "headed") as address:
        yield address


@pytest.fixture(scope="module")
def known(checkpoints: Path, small_scene: Path):
    """The renderer and the state that the page shows."""
    renderer, scene = Renderer.from_checkpoint(checkpoints / "headed", "cpu"), open_scene(small_scene)
    return renderer, renderer.encode(scene.load(choose_views(scene, 3).context, (40, 40)))


@pytest.fixture
def page(browser, address: str) -> Iterator:
    page = opened(browser, address, reduced_motion="reduce")
    page.evaluate("nvs.viewer.format = 'png'")
    page.select_option("[data-nvs=side]", "128")
    drag(page, 1, 0)
    yield page
    closed(page)


def sent(page) -> None:
    """Keeps what the page asks for from now on, and when the view was centred."""
    page.evaluate(
        """() => { window.asked = []; window.centred = [];
            const send = nvs.line.send.bind(nvs.line);
            nvs.line.send = (message) => { asked.push(structuredClone(message)); return send(message); };
            addEventListener('nvs-centre', (event) => centred.push(event.detail), true); }"""
    )


def places(views, yes: bool) -> tuple[float, float]:
    """A place [right, down] well inside of what has a surface, or has none."""
    kind = sure(views)[0].float()
    kind = kind if yes else 1 - kind
    inside = -torch.nn.functional.max_pool2d(-kind[None, None], 9, 1, 4)[0, 0]
    inside[:6], inside[-6:], inside[:, :6], inside[:, -6:] = 0, 0, 0, 0
    row, column = inside.nonzero()[-1 if yes else 0].tolist()
    return (column + 0.5) / kind.shape[1], (row + 0.5) / kind.shape[0]


def click_at(page, at: tuple[float, float]) -> tuple[float, float]:
    box = page.locator("#nvs-stage canvas").bounding_box()
    return box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"]


def what_is_seen(page, known) -> tuple:
    """The page's view at rest, its camera, and what the renderer gives there; messages are noted from now on."""
    renderer, state = known
    at_rest(page)
    view = page.evaluate("({...nvs.viewer.camera(), hw: nvs.viewer.plan.point})")
    camera = camera_from_page(view, 1024)
    views = renderer.render(state, camera, depth=True)
    sent(page)
    return view, camera, views


@pytest.mark.browser
def test_a_double_click_centres_the_surface_under_it(page, known) -> None:
    view, camera, views = what_is_seen(page, known)
    page.mouse.dblclick(*click_at(page, places(views, yes=True)))
    wait(page, "centred.length")
    (question,) = [message for message in page.evaluate("asked") if message["type"] == "point"]
    assert np.allclose(question["c2w"], view["c2w"], atol=1e-6) and question["hw"] == view["hw"]
    found = surface_point(views, camera, tuple(question["at"]))
    assert found is not None
    point = found[0].numpy()
    after = page.evaluate("({target: nvs.viewer.view.target(), ...nvs.viewer.camera(), place: [0.5, 0.5]})")
    scale = float(np.linalg.norm(point - camera.c2w[0, :3, 3].numpy()))
    assert np.abs(np.array(after["target"]) - point).max() < 1e-3 * scale
    # Dragging turns about it: it stays in the middle, and as far away.
    drag(page, 90, 30)
    place = page.evaluate(f"nvs.viewer.place({point.tolist()})")
    assert np.allclose(place, 0.5, atol=2e-3)
    eye = np.array(page.evaluate("nvs.viewer.view.eye"))
    assert np.linalg.norm(eye - point) == pytest.approx(scale, rel=1e-3)


@pytest.mark.browser
def test_a_double_click_where_no_surface_is_turns_the_view(page, known) -> None:
    renderer, state = known
    at_rest(page)
    before = page.evaluate("({...nvs.viewer.camera(), hw: nvs.viewer.plan.point, distance: nvs.viewer.view.distance})")
    views = renderer.render(state, camera_from_page(before, 1024), depth=True)
    at = places(views, yes=False)
    sent(page)
    page.mouse.dblclick(*click_at(page, at))
    wait(page, "centred.length")
    assert page.evaluate("centred[0].point") is None
    distance, c2w = page.evaluate("nvs.viewer.view.distance"), np.array(page.evaluate("nvs.viewer.camera().c2w"))
    assert distance == pytest.approx(before["distance"], rel=1e-6)
    old = np.array(before["c2w"]).reshape(4, 4)
    assert np.allclose(c2w.reshape(4, 4)[:3, 3], old[:3, 3], atol=1e-6)
    turned = np.degrees(np.arccos(np.clip(c2w.reshape(4, 4)[:3, 2] @ old[:3, 2], -1, 1)))
    assert (turned > 1) == (abs(at[0] - 0.5) + abs(at[1] - 0.5) > 0.1)


@pytest.mark.browser
def test_the_wheel_goes_towards_the_surface_under_the_cursor(page, known) -> None:
    view, camera, views = what_is_seen(page, known)
    page.mouse.move(*click_at(page, places(views, yes=True)))
    page.mouse.wheel(0, -10)
    wait(page, "nvs.viewer.surfaces.anchor?.point && !nvs.viewer.surfaces.anchor.waits")
    (question,) = [message for message in page.evaluate("asked") if message["type"] == "point"]
    found = surface_point(views, camera, tuple(question["at"]))
    assert found is not None
    assert np.allclose(page.evaluate("nvs.viewer.surfaces.anchor.point"), found[0].numpy(), rtol=1e-3, atol=1e-3)
    eye, forward = (np.array(page.evaluate(f"nvs.viewer.view.{name}")) for name in ("eye", "forward"))
    place = page.evaluate("nvs.viewer.place(nvs.viewer.surfaces.anchor.point)")
    page.mouse.wheel(0, -200)
    wait(page, f"Math.hypot(...nvs.viewer.view.eye.map((x, i) => x - {eye.tolist()}[i])) > 0")
    point, closer = (np.array(page.evaluate(f"nvs.viewer.{name}")) for name in ("surfaces.anchor.point", "view.eye"))
    assert np.allclose((closer - point) / (eye - point), np.exp(-0.3), atol=1e-4)  # straight towards it
    assert np.allclose(page.evaluate("nvs.viewer.view.forward"), forward)
    assert np.allclose(page.evaluate(f"nvs.viewer.place({point.tolist()})"), place, atol=1e-6)  # and it stays there
    assert len([message for message in page.evaluate("asked") if message["type"] == "point"]) == 1
    distance = page.evaluate("nvs.viewer.view.distance")
    assert distance == pytest.approx(float((point - closer) @ forward), rel=1e-5)


@pytest.mark.browser
def test_depth_and_coverage_are_switched_on(page, known) -> None:
    renderer, state = known
    for name, made in (("depth", depth_in_colours), ("coverage", coverage)):
        page.click(f"button[data-nvs={name}]")
        shown = at_rest(page)
        views = renderer.render(state, camera_from_page(shown["camera"], 1024), depth=True)
        expected = to_uint8(made(views).image).numpy()
        off = np.abs(expected.astype(int) - shown["pixels"].astype(int)).max(-1)
        assert (off > 3).mean() < 0.01  # a pixel at the threshold may fall to the other side with other threads
        assert page.get_attribute(f"button[data-nvs={name}]", "aria-pressed") == "true"
        if name == "depth":
            near, far = shown["header"]["range"]
            assert float(page.inner_text("[data-nvs=near]")) == pytest.approx(near, rel=0.01)
            assert float(page.inner_text("[data-nvs=far]")) == pytest.approx(far, rel=0.01)
            at = places(views, yes=True)
            page.mouse.move(*click_at(page, at))
            wait(page, "/here: [0-9.]+/.test(document.querySelector('[data-nvs=said]').textContent)")
            here = float(page.inner_text("[data-nvs=said]").split()[1])
            row, column = int(at[1] * views.depth.shape[1]), int(at[0] * views.depth.shape[2])
            around = views.depth[0, row - 3 : row + 4, column - 3 : column + 4]
            assert around.min() * 0.99 <= here <= around.max() * 1.01
        else:
            unseen = round(100 * shown["header"]["unseen"])
            assert page.inner_text("[data-nvs=said]") == f"no photo shows {unseen} % of it"
            assert page.get_attribute("button[data-nvs=depth]", "aria-pressed") == "false"
    page.click("button[data-nvs=coverage]")
    shown = at_rest(page)
    assert shown["header"]["output"] == "image" and not page.is_visible("[data-nvs=legend]")


@pytest.mark.slow
@pytest.mark.browser
def test_without_a_detail_head_they_are_off_and_say_why(browser, checkpoints: Path, small_scene: Path) -> None:
    with serving(checkpoints, "--scene", small_scene, "--context", 3) as address:
        page = opened(browser, address, reduced_motion="reduce")
        for name in ("depth", "coverage"):
            assert page.is_disabled(f"button[data-nvs={name}]")
        assert "no detail head" in page.inner_text("[data-nvs=no-depth]")
        closed(page)


@pytest.mark.browser
def test_auto_rotate_stays_beside_the_photos(page, small_scene: Path) -> None:
    """From wherever it is switched on, it joins the turn of the scene, and no view of that is far from a photo's."""
    page.evaluate("nvs.viewer.reset(); nvs.viewer.view.orbit(2, -0.6); nvs.viewer.view.dolly(4)")
    page.get_by_text("farther away than any photo").wait_for()
    page.click("[data-nvs=auto]")
    seen = np.array(page.evaluate(
        """() => { const { viewer } = nvs, seen = [];
            for (let i = 0; i < 1500; i++) { viewer.turnOn(0.05);
                seen.push([...viewer.view.eye, ...viewer.view.forward]); }
            viewer.move(); return seen; }"""
    ))  # fmt: skip
    photos = open_scene(small_scene).c2w.numpy()
    eyes, ahead = seen[60:, :3], seen[60:, 3:]
    assert np.abs(eyes[:, 2] - 1).max() < 0.1 and np.abs(np.linalg.norm(eyes[:, :2], axis=1) - 3).max() < 0.15  # a ring
    inputs = photos[
        page.evaluate("[...document.querySelectorAll('#nvs-facts [data-nvs-view]')].map((b) => +b.dataset.nvsView)")
    ]
    nearest = np.degrees(np.arccos(np.clip(ahead @ inputs[:, :3, 2].T, -1, 1))).min(1)
    assert nearest.max() < 75  # half of the widest gap between neighbours
    assert np.linalg.norm(np.diff(eyes, axis=0), axis=1).max() < 0.2  # without a jump
    page.get_by_text("farther away than any photo").wait_for(state="hidden")


@pytest.mark.browser
def test_the_horizon_is_levelled(page) -> None:
    canvas = page.locator("#nvs-stage canvas")
    canvas.focus()
    for _ in range(3):
        page.keyboard.press(".")
    lean = "Math.abs(nvs.viewer.view.right.reduce((sum, x, i) => sum + x * nvs.viewer.view.up[i], 0))"
    assert page.evaluate(lean) > 0.05
    page.click("[data-nvs=level]")
    assert page.evaluate(lean) < 1e-6
    canvas.focus()
    page.keyboard.press(".")
    page.select_option("[data-nvs=up]", "view")  # what is upright here is up from now on
    assert page.evaluate(lean) < 1e-6
    drag(page, 80, 0)
    assert page.evaluate(lean) < 1e-6
    assert page.evaluate("nvs.viewer.view.up.some((x, i) => Math.abs(x - nvs.viewer.scene.up[i]) > 0.01)")
