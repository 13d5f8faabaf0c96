"""Visitors, jobs and encoded scenes, without a server."""

from __future__ import annotations

import ctypes
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_tools.structure_from_motion.job import Cancelled
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at, vertical_fov
from nvs_app.rendering.cost import context_bytes
from nvs_app.web.app_state import AppState
from nvs_app.web.protocol import EndedMessage, Message, NoticeMessage
from nvs_app.web.services.jobs import JobQueue
from nvs_app.web.services.machine import trim_memory
from nvs_app.web.services.opening import find_examples
from nvs_app.web.services.states import StateCache, state_bytes
from nvs_app.web.services.viewpoint import Viewpoint, camera_for_page, camera_from_page
from nvs_app.web.sessions import SessionLimits, SessionStore, temporary_root


def test_jobs_wait_in_a_row_and_can_be_cancelled() -> None:
    queue, gate, begun = JobQueue(), threading.Event(), threading.Event()
    try:

        def long(job) -> str:
            begun.set()
            while not gate.wait(0.01):
                job.report("stage", 0.5, "words")
            return "done"

        first, second, third = queue.submit(long), queue.submit(lambda job: 2), queue.submit(lambda job: 3)
        assert begun.wait(10)
        assert [job.step().position for job in (first, second, third)] == [0, 1, 2]
        second.cancel()
        assert third.step().position == 1
        time.sleep(0.05)
        assert first.step().stage == "stage" and first.step().fraction == 0.5
        first.cancel()
        for job in (first, second):
            with pytest.raises(Cancelled):
                job.result()
        assert third.result() == 3  # the next one is not hurt
        broken = queue.submit(lambda job: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            broken.result()
        gate.set()
        assert queue.submit(long).result() == "done"
    finally:
        gate.set()
        queue.close()


def test_visits_are_separate_and_end(tmp_path: Path) -> None:
    ended = []
    store = SessionStore(tmp_path, SessionLimits(sessions=2, idle_seconds=100, away_seconds=50), ended.append)
    alice, _ = store.create("alice"), store.create("bob")
    assert store.find(alice.token, "alice") is alice
    assert store.find(alice.token, "bob") is None and store.find("", "bob") is None and store.find(None, "bob") is None
    page = store.of_page("page", "alice")
    assert store.of_page("page", "alice") is page and page is not alice
    store.end(page, "over")
    assert alice.token not in str(alice.folder) and len(alice.token) >= 32

    heard: list[Message] = []
    store = SessionStore(tmp_path / "more", SessionLimits(sessions=2, idle_seconds=100, away_seconds=50), ended.append)
    there, away = store.create("a"), store.create("b")
    there.listen(heard.append)
    (away.folder / "photo.jpg").write_bytes(b"0" * 100)
    third = store.create("c")  # full: the one whose page is closed gives way
    assert store.find(away.token, "b") is None and not away.folder.exists() and away in ended
    third.listen(heard.append)
    with pytest.raises(NVSError, match="All 2 places are taken"):
        store.create("d")
    there.active -= 101
    store.sweep()
    assert store.find(there.token, "a") is None and store.find(third.token, "c") is third
    assert isinstance(heard[-1], EndedMessage) and "nothing happened" in heard[-1].message


def test_a_pages_name_opens_nothing_for_others(tmp_path: Path) -> None:
    """gradio's own name of a page can be learned; it is bound to who came first with it, as long as the visit lasts."""
    store = SessionStore(tmp_path)
    hers = store.of_page("page", "alice")
    for _ in range(2):
        with pytest.raises(NVSError, match="belongs to another visit"):
            store.of_page("page", "bob")
    assert store.of_page("page", "alice") is hers
    kept = store.create("alice")
    store.bind("page", kept)
    with pytest.raises(NVSError, match="belongs to another visit"):
        store.of_page("page", "bob")
    assert store.of_page("page", "alice") is kept
    store.end(kept, "over")
    assert store.of_page("page", "bob").owner == "bob"


class Work:
    """A job that is under way."""

    done = False

    def cancel(self) -> None:
        raise AssertionError("it was cancelled")


@pytest.mark.parametrize("kind", ["job", "video"])
def test_visits_whose_work_is_under_way_are_not_pushed_out(tmp_path: Path, kind: str) -> None:
    store = SessionStore(tmp_path, SessionLimits(sessions=2, away_seconds=1, idle_seconds=2))
    busy, other = store.create("a"), store.create("b")
    setattr(busy, kind, Work())
    busy.away_since = other.away_since - 100
    store.create("c")  # in place of the other, which has been away for less long
    assert store.find(busy.token, "a") is busy and store.find(other.token, "b") is None
    busy.active -= 1000
    store.sweep()
    assert store.find(busy.token, "a") is busy


def test_an_address_has_so_many_visits(tmp_path: Path) -> None:
    """Visits without end from one address push out their own, and nobody else's."""
    store = SessionStore(tmp_path, SessionLimits(sessions=10, address_sessions=3))
    mine = [store.create("me", "10.0.0.1") for _ in range(4)]
    others = [store.create(f"other {number}", "10.0.0.2") for number in range(20)]
    assert [store.find(session.token, "me") is session for session in mine] == [False, True, True, True]
    assert sum(store.find(session.token, session.owner) is session for session in others) == 3
    for session in mine[1:]:
        session.listen(lambda message: None)
    with pytest.raises(NVSError, match="3 visits from your address already"):
        store.create("me", "10.0.0.1")
    assert store.create("third", "10.0.0.3") and len([store.create("x") for _ in range(3)]) == 3  # unknown: no limit


def test_a_visit_keeps_within_its_bytes(tmp_path: Path) -> None:
    session = SessionStore(tmp_path, SessionLimits(session_bytes=1000)).create("a")
    session.room("upload", 900)
    (session.new_folder("upload") / "x").write_bytes(b"0" * 500)
    with pytest.raises(NVSError, match="upload: this visit may keep"):
        session.room("upload", 501)


def test_a_second_tab_takes_over(tmp_path: Path) -> None:
    session = SessionStore(tmp_path).create("a")
    first: list[Message] = []
    second: list[Message] = []
    session.listen(first.append)
    leave = session.listen(second.append)
    session.tell(NoticeMessage("x"))
    assert isinstance(first[-1], EndedMessage) and second == [NoticeMessage("x")] and session.away_since is None
    leave()
    assert session.away_since is not None


def test_temporary_folders_of_the_dead_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "nvs-web-999999999-x").mkdir()
    mine = temporary_root()
    assert temporary_root() != mine and mine.is_dir() and not (tmp_path / "nvs-web-999999999-x").exists()


