"""Depth, coverage and the point under the pointer: as the renderer has them, and over the viewer's socket."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from lines import answer, connect, visit
from PIL import Image

from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.geometry.rays import pixel_rays
from nvs_app.model.state import SceneState
from nvs_app.rendering.views import RenderedViews
from nvs_app.scenes.images import to_uint8
from nvs_app.web.app_state import AppState
from nvs_app.web.services.opening import open_state
from nvs_app.web.services.surfaces import OPACITY, TINT, coverage, depth_in_colours, sure, surface_point
from nvs_app.web.services.viewpoint import camera_from_page


def views_of_a_floor(hw: tuple[int, int] = (48, 64)) -> tuple[RenderedViews, Cameras]:
    """What a camera over the plane z = 0 sees of it, sky above the horizon; the left quarter is on no photo."""
    c2w = look_at(torch.tensor([[0.0, -4.0, 2.0]]), torch.tensor([[0.0, 0, 1.5]]), torch.tensor([[0.0, 0, 1]]))
    camera = Cameras(c2w, torch.tensor([[50.0, 50.0, hw[1] / 2, hw[0] / 2]]), hw)
    origin, direction = pixel_rays(camera)
    distance = -origin[:, 2] / direction[:, 2]
    depth = distance * (direction * c2w[:, :3, 2, None, None]).sum(1)
    seen = torch.ones(1, *hw)
    seen[..., : hw[1] // 4] = 0.0
    surface = (depth > 0).float()
    images = torch.linspace(0, 1, hw[1]).expand(1, 3, *hw)
    return RenderedViews(images, depth.abs(), torch.full_like(depth, 0.01), surface, seen), camera


def test_depth_is_coloured_from_near_to_far_and_grey_where_unsure() -> None:
    views, _ = views_of_a_floor()
    known = sure(views)[0]
    shown = depth_in_colours(views)
    near, far = shown.facts["range"]
    depth = views.depth[0]
    assert float(depth[known].min()) <= near < far <= 1.0001 * float(depth[known].max())
    turbo = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1] / 255
    assert 0.3 < known.float().mean() < 0.9
    for row, column in known.nonzero().tolist()[::97]:
        share = float(((depth[row, column] / near).log() / np.log(far / near)).clamp(0, 1))
        assert np.abs(shown.image[:, row, column].numpy() - turbo[255 - round(255 * share)]).max() < 0.03
    unsure = shown.image[:, ~known]
    assert torch.equal(unsure[0], unsure[1]) and torch.equal(unsure[0], unsure[2])  # grey
    assert unsure.std() > 0.01  # with the image in it
    # The values: nearest pixels of the depth, nothing where it is unsure.
    values = shown.facts["values"]
    assert (len(values), len(values[0])) == (32, 43)
    for i, j in ((5, 5), (25, 5), (25, 30), (31, 42), (2, 20)):
        row, column = int((i + 0.5) / 32 * 48), int((j + 0.5) / 43 * 64)
        expected = pytest.approx(float(depth[row, column]), rel=1e-3) if known[row, column] else None
        assert values[i][j] == expected
    nothing = RenderedViews(views.images, views.depth, views.uncertainty, 0 * views.surface, views.seen)
    assert depth_in_colours(nothing).facts == {"range": None, "values": []}


def test_what_no_photo_shows_is_tinted() -> None:
    views, _ = views_of_a_floor()
    shown = coverage(views)
    assert shown.facts == {"unseen": pytest.approx(0.25)}
    assert torch.equal(shown.image[:, :, 16:], views.images[0, :, :, 16:])
    expected = (1 - OPACITY) * views.images[0, :, :, :16] + OPACITY * torch.tensor(TINT)[:, None, None]
    assert torch.allclose(shown.image[:, :, :16], expected, atol=1e-6)


def test_the_point_under_a_pixel_is_on_the_surface() -> None:
    views, camera = views_of_a_floor((480, 640))
    assert surface_point(views, camera, (0.5, 0.1)) is None  # sky
    assert surface_point(views, camera, (0.1, 0.9)) is None  # on no photo
    for at in ((0.5, 0.9), (0.8, 0.7), (1.0, 1.0), (0.26, 0.75)):
        found = surface_point(views, camera, at)
        assert found is not None
        point, depth = found
        assert abs(float(point[2])) < 0.02  # the floor
        seen = (torch.linalg.inv(camera.c2w[0]) @ torch.cat([point.float(), torch.ones(1)]))[:3]
        assert float(seen[2]) == pytest.approx(depth, rel=1e-5)
        pixel = 50 * seen[:2] / seen[2] + torch.tensor([320.0, 240.0])
        assert torch.allclose(pixel, torch.tensor([at[0] * 640, at[1] * 480]), atol=0.01)
    # One wild pixel among the nine does not move it.
    views.depth[0, 431:434, 320] *= 50
    again = surface_point(views, camera, (0.5, 0.9))
    assert again is not None and abs(float(again[0][2])) < 0.05


@pytest.fixture
def app_state(headed_hub: AppState) -> AppState:
    return headed_hub


def test_depth_and_coverage_come_as_frames(app_state: AppState, client) -> None:
    session = visit(app_state)
    with connect(client, session.token) as socket:
        scene = answer(socket)
        assert scene["no_depth"] == ""
        page = {"c2w": scene["c2w"], "fov": scene["fov"], "hw": [40, 56]}
        views = app_state.renderer().render(app_state.state(session.scene), camera_from_page(page, 1024), depth=True)
        for output, expected in (("depth", depth_in_colours(views)), ("coverage", coverage(views))):
            socket.send_json({"type": "frame", "id": 1, "format": "png", "output": output, **page})
            header, data = answer(socket)
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), to_uint8(expected.image).numpy())
            assert header["output"] == output and {name: header[name] for name in expected.facts} == expected.facts
        assert header["unseen"] > 0
        socket.send_json({"type": "frame", "id": 2, "format": "png", **page})
        header, data = answer(socket)
        assert header["output"] == "image" and "range" not in header and "unseen" not in header
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), to_uint8(views.images[0]).numpy())
        for output in ("images", 3, None, ["depth"], {}):
            socket.send_json({"type": "frame", "id": 3, "output": output, **page})
            assert "expected one of image, depth, coverage" in answer(socket)["message"]


def test_a_point_is_asked_for(app_state: AppState, client) -> None:
    session = visit(app_state)
    with connect(client, session.token) as socket:
        scene = answer(socket)
        page = {"c2w": scene["c2w"], "fov": scene["fov"], "hw": [40, 56]}
        camera = camera_from_page(page, 1024)
        views = app_state.renderer().render(app_state.state(session.scene), camera, depth=True)
        answers = []
        for at in ((0.1, 0.1), (0.5, 0.5), (0.9, 0.9), (0.0, 1.0), (0.3, 0.8)):
            socket.send_json({"type": "point", "id": "q7", "at": at, **page})
            told, expected = answer(socket, "point"), surface_point(views, camera, at)
            assert told["id"] == "q7"
            assert told["point"] == (None if expected is None else pytest.approx(expected[0].tolist(), rel=1e-5))
            answers.append(told["depth"])
        assert None in answers and any(answers)
        for at in (None, [0.5], [0.5, 1.1], [True, 0], ["a", 0], [float("nan"), 0]):
            socket.send_json({"type": "point", "id": 8, "at": at, **page})
            told = answer(socket)
            assert told["type"] == "error" and told["id"] == 8


def test_plain_frames_do_without_depth(app_state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked of the renderer as before."""
    opened = app_state.example("small scene")
    asked = []
    stream = opened.renderer.stream
    monkeypatch.setattr(opened.renderer, "stream", lambda *a, **o: asked.append(o["depth"]) or stream(*a, **o))
    app_state.frame(opened, opened.cameras[:1])
    app_state.frame(opened, opened.cameras[:1], "depth")
    assert asked == [False, True]


def test_scenes_without_depth_say_why(app_state: AppState, tmp_path, small_scene, client) -> None:
    opened = app_state.example("small scene")
    state = app_state.state(opened)
    SceneState(state.fast_weights, state.transform, state.meta).save(tmp_path / "old.safetensors")
    old = open_state(tmp_path / "old.safetensors", app_state.renderer(), app_state.states, "old")
    assert "encode it again" in old.no_depth and old.for_viewer()["no_depth"] == old.no_depth
    session = visit(app_state)
    app_state.show(session, old)
    with connect(client, session.token) as socket:
        scene = answer(socket)
        page = {"c2w": scene["c2w"], "fov": scene["fov"], "hw": [40, 56]}
        socket.send_json({"type": "frame", "id": 3, "output": "depth", **page})
        assert "encode the scene again" in answer(socket)["message"]
        socket.send_json({"type": "point", "id": 4, "at": [0.5, 0.5], **page})
        assert answer(socket)["type"] == "error"
        socket.send_json({"type": "frame", "id": 5, **page})
        assert answer(socket)[0]["id"] == 5
