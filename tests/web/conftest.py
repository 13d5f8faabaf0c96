"""A small scene on disk for the tests of the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from camera_rings import ring_c2w
from image_scenes import image_scene, noise
from networks import WITH_HEAD, weights_with_head
from PIL import Image
from serving import CHROMIUM, FLAGS, closed, opened, serving, wait
from starlette.applications import Starlette
from starlette.testclient import TestClient

from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.rendering.renderer import Renderer
from nvs_app.web.access import routes
from nvs_app.web.app_state import AppState


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of 40x40 pixels on a circle, as a nerfstudio folder."""
    folder = tmp_path_factory.mktemp("scenes")
    images = [colours.repeat(8, 0).repeat(8, 1) for colours in noise(6, (5, 5))]
    scene = image_scene(folder / "images", images, ring_c2w(6, step=1.0), (45.0, 45.0, 20.0, 20.0), "small scene")
    return scene.save(folder / "small scene")


@pytest.fixture
def app_state(small_scene: Path) -> Iterator[AppState]:
    """Everything behind the page, with a tiny network and one example."""
    torch.manual_seed(0)
    model = LaCT(PRESETS["tiny"])
    model.card = {"name": "tiny", "hash": "0" * 64, "train_image_hw": [64, 64]}
    app_state = AppState(Renderer(model, "cpu"), {"small scene": small_scene}, num_context=3)
    yield app_state
    app_state.close()


@pytest.fixture
def headed_hub(small_scene: Path) -> Iterator[AppState]:
    """The same with a detail head."""
    model = LaCT(WITH_HEAD)
    model.load_state_dict(weights_with_head())
    model.card = {"name": "headed", "hash": "1" * 64, "train_image_hw": [40, 40]}
    app_state = AppState(Renderer(model, "cpu"), {"small scene": small_scene}, num_context=3)
    yield app_state
    app_state.close()


@pytest.fixture
def client(app_state: AppState) -> TestClient:
    """Who connects to the viewer's socket."""
    app = Starlette(routes=routes(app_state))
    app.cookie_id, app.tokens = "id", {"secret": "alice"}
    app.get_blocks = lambda: SimpleNamespace(auth=app.wants)
    app.wants = None
    return TestClient(app)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    config = PRESETS["tiny"]
    for name, default in (("tiny", True), ("other", False)):
        card = {"train_image_hw": [64, 64], "name": name, "default": default, "summary": f"the {name} one"}
        save_checkpoint(folder / name, LaCT(config).state_dict(), config, card)
    card = {"train_image_hw": [40, 40], "name": "headed", "summary": "the one with a detail head"}
    save_checkpoint(folder / "headed", weights_with_head(), WITH_HEAD, card)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator:
    if not CHROMIUM.exists() and os.environ.get("CI") != "true":
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


def blurred_noise(folder: Path, count: int) -> list[Path]:
    """Photos of nothing, 160x120, each another one."""
    made = []
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 255, (120, 160, 3), np.uint8)
        made.append(folder / f"photo {index}.jpg")
        Image.fromarray(cv2.GaussianBlur(pixels, (0, 0), 2)).save(made[-1])
    return made


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return blurred_noise(tmp_path_factory.mktemp("photos"), 4)


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return blurred_noise(tmp_path_factory.mktemp("many"), 16)


@pytest.fixture(scope="session")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps scenes."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="session")
def address(checkpoints: Path, small_scene: Path, keep: Path) -> Iterator[str]:
    """The application, as users start it, for all tests of the page."""
    words = ("--scene", small_scene, "--context", 3, "--keep", keep, "--upload-mb", 64, "--visit-mb", 100)
    with serving(checkpoints, *words) as address:
        yield address


@pytest.fixture
def page(browser, address: str) -> Iterator:
    """Opened, its first scene compared: with that nothing is under way any more."""
    page = opened(browser, address)
    wait(page, "document.querySelector('#nvs-truth img')", 60)
    yield page
    closed(page)
