"""The viewer's socket: what it draws is what the renderer draws, and it serves nobody else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from lines import answer, connect, visit
from PIL import Image
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.images import to_uint8
from nvs_app.web.access import COOKIE
from nvs_app.web.app_state import AppState
from nvs_app.web.services.viewpoint import camera_for_page, camera_from_page
from nvs_app.web.viewer_connection import error_line


def test_a_frame_is_exactly_what_the_renderer_draws(app_state: AppState, client: TestClient) -> None:
    session = visit(app_state)
    with connect(client, session.token) as socket:
        scene = answer(socket)
        assert scene["type"] == "scene" and scene["name"] == "small scene" and scene["revision"] == 1
        for hw in ([64, 64], [40, 72], [33, 50]):
            page = {"c2w": scene["c2w"], "fov": 41.5, "hw": hw}
            socket.send_json({"type": "frame", "id": 5, "format": "png", **page})
            header, data = answer(socket)
            expected = app_state.renderer().render(app_state.state(session.scene), camera_from_page(page, 1024))[0]
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), to_uint8(expected).numpy())
            assert header["id"] == 5 and header["hw"] == hw and header["model_ms"] > 0
            assert header["server_ms"] >= header["model_ms"]
        socket.send_json({"type": "frame", "id": 6, "quality": 90, **page})
        header, data = answer(socket)
        assert header["format"] == "jpeg" and Image.open(io.BytesIO(data)).size == (50, 33)


@pytest.mark.parametrize(
    "message",
    ["{", "[]", "7", '{"type": "frame"}', '{"type": "nothing"}', "[" * 5000, '{"type": "frame", "c2w": 3, "id": 1}'],
)
def test_a_wrong_message_is_one_sentence_and_the_next_works(
    app_state: AppState, client: TestClient, message: str
) -> None:
    session = visit(app_state)
    with connect(client, session.token) as socket:
        scene = answer(socket)
        socket.send_text(message)
        told = answer(socket)
        assert told["type"] == "error" and "\n" not in told["message"]
        socket.send_json({"type": "frame", "id": 2, "c2w": scene["c2w"], "fov": 40, "hw": [32, 32]})
        assert answer(socket)[0]["id"] == 2


def test_a_fault_of_the_renderer_is_one_sentence_and_the_next_works(
    app_state: AppState, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = visit(app_state)
    page = {"type": "frame", **camera_for_page(session.scene.cameras[:1]), "hw": [32, 32]}
    with connect(client, session.token) as socket:
        answer(socket)
        with monkeypatch.context() as patch:
            patch.setattr(app_state.renderer().model, "decode", lambda *_: 1 / 0)
            socket.send_json({**page, "id": 1})
            told = answer(socket)
        assert told["type"] == "error" and told["id"] == 1 and "ZeroDivisionError" in told["message"]
        socket.send_json({**page, "id": 2})
        assert answer(socket)[0]["id"] == 2
    assert "/" not in error_line(OSError("/a/secret/path"))


def refused(client: TestClient, *arguments, **more) -> int:
    with pytest.raises(WebSocketDisconnect) as caught:
        with connect(client, *arguments, **more) as socket:
            answer(socket)
            raise AssertionError("it was let in")
    return caught.value.code


def test_nobody_else_is_served(app_state: AppState, client: TestClient) -> None:
    session = visit(app_state)
    with connect(client, session.token, origin="http://testserver", host="testserver") as socket:
        assert answer(socket)["type"] == "scene"
    for token, cookie in ((session.token, "another"), ("", "me"), ("x" * 32, "me")):
        with connect(client, token, cookie) as socket:
            assert socket.receive()["code"] == 4401
    assert refused(client, session.token, origin="http://elsewhere.example") == 1008
    assert refused(client, session.token, origin="null") == 1008


def test_a_login_is_asked_for(app_state: AppState, client: TestClient) -> None:
    client.app.wants = [("alice", "x")]
    session = visit(app_state, user="alice")
    assert refused(client, session.token) == 1008
    cookies = f"{COOKIE}=me; access-token-id=secret"
    with client.websocket_connect(f"/nvs/socket?visit={session.token}", headers={"cookie": cookies}) as socket:
        assert answer(socket)["type"] == "scene"


def test_the_page_hears_of_a_new_scene_and_of_the_end(app_state: AppState, client: TestClient) -> None:
    session = visit(app_state)
    with connect(client, session.token) as socket:
        assert answer(socket)["revision"] == 1
        app_state.show(session, app_state.example("small scene"))
        assert answer(socket)["revision"] == 2
        app_state.store.end(session, "This visit has ended.")
        assert answer(socket) == {"type": "ended", "message": "This visit has ended."}
        assert socket.receive()["code"] == 4401
    assert not Path(session.folder).exists()


def test_cameras_of_any_roll_are_kept() -> None:
    roll = torch.eye(4)
    roll[:2, :2] = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    camera = Cameras(roll[None], torch.tensor([[40.0, 40.0, 16.0, 16.0]]), (32, 32))
    back = camera_from_page({**camera_for_page(camera), "hw": [32, 32]}, 64)
    assert torch.allclose(back.c2w, camera.c2w.double(), atol=1e-6)
