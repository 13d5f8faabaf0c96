"""Whatever a visitor sends over the viewer's socket: one sentence comes back, the next request works, the server's
log stays clean and its memory bounded, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from nvs_app.web.access import COOKIE, owner_of, routes
from nvs_app.web.app_state import AppState
from nvs_app.web.protocol import PlanMessage, unpack
from nvs_app.web.scheduler import RenderScheduler
from nvs_app.web.services.viewpoint import camera_for_page
from nvs_app.web.viewer_connection import MAX_UNREAD, SHARE, Pace, ViewerConnection

LONG = "1" + "0" * 400
SMALL = {"loop": False, "image_hw": [64, 64]}
IDENTITY = "[1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1]"


@pytest.fixture(autouse=True)
def _no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of messages, without waiting for each hundred."""
    monkeypatch.setattr("nvs_app.web.viewer_connection.MESSAGES", 10_000)


@pytest.fixture
def client(app_state: AppState) -> TestClient:
    app = Starlette(routes=routes(app_state))
    app.cookie_id, app.tokens = "id", {}
    app.get_blocks = lambda: SimpleNamespace(auth=None)
    return TestClient(app)


@pytest.fixture
def session(app_state: AppState):
    session = app_state.store.create(owner_of({COOKIE: "me"}, None))
    app_state.show(session, app_state.example("small scene"))
    return session


def connect(client: TestClient, session):
    return client.websocket_connect(f"/nvs/socket?visit={session.token}", headers={"cookie": f"{COOKIE}=me"})


def answer(socket):
    message = socket.receive()
    if message["type"] == "websocket.close":
        raise WebSocketDisconnect(message.get("code", 0))
    return unpack(message["bytes"])[0] if message.get("bytes") is not None else json.loads(message["text"])


def good(session, number: int = 4242) -> dict:
    return {"type": "frame", "id": number, **camera_for_page(session.scene.cameras[:1]), "hw": [16, 16]}


def frame(**values: str) -> str:
    """A frame message whose values are given as JSON text, valid JSON or not."""
    fields = {"type": '"frame"', "id": "1", "c2w": IDENTITY, "fov": "40", "hw": "[16, 16]", **values}
    return "{" + ", ".join(f'"{name}": {text}' for name, text in fields.items()) + "}"


def matrix(*first: str) -> str:
    return "[" + ",".join([*first, *"1000010000100001"[len(first) :]]) + "]"


def key(x: float) -> dict:
    """A keyframe at x."""
    return {"c2w": [1, 0, 0, x, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], "fov": 40, "seconds": 1}


WRONG = {
    "huge integer in the pose": frame(c2w=matrix(LONG)),
    "NaN in the pose": frame(c2w=matrix("NaN")),
    "infinity in the pose": frame(c2w=matrix("1e999")),
    "largest double in the pose": frame(c2w=matrix("1e308", "1e308")),
    "smallest double in the pose": frame(c2w="[" + ",".join(["5e-324"] * 16) + "]"),
    "beyond float32 in the position": frame(c2w=matrix("1", "0", "0", "1e300")),
    "zeros": frame(c2w="[" + ",".join("0" * 16) + "]"),
    "a mirror": frame(c2w=matrix("-1")),
    "nested pose": frame(c2w="[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]"),
    "booleans": frame(c2w=matrix("true")),
    "text in the pose": frame(c2w=matrix('"1"')),
    "huge integer as field of view": frame(fov=LONG),
    "NaN as field of view": frame(fov="NaN"),
    "no field of view": frame(fov="null"),
    "huge frame": frame(hw="[100000, 100000]"),
    "huge integer as size": frame(hw=f"[{LONG}, 16]"),
    "negative size": frame(hw="[-16, 16]"),
    "fractional size": frame(hw="[16.5, 16]"),
    "odd type": '{"type": [1, {"a": 2}], "id": 1}',
    "long type": json.dumps({"type": "x" * 100_000, "id": 1}),
    "no type": "{}",
    "integer beyond parsing": '{"type": "frame", "id": ' + "9" * 5000 + "}",
    "deep lists": "[" * 100_000,
    "deep objects": '{"a":' * 900 + "1" + "}" * 900,
    "lone surrogate": '{"type": "\\ud800", "id": "\\udfff"}',
    "NaN as id": '{"type": "nothing", "id": NaN}',
    "deep id": '{"type": "nothing", "id": ' + "[" * 600 + "]" * 600 + "}",
    "long id": json.dumps({"type": "nothing", "id": "x" * 500_000}),
    "stage of nothing": '{"type": "stage", "id": 1}',
    "stage of NaN": '{"type": "stage", "id": 1, "hw": [NaN, 5]}',
    "huge stage": '{"type": "stage", "id": 1, "hw": [5, ' + LONG + "]}",
    "stage of an odd side": '{"type": "stage", "id": 1, "hw": [5, 5], "side": 255}',
    "no view": '{"type": "view", "id": 1, "index": 99}',
    "negative view": '{"type": "view", "id": 1, "index": -1}',
    "huge view": '{"type": "view", "id": 1, "index": ' + LONG + "}",
    "boolean view": '{"type": "view", "id": 1, "index": true}',
    "path of nothing": '{"type": "path", "id": 1}',
    "path of text": '{"type": "path", "id": 1, "spec": "x"}',
    "path of a huge integer": '{"type": "path", "id": 1, "spec": {"keyframes": [{"c2w": ' + matrix(LONG) + "}]}}",
    "path to nowhere": json.dumps(
        {"type": "path", "id": 1, "spec": {"timeline": {"keyframes": [key(0), key(1e308)], "fps": 24, **SMALL}}}
    ),
    "path of endless seconds": '{"type": "path", "id": 1, "spec": {"keyframes": [], "seconds": 1e999}}',
    "path of too many keyframes": json.dumps({"type": "path", "id": 1, "spec": {"keyframes": [{}] * 5000}}),
}