def test_states_go_to_disk_and_come_back(app_state: AppState, small_scene: Path, tmp_path: Path) -> None:
    state = app_state.state(app_state.example("small scene"))
    cache = StateCache(tmp_path, max_bytes=state_bytes(state) + 1)
    cache.put("a", state)
    cache.put("b", state)
    assert cache.bytes_held() <= state_bytes(state) + 1 and len(list(tmp_path.iterdir())) == 1
    back = cache.get("a")
    assert torch.equal(back.fast_weights[0].w1, state.fast_weights[0].w1) and back.meta == state.meta
    cache.drop("a")
    cache.drop("b")
    assert not list(tmp_path.iterdir())
    with pytest.raises(NVSError, match="gone"):
        cache.get("a")


def test_a_state_that_cannot_be_written_is_not_lost(app_state: AppState, tmp_path: Path, capfd) -> None:
    state = app_state.state(app_state.example("small scene"))
    (tmp_path / "states").write_text("no folder: nothing can be written below it")
    cache = StateCache(tmp_path / "states", max_bytes=state_bytes(state) + 1)
    for key in "abc":
        cache.put(key, state)
    assert cache.get("a") is state and cache.get("b") is state and cache.get("c") is state
    assert "an encoded scene stays in memory" in capfd.readouterr().err
    (tmp_path / "states").unlink()
    cache.put("d", state)  # there is room again
    assert cache.bytes_held() <= state_bytes(state) + 1 and len(list((tmp_path / "states").iterdir())) == 3
    assert torch.equal(cache.get("b").fast_weights[0].w1, state.fast_weights[0].w1)


def test_an_example_whose_file_has_gone_is_encoded_again(app_state: AppState) -> None:
    opened = app_state.example("small scene")
    app_state.states.max_bytes = 1
    app_state.states.put("another", app_state.state(opened))
    (spilled,) = app_state.states.folder.iterdir()
    spilled.write_bytes(b"broken")
    with pytest.raises(NVSError, match="gone; encode it again"):
        app_state.state(opened)
    again = app_state.example("small scene")
    assert again is not opened and app_state.frame(again, again.cameras[:1]).image.shape == (3, 64, 64)
    app_state.states.put("another", app_state.state(again))
    for file in app_state.states.folder.iterdir():
        file.unlink()
    assert app_state.example("small scene") is not again


def test_examples_are_shared_and_stay(app_state: AppState) -> None:
    opened = app_state.example("small scene")
    assert app_state.example("small scene") is opened
    a, b = app_state.store.create("a"), app_state.store.create("b")
    app_state.show(a, opened)
    app_state.show(b, opened)
    app_state.store.end(a, "over")
    assert app_state.frame(b.scene, b.scene.cameras[:1]).image.shape == (3, 64, 64)
    with pytest.raises(NVSError, match="example 'other'"):
        app_state.example("other")
    with pytest.raises(NVSError, match="not a name"):
        app_state.renderer("../checkpoints/tiny")


