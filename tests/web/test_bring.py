"""Bringing photos to the page by hand: dropped, pasted, taken one by one, a whole folder."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from serving import closed, opened, wait

from nvs_app.web.app_state import AppState
from nvs_app.web.services.encoding import Encoding, Gathered, Plan

PASTE = """(files) => {
  const carrier = new DataTransfer();
  for (const [name, data] of files)
    carrier.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, {type: 'image/jpeg'}));
  const event = new ClipboardEvent('paste', {clipboardData: carrier, bubbles: true, cancelable: true});
  document.body.dispatchEvent(event);
  return event.defaultPrevented; }"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, made = tmp_path_factory.mktemp("photos"), []
    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 255, (120, 160, 3), np.uint8)
        made.append(folder / f"photo {index}.jpg")
        Image.fromarray(cv2.GaussianBlur(noise, (0, 0), 2)).save(made[-1])
    return made


@pytest.fixture
def page(browser, address: str) -> Iterator:
    page = opened(browser, address)
    wait(page, "document.querySelector('#nvs-encode')?.disabled === false", 60)
    yield page
    closed(page)


def planned(page, words: str) -> None:
    page.locator("#nvs-plan").get_by_text(words).first.wait_for(timeout=20_000)


def drop(page, where: str, *paths: Path) -> None:
    """A real drop of files or folders, as the browser gets it from the desktop."""
    box = page.locator(where).bounding_box()
    line = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "data": data}
    for kind in ("dragEnter", "dragOver", "drop"):
        line.send("Input.dispatchDragEvent", {"type": kind, **at})


@pytest.mark.browser
def test_pasted_images_come_together(page, photos: list[Path]) -> None:
    data = [base64.b64encode(photo.read_bytes()).decode() for photo in photos]
    assert page.evaluate(PASTE, [["image.png", data[0]]])
    planned(page, "1 photo so far")
    assert page.locator("#nvs-encode").is_disabled()
    page.evaluate(PASTE, [["image.png", data[1]]])
    page.evaluate(PASTE, [["image.png", data[2]]])  # while the one before is still on its way
    planned(page, "3 photos without cameras")
    assert page.locator("#nvs-encode").is_enabled()
    assert page.evaluate(PASTE, []) is False  # text goes its usual way


@pytest.mark.browser
def test_files_and_folders_are_dropped_anywhere(page, photos: list[Path], small_scene: Path) -> None:
    drop(page, "#nvs-stage canvas", *photos[:3])
    planned(page, "3 photos without cameras")
    drop(page, "#nvs-upload", small_scene)  # its transforms.json names images in a folder inside
    planned(page, "6 views with cameras")
    drop(page, "#nvs-tools", photos[0].parent)
    planned(page, "4 photos without cameras")
    assert len(page.context.pages) == 1
    with page.expect_file_chooser() as chooser:
        page.click("[data-nvs-folder]")
    chooser.value.set_files(str(small_scene))
    planned(page, "6 views with cameras")


@pytest.mark.browser
def test_a_phone_takes_photos_one_by_one(browser, address: str, photos: list[Path]) -> None:
    page = opened(browser, address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    wait(page, "document.querySelector('#nvs-encode')?.disabled === false", 60)
    assert page.locator("#nvs-camera").is_visible()
    camera = page.locator("input[capture=environment]")
    assert camera.get_attribute("accept") == "image/*"
    for photo, words in zip(photos, ("1 photo so far", "2 photos so far", "3 photos without", "4 photos without")):
        camera.set_input_files(str(photo))
        planned(page, words)
    closed(page)


def test_one_by_one_and_at_once(app_state: AppState, photos: list[Path], tmp_path: Path) -> None:
    encoding, session = Encoding(app_state), app_state.store.create("somebody")

    def copies(*numbers: int) -> list[Path]:
        out = []
        for number in numbers:
            out.append(tmp_path / f"{len(list(tmp_path.iterdir()))}.jpg")
            out[-1].write_bytes(photos[number].read_bytes())
        return out

    first = encoding.receive(session, copies(0, 1), join=True)
    assert isinstance(first, Gathered) and first.photos == 2 and "1 more" in first.words
    third = encoding.receive(session, copies(2), join=True)
    assert isinstance(third, Plan) and third.source.available == 3
    fourth = encoding.receive(session, copies(3), join=True)
    assert isinstance(fourth, Plan) and fourth.source.available == 4 and fourth.note
    assert all(path.is_file() for path in fourth.source.paths)  # nothing was cleared away meanwhile
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(Exception, match="not an image"):
        encoding.receive(session, [broken], join=True)
    assert encoding.plan(session).source.available == 4
    anew = encoding.receive(session, copies(0, 1, 2), join=True)
    assert isinstance(anew, Plan) and anew.source.available == 3
    with pytest.raises(Exception, match="three or more"):
        encoding.receive(session, copies(0))  # programs say what they mean with one call