def test_wrong_messages_are_one_short_sentence_each(client: TestClient, session, capfd) -> None:
    failed = {}
    with connect(client, session) as socket:
        answer(socket)
        for what, text in WRONG.items():
            socket.send_text(text)
            told = answer(socket)
            words = told.get("message", "")
            if told.get("type") != "error" or not words or "\n" in words or len(json.dumps(told)) > 2000:
                failed[what] = told
            socket.send_json(good(session))
            assert answer(socket)["id"] == 4242, what
    assert not failed
    assert "Traceback" not in capfd.readouterr().err


def test_an_answer_that_json_cannot_hold_leaves_the_line_open() -> None:
    told = json.loads(ViewerConnection._text(PlanMessage(7, {"side": float("nan")})))
    assert told["type"] == "error" and told["id"] == 7 and "not finite" in told["message"]


def test_any_value_in_any_field(client: TestClient, session, capfd) -> None:
    """Drawn, or refused in a sentence; the next request works."""
    values = ["NaN", "1e999", "-1e999", LONG, '"high"', "[]", "null", "true", "-5", '{"__proto__": 1}', '"\\u0000"']
    values.append("[" * 300 + "]" * 300)
    with connect(client, session) as socket:
        answer(socket)
        for name in ("id", "format", "auto", "small", "quick", "output", "type", "quality", "spec"):
            for value in values:
                socket.send_text(frame(**{name: value}))
                told = answer(socket)
                assert told.get("type") in (None, "error") and len(json.dumps(told)) < 2000, (name, value)
                socket.send_json(good(session))
                assert answer(socket)["id"] == 4242, (name, value)
    assert "Traceback" not in capfd.readouterr().err


def test_random_messages_leave_the_line_open(client: TestClient, session, capfd) -> None:
    """Good messages with characters changed, removed and doubled."""
    generator = random.Random(0)
    with connect(client, session) as socket:
        answer(socket)
        text = json.dumps(good(session, 1))
        for _ in range(150):
            letters = list(text)
            for _ in range(generator.randint(1, 6)):
                at = generator.randrange(len(letters))
                letters[at] = generator.choice(["", letters[at] * 2, chr(generator.randrange(32, 126)), "e999", "[["])
            socket.send_text("".join(letters))
        socket.send_json(good(session))
        for _ in range(400):
            if answer(socket).get("id") == 4242:
                break
        else:
            raise AssertionError("no answer")
    assert "Traceback" not in capfd.readouterr().err


def test_a_binary_or_too_long_message_ends_the_line_only(client: TestClient, session) -> None:
    for send in (lambda s: s.send_bytes(b"\x00" * 64), lambda s: s.send_text(" " * ((1 << 20) + 1))):
        with connect(client, session) as socket:
            answer(socket)
            send(socket)
            with pytest.raises((WebSocketDisconnect, RuntimeError)):
                answer(socket)
        with connect(client, session) as socket:
            answer(socket)
            socket.send_json(good(session))
            assert answer(socket)["id"] == 4242


def test_what_is_not_read_does_not_pile_up(app_state: AppState, session) -> None:
    """A visitor who sends without reading: the server keeps a bounded number of answers for him."""

    class Silent(WebSocket):
        """A socket that takes nothing, and brings wrong messages as fast as they are taken."""

        taken = 0

        async def receive_text(self) -> str:
            self.taken += 1
            await asyncio.sleep(0)
            return json.dumps({"type": "nothing", "id": 1})

        async def send_text(self, data: str) -> None:
            await asyncio.sleep(3600)

    async def nothing(*_) -> dict:
        return {}

    async def main() -> tuple[int, int]:
        socket = Silent({"type": "websocket"}, nothing, nothing)
        line = ViewerConnection(app_state, session, socket)
        task = asyncio.create_task(line.run())
        for _ in range(2000):
            await asyncio.sleep(0)
        held = line.out.qsize()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return held, socket.taken

    with ThreadPoolExecutor(1) as pool:  # in a thread of its own: the browser's loop may run in this one
        held, taken = pool.submit(lambda: asyncio.run(main())).result()
    assert MAX_UNREAD <= held <= 2 * MAX_UNREAD and taken <= 3 * MAX_UNREAD


