"""The plot of the cameras: frusta where cameras see, groups, points, size, and its script in a real browser."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.readers import open_scene
from data_tools.structure_from_motion.scene import write_ply
from nvs_app.geometry.cameras import look_at
from nvs_app.geometry.normalize import normalize_context
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit
from nvs_app.web.services.cameras_plot import (
    APEX,
    STROKE,
    cameras_figure,
    scene_points,
    thumbnails,
)

plotly = pytest.importorskip("plotly")

UI = Path(__file__).resolve().parents[3] / "nvs_app/web/ui"


def capture(count: int, folder: Path = Path("/nowhere"), up=(0.0, 0.0, 1.0)) -> Scene:
    angle = torch.arange(count) * (2 * torch.pi / count)
    axis = torch.tensor(up)
    side = torch.linalg.cross(torch.tensor([0.3, 0.5, 0.1]), axis)
    side = side / side.norm()
    other = torch.linalg.cross(axis, side)
    eye = 5 * (angle.cos()[:, None] * side + angle.sin()[:, None] * other) + 2 * axis + torch.tensor([7.0, 8.0, 9.0])
    c2w = look_at(eye, torch.tensor([7.0, 8.0, 9.0]).expand(count, 3), axis.expand(count, 3))
    return Scene(
        "ring",
        folder,
        [folder / f"{index:03d}.jpg" for index in range(count)],
        c2w,
        torch.tensor([50.0, 50.0, 30.0, 25.0]).expand(count, 4).clone(),
        torch.tensor([[50, 80]]).expand(count, 2).clone(),
        [None] * count,
    )


def vertices(trace) -> np.ndarray:
    """[cameras, stroke + gap, 3]"""
    return np.stack([trace.x, trace.y, trace.z], -1).reshape(-1, len(STROKE) + 1, 3)


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (0.6, 0.0, 0.8)])
def test_frusta_are_the_cameras(up) -> None:
    scene = capture(12, up=up)
    figure = cameras_figure(scene, ViewSplit([0, 4, 8], [1, 2, 3]))
    context, target, unused = figure.data
    assert [trace.name for trace in figure.data] == ["input views (3)", "held out (3)", "not used (6)"]
    transform = normalize_context(scene.c2w)
    seen = vertices(context)
    for row, index in enumerate((0, 4, 8)):
        centre = transform.apply_points(scene.c2w[index, :3, 3]).numpy()
        assert np.allclose(seen[row, APEX], centre, atol=1e-4)
        assert np.isnan(seen[row, -1]).all()
        # The corners project to the corners of the image.
        back = transform.inverse().apply_points(torch.from_numpy(seen[row, :-1]).double())
        c2w = scene.c2w[index].double()
        local = (back - c2w[:3, 3]) @ c2w[:3, :3]
        pixels = local[:, :2] / local[:, 2:] * 50 + torch.tensor([30.0, 25.0])
        found = {corner: pixels[STROKE.index(corner)].tolist() for corner in range(4)}
        for corner, expected in enumerate(([0, 0], [80, 0], [80, 50], [0, 50])):
            # The frustum is flattened along its depth, so directions are, too, by that factor.
            scaled = [(value - c) * 0.8 + c for value, c in zip(found[corner], (30, 25))]
            assert scaled == pytest.approx(expected, abs=0.1)
        # Up in the figure is up in the image.
        assert seen[row, STROKE.index(5), 2] > seen[row, STROKE.index(0), 2] > seen[row, STROKE.index(3), 2]
    assert context.customdata[0][0] == 0 and context.customdata[len(STROKE) + 1][0] == 4
    assert {data[0] for data in unused.customdata} == {5, 6, 7, 9, 10, 11}
    assert len({trace.marker.symbol for trace in figure.data}) == 3
    assert figure.layout.scene.aspectmode == "data" and figure.layout.scene.camera.up.z == 1
    assert target.hovertext[0] == "001.jpg (held out)"


def test_themes_and_missing_photos() -> None:
    scene = capture(6)
    light, dark = (cameras_figure(scene, None, (), {"a.jpg": "blurred <b>"}, dark=d) for d in (False, True))
    assert light.data[0].line.color != dark.data[0].line.color
    assert light.layout.font.color != dark.layout.font.color
    missing = light.data[-1]
    assert missing.name == "no camera found (1)" and missing.customdata[0][0] == -1
    assert "blurred" in missing.hovertext[0]
    assert "rgba(0,0,0,0)" in (light.layout.paper_bgcolor, light.layout.scene.bgcolor)


def test_points_keep_place_and_colour() -> None:
    from data_tools.readers.points import Points

    scene = capture(8)
    xyz = np.float32([[7, 8, 9], [8, 8, 9], [7, 8, 10], [1e6, 0, 0]])
    points = Points(xyz, np.uint8([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]))
    trace = cameras_figure(scene, points=points).data[0]
    expected = normalize_context(scene.c2w).apply_points(torch.from_numpy(xyz[:3])).numpy()
    assert np.allclose(np.stack([trace.x, trace.y, trace.z], -1), expected, atol=1e-4)  # the far one is left out
    colours = [trace.marker.colorscale[int(number)][1] for number in trace.marker.color]
    assert colours == ["rgb(255,0,0)", "rgb(0,255,0)", "rgb(0,0,255)"]
    one = Points(xyz[:1], np.uint8([[3, 4, 5]]))
    assert cameras_figure(scene, points=one).data[0].name == "points (1)"
    assert cameras_figure(capture(1), points=one).to_json()


def test_a_hundred_cameras_are_small(tmp_path: Path) -> None:
    scene = capture(100, tmp_path)
    generator = np.random.default_rng(0)
    for path in scene.image_paths:
        small = generator.integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(path)
    cloud = generator.normal(size=(20_000, 3)).astype(np.float32) + np.float32([7, 8, 9])
    write_ply(tmp_path / "sparse.ply", cloud, generator.integers(0, 255, (20_000, 3), np.uint8))
    uris = thumbnails(scene)
    image = Image.open(io.BytesIO(base64.b64decode(uris[3].partition(",")[2])))
    assert image.size == (64, 48)
    figure = cameras_figure(scene, ViewSplit([*range(0, 100, 4)], [*range(1, 100, 4)]), uris, {}, scene_points(scene))
    assert len(figure.to_json()) < 300_000
    assert figure.layout.meta["thumbnails"] == tuple(uris) or list(figure.layout.meta["thumbnails"]) == uris


def test_thumbnails_of_odd_images(small_scene: Path, tmp_path: Path) -> None:
    scene = open_scene(small_scene)
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in thumbnails(scene))
    folder = tmp_path / "p"
    folder.mkdir()
    odd = capture(3, folder)
    Image.new("RGBA", (40, 30), (255, 0, 0, 0)).save(folder / "000.jpg", "PNG")
    (folder / "001.jpg").write_text("no image")
    uris = thumbnails(odd)
    assert uris[1:] == ["", ""]
    white = np.asarray(Image.open(io.BytesIO(base64.b64decode(uris[0].partition(",")[2]))))
    assert white.min() > 250


PAGE = """<!doctype html><meta charset=utf-8><body style="margin:0"><div id=box style="width:700px;height:600px"></div>
<script>%s</script><script>%s</script>
<script>window.clicked = []; nvsCameras.attach(document.getElementById("box"));
document.addEventListener("nvs-camera", (event) => clicked.push(event.detail.index));
const figure = %s;
const plot = document.createElement("div"); plot.style.height = "600px";
document.getElementById("box").append(plot);
Plotly.newPlot(plot, figure.data, figure.layout).then(() => { window.ready = true; });
</script>"""


@pytest.mark.browser
def test_hover_shows_the_image_and_a_click_names_the_view(browser, small_scene: Path, tmp_path: Path) -> None:
    from plotly.offline import get_plotlyjs

    scene = open_scene(small_scene)
    figure = cameras_figure(scene, ViewSplit([0, 2, 4], [1, 3]), thumbnails(scene))
    script = (UI / "cameras_plot.js").read_text("utf-8")
    (tmp_path / "page.html").write_text(PAGE % (get_plotlyjs(), script, figure.to_json()), encoding="utf-8")
    page = browser.new_page(viewport={"width": 700, "height": 600})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"file://{tmp_path}/page.html")
    page.wait_for_function("window.ready === true", timeout=60_000)
    # Where the colour of the context cameras is drawn, until one answers.
    drawn = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    blue = np.argwhere((np.abs(drawn - [0, 0x72, 0xB2]).sum(2) < 12)[:540])
    assert len(blue) > 50
    found = None
    for y, x in blue[np.random.default_rng(0).permutation(len(blue))[:200]].tolist():
        page.mouse.move(x, y)
        page.wait_for_timeout(20)
        if page.evaluate("(document.getElementById('nvs-plot-tip') || {style: {}}).style.display") == "block":
            found = x, y
            break
    assert found, "no camera answered the pointer"
    shown = page.get_attribute("#nvs-plot-tip img", "src")
    page.mouse.click(*found)
    page.wait_for_function("window.clicked.length > 0")
    index = page.evaluate("window.clicked[0]")
    assert shown == thumbnails(scene)[index]
    page.mouse.move(2, 2)
    page.wait_for_function("document.getElementById('nvs-plot-tip').style.display === 'none'")
    # A drag turns the plot and chooses nothing.
    page.mouse.move(*found)
    page.mouse.down()
    page.mouse.move(found[0] + 60, found[1] + 10, steps=4)
    page.mouse.up()
    page.wait_for_timeout(300)
    page.screenshot(path=tmp_path / "plot.png")
    assert page.evaluate("window.clicked.length") == 1
    page.close()
    assert errors == []
