"""Turns of the rendering thread: fair by time, the newest request counts."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from nvs_app.web.scheduler import AWAY, LONG, PATIENCE, RenderScheduler


@pytest.fixture
def scheduler():
    scheduler = RenderScheduler()
    yield scheduler
    scheduler.close()


def held(scheduler: RenderScheduler) -> tuple[threading.Event, Future]:
    """Keeps the thread busy until the event is set."""
    gate, begun = threading.Event(), threading.Event()
    future = scheduler.submit("holder", lambda: (begun.set(), gate.wait(10)))
    assert begun.wait(10)
    return gate, future


def test_turns_are_fair_and_the_newest_counts(scheduler: RenderScheduler) -> None:
    gate, _ = held(scheduler)
    order: list[str] = []
    greedy = [scheduler.submit("greedy", lambda i=i: order.append(f"greedy {i}")) for i in range(5)]
    modest = scheduler.submit("modest", lambda: order.append("modest"))
    again = scheduler.submit("greedy", lambda: order.append("greedy last"))
    gate.set()
    again.result(10), modest.result(10)
    assert order == ["greedy last", "modest"]  # in the row of arrival, and of each the newest
    assert all(future.cancelled() for future in greedy)


def test_two_visitors_that_ask_without_end_get_the_same(scheduler: RenderScheduler) -> None:
    counts = {"a": 0, "b": 0}

    def ask(name: str) -> None:
        while sum(counts.values()) < 150:
            scheduler.run(name, lambda: (time.sleep(0.002), counts.__setitem__(name, counts[name] + 1)))

    threads = [threading.Thread(target=ask, args=(name,)) for name in counts]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert max(counts.values()) < 1.5 * min(counts.values())


def test_large_frames_do_not_starve_small_ones(scheduler: RenderScheduler) -> None:
    """Turns are by time: who asks for frames that take thirty times as long gets the fewer."""
    seconds = {"large": 0.0, "small": 0.0}
    counts = {"large": 0, "small": 0}
    stop = time.monotonic() + 1.5

    def ask(name: str, cost: float, think: float) -> None:
        def work() -> None:
            time.sleep(cost)
            seconds[name] += cost
            counts[name] += 1

        while time.monotonic() < stop:
            scheduler.run(f"{name}:frame", work)
            time.sleep(think)  # a page's way there and back

    threads = [threading.Thread(target=ask, args=each) for each in (("large", 0.09, 0.0), ("small", 0.003, 0.003))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert counts["small"] > 3 * counts["large"] > 0  # one for one without turns by time
    scheduler.run("large:frame", lambda: None)  # who is alone waits for nobody
    scheduler.run("large:frame", lambda: None)


def test_a_long_request_is_put_off_while_others_who_had_less_come_back(
    scheduler: RenderScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody else waits at the moment; his short ones are not, and the long one has its turn in the end."""
    clock = [1000.0]
    monkeypatch.setattr("nvs_app.web.scheduler.time", SimpleNamespace(monotonic=lambda: clock[0]))
    step = lambda seconds: lambda: clock.__setitem__(0, clock[0] + seconds)  # noqa: E731
    scheduler.run("calm:frame", step(0.1))
    scheduler.run("large:frame", step(5.0))
    scheduler.run("calm:frame", step(0.1))
    since, long = clock[0], scheduler.submit("large:frame", step(5.0), 5.0)
    for _ in range(20):
        clock[0] += 0.5  # looks at the frame
        scheduler.run("calm:frame", step(0.1))
        assert scheduler.waiting() == 1
    clock[0] += 0.1  # beyond a page's way there and back
    scheduler.submit("large:small", step(0.1), 0.1).result(10)
    assert not long.done()
    clock[0] += AWAY  # the other one has gone
    assert long.result(10) is None and clock[0] - since < PATIENCE * 5.0 + 5.0


