"""Bringing photos to the page by hand: dropped, pasted, taken one by one, a whole folder."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from serving import advanced, closed, opened

from nvs_app.web.app_state import AppState
from nvs_app.web.services.encoding import Encoding

PASTE = """(files) => {
  const carrier = new DataTransfer();
  for (const [name, data] of files)
    carrier.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, {type: 'image/jpeg'}));
  const event = new ClipboardEvent('paste', {clipboardData: carrier, bubbles: true, cancelable: true});
  document.body.dispatchEvent(event);
  return event.defaultPrevented; }"""

TOLD = """() => { window.told = [];
  addEventListener('nvs-message', ({ detail }) => detail.type === 'notice' && told.push(detail.words), true); }"""


def titled(page, words: str) -> None:
    page.locator("#nvs-photos h2").get_by_text(words, exact=True).wait_for()


def bring(page, *paths: Path) -> None:
    page.set_input_files("#nvs-upload input[type=file]", [str(path) for path in paths])


def drop(page, where: str, *paths: Path) -> None:
    """A real drop of files or folders, as the browser gets it from the desktop."""
    box = page.locator(where).bounding_box()
    line = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "data": data}
    for kind in ("dragEnter", "dragOver", "drop"):
        line.send("Input.dispatchDragEvent", {"type": kind, **at})


@pytest.mark.browser
def test_uploads_add_and_one_is_taken_away(browser, address: str, many: list[Path]) -> None:
    page = opened(browser, address)
    page.evaluate(TOLD)
    bring(page, *many[:12])
    titled(page, "12 photos")
    assert page.evaluate("told") == ["Reading 12 files …", ""]  # nobody waits without being told for what
    bring(page, *many[12:])
    titled(page, "16 photos")
    assert page.locator("#nvs-photos .nvs-tile img").count() == 16
    go = page.locator("#nvs-photos .nvs-go")
    assert go.inner_text().startswith("Reconstruct 16 photos") and "about" in go.inner_text()
    bring(page, many[3])
    page.get_by_text("is there already").wait_for()
    titled(page, "16 photos")
    page.get_by_role("button", name=f"Remove {many[5].name.replace(' ', '_')}").click()
    titled(page, "15 photos")
    page.get_by_role("button", name="Back to the scene").click()
    page.locator("#nvs-brought").get_by_text("15 photos").wait_for()
    assert not page.locator(".nvs-photos").is_visible()
    page.click("#nvs-brought [data-photos=show]")
    titled(page, "15 photos")
    page.reload()
    titled(page, "15 photos")  # as they were left
    page.click("#nvs-photos [data-photos=clear]")
    page.locator(".nvs-photos").wait_for(state="detached")
    assert page.locator("#nvs-brought").inner_text() == ""
    closed(page)


@pytest.mark.browser
def test_a_bad_file_stands_beside_good_ones(page, photos: list[Path], tmp_path: Path) -> None:
    bad, cut = tmp_path / "bad.jpg", tmp_path / "cut.jpg"
    bad.write_bytes(b"no image")
    cut.write_bytes(photos[0].read_bytes()[:900])
    (tmp_path / "notes.zip").write_bytes(b"PK\x03\x04 this is no archive")
    bring(page, bad, tmp_path / "notes.zip")
    page.locator(".nvs-bad").nth(1).wait_for()
    assert page.locator("#nvs-photos .nvs-go").count() == 0  # nothing of it can be reconstructed
    assert "Nothing of this can be" in page.inner_text("#nvs-photos footer")
    advanced(page)
    assert page.locator("#nvs-encode").is_disabled()
    bring(page, *photos[:3], cut)
    titled(page, "3 photos")
    assert page.locator(".nvs-bad").count() == 3 and page.locator(".nvs-tile").count() == 6
    for name in ("bad.jpg", "cut.jpg", "notes.zip"):
        words = page.locator(".nvs-bad", has_text=name).locator("[role=alert]").inner_text()
        assert 5 < len(words) < 200 and "/" not in words, words
    assert page.inner_text("#nvs-photos .nvs-go").startswith("Reconstruct 3 photos")
    assert page.evaluate("nvs.viewer.scene.name") == "small scene"


@pytest.mark.browser
def test_pasted_images_come_together(page, photos: list[Path]) -> None:
    data = [base64.b64encode(photo.read_bytes()).decode() for photo in photos]
    assert page.evaluate(PASTE, [["image.png", data[0]]])
    titled(page, "1 photo")
    assert page.locator("#nvs-photos .nvs-go").count() == 0
    assert "2 more at least" in page.inner_text("#nvs-photos footer")
    page.evaluate(PASTE, [["image.png", data[1]]])
    page.evaluate(PASTE, [["image.png", data[2]]])  # while the one before is still on its way
    titled(page, "3 photos")
    assert page.locator("#nvs-photos .nvs-go").is_enabled()
    assert page.evaluate(PASTE, []) is False  # text goes its usual way


@pytest.mark.browser
def test_files_and_folders_are_dropped_anywhere(page, photos: list[Path], small_scene: Path) -> None:
    drop(page, "#nvs-stage canvas", *photos[:3])
    titled(page, "3 photos")
    drop(page, "#nvs-upload", small_scene)  # its transforms.json names images in a folder inside
    page.locator(".nvs-bad").get_by_text("stands alone").wait_for()
    titled(page, "3 photos")  # no photo is lost by it
    page.click("#nvs-photos [data-photos=clear]")
    drop(page, "#nvs-upload", small_scene)
    titled(page, "6 views with cameras")
    drop(page, "#nvs-tools", photos[0].parent)
    titled(page, "4 photos")
    assert len(page.context.pages) == 1
    page.click("#nvs-photos [data-photos=clear]")
    with page.expect_file_chooser() as chooser:
        page.click("[data-nvs-folder]")
    chooser.value.set_files(str(small_scene))
    titled(page, "6 views with cameras")


@pytest.mark.browser
def test_a_phone_takes_photos_one_by_one(browser, address: str, photos: list[Path]) -> None:
    page = opened(browser, address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.locator("#nvs-camera").is_visible()
    camera = page.locator("input[capture=environment]")
    assert camera.get_attribute("accept") == "image/*"
    for photo, words in zip(photos, ("1 photo", "2 photos", "3 photos", "4 photos")):
        camera.set_input_files(str(photo))
        titled(page, words)
    closed(page)


def test_programs_say_what_they_mean_with_one_call(app_state: AppState, photos: list[Path], tmp_path: Path) -> None:
    encoding, session = Encoding(app_state), app_state.store.create("somebody")

    def copies(*numbers: int) -> list[Path]:
        out = []
        for number in numbers:
            out.append(tmp_path / f"{len(list(tmp_path.iterdir()))}.jpg")
            out[-1].write_bytes(photos[number].read_bytes())
        return out

    encoding.gather(session, copies(0, 1))
    assert session.source is None and session.tray.count == 2
    encoding.gather(session, copies(0, 1))
    assert session.tray.said == "2 of these are there already." and session.tray.count == 2
    encoding.gather(session, copies(2, 3))
    assert session.source.available == 4 and session.source.label == "4 photos"
    assert all(path.is_file() for path in session.source.paths)  # nothing was cleared away meanwhile
    assert encoding.receive(session, copies(0, 1, 2)).source.available == 3
    with pytest.raises(Exception, match="three or more"):
        encoding.receive(session, copies(0))
