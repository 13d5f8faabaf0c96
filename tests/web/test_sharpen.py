"""A scene that is sharpened, and one that grows by photos of its capture, in the page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from serving import advanced, wait


@pytest.mark.browser
def test_a_scene_grows_by_photos_of_its_capture(page) -> None:
    advanced(page)
    page.click("#nvs-grow")
    page.get_by_text("has read 3 of 6; choose more of them first").first.wait_for()
    before = page.evaluate("nvs.viewer.scene.revision")
    page.locator("#nvs-views input[type=number]").fill("5")
    page.locator("#nvs-views input[type=number]").press("Enter")
    wait(page, "document.querySelector('#nvs-plan').innerText.includes('5 ')")
    page.click("#nvs-grow")
    wait(page, "document.querySelector('#nvs-facts').innerText.includes('5 of 6 photos used')")
    wait(page, "document.querySelector('[data-nvs=work]').hidden")
    assert page.evaluate("nvs.viewer.scene.revision") > before
    wait(page, "document.querySelectorAll('#nvs-truth tbody tr').length === 2")  # one photo is left to compare with


@pytest.mark.browser
def test_a_scene_is_sharpened_from_its_own_photos(page, small_scene: Path, tmp_path: Path) -> None:
    page.click("#nvs-sharpen")  # the example was read from three photos
    page.get_by_text("3 input views, expected 4 or more").first.wait_for()
    brought = shutil.make_archive(str(tmp_path / "brought"), "zip", small_scene)
    page.set_input_files("#nvs-upload input[type=file]", [brought])
    page.click(".nvs-go")  # five of six, by default
    wait(page, "nvs.viewer.scene.name === 'brought' && document.querySelector('[data-nvs=work]').hidden")
    before = page.evaluate("nvs.viewer.scene.revision")
    page.locator("#nvs-seconds input[type=number]").fill("5")
    page.locator("#nvs-seconds input[type=number]").press("Enter")
    page.click("#nvs-sharpen")
    page.locator("[data-nvs=work]").get_by_text("Sharpening").wait_for()
    wait(page, f"nvs.viewer.scene.revision > {before} && document.querySelector('[data-nvs=work]').hidden", 60)
    wait(page, "/dapted.* dB on 1 view that trained nothing/.test(document.querySelector('#nvs-facts').innerText)")
    page.locator("#nvs-seconds input[type=number]").fill("120")
    page.locator("#nvs-seconds input[type=number]").press("Enter")
    page.click("#nvs-sharpen")
    page.locator("[data-nvs=work]").get_by_role("button", name="Cancel").click()
    page.locator("[data-nvs=work]").get_by_text("The scene is as it was").wait_for()
