"""Behind a login and a reverse proxy with a path prefix, the viewer's socket works as the page does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from serving import at_rest, drag, free_port, serving, wait
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from websockets.asyncio.client import connect

PREFIX = "/studio"
DROPPED = ("host", "content-length", "transfer-encoding", "connection", "upgrade", "sec-websocket-key",
           "sec-websocket-version", "sec-websocket-extensions")  # fmt: skip


@contextlib.contextmanager
def proxied(port: int, target: str) -> Iterator[str]:
    """A reverse proxy as people set one up: strips its prefix, keeps the Host, passes sockets on."""
    client = httpx.AsyncClient(timeout=None, trust_env=False)

    async def page(request):
        url = f"{target}/{request.path_params['path']}"
        headers = [(k, v) for k, v in request.headers.items() if k not in DROPPED] + [("host", request.url.netloc)]
        asked = client.build_request(
            request.method, url, params=request.query_params, headers=headers, content=await request.body()
        )
        answer = await client.send(asked, stream=True)
        back = StreamingResponse(answer.aiter_raw(), answer.status_code, background=BackgroundTask(answer.aclose))
        back.raw_headers = [(k, v) for k, v in answer.headers.raw if k.lower() != b"transfer-encoding"]
        return back

    async def socket(ws):
        await ws.accept()
        url = f"{target.replace('http', 'ws')}/{ws.path_params['path']}?{ws.url.query}"
        headers = [(k, v) for k, v in ws.headers.items() if k not in (*DROPPED, "origin")]
        headers.append(("x-forwarded-host", ws.headers["host"]))
        async with connect(url, additional_headers=headers, origin=ws.headers["origin"], max_size=None) as line:

            async def there() -> None:
                while True:
                    await line.send(await ws.receive_text())

            async def back() -> None:
                async for message in line:
                    await (ws.send_bytes(message) if isinstance(message, bytes) else ws.send_text(message))

            tasks = [asyncio.create_task(there()), asyncio.create_task(back())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    paths = PREFIX + "/{path:path}"
    app = Starlette(routes=[WebSocketRoute(paths, socket), Route(paths, page, methods=["GET", "POST", "HEAD"])])
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}{PREFIX}/"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(5)


@pytest.mark.slow
@pytest.mark.browser
def test_login_and_prefix(browser, checkpoints: Path, small_scene: Path) -> None:
    words = ("--scene", small_scene, "--context", 3, "--auth", "alice:a secret", "--root-path", PREFIX)
    with serving(checkpoints, *words) as target, proxied(free_port(), target) as address:
        page = browser.new_page()
        sockets: list[str] = []
        page.on("websocket", lambda line: sockets.append(line.url))
        page.goto(address)
        page.get_by_label("username").fill("alice")
        page.get_by_label("password").fill("a secret")
        page.get_by_role("button", name="Login").click()
        wait(page, "window.nvs?.viewer?.shown", 60)
        assert sockets and all(PREFIX + "/nvs/socket" in url for url in sockets)
        drag(page, 60, 0)
        assert at_rest(page)["header"]["model_ms"] > 0
        # Without the login the same token opens nothing.
        token = page.evaluate("nvs.token")
        page.context.clear_cookies()
        closed = page.evaluate(
            """([prefix, token]) => new Promise((resolve) => {
              const line = new WebSocket(`ws://${location.host}${prefix}/nvs/socket?visit=${token}`);
              line.onmessage = () => resolve('a message'); line.onclose = () => resolve('closed'); })""",
            [PREFIX, token],
        )
        assert closed == "closed"
        page.close()