def test_memory_goes_back_when_visits_have_ended(app_state: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a visit's images and scene took is free, but glibc keeps it until it is asked."""
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("not glibc")
    trimmed = threading.Event()

    def trim() -> None:
        trim_memory()
        trimmed.set()

    monkeypatch.setattr("nvs_app.web.app_state.trim_memory", trim)
    limits = SessionLimits(idle_seconds=1.0)
    other = AppState(app_state.renderer(), {}, limits=limits)
    try:
        assert not trimmed.wait(0.3)  # while nothing has ended there is nothing to give back
        session = other.store.create("a")
        session.memory["images"] = b"0"
        assert trimmed.wait(10) and not session.memory and session.ended
    finally:
        other.close()


def capture(count: int = 12, up: tuple = (0.0, 0.0, 1.0)) -> Cameras:
    azimuth = torch.linspace(0, 2 * torch.pi, count + 1)[:count]
    z = torch.tensor(up)
    x = torch.linalg.cross(torch.tensor([0.3, 0.5, 0.1]), z)
    x = x / x.norm()
    local = torch.stack((azimuth.cos() * 0.9, azimuth.sin() * 0.9, torch.full((count,), 0.43)), -1)
    eye = 4 * local @ torch.stack((x, torch.linalg.cross(z, x), z)) + torch.tensor([1.0, 2.0, 3.0])
    c2w = look_at(eye, torch.tensor([1.0, 2.0, 3.0]).expand(count, 3), z.expand(count, 3))
    return Cameras(c2w, torch.tensor([50.0, 50.0, 32.0, 32.0]).expand(count, 4), (64, 64))


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (0.6, 0.0, 0.8)])
def test_the_first_look_is_one_of_the_captures(up: tuple) -> None:
    cameras = capture(up=up)
    first = Viewpoint.of(cameras)
    assert torch.allclose(first.focus.float(), torch.tensor([1.0, 2.0, 3.0]), atol=0.05)
    assert torch.allclose(first.up.float(), torch.tensor(up), atol=0.02) and first.radius == pytest.approx(4, rel=0.02)
    assert (cameras.c2w - first.c2w).flatten(1).norm(dim=1).min() < 0.05


def test_cameras_come_and_go_exactly() -> None:
    camera = capture()[2:3]
    page = camera_for_page(camera)
    back = camera_from_page({**page, "hw": [64, 64]}, 1024)
    assert torch.allclose(back.c2w, camera.c2w.double(), atol=1e-6)
    assert torch.allclose(back.fxfycxcy, camera.fxfycxcy, rtol=1e-5)
    wide = camera_from_page({**page, "hw": [48, 96]}, 1024)
    assert torch.allclose(vertical_fov(wide), vertical_fov(camera)) and wide.fxfycxcy[0, 2:].tolist() == [48, 24]


@pytest.mark.parametrize(
    "wrong",
    [
        {"c2w": [0.0] * 16}, {"c2w": [1.0] * 12}, {"c2w": "x"}, {"c2w": [float("nan")] * 16}, {"c2w": [True] * 16},
        {"fov": 0}, {"fov": None}, {"fov": float("inf")}, {"hw": [8, 64]}, {"hw": [64, 5000]}, {"hw": [64.5, 64]},
        {"hw": None}, {"c2w": None},
    ],
)  # fmt: skip
def test_wrong_cameras_are_refused(wrong: dict) -> None:
    page = {**camera_for_page(capture()[:1]), "hw": [64, 64]}
    with pytest.raises(NVSError, match="camera: "):
        camera_from_page({**page, **wrong}, 1024)


def test_examples_are_found(small_scene: Path, tmp_path: Path) -> None:
    (tmp_path / "examples" / "b_room").mkdir(parents=True)
    (tmp_path / "examples" / "b_room" / "transforms.json").write_text("{}")
    (tmp_path / "examples" / "notes").mkdir()
    found = find_examples(tmp_path / "examples", [small_scene])
    assert list(found.values()) == [small_scene, tmp_path / "examples" / "b_room"]
    assert list(found)[1] == "b room"
    assert find_examples(tmp_path / "absent") == {}


def test_a_checkpoint_without_a_detail_head_says_so(app_state: AppState) -> None:
    opened = app_state.example("small scene")
    assert "no detail head" in opened.for_viewer()["no_depth"]
    with pytest.raises(NVSError, match="no detail head"):
        app_state.frame(opened, opened.cameras[:1], "depth")


def test_what_a_head_looks_at_counts_as_memory(headed_hub: AppState) -> None:
    state = headed_hub.state(headed_hub.example("small scene"))
    assert state.context is not None
    views, (height, width) = 3, state.context.cameras.image_hw
    kept = context_bytes(headed_hub.renderer(), views, (height, width))
    assert kept == views * (3 * height * width + 2 * 10 * (height // 4) * (width // 4))
    assert state_bytes(state) == state_bytes(replace(state, context=None)) + kept
