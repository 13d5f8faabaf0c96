"""One thread renders for everybody: whoever waits is served in turn, and of one visitor's requests the newest counts.

    scheduler = RenderScheduler()
    future = scheduler.submit("visitor", lambda: renderer.render(state, camera))   # replaces what still waits there
    images = scheduler.run("visitor:video", lambda: renderer.render(state, cameras))   # waits for its turn and result

On a CPU two renderings at once only slow each other down; one after the other, each visitor gets the same number
of turns however fast he asks.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any


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


class RenderScheduler:
    """A thread and its lanes. A lane is a name (a visitor, a visitor's video); one request waits in each."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, tuple[Future, Callable[[], Any]]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

        # Not a daemon: a thread that is killed inside a matrix product takes the process down with an abort.
        self._thread = threading.Thread(target=self._serve, name="render scheduler")
        self._thread.start()

    def submit(self, lane: str, work: Callable[[], Any]) -> Future:
        """Asks for a turn. A request that still waits in this lane is cancelled; its place in the row is kept."""
        future: Future = Future()
        with self._changed:
            if self._closed:
                future.cancel()
                return future
            old = self._waiting.get(lane)
            self._waiting[lane] = (future, work)
            self._changed.notify()
        if old is not None:
            old[0].cancel()
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

    def waiting(self) -> int:
        """How many requests wait."""
        with self._changed:
            return len(self._waiting)

    def close(self) -> None:
        """Ends the thread after the request that it is at."""
        with self._changed:
            self._closed = True
            dropped = list(self._waiting.values())
            self._waiting.clear()
            self._changed.notify()
        for future, _ in dropped:
            future.cancel()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                _, (future, work) = self._waiting.popitem(last=False)
            settle(future, work)
            del future, work  # or the last image stays in memory until the next request
