"""One thread renders for everybody: each visitor gets the same time, and of his requests of a kind the newest counts.

    scheduler = RenderScheduler()
    future = scheduler.submit("visitor:frame", lambda: renderer.render(state, camera))  # replaces what still waits
    images = scheduler.run("visitor:video", lambda: renderer.render(state, cameras))    # waits for its turn and result
    scheduler.drop("visitor:")                                                          # nobody waits for it any more

On a CPU two renderings at once only slow each other down; one after the other, each visitor gets the same time, however
fast he asks and however large his frames are. This is start-time fair queueing (Goyal, Vin, Cheng 1996), with costs as
measured: what a visitor's requests have taken, beyond what others had meanwhile, is his to wait. A request cannot be
interrupted: one that is expected to take long is put off while others, who have had less, come back again and again;
and where one takes long, and `relief` is on, short ones are served beside it, in threads that end with them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any

# Seconds that who has had more waits for the next request of who has had less: a page's way there and back.
GRACE = 0.05
LONG, BESIDE = 0.3, 4  # seconds of a request after which others are served beside it, and how many at once
# A long request of who has had more begins once nobody with less was served for so many seconds, or when it has waited
# so many times as long as it takes: beside visitors who look at each frame it gets a fifth of the time at least.
AWAY, PATIENCE = 1.0, 4


def settle(future: Future, work: Callable[[], Any]) -> None:
    """Runs `work` and puts its result or its exception into the future; a cancelled future is left alone."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  the thread serves others after this; the waiter gets the error
        future.set_exception(error)
    else:
        future.set_result(result)


@dataclass
class _Request:
    future: Future
    work: Callable[[], Any]
    clock: float  # the scheduler's, when it came: who was away has saved nothing up
    since: float  # when it came
    seconds: float | int  # that it is expected to take


