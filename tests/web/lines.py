"""A visitor of the viewer's socket, without a browser."""

from __future__ import annotations

import json

from starlette.testclient import TestClient

from nvs_app.web.access import COOKIE, owner_of
from nvs_app.web.app_state import AppState
from nvs_app.web.protocol import unpack


def visit(app_state: AppState, cookie: str = "me", user: str | None = None):
    session = app_state.store.create(owner_of({COOKIE: cookie}, user))
    app_state.show(session, app_state.example("small scene"))
    return session


def connect(client: TestClient, token: str, cookie: str = "me", **headers: str):
    return client.websocket_connect(f"/nvs/socket?visit={token}", headers={"cookie": f"{COOKIE}={cookie}", **headers})


def answer(socket, kind: str | None = None):
    while True:
        message = socket.receive()
        if message.get("bytes") is not None:
            return unpack(message["bytes"])
        told = json.loads(message["text"])
        if kind is None or told["type"] == kind:
            return told