def test_a_long_request_waits_a_few_times_as_long_as_it_takes_at_most(
    scheduler: RenderScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, frames = [1000.0], 0
    monkeypatch.setattr("nvs_app.web.scheduler.time", SimpleNamespace(monotonic=lambda: clock[0]))
    step = lambda seconds: lambda: clock.__setitem__(0, clock[0] + seconds)  # noqa: E731
    scheduler.run("large:frame", step(50.0))
    scheduler.run("calm:frame", step(0.1))
    since = clock[0]
    long = scheduler.submit("large:frame", lambda: clock[0], 2.0)
    while not long.done() and frames < 50:
        clock[0] += 0.3
        scheduler.run("calm:frame", step(0.1))
        clock[0] += 0.06
        if clock[0] - since > 2.0 * PATIENCE:
            break
        frames += 1
    assert long.result(10) - since >= 2.0 * PATIENCE and frames > 10
    one, other = (scheduler.submit(f"{name}:frame", lambda: None, 2.0) for name in ("calm", "new"))
    assert one.result(10) is None and other.result(10) is None  # who has had no more than others is not put off


def test_others_are_served_beside_a_request_that_takes_long() -> None:
    scheduler, gates = RenderScheduler(relief=True), [threading.Event() for _ in range(3)]
    try:
        long = [
            scheduler.submit(f"long {number}:frame", lambda g=gate: g.wait(30)) for number, gate in enumerate(gates)
        ]
        more = scheduler.submit("long 0:video", lambda: "in its turn")
        for number in range(20):
            assert scheduler.submit("short:frame", lambda n=number: n).result(10) == number
        assert not any(future.done() for future in (*long, more))  # a visitor gets one thread
        gates[1].set()
        assert long[1].result(10) and not more.done()
        gates[0].set()
        assert more.result(10) == "in its turn"
    finally:
        [gate.set() for gate in gates]
        scheduler.close()
    assert all(future.done() for future in long)


def test_beside_a_long_request_the_short_ones_wait_for_each_other() -> None:
    """On a slow machine none is over in a moment; all of them at once would only slow each other down."""
    scheduler, gates, begun = RenderScheduler(relief=True), [threading.Event() for _ in range(2)], []
    try:
        long = scheduler.submit("long:frame", lambda: gates[0].wait(30), 20.0)
        first = scheduler.submit("one:frame", lambda: (begun.append("one"), gates[1].wait(30)), 1.0)
        second = scheduler.submit("two:frame", lambda: begun.append("two"), 1.0)
        time.sleep(2 * LONG + 0.3)
        assert begun == ["one"] and not long.done()
        gates[1].set()
        assert first.result(10) and second.result(10) is None and begun == ["one", "two"] and not long.done()
    finally:
        [gate.set() for gate in gates]
        scheduler.close()


def test_a_visitor_is_served_by_one_thread_at_a_time() -> None:
    """Also where the thread of all is free while one beside it serves him."""
    scheduler, gates = RenderScheduler(relief=True), [threading.Event() for _ in range(2)]
    try:
        long = scheduler.submit("long:frame", lambda: gates[0].wait(30))
        begun, together = threading.Event(), []
        beside = scheduler.submit("other:frame", lambda: (begun.set(), gates[1].wait(30)))
        assert begun.wait(10)  # beside the long one
        again = scheduler.submit("other:frame", lambda: together.append(not beside.done()))
        gates[0].set()
        assert long.result(10) and scheduler.run("third:frame", lambda: 3) == 3 and not again.done()
        gates[1].set()
        assert beside.result(10) and again.result(10) is None and together == [False]
        assert [scheduler.run("other:frame", lambda: 1), scheduler.run("long:frame", lambda: 2)] == [1, 2]
    finally:
        [gate.set() for gate in gates]
        scheduler.close()


def test_lanes_of_a_visitor_share_his_time_and_go_with_him(scheduler: RenderScheduler) -> None:
    gate, _ = held(scheduler)
    order: list[str] = []
    pause = lambda name: lambda: (time.sleep(0.03), order.append(name))  # noqa: E731
    [scheduler.submit(f"many:{kind}", pause("many")) for kind in range(4)]
    gone = [scheduler.submit(f"gone:1:{kind}", pause("gone")) for kind in range(3)]
    one = scheduler.submit("one:frame", pause("one"))
    kept = scheduler.submit("gone:2:frame", pause("kept"))
    scheduler.drop("gone:1")
    gate.set()
    one.result(10), kept.result(10)
    assert order[:3] == ["many", "one", "kept"] and all(future.cancelled() for future in gone)


def test_a_turn_excludes_others_and_errors_do_not_stay(scheduler: RenderScheduler) -> None:
    with scheduler.turn("video"):
        waiting = scheduler.submit("a", lambda: 7)
        assert not waiting.done() and scheduler.waiting() == 1
    assert waiting.result(10) == 7
    with pytest.raises(ZeroDivisionError):
        scheduler.run("a", lambda: 1 / 0)
    assert scheduler.run("a", lambda: 8) == 8
