"""Who a request comes from: cookies as they come, addresses, and what nobody's visits may not do."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from lines import answer, connect, visit
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from nvs_app.errors import NVSError
from nvs_app.rendering.device import bytes_words
from nvs_app.web.access import COOKIE, VisitorCookie, address_of, is_anonymous, owner_of
from nvs_app.web.app_state import AppState
from nvs_app.web.event_handlers import EventHandlers
from nvs_app.web.services import saved_scenes
from nvs_app.web.services.encoding import Encoding
from nvs_app.web.services.kept_limits import PINNED, KeptLimits
from nvs_app.web.sessions import folder_bytes


@pytest.mark.parametrize(
    "others",
    ["", "a=1; ", "theme={dark}; ", 'prefs={"a":[1,2]}; ', "=odd; ", "b; ", "na:me=1; ", "c=ü; ", 'q="open; '],
)
def test_a_cookie_is_found_beside_those_of_other_programs(others: str) -> None:
    """Read as starlette reads it: else each page would give a new identity, and kept scenes would be lost."""

    async def page(request):
        return HTMLResponse(owner_of(request.cookies, None))

    client = TestClient(VisitorCookie(Starlette(routes=[Route("/", page)])))
    first = client.get("/", headers={"cookie": others.encode()} if others else {})
    assert COOKIE in first.headers["set-cookie"]
    client.cookies.clear()
    again = client.get("/", headers={"cookie": f"{others}{COOKIE}=mine".encode()})
    assert "set-cookie" not in again.headers
    assert again.text == owner_of({COOKIE: "mine"}, None)


def test_addresses() -> None:
    def of(host: str | None) -> str:
        return address_of(SimpleNamespace(client=None if host is None else SimpleNamespace(host=host)))

    assert address_of(None) == ""  # a call from a test
    assert of("10.1.2.3") == "10.1.2.3" and of(None) == "" and of("testclient") == "testclient"
    # Who has a network of IPv6 addresses is one visitor still.
    assert of("2001:db8:1:2::3") == of("2001:db8:1:2:ffff::4") != of("2001:db8:1:3::3")
    assert address_of(SimpleNamespace(request=SimpleNamespace(client=SimpleNamespace(host="10.1.2.3")))) == "10.1.2.3"


def test_an_address_opens_so_many_viewers(app_state: AppState, client: TestClient) -> None:
    app_state.store.limits = replace(app_state.limits, address_sockets=3)
    sessions = [visit(app_state) for _ in range(4)]
    with ExitStack() as stack:
        lines = [stack.enter_context(connect(client, session.token)) for session in sessions[:3]]
        assert all(answer(line)["type"] == "scene" for line in lines)
        with connect(client, sessions[3].token) as refused:
            assert refused.receive()["code"] == 1013
    for _ in range(5):  # places are free again
        with connect(client, sessions[3].token) as line:
            assert answer(line)["type"] == "scene"


def test_who_has_no_identity_keeps_nothing(app_state: AppState, tmp_path: Path) -> None:
    """Visitors without cookie and login are all one owner: they would find each other's scenes."""
    app_state.keep = tmp_path / "kept"
    nobody, another = (app_state.store.create(owner_of({}, None)) for _ in range(2))
    mine, user = app_state.store.create(owner_of({COOKIE: "me"}, None)), app_state.store.create(owner_of(None, "alice"))
    for session in (nobody, another, mine, user):
        app_state.show(session, app_state.example("small scene"))
    with pytest.raises(NVSError, match="cookie or log in"):
        saved_scenes.keep(app_state, nobody)
    assert not list(tmp_path.glob("kept/*"))
    for session in (mine, user):
        name = saved_scenes.keep(app_state, session)
        assert [found for found, _ in saved_scenes.kept(app_state, session)] == [name]
    assert saved_scenes.kept(app_state, another) == [] and is_anonymous(another.owner) and not is_anonymous(user.owner)
    with pytest.raises(NVSError, match="no such kept scene"):
        saved_scenes.reopen(app_state, nobody, name)


def test_the_page_tells_which_kept_scene_goes_next_and_which_went(app_state: AppState, tmp_path: Path) -> None:
    """His own, also where another visitor's came in its place; nobody else's."""
    app_state.keep = root = tmp_path / "kept"
    mine, other = (app_state.store.create(owner_of({COOKIE: name}, None)) for name in ("me", "you"))
    handlers = EventHandlers(app_state)
    told = lambda session: handlers._kept(session).info  # noqa: E731
    assert told(mine) == told(other) == ""
    names = []
    for number, session in enumerate((mine, mine, other)):
        scene = app_state.example("small scene")
        app_state.show(session, replace(scene, name=f"room_*{number}*"))
        names.append(saved_scenes.keep(app_state, session))
        os.utime(root / names[-1], (1000 + number, 1000 + number))
    assert "the oldest goes first: “room 0” (" in told(mine) and "Removed" not in told(mine)
    assert "the oldest goes first: “room 2” (" in told(other) and "room 0" not in told(other)
    (root / names[1] / PINNED).touch()
    one = folder_bytes(root / names[0])
    app_state.kept_limits = KeptLimits(10 * one, 3 * one + one // 2)
    assert f"of {bytes_words(3 * one + one // 2)}." in told(mine)
    saved_scenes.keep(app_state, other)
    assert not (root / names[0]).exists() and "Removed to make room: “room 0” (" in told(mine)
    assert "goes first" not in told(mine)  # what is left is pinned
    assert "Removed" not in told(other)
    app_state.kept_limits = KeptLimits(1, 1)
    with pytest.raises(NVSError, match="keep a smaller scene"):
        saved_scenes.keep(app_state, other)
    assert "Removed to make room: “room 2”" in told(other)
    for note in root.glob("*.gone"):
        os.utime(note, (1000, 1000))
    assert "Removed" not in told(mine) and not list(root.glob("*.gone"))


def test_two_visitors_bring_the_same_file(app_state: AppState, small_scene: Path, tmp_path: Path) -> None:
    """gradio keeps uploads in folders named after their content: both are given one file, and the second finds it."""
    (tmp_path / ("0a" * 32)).mkdir()
    brought = Path(shutil.make_archive(str(tmp_path / ("0a" * 32) / "brought"), "zip", small_scene))
    encoding = Encoding(app_state)
    for owner in ("a", "b"):
        session = app_state.store.create(owner)
        encoding.receive(session, [brought])
        assert session.source is not None and session.source.available == 6
        app_state.store.end(session, "over")
    assert brought.is_file()
