"""The server's door: every route with and without a login, what other sites may ask, and the headers of all that goes
out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doors import application, upload, visitor
from gradio.routes import App
from starlette.websockets import WebSocketDisconnect

from nvs_app.web.app_state import AppState
from nvs_app.web.upload_limits import UploadStore

BEFORE_LOGIN = {
    "GET /", "HEAD /", "POST /login", "POST /login/", "GET /assets/x", "GET /static/x", "GET /svelte/x",
    "GET /favicon.ico", "GET /manifest.json", "GET /robots.txt", "GET /theme.css", "GET /gradio_api/theme.css",
    "GET /gradio_api/login_check", "GET /gradio_api/login_check/", "GET /gradio_api/startup-events",
}  # fmt: skip
AFTER_LOGIN = {
    "GET /config", "GET /config/", "GET /logout", "GET /pwa_icon", "GET /pwa_icon/192", "GET /gradio_api/info",
    "GET /gradio_api/info/", "GET /gradio_api/app_id", "GET /gradio_api/app_id/", "GET /gradio_api/token",
    "GET /gradio_api/token/", "GET /gradio_api/user", "GET /gradio_api/user/", "GET /gradio_api/heartbeat/x",
    "GET /gradio_api/queue/data", "GET /gradio_api/upload_progress", "GET /gradio_api/file=x",
    "HEAD /gradio_api/file=x", "POST /gradio_api/upload", "POST /gradio_api/queue/join",
    "POST /gradio_api/cancel", "POST /gradio_api/reset", "POST /gradio_api/reset/", "POST /gradio_api/run/x",
    "POST /gradio_api/run/x/", "POST /gradio_api/api/x",
    "POST /gradio_api/api/x/", "GET /nvs/splats.js", "HEAD /nvs/splats.js", "GET /nvs/scene.splat",
}  # fmt: skip


def routes_of(app: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method, path) of every route that gradio has, with something in the place of its parameters."""
    for route in app.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None:
            yield from routes_of(inner)
            continue
        path = re.sub(r"\{size\}", "192", route.path)
        path = re.sub(r"\{\w+(:\w+)?\}", "x", path)
        for method in getattr(route, "methods", None) or ():
            yield method, prefix + path


@pytest.fixture
def store(app_state: AppState, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadStore]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(app_state.root / "gradio"))
    store = UploadStore(app_state.root / "gradio")
    yield store
    store.close()


def let_in(app: App, **cookies: str) -> set[str]:
    """The routes that answer as routes do: not the door's 404 or 401. Streams are asked for nothing."""
    found = set()
    client = visitor(app)
    client.cookies.update(cookies)
    tokens = dict(app.tokens)
    for method, path in sorted(set(routes_of(app))):
        if "heartbeat" in path and any(token in app.tokens for token in cookies.values()):  # never ends
            found.add(f"{method} {path}")
            continue
        answer = client.request(method, path, follow_redirects=False)
        app.tokens.update(tokens)  # one of the routes logs out
        client.cookies.update(cookies)
        doors_own = (404, "Not found"), (401, "Not logged in"), (404, ""), (401, "")  # the latter of HEAD
        if (answer.status_code, answer.text) not in doors_own:
            found.add(f"{method} {path}")
    return found


