"""Who a request comes from, and whether it may: the visitor's cookie, gradio's login, the socket's origin.

A browser gets a random cookie that scripts cannot read with its first page. What belongs to a visit opens only for
the same cookie and the same login. Programs (gradio_client) bring no cookie; for them the secret names alone count.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from nvs_app.export.html import viewer_script
from nvs_app.web.app_state import AppState
from nvs_app.web.headers import login
from nvs_app.web.services.geometry import VIEWER
from nvs_app.web.viewer_connection import REFUSED, ViewerConnection, same_origin

COOKIE = "nvs-visitor"
FULL = 1013  # "try again later"
COOKIE_DAYS = 365  # kept scenes are found again by it


def owner_of(cookies: Any, user: str | None) -> str:
    """The owner that sessions are tied to: a digest of the cookie and the login; of neither, a constant."""
    cookie = cookies.get(COOKIE, "") if cookies else ""
    return hashlib.sha256(f"{cookie}\0{user or ''}".encode()).hexdigest()


def owner_of_request(request: Any) -> str:
    """The owner behind a `gradio.Request`; a call without one (from a test) is nobody's."""
    starlette = getattr(request, "request", None)
    return owner_of(getattr(starlette, "cookies", None), getattr(request, "username", None))


def is_anonymous(owner: str) -> bool:
    """Whether an owner is everybody who brought neither cookie nor login."""
    return secrets.compare_digest(owner, owner_of(None, None))


def address_of(connection: Any) -> str:
    """The address that a request or socket of starlette came from, or a `gradio.Request`; of IPv6 the network, which
    is what one person has. Empty where there is none."""
    client = getattr(getattr(connection, "request", connection), "client", None)
    if client is None:
        return ""
    try:
        address = ipaddress.ip_address(client.host)
    except ValueError:  # a name, or the path of a socket file
        return str(client.host)
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))


class VisitorCookie:
    """ASGI layer that gives each browser its cookie with the first page it asks for."""

    def __init__(self, app: Callable):
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or _has_cookie(scope):
            await self.app(scope, receive, send)
            return

        async def send_with_cookie(message: dict) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    age = COOKIE_DAYS * 24 * 3600
                    headers.append(
                        "set-cookie",
                        f"{COOKIE}={secrets.token_urlsafe(24)}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax",
                    )
            await send(message)

        await self.app(scope, receive, send_with_cookie)


def routes(app_state: AppState, public: str | None = None) -> list[BaseRoute]:
    """The routes that the application adds to gradio's: the viewer's socket, and what draws splats in the browser.

    public: the public address, where --root-path gives a whole one.
    """

    sockets: Counter[str] = Counter()  # open ones, by address

    async def socket(ws: WebSocket) -> None:
        user, login_wanted = login(ws)
        if not same_origin(ws.headers, public):
            await ws.close(1008, "opened from another site")
            return
        if login_wanted and user is None:
            await ws.close(1008, "not logged in")
            return
        session = app_state.store.find(ws.query_params.get("visit"), owner_of(ws.cookies, user))
        # Accepted first: a browser learns the code only of a connection that was open.
        await ws.accept()
        if session is None:
            await ws.close(REFUSED, "This visit has ended. Reload the page to start again.")
            return
        address = address_of(ws)
        if sockets[address] >= app_state.limits.address_sockets:
            await ws.close(FULL, "Too many viewers are open at your address; close one of them.")
            return
        sockets[address] += 1
        try:
            await ViewerConnection(app_state, session, ws).run()
        finally:
            sockets[address] -= 1
            if not sockets[address]:
                del sockets[address]

    def script(_: Request) -> Response:
        return Response(viewer_script(), media_type="text/javascript", headers={"cache-control": "no-cache"})

    def splats(request: Request) -> Response:
        user, _ = login(request)
        session = app_state.store.find(request.query_params.get("visit"), owner_of(request.cookies, user))
        made = None if session is None else session.memory.get(VIEWER)
        if made is None or not made.file.is_file():
            return Response("There are no splats.", 404)
        return FileResponse(made.file, media_type="application/octet-stream", headers={"cache-control": "no-store"})

    return [
        WebSocketRoute("/nvs/socket", socket), Route("/nvs/splats.js", script), Route("/nvs/scene.splat", splats)
    ]  # fmt: skip


def _has_cookie(scope: dict) -> bool:
    """As starlette reads cookies: one that is odd, of another program on this host, does not hide ours."""
    found = (value for name, value in scope["headers"] if name == b"cookie")
    return any(COOKIE in cookie_parser(value.decode("latin-1")) for value in found)
