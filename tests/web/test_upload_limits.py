"""Uploads that nobody uses, that are cut short, or too many: counted, refused in words, and gone within minutes."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doors import BOUNDARY, form, stored, upload, visitor
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from nvs_app.web.access import COOKIE
from nvs_app.web.upload_limits import UploadLimits, UploadStore
from nvs_app.web.upload_route import UploadRoute

KIB = 1 << 10
MIB = 1 << 20
SMALL = UploadLimits(
    request_bytes=1 * MIB, request_files=5, owner_bytes=MIB + 100 * KIB, address_bytes=2 * MIB, all_bytes=3 * MIB,
    free_bytes=0, unclaimed_seconds=0.4, silent_seconds=0.3,
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[UploadStore]:
    store = UploadStore(tmp_path, SMALL)
    yield store
    store.close()


@pytest.fixture
def app(store: UploadStore) -> Any:
    app = Starlette(middleware=[Middleware(UploadRoute, store=store)])
    app.cookie_id, app.tokens = "id", {}
    app.get_blocks = lambda: SimpleNamespace(auth=None)
    return app


def browser(app: Any, name: str, address: str = "192.0.2.1") -> TestClient:
    return visitor(app, address, cookie=f"{COOKIE}={name}")


def test_files_arrive_whole_under_harmless_names(app, store: UploadStore) -> None:
    names = ["a.png", "../../etc/x.jpg", "..\\y.jpg", ".hidden", "ä ö\N{SNOWMAN}.zip", "", "n" * 400 + ".png"]
    for name in names:
        answer = upload(browser(app, "me"), (name, b"data of " + name.encode()))
        assert answer.status_code == 200, name
        (path,) = answer.json()
        assert Path(path).is_relative_to(store.root) and Path(path).read_bytes() == b"data of " + name.encode()
        assert "/" not in Path(path).name and not Path(path).name.startswith(".") and len(Path(path).name) <= 210
    several = upload(browser(app, "me"), *((f"{i}.png", bytes([i]) * 100_000) for i in range(4))).json()
    assert [Path(path).read_bytes()[0] for path in several] == [0, 1, 2, 3]


def test_two_of_the_same_content_do_not_share_a_file(app) -> None:
    first, second = (upload(browser(app, name), ("a.png", b"same")).json()[0] for name in ("a", "b"))
    shutil.move(first, f"{first}.claimed")
    assert Path(second).read_bytes() == b"same"


def test_an_owner_has_a_quota_until_an_event_takes_the_files(app, store: UploadStore) -> None:
    me = browser(app, "me")
    (first,) = upload(me, ("a.bin", bytes(900 * KIB))).json()
    refused = upload(me, ("b.bin", bytes(900 * KIB)))
    assert refused.status_code == 413 and "send fewer or smaller" in refused.text
    assert upload(browser(app, "other"), ("b.bin", bytes(900 * KIB))).status_code == 200
    Path(first).unlink()
    assert upload(me, ("b.bin", bytes(900 * KIB))).status_code == 200
    assert upload(me, ("c.bin", bytes(2 * MIB))).status_code == 413
    assert all(path.stat().st_size == 900 * KIB for path in stored(store.root))


def test_an_address_and_the_server_have_a_quota(app) -> None:
    for name in ("a", "b"):
        assert upload(browser(app, name), ("a.bin", bytes(900 * KIB))).status_code == 200
    assert upload(browser(app, "c"), ("a.bin", bytes(900 * KIB))).status_code == 503  # of the same address
    assert upload(browser(app, "d", "192.0.2.2"), ("a.bin", bytes(900 * KIB))).status_code == 200
    everything = upload(browser(app, "e", "192.0.2.3"), ("a.bin", bytes(900 * KIB)))
    assert everything.status_code == 503 and "try again" in everything.text


def test_programs_without_cookies_are_told_apart_by_their_address(app) -> None:
    assert upload(visitor(app, "192.0.2.1"), ("a.bin", bytes(900 * KIB))).status_code == 200
    assert upload(visitor(app, "192.0.2.1"), ("a.bin", bytes(900 * KIB))).status_code == 413
    assert upload(visitor(app, "192.0.2.2"), ("a.bin", bytes(900 * KIB))).status_code == 200


def test_empty_files_count_too(app, store: UploadStore) -> None:
    for _ in range(300):
        answer = upload(browser(app, "me"), *((f"{i}", b"") for i in range(5)))
        if answer.status_code != 200:
            break
    assert answer.status_code == 413 and len(stored(store.root)) < 300
    assert upload(browser(app, "you"), *((f"{i}", b"") for i in range(6))).status_code == 413  # files of one upload


def test_what_nobody_takes_goes(app, store: UploadStore) -> None:
    upload(browser(app, "me"), ("a.bin", bytes(100)))
    (store.cache / "tmpabc").write_bytes(b"")  # as gradio leaves them
    os.utime(store.cache / "tmpabc", (time.time() - 100, time.time() - 100))
    deadline = time.monotonic() + 20
    while (stored(store.cache) or any(store.root.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not stored(store.cache) and not any(store.root.iterdir())
    assert upload(browser(app, "me"), ("a.bin", bytes(900 * KIB))).status_code == 200


def test_a_full_disk_is_said_without_paths(app, store: UploadStore, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("nvs_app.web.upload_limits.shutil.disk_usage", lambda _: usage(1, 1, 10))
    answer = upload(browser(app, "me"), ("a.bin", bytes(100 * KIB)))
    assert answer.status_code == 507 and str(store.root) not in answer.text and not stored(store.root)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"no form at all", form(("a.png", b"x" * 5000), end=False), form(("a.png", b"x"))[:60],
        f"--{BOUNDARY}--".encode(),
        f"--{BOUNDARY}\r\nX: y\r\n\r\nwithout a disposition\r\n--{BOUNDARY}--\r\n".encode(),
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="a"\r\n\r\n'.encode() + b"y" * 200_000,
        f"--{BOUNDARY}\r\n".encode() + b"X: " + b"y" * 200_000, f"--{BOUNDARY}\r\n\r\n--{BOUNDARY}--".encode(),
    ],
    ids=range(9),
)  # fmt: skip
def test_broken_forms_leave_nothing(app, store: UploadStore, body: bytes) -> None:
    answer = upload(browser(app, "me"), body=body)
    assert answer.status_code in (400, 413) and 0 < len(answer.text) < 100
    assert not stored(store.cache)


def asked(app, messages: list[dict]) -> tuple[int, bytes]:
    """What an upload is answered whose body comes in these parts, and then nothing more."""
    scope = {
        "type": "http", "method": "POST", "path": "/gradio_api/upload", "query_string": b"upload_id=7", "client": None,
        "headers": [(b"content-type", f"multipart/form-data; boundary={BOUNDARY}".encode())], "app": app,
    }  # fmt: skip
    sent: list[dict] = []
    rest = iter(messages)

    async def receive() -> dict:
        for message in rest:
            return message
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: dict) -> None:
        sent.append(message)

    with ThreadPoolExecutor(1) as pool:  # Playwright's event loop may live on in this thread after other tests
        pool.submit(lambda: asyncio.run(app(scope, receive, send))).result()
    return sent[0]["status"], sent[1]["body"]


def test_who_goes_or_falls_silent_leaves_nothing(app, store: UploadStore) -> None:
    first = {"type": "http.request", "body": form(("a.png", b"x" * 5000), end=False), "more_body": True}
    assert asked(app, [first, {"type": "http.disconnect"}])[0] == 400
    assert asked(app, [first])[0] == 408
    assert not stored(store.cache) and not store.progress
    assert not any(owner.requests for owner in store._owners.values())


def test_uploads_beside_each_other_are_bounded(app, store: UploadStore) -> None:
    for _ in range(SMALL.owner_requests):
        store.begin("me", "192.0.2.1", 0)
    with pytest.raises(Exception, match="Too many uploads at once"):
        store.begin("me", "192.0.2.1", 0)
    store.begin("you", "192.0.2.1", 0)


def test_progress_is_told(app, store: UploadStore) -> None:
    client = browser(app, "me")
    assert '"done"' in client.get("/gradio_api/upload_progress?upload_id=unknown").text
    store.progress["7"] = ["a.png", 5000, False]
    threading.Timer(0.5, store.progress.clear).start()
    text = client.get("/gradio_api/upload_progress?upload_id=7").text
    assert '"orig_name": "a.png", "chunk_size": 5000' in text and text.endswith('data: {"msg": "done"}\n\n')