def test_every_route_with_and_without_login(app_state: AppState, store: UploadStore) -> None:
    with application(app_state, store, auth=("alice", "a secret")) as app:
        known = {f"{method} {path}" for method, path in routes_of(app)}
        assert len(known) > 80 and any("run-history" in name for name in known)
        assert let_in(app) == BEFORE_LOGIN & known
        app.tokens["a token"] = "alice"
        token = {f"access-token-unsecure-{app.cookie_id}": "a token"}
        assert let_in(app, **token) == (BEFORE_LOGIN | AFTER_LOGIN) & known
        assert {name for name in BEFORE_LOGIN | AFTER_LOGIN if name.startswith("POST")} <= known
        wrong = {f"access-token-unsecure-{app.cookie_id}": "another"}
        assert let_in(app, **wrong) == BEFORE_LOGIN & known


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/a.html", "http://example.org", "HTTPS://example.org", "ftp://example.org",
        "//example.org/a", "https%3A%2F%2Fexample.org", "https:/example.org", "file:///etc/hosts", "data:text/html,x",
    ],
)  # fmt: skip
def test_nothing_is_fetched_for_a_visitor(app_state: AppState, store: UploadStore, address: str, monkeypatch) -> None:
    asked: list[str] = []

    async def fetched(url: str, *_: Any, **__: Any):
        asked.append(url)
        raise AssertionError

    monkeypatch.setattr("gradio.routes.secure_url_stream_response", fetched)
    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", fetched)
    with application(app_state, store) as app:
        client = visitor(app)
        assert client.get(f"/gradio_api/file={address}").status_code == 404
        for name in ("run/encode", "api/encode", "queue/join"):
            file = {"path": address, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.zip"}
            body = {"data": [[file], None, ""], "fn_index": 0, "session_hash": "x"}
            answer = client.post(f"/gradio_api/{name}", json=body)
            if "%" not in address:
                assert answer.status_code == 400 and "not fetched" in answer.text
    assert asked == []


def test_messages_are_bounded_and_can_be_answered(app_state: AppState, store: UploadStore) -> None:
    with application(app_state, store) as app:
        client = visitor(app)
        for body, status in (
            (b'{"data": ["' + b"x" * (1 << 20) + b'"]}', 413),
            (b"[" * 100_000, 400),
            (b'{"data": ["\\ud800"]}', 400),
            (b"\xff\xfe", 400),
        ):
            answer = client.post("/gradio_api/run/examples", content=body)
            assert answer.status_code == status and len(answer.text) < 100, body[:20]
        assert client.post("/gradio_api/run/examples", json={"data": []}).json()["data"] == [["small scene"]]
        stream = client.get("/gradio_api/queue/data?session_hash=nobody")  # raised into the log before
        assert "session_not_found" in stream.text


def test_another_sites_page_may_not_ask(app_state: AppState, store: UploadStore) -> None:
    with application(app_state, store) as app:
        for origin in ("https://elsewhere.example", "null", "http://views.example.evil.example"):
            answer = visitor(app, origin=origin).post("/gradio_api/run/examples", json={"data": []})
            assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers, origin
            assert upload(visitor(app, origin=origin), ("a.png", b"x")).status_code == 403
        own = visitor(app, origin="http://views.example").post("/gradio_api/run/examples", json={"data": []})
        assert own.status_code == 200
        assert visitor(app, origin="https://elsewhere.example").options("/gradio_api/upload").status_code == 404
        with pytest.raises(WebSocketDisconnect), visitor(app).websocket_connect("/other/socket"):
            pass


def test_headers_of_every_kind_of_answer(app_state: AppState, store: UploadStore, small_scene: Path) -> None:
    with application(app_state, store) as app:
        client = visitor(app)
        html = b"<script>alert(1)</script>"
        path = upload(client, ("a.html", html)).json()[0]
        answers = {
            "page": client.get("/"),
            "script": client.get("/theme.css"),
            "json": client.get("/config"),
            "call": client.post("/gradio_api/run/examples", json={"data": []}),
            "file": client.get(f"/gradio_api/file={path}"),
            "upload": upload(client, ("b.png", b"x")),
            "not there": client.get("/gradio_api/file=/etc/passwd"),
            "refused": client.get("/monitoring"),
            "wrong": client.post("/gradio_api/run/examples", content=b"{"),
        }
        for kind, answer in answers.items():
            assert answer.headers["x-content-type-options"] == "nosniff", kind
            assert answer.headers["cross-origin-resource-policy"] == "same-origin", kind
            assert "access-control-allow-origin" not in answer.headers, kind
        page = answers["page"].headers
        assert "frame-ancestors 'self'" in page["content-security-policy"] and page["x-frame-options"] == "SAMEORIGIN"
        assert "default-src 'self'" in page["content-security-policy"]
        file = answers["file"]
        assert file.content == html and "sandbox" in file.headers["content-security-policy"]
        assert file.headers["content-disposition"].startswith("attachment")
        # Without the option nobody may frame it, whatever he asks.
        asked = client.get("/?embed=1").headers
        assert "frame-ancestors 'self'" in asked["content-security-policy"] and "x-frame-options" in asked


def test_frames_of_others_are_an_option(app_state: AppState, store: UploadStore) -> None:
    with application(app_state, store, embed="https://a.example") as app:
        client = visitor(app)
        framed, plain = client.get("/?embed=1").headers, client.get("/").headers
        assert "frame-ancestors https://a.example" in framed["content-security-policy"]
        assert "x-frame-options" not in framed and "frame-ancestors 'self'" in plain["content-security-policy"]
