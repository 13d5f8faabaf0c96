"""Uploads, encoding, cancel, truth, paths, videos and the API, through the page and through gradio's client."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from looks import POOR_CONTRAST
from PIL import Image
from serving import advanced, at_rest, closed, drag, opened, serving, wait

from data_tools.readers import open_scene
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.camera_path import read_camera_path
from nvs_app.scenes.images import to_uint8
from nvs_app.scenes.views import choose_views
from nvs_app.web.services.jobs import JobProgress
from nvs_app.web.services.progress import Progress
from nvs_app.web.services.viewpoint import camera_from_page


@pytest.fixture(scope="module")
def scene_zip(small_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zips")
    return Path(shutil.make_archive(str(folder / "brought"), "zip", small_scene))


def bring(page, *paths: Path) -> None:
    page.set_input_files("#nvs-upload input[type=file]", [str(path) for path in paths])


@pytest.mark.browser
def test_an_upload_is_estimated_encoded_and_orbited(page, scene_zip: Path) -> None:
    bring(page, scene_zip)
    page.locator(".nvs-go", has_text="from 5 views").wait_for()
    page.click("#nvs-photos [data-photos=advanced]")
    assert "6 views with cameras" in page.inner_text("#nvs-plan")
    page.locator("#nvs-views input[type=number]").fill("999")
    page.locator("#nvs-views input[type=number]").press("Enter")
    page.get_by_text("no photo is left to compare with").wait_for()  # six: all that there are
    page.locator("#nvs-views input[type=number]").fill("4")
    page.locator("#nvs-views input[type=number]").press("Enter")
    wait(page, "document.querySelector('#nvs-plan').innerText.includes('4 ')")
    page.click(".nvs-go")
    wait(page, "nvs.viewer.scene.name === 'brought'")
    wait(page, "document.querySelector('[data-nvs=work]').hidden")
    page.locator(".nvs-photos").wait_for(state="detached")
    assert page.evaluate("nvs.viewer.shown.header.revision === nvs.viewer.scene.revision")  # its view came first
    wait(page, "document.querySelector('#nvs-facts').innerText.includes('4 of 6 photos used')")
    before = at_rest(page)
    drag(page, 80, 20)
    assert not np.array_equal(at_rest(page)["pixels"], before["pixels"])
    # The truth follows the scene: two views are held out of six when four are read.
    wait(page, "document.querySelectorAll('#nvs-truth tbody tr').length === 3")
    assert "PSNR" in page.inner_text("#nvs-truth")
    page.locator("[data-nvs-split]").fill("20")
    assert "20%" in page.locator(".nvs-split").get_attribute("style")


@pytest.mark.browser
def test_cancel_stops_structure_from_motion(page, tmp_path: Path) -> None:
    photos = []
    for index in range(8):
        noise = np.random.default_rng(index).integers(0, 255, (480, 640, 3), np.uint8)
        photos.append(tmp_path / f"photo {index}.jpg")
        Image.fromarray(cv2.GaussianBlur(noise, (0, 0), 2)).save(photos[-1])
    bring(page, *photos)
    page.click(".nvs-go")
    work = page.locator("[data-nvs=work]")
    work.get_by_text("Finding features").wait_for()
    assert re.search(r"\d+ %.*left", work.inner_text(), re.S)
    assert page.evaluate(POOR_CONTRAST) == []
    page.keyboard.press("Tab")  # whoever pressed the button by keyboard comes to Cancel next
    assert page.evaluate("document.activeElement.dataset.nvs") == "work-cancel"
    page.get_by_role("tab", name="Model").click()
    advanced(page)
    others = ("#nvs-encode", "#nvs-grow", "#nvs-sharpen", "#nvs-model-use")  # what would begin another one
    wait(page, "document.querySelector('#nvs-encode').disabled")
    assert [which for which in others if not page.evaluate(f"document.querySelector('{which}').disabled")] == []
    page.locator("#nvs-views input[type=number]").fill("5")  # another estimate does not bring it back
    page.locator("#nvs-views input[type=number]").press("Enter")
    page.locator("#nvs-plan").get_by_text("5 used").first.wait_for()
    assert page.locator("#nvs-encode").is_disabled()
    page.reload()  # the work goes on, and is found again
    advanced(page)
    wait(page, "document.querySelector('#nvs-encode').disabled && document.querySelector('#nvs-photos').inert")
    work.get_by_role("button", name="Cancel").click()
    work.get_by_text("The next start goes on from here").wait_for()
    wait(page, "!document.querySelector('#nvs-encode').disabled && !document.querySelector('#nvs-photos').inert")
    assert [which for which in others[:3] if page.evaluate(f"document.querySelector('{which}').disabled")] == []
    work.get_by_role("button", name="Close").click()
    assert page.evaluate("nvs.viewer.scene.name") == "small scene"
    # The next one works, though these photos have nothing in common: one sentence says so.
    page.click(".nvs-go")
    work.get_by_role("alert").get_by_text("photos fit together").wait_for(timeout=180_000)
    assert "Traceback" not in work.inner_text() and "/" not in work.get_by_role("alert").inner_text()
    work.get_by_role("button", name="Close").click()
    assert page.locator(".nvs-tile").count() == 8  # nothing that was brought is lost


@pytest.mark.browser
def test_keyframes_become_a_video(page, tmp_path: Path, checkpoints: Path) -> None:
    drag(page, 1, 0)
    page.get_by_role("tab", name="Path").click()
    for button in ("[data-path=play]", "[data-path=clear]", "#nvs-video", "#nvs-path-save"):
        assert page.locator(button).is_disabled(), button  # nothing to do them with yet
    page.click("[data-path=add]")
    assert page.locator("#nvs-video").is_enabled() and page.locator("[data-path=play]").is_disabled()
    drag(page, 90, 30)
    page.click("[data-path=add]")
    assert page.locator("[data-path=keys] li").count() == 2
    first = page.locator("[data-path=keys] li").first.locator("input")
    first.nth(0).fill("60")
    first.nth(0).press("Tab")
    first = page.locator("[data-path=keys] li").first.locator("input")
    first.nth(1).fill("0.5")
    first.nth(1).press("Tab")
    page.locator("[data-path=fps]").fill("10")
    page.locator("[data-path=fps]").press("Tab")
    page.select_option("[data-path=side]", "128")
    assert page.inner_text("[data-path=length]") == "0.5 s, 6 frames"  # as many as the video will have
    page.click("[data-path=play]")  # the preview runs in the viewer, and ends
    wait(page, "nvs.viewer.playing || nvs.viewer.touched")
    wait(page, "!nvs.viewer.playing")
    page.click("#nvs-video")
    assert page.locator("[data-path=play]").is_disabled()  # no preview beside an export
    wait(page, "document.querySelector('#nvs-video-progress').innerText.includes('Ready')", 60)
    page.locator("#nvs-player").wait_for()
    wait(page, "document.querySelector('#nvs-player').videoWidth === 128")  # it plays in the page
    assert page.locator("#nvs-video").is_enabled() and page.locator("[data-path=play]").is_enabled()
    with page.expect_download() as download:
        page.locator("#nvs-video-files a[download]").first.click()
    video = tmp_path / download.value.suggested_filename
    download.value.save_as(video)
    assert video.suffix == ".mp4"
    reader = cv2.VideoCapture(str(video))
    count = 0
    while (read := reader.read())[0]:
        assert read[1].shape == (128, 128, 3)
        count += 1
    assert count == 6  # half a second at ten a second, and the last keyframe
    command = page.text_content(".nvs-command")
    assert command.startswith("python -m nvs_app render --state small_scene.safetensors --path camera_path.json")
    with page.expect_download() as download:
        page.locator("#nvs-video-files a[download]").nth(1).click()
    path_file = tmp_path / "camera_path.json"
    download.value.save_as(path_file)
    saved = read_camera_path(path_file)
    assert len(saved.cameras) == 6 and len(saved.keyframes) == 2
    # Loaded again, the keyframes are there with their fields of view.
    page.click("[data-path=clear]")
    page.set_input_files("[data-testid='Load path-upload-button']", str(path_file))
    wait(page, "document.querySelectorAll('[data-path=keys] li').length === 2")
    assert page.locator("[data-path=keys] li input").first.input_value() == "60"
    # With their rate and size too, whatever the page was set to meanwhile; and in the frame of nerfstudio's viewer.
    page.locator("[data-path=fps]").fill("24")
    page.select_option("[data-path=side]", "512")
    frame = tmp_path / "dataparser_transforms.json"
    frame.write_text('{"transform": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "scale": 0.5}')
    eye = page.evaluate("nvs.path.state.keys[0].c2w[3]")
    page.set_input_files("[data-testid='Load path-upload-button']", [str(path_file), str(frame)])
    wait(page, f"Math.abs(nvs.path.state.keys[0].c2w[3] - 2 * {eye}) < 1e-3")
    spec = page.evaluate("JSON.parse(nvs.path.spec()).timeline")
    assert spec["fps"] == 10 and spec["image_hw"] == [128, 128]
    page.click("[data-preset=orbit]")
    wait(page, "document.querySelectorAll('[data-path=keys] li').length === 8")
    assert page.locator("[data-preset=orbit]").get_attribute("aria-pressed") == "true"
    assert page.locator("[data-path=marks] button").count() == 8


@pytest.mark.browser
def test_by_keyboard_alone(page) -> None:
    def focused() -> str:
        return page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.id")

    advanced(page)
    page.locator("#nvs-views input[type=range]").focus()
    for there in ("Size", "nvs-encode"):
        page.keyboard.press("Tab")
        assert focused() == there
    page.wait_for_timeout(200)
    assert page.locator(".option-list").count() == 0  # the list of sizes does not stay open behind
    page.locator("#nvs-held-out input").focus()
    page.keyboard.press("Tab")
    assert focused() == "Between rendering and photo"
    page.keyboard.press("Home")
    assert "0%" in page.locator(".nvs-split").get_attribute("style")
    page.get_by_role("tab", name="Path").press("Enter")
    for _ in range(2):
        page.locator("[data-path=add]").press("Enter")
    field = page.locator("[data-path=keys] li").first.locator("input").first
    field.fill("60")
    field.press("Tab")
    wait(page, "nvs.path.state.keys[0].fov === 60")
    page.wait_for_timeout(100)
    assert focused() == "seconds after keyframe 1"  # though the list was drawn anew
    page.locator("[data-path=keys] li").first.locator("[data-do=right]").press("Enter")
    assert page.evaluate("nvs.path.state.keys[1].fov") == 60
    place = "[...document.querySelectorAll('[data-path=keys] li')].indexOf(document.activeElement.closest('li'))"
    assert page.evaluate(place) == 1


@pytest.mark.browser
def test_a_camera_of_the_plot_leads_there(page) -> None:
    page.get_by_role("tab", name="Cameras").click()
    wait(page, "document.querySelector('#nvs-plot .js-plotly-plot')", 60)
    click = "new CustomEvent('nvs-camera', {bubbles: true, detail: {index: 2}})"
    page.evaluate(f"document.querySelector('#nvs-plot').dispatchEvent({click})")
    wait(page, "nvs.viewer.touched")
    page.wait_for_timeout(300)
    looked = np.array(at_rest(page)["camera"]["c2w"]).reshape(4, 4)
    assert np.allclose(looked[:2, 3], [3 * np.cos(2.0), 3 * np.sin(2.0)], atol=1e-3)  # where image 2 was taken


@pytest.mark.slow
@pytest.mark.browser
def test_a_kept_scene_is_there_in_another_server(
    browser, page, address: str, keep: Path, checkpoints: Path, tmp_path: Path, scene_zip: Path
) -> None:
    bring(page, scene_zip)
    page.click(".nvs-go")
    wait(page, "nvs.viewer.scene.name === 'brought'")
    page.get_by_role("tab", name="Export").click()
    page.click("#nvs-take-keep")
    page.get_by_text("Kept. This browser").first.wait_for()
    kept = next(keep.iterdir())
    assert (kept / "state.safetensors").is_file() and (kept / "scene" / "transforms.json").is_file()
    cookie = next(c for c in page.context.cookies() if c["name"] == "nvs-visitor")
    assert cookie["httpOnly"] and len(cookie["value"]) >= 32
    page.click("#nvs-take-snapshot")
    page.locator("#nvs-files a[download$='.png']").wait_for()
    with page.expect_download() as download:
        page.locator("#nvs-files a[download]").first.click()
    snapshot = json.loads(Image.open(download.value.path()).info["nvs_camera"])
    assert snapshot["image_hw"] == page.evaluate("nvs.viewer.plan.rest.at(-1).hw")  # as it is drawn at rest
    page.click("#nvs-take-state")
    page.locator("#nvs-files a[download$='.safetensors']").wait_for()
    with page.expect_download() as download:
        page.locator("#nvs-files a[download]").first.click()
    state_file = tmp_path / "taken.safetensors"
    download.value.save_as(state_file)
    # The state that was taken away opens again, without any photo.
    bring(page, state_file)
    wait(page, "nvs.viewer.scene.name === 'taken'")
    wait(page, "document.querySelector('#nvs-facts').innerText.includes('scene file')")
    with serving(checkpoints, "--keep", keep) as other:
        later = opened(browser, other)
        later.context.add_cookies([{"name": "nvs-visitor", "value": cookie["value"], "url": other}])
        later.evaluate("sessionStorage.clear()")
        later.goto(other)
        wait(later, "window.nvs?.viewer?.shown", 60)
        later.get_by_role("tab", name="Export").click()
        wait(later, "document.querySelector('#nvs-kept input').value.includes('brought')")
        later.click("#nvs-kept-open")
        wait(later, "nvs.viewer.scene.name === 'brought'")
        closed(later)
    assert page.locator("#nvs-unshare").is_disabled()
    page.click("#nvs-share")  # what is kept can be looked at by whoever has the link
    page.locator("[data-nvs=shared-link]").wait_for()
    link = page.locator("[data-nvs=shared-link]").input_value()
    assert re.fullmatch(re.escape(address) + r"/\?shared=[\w-]{24}", link)
    stranger = opened(browser, address, link.removeprefix(address) + "&embed=1")
    assert stranger.evaluate("nvs.viewer.scene.name") == "brought"
    for hidden in ("#nvs-header", "#nvs-scenes", "#nvs-tools"):
        assert not stranger.locator(hidden).is_visible()  # the viewer alone
    box = stranger.locator("#nvs-stage").bounding_box()
    assert (box["x"], box["y"], box["width"], box["height"]) == (0, 0, 1440, 900)
    stranger.goto(address)
    stranger.get_by_role("tab", name="Export").click()
    stranger.wait_for_timeout(700)
    assert "brought" not in stranger.locator("#nvs-kept input").input_value()  # it is not his
    page.click("#nvs-unshare")
    page.locator("[data-nvs=shared-link]").wait_for(state="hidden")
    stranger.goto(link)
    stranger.get_by_text("This link leads nowhere").wait_for()
    closed(stranger)


def test_the_api_does_the_same(address: str, scene_zip: Path, checkpoints: Path, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False, download_files=tmp_path)
    assert client.predict(api_name="/examples")[0] == "small scene"
    known = client.predict("small scene", api_name="/open_example")
    assert known["views"] == 6 and len(known["context"]) == 3
    known = client.predict([handle_file(str(scene_zip))], 4, "", api_name="/encode")
    assert known["name"] == "brought" and len(known["context"]) == 4 and known["image_hw"] == [64, 64]
    views = client.predict(api_name="/cameras")
    assert len(views) == 6
    image = np.asarray(Image.open(client.predict(views[1], 48, 64, api_name="/render")))
    state = SceneState.load(client.predict("state", api_name="/take_away"))
    renderer = Renderer.from_checkpoint(checkpoints / "tiny", "cpu")
    camera = camera_from_page({**views[1], "hw": [48, 64]}, 1024)
    expected = to_uint8(renderer.render(state, camera)[0]).numpy()
    assert np.abs(image.astype(int) - expected.astype(int)).max() <= 1
    figures = client.predict(None, api_name="/truth")
    assert 0 < figures["psnr"] < 60 and len(figures["views"]) == 2
    path = {"preset": "orbit", "seconds": 0.5, "fps": 8, "image_hw": [32, 32]}
    video, path_file = client.predict(path, "GIF", api_name="/video")
    assert Image.open(video).n_frames == 4 and len(read_camera_path(Path(path_file)).cameras) == 4
    with pytest.raises(Exception, match="no preset"):
        client.predict({**path, "preset": "none"}, "GIF", api_name="/video")
    with pytest.raises(Exception, match="there is none of that name"):
        client.predict("nothing", api_name="/open_example")
    # Another client has nothing of it.
    other = Client(address, verbose=False, download_files=tmp_path)
    with pytest.raises(Exception, match="There is no scene yet"):
        other.predict(api_name="/cameras")


@pytest.mark.browser
def test_another_checkpoint_draws(page, checkpoints: Path, small_scene: Path) -> None:
    page.get_by_role("tab", name="Model").click()
    assert "the tiny one" in page.inner_text("#nvs-card")
    page.click("#nvs-model input")
    page.get_by_role("option", name="other").click()
    wait(page, "document.querySelector('#nvs-card').innerText.includes('the other one')")
    page.evaluate("nvs.viewer.format = 'png'")
    page.click("#nvs-model-use")
    wait(page, "nvs.viewer.scene.revision === 2 && document.querySelector('[data-nvs=work]').hidden")
    page.select_option("[data-nvs=side]", "128")
    drag(page, 30, 0)
    shown = at_rest(page)
    renderer, scene = Renderer.from_checkpoint(checkpoints / "other", "cpu"), open_scene(small_scene)
    state = renderer.encode(scene.load(choose_views(scene, 3).context, (64, 64)))
    drawn = to_uint8(renderer.render(state, camera_from_page(shown["camera"], 1024))[0]).numpy()
    assert np.abs(drawn.astype(int) - shown["pixels"].astype(int)).max() <= 1


def test_progress_in_words() -> None:
    progress = Progress({"features": 6.0, "matches": 3.0, "encode": 1.0})
    assert progress.message(JobProgress(2, "", 0.0, "", 5.0)).words == "2 others are before you"
    begun = progress.message(JobProgress(0, "features", 0.0, "<b>", 10.0))
    assert (begun.stage, begun.words, begun.share) == ("Finding features", "<b>", 0.0)
    assert begun.left == "about 10 s left"
    # Twice as slow as estimated: half is done after ten seconds, ten are left.
    half = progress.message(JobProgress(0, "features", 5 / 6, "", 20.0))
    assert half.share == 0.5 and half.left == "about 10 s left"
    again = progress.message(JobProgress(0, "features", 0.1, "", 21.0))
    assert again.share == 0.5  # it never goes back
    assert progress.message(JobProgress(0, "encode", 1.0, "", 22.0)).left == "a moment left"


def test_the_client_of_the_docs_runs(address: str, repo: Path, tmp_path: Path, monkeypatch, small_scene: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (repo / "docs" / "web_page.md").read_text("utf-8"), re.S)
    code = next(block for block in blocks if "gradio_client" in block)
    for old, new in (
        ("http://127.0.0.1:7860", address),
        ("object chair", "small scene"),
        ("plush.zip", "brought.zip"),
        ('"seconds": 4', '"seconds": 0.5'),
        ("[256, 256]", "[32, 32]"),
    ):
        assert old in code
        code = code.replace(old, new)
    shutil.make_archive(str(tmp_path / "brought"), "zip", small_scene)
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(compile(code, "web_page.md", "exec"), found)
    assert Image.open(found["image"]).size == (256, 256) and Path(found["video"]).suffix == ".mp4"


@pytest.mark.browser
def test_an_ended_visit_says_so(page) -> None:
    page.evaluate("nvs.line.connect('a visit that is over')")
    wait(page, "document.querySelector('#nvs-stage').dataset.state === 'over'")
    assert "Reload the page" in page.inner_text("[data-nvs=words]")


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.browser
def test_photos_without_cameras_become_a_scene(page, repo: Path, tmp_path: Path) -> None:
    photos = Path(shutil.make_archive(str(tmp_path / "desk"), "zip", repo / "examples" / "room_desk" / "images"))
    drag(page, 1, 0)  # nothing turns meanwhile
    bring(page, photos)
    page.evaluate(
        """() => { window.sparse = [];
            addEventListener('nvs-message', ({detail}) => detail.type === 'sparse' && sparse.push(detail), true); }"""
    )
    page.click(".nvs-go")
    wait(page, "document.querySelector('[data-nvs=work] canvas')", 300)  # what is found is shown as it is found
    wait(page, "nvs.viewer.scene.name === 'desk' && document.querySelector('[data-nvs=work]').hidden", 400)
    found = page.evaluate("sparse.map(({points, cameras}) => [points.length, cameras.length])")
    assert len(found) > 3 and found[-1][0] > 100 and found[0][1] < found[-1][1]
    drag(page, 60, 0)
    shown = at_rest(page)
    assert shown["header"]["revision"] == 2 and page.evaluate("nvs.viewer.scene.name") == "desk"