def test_a_frame_weighs_what_those_of_its_size_have_taken(
    app_state: AppState, client: TestClient, session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked for them: another connection, too."""
    weights, submit = [], app_state.scheduler.submit
    monkeypatch.setattr(
        app_state.scheduler,
        "submit",
        lambda lane, work, *seconds: (weights.append(seconds), submit(lane, work, *seconds))[1],
    )
    for _ in range(2):
        with connect(client, session) as socket:
            answer(socket)
            for hw in ([16, 16], [128, 128]):
                socket.send_json({**good(session), "hw": hw})
                assert answer(socket)["id"] == 4242
    (small,), (large,), (small_again,), (large_again,) = weights
    assert small == 0 and large == 0 and 0 < small_again and 0 < large_again


def test_others_are_not_disturbed(app_state: AppState, client: TestClient, session) -> None:
    """One visitor floods, another one looks."""
    other = app_state.store.create(owner_of({COOKIE: "me"}, None))
    app_state.show(other, app_state.example("small scene"))
    with connect(client, session) as flood, connect(client, other) as calm:
        answer(flood), answer(calm)
        for number in range(200):
            flood.send_json(good(session, number))
        for number in range(5):
            calm.send_json(good(other, 9000 + number))
            assert answer(calm)["id"] == 9000 + number


def test_who_floods_is_listened_to_at_a_pace() -> None:
    """A burst at once, then one message after the other; after a silence no more than that burst again."""
    pace = Pace(100)
    waits = [pace.wait(1000.0) for _ in range(300)]
    assert sum(wait == 0 for wait in waits) in (99, 100, 101) and 1.9 < waits[-1] < 2.1
    assert pace.wait(1000.0 + waits[-1]) <= 0.011  # who waits as long as he is told waits no longer than the pace
    assert sum(pace.wait(9000.0) == 0 for _ in range(300)) in (99, 100, 101)
    assert pace.wait(20000.0, 1.5 * SHARE) == pytest.approx(0.5)  # work counts, where it is more


def test_the_line_waits_as_its_pace_says(app_state: AppState, session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is not read meanwhile, so that who floods is held up by his own line."""
    taken, slept = [], []

    class Flood(WebSocket):
        async def receive_text(self) -> str:
            taken.append(1)
            if len(taken) > 150:
                raise WebSocketDisconnect
            return json.dumps({"type": "ping", "id": 1})

        async def send_text(self, data: str) -> None:
            pass

    async def nothing(*_) -> dict:
        return {}

    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    async def main() -> None:
        await ViewerConnection(app_state, session, Flood({"type": "websocket"}, nothing, nothing)).run()

    monkeypatch.setattr("nvs_app.web.viewer_connection.MESSAGES", 100)
    monkeypatch.setattr("nvs_app.web.viewer_connection.asyncio.sleep", sleep)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(main())).result()
    assert sum(seconds > 0 for seconds in slept) > 30 and len(slept) == 150


def test_of_each_kind_one_request_waits_and_none_when_its_sender_has_gone(
    app_state: AppState, client: TestClient, session
) -> None:
    """Path previews too: thousands of them would be computed one after the other, long after their sender had left."""
    path = {"type": "path", "spec": {"preset": "orbit", "seconds": 2, "fps": 12, "image_hw": [32, 32]}}
    gate, begun = threading.Event(), threading.Event()
    app_state.scheduler.close()
    app_state.scheduler = RenderScheduler()  # that serves nobody beside the one who holds it
    app_state.scheduler.submit("holder", lambda: (begun.set(), gate.wait(30)))
    assert begun.wait(10)
    point = {**good(session), "type": "point", "at": [0.5, 0.5]}
    with connect(client, session) as socket:
        answer(socket)
        for number in range(50):
            for message in (path, good(session), point, {**good(session), "small": True}):
                socket.send_json({**message, "id": number})
        dropped = [answer(socket) for _ in range(4 * 49)]
        assert {told["type"] for told in dropped} == {"dropped"} and max(told["id"] for told in dropped) == 48
        assert app_state.scheduler.waiting() == 4
    for _ in range(200):
        if app_state.scheduler.waiting() == 0:
            break
        time.sleep(0.02)
    assert app_state.scheduler.waiting() == 0
    gate.set()
    with connect(client, session) as socket:
        answer(socket)
        socket.send_json({**path, "id": 9})
        assert len(answer(socket)["views"]) == 24