class RenderScheduler:
    """A thread and its lanes. A lane is a name "visitor:kind", one request waits in each; a visitor's lanes share his
    time."""

    def __init__(self, relief: bool = False) -> None:
        self._waiting: OrderedDict[str, _Request] = OrderedDict()
        self._used: dict[str, tuple[float, float]] = {}  # of a visitor: seconds on the clock, and when he was served
        self._clock = 0.0  # seconds that each visitor has had who waited all the time
        self._changed = threading.Condition()
        self._closed = False
        # Visitors who are served, each by one thread: since when, and how long it is expected to take.
        self._running: dict[str, tuple[float, float | int]] = {}
        self._beside: list[threading.Thread] = []
        # Not a daemon: a thread that is killed inside a matrix product takes the process down with an abort.
        self._thread = threading.Thread(target=self._serve, name="render scheduler")
        self._thread.start()
        self._relief = threading.Thread(target=self._relieve, name="render scheduler, relief") if relief else None
        if self._relief is not None:
            self._relief.start()

    def submit(self, lane: str, work: Callable[[], Any], seconds: float | int = 0.0) -> Future:
        """Asks for a turn. A request that still waits in this lane is cancelled; its place in the row is kept.

        seconds: that the work is expected to take; 0: no longer than others'."""
        future: Future = Future()
        with self._changed:
            if self._closed:
                future.cancel()
                return future
            old = self._waiting.get(lane)
            place = (self._clock, time.monotonic()) if old is None else (old.clock, old.since)
            self._waiting[lane] = _Request(future, work, *place, seconds)
            self._changed.notify_all()
        if old is not None:
            old.future.cancel()
        return future

    def run(self, lane: str, work: Callable[[], Any]) -> Any:
        """`submit`, and the result. Raises what `work` raises, or CancelledError when the lane is taken over."""
        return self.submit(lane, work).result()

    @contextlib.contextmanager
    def turn(self, lane: str) -> Iterator[None]:
        """The caller's own turn to render: `with scheduler.turn("visitor:video"): ...` Others wait until it is left.

        Raises CancelledError when another request takes the lane over, or the scheduler is closed."""
        granted, left = threading.Event(), threading.Event()

        def hold() -> None:
            granted.set()
            left.wait()

        future = self.submit(lane, hold)
        while not granted.wait(0.2):
            if future.cancelled():
                raise CancelledError
        try:
            yield
        finally:
            left.set()

    def drop(self, prefix: str) -> None:
        """Cancels what waits in the lanes whose names begin like this."""
        with self._changed:
            lanes = [lane for lane in self._waiting if lane.startswith(prefix)]
            dropped = [self._waiting.pop(lane) for lane in lanes]
        for request in dropped:
            request.future.cancel()

    def waiting(self) -> int:
        """How many requests wait."""
        with self._changed:
            return len(self._waiting)

    def close(self) -> None:
        """Ends the thread after the request that it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.drop("")
        self._thread.join()
        if self._relief is not None:
            self._relief.join()
        for thread in self._beside:
            thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (lane := self._next()) is None:
                    self._changed.wait(GRACE if self._waiting else None)
                if self._closed:
                    return
                assert lane is not None
                begin, request = self._take(lane)
            self._do(lane, begin, request)
            del request  # or the last image stays in memory until the next request

    def _relieve(self) -> None:
        with self._changed:
            while not self._closed:
                self._beside = [thread for thread in self._beside if thread.is_alive()]
                lane = self._beside_lane()
                if lane is None:
                    self._changed.wait(LONG / 5 if self._running and self._waiting else None)
                    continue
                thread = threading.Thread(target=self._do, args=(lane, *self._take(lane)), name="beside a long request")
                self._beside.append(thread)
                thread.start()
                del thread

    def _take(self, lane: str) -> tuple[float, _Request]:
        begin, request = self._begin(lane), self._waiting.pop(lane)
        self._clock = max(self._clock, begin)
        self._running[_visitor(lane)] = (time.monotonic(), request.seconds)
        self._changed.notify_all()
        return begin, request

    def _do(self, lane: str, begin: float, request: _Request) -> None:
        settle(request.future, request.work)
        with self._changed:
            end = time.monotonic()
            self._used[_visitor(lane)] = (begin + end - self._running.pop(_visitor(lane))[0], end)
            here = {*map(_visitor, self._waiting), *self._running}
            self._used = {
                visitor: (used, at)
                for visitor, (used, at) in self._used.items()
                if used > self._clock or visitor in here or end - at < AWAY
            }
            self._changed.notify_all()

    def _beside_lane(self) -> str | None:
        """A lane to be served beside those that take long; None where nobody waits or one of them may end soon."""
        if not self._running or len(self._running) >= BESIDE or (lane := self._next()) is None:
            return None
        seconds, now = self._waiting[lane].seconds, time.monotonic()
        for at, expected in self._running.values():
            # Alike in length they wait for each other, as two at once take twice as long; not for what takes too long.
            if now - at < (LONG if expected > 4 * seconds else max(LONG, 2 * expected)):
                return None
        return lane

    def _begin(self, lane: str) -> float:
        """When on the clock a lane's request begins: after what its visitor has had."""
        return max(self._waiting[lane].clock, self._used.get(_visitor(lane), (0.0, 0.0))[0])

    def _next(self) -> str | None:
        """The lane whose turn it is: that which begins first on the clock, of those whose visitors are not served just
        now and that nobody holds back; None where there is none."""
        lanes = [lane for lane in self._waiting if _visitor(lane) not in self._running]
        return next((lane for lane in sorted(lanes, key=self._begin) if not self._held_back(lane)), None)

    def _held_back(self, lane: str) -> bool:
        """Whether its visitor has had far more than one who was served just now and may ask again at once."""
        request, begin, now = self._waiting[lane], self._begin(lane), time.monotonic()
        put_off = request.seconds > LONG and now - request.since < PATIENCE * request.seconds
        window = AWAY if put_off else GRACE
        return any(
            visitor != _visitor(lane) and used < begin - GRACE and now - at < window
            for visitor, (used, at) in self._used.items()
        )


def _visitor(lane: str) -> str:
    return lane.partition(":")[0]
