"""Turns of the rendering thread: fair by time, the newest request counts."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import pytest

from nvs_app.web.scheduler import RenderScheduler


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
    stop = time.monotonic() + 0.4

    def ask(name: str) -> None:
        while time.monotonic() < stop:
            scheduler.run(name, lambda: (time.sleep(0.002), counts.__setitem__(name, counts[name] + 1)))

    threads = [threading.Thread(target=ask, args=(name,)) for name in counts]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert min(counts.values()) > 10 and max(counts.values()) < 1.5 * min(counts.values())


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
    assert counts["small"] > 6 * counts["large"] > 0
    alone = time.monotonic()
    scheduler.run("large:frame", lambda: None)
    scheduler.run("large:frame", lambda: None)
    assert time.monotonic() - alone < 5  # who is alone waits for nobody


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
