"""A visitor of the viewer's socket, without a browser."""

from __future__ import annotations

import json

from starlette.testclient import TestClient

from nvs_app.web.access import COOKIE, owner_of
from nvs_app.web.hub import Hub
from nvs_app.web.wire import unpack


def visit(hub: Hub, cookie: str = "me", user: str | None = None):
    session = hub.store.create(owner_of({COOKIE: cookie}, user))
    hub.show(session, hub.example("small scene"))
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
