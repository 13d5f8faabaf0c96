"""The one door of the server: which of gradio's routes are open, who may pass, and the headers of what goes out.

gradio brings some eighty routes, made for all pages and for work on them: a proxy for other addresses, a history of
runs, tools that write code. The page needs the ones in ROUTES; all others do not exist here. With --auth, only what
the login page itself needs is open before the login, whatever gradio thinks of a route. Nothing is fetched for a
visitor, and no other site's page may ask.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

from nvs_app.web.viewer_connection import same_origin

MAX_BODY = 1 << 20  # of a message in JSON; uploads have limits of their own

READ = ("GET", "HEAD")
# What the login page is made of, and what gradio asks its own address at the start.
OPEN = (
    (READ, r"/|/favicon\.ico|/manifest\.json|/robots\.txt|/theme\.css|/gradio_api/theme\.css"),
    (READ, r"/(assets|static|svelte)/.+"),
    (READ, r"/gradio_api/(login_check|startup-events)/?"),
    (("POST",), r"/login/?"),
)
ROUTES = (
    *OPEN,
    (READ, r"/config/?|/logout|/pwa_icon(/\d+)?"),
    (READ, r"/gradio_api/(info|app_id|token|user)/?"),
    (READ, r"/gradio_api/(heartbeat/\w+|queue/data|upload_progress|file=.+)"),
    (READ, r"/nvs/.+"),
    (("POST",), r"/gradio_api/(upload|queue/join|cancel|reset|(run|api)/\w+)/?"),
)
MESSAGES = re.compile(r"/gradio_api/(queue/join|cancel|reset|(run|api)/\w+)/?")
SOCKETS = re.compile(r"/nvs/\w+")
REMOTE = re.compile(r"\s*([a-z][a-z0-9+.-]+:|[/\\]{2})", re.IGNORECASE)

# gradio's page is written with scripts inside it, and its events are functions made of text.
PAGE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
FILE = "default-src 'none'; sandbox; frame-ancestors 'none'"  # what visitors brought runs nowhere


class Door:
    """ASGI layer around everything.

    Args:
        public: the public address, where --root-path gives a whole one.
        prefix: the path before all routes, where the proxy in front leaves it there.
        embed: the origins whose pages may show this one in a frame as ``?embed=1``, as in a Content-Security-Policy
            ("*": all); none unless given.
    """

    def __init__(self, app: Callable, public: str | None = None, prefix: str = "", embed: str | None = None):
        self.app, self.public, self.prefix, self.embed = app, public, prefix.rstrip("/"), embed

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(self.prefix) if self.prefix else scope["path"]
        if scope["type"] == "websocket":
            if SOCKETS.fullmatch(path):
                await self.app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        outward = self._with_headers(scope, path, send)
        refusal = self._refusal(scope, path)
        if refusal is None and MESSAGES.fullmatch(path):
            refusal, receive = await _checked_message(Headers(scope=scope), receive)
        if refusal is not None:
            status, words = refusal
            await PlainTextResponse(words, status)(scope, receive, outward)
            return
        try:
            await self.app(scope, receive, outward)
        except RuntimeError as error:
            # A stream of events for a page that gradio does not know: told in the stream, and no fault of ours.
            if not isinstance(error.__cause__, HTTPException):
                raise
            await outward({"type": "http.response.body", "body": b""})

    def _refusal(self, scope: dict, path: str) -> tuple[int, str] | None:
        """Status and words where a request is not let in."""
        method = scope["method"]
        if not _listed(ROUTES, method, path):
            return 404, "Not found"
        if not same_origin(Headers(scope=scope), self.public):
            return 403, "Asked by another site's page"
        if "/file=" in path and REMOTE.match(path.split("/file=", 1)[1]):
            return 404, "Not found"
        if not _listed(OPEN, method, path):
            user, wanted = login(HTTPConnection(scope))
            if wanted and user is None:
                return 401, "Not logged in"
        return None

    def _with_headers(self, scope: dict, path: str, send: Callable) -> Callable:
        framed = self.embed is not None and parse_qs(scope["query_string"].decode("latin-1")).get("embed") == ["1"]

        async def outward(message: dict) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "same-origin"
                headers["cross-origin-resource-policy"] = "same-origin"
                headers["permissions-policy"] = "geolocation=(), microphone=(), payment=()"
                if path.startswith("/gradio_api/file="):
                    headers["content-security-policy"] = FILE
                    headers["cache-control"] = "private, no-store"
                elif headers.get("content-type", "").startswith("text/html"):
                    ancestors = self.embed if framed else "'self'"
                    headers["content-security-policy"] = f"{PAGE}; frame-ancestors {ancestors}"
                    if not framed:
                        headers["x-frame-options"] = "SAMEORIGIN"
            await send(message)

        return outward


def login(connection: HTTPConnection) -> tuple[str | None, bool]:
    """The user that is logged in with gradio, and whether a login is asked for."""
    app = connection.app
    cookies = connection.cookies
    token = cookies.get(f"access-token-{app.cookie_id}") or cookies.get(f"access-token-unsecure-{app.cookie_id}")
    return app.tokens.get(token), app.get_blocks().auth is not None


def prefix_of(root_path: str | None) -> str:
    """The path of --root-path, which may be a whole address."""
    return urlsplit(root_path or "").path.rstrip("/")


def _listed(routes: tuple, method: str, path: str) -> bool:
    return any(method in methods and re.fullmatch(pattern, path) for methods, pattern in routes)


async def _checked_message(headers: Headers, receive: Callable) -> tuple[tuple[int, str] | None, Callable]:
    """Reads a message, which is short, and looks for what would make the server ask others or fail to answer."""
    body, more = b"", True
    if headers.get("content-length", "0").isdigit() and int(headers.get("content-length", "0")) > MAX_BODY:
        return (413, "Too long a message"), receive
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return (400, "Cut short"), receive
        body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > MAX_BODY:
            return (413, "Too long a message"), receive
    try:
        content = json.loads(body or b"null")
        if b"\\u" in body:
            json.dumps(content, ensure_ascii=False).encode()  # halves of characters could not be sent back
        if _names_remote_file(content):
            return (400, "Files of other addresses are not fetched; upload them"), receive
    except (ValueError, RecursionError):
        return (400, "Not a message in JSON"), receive
    sent = False

    async def again() -> dict:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return None, again


def _names_remote_file(content: Any) -> bool:
    if isinstance(content, dict):
        path = content.get("path")
        if isinstance(path, str) and REMOTE.match(path):
            return True
        content = list(content.values())
    return isinstance(content, list) and any(map(_names_remote_file, content))
