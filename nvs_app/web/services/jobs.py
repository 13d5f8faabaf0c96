"""Long work for visitors: one piece at a time, in the order asked, with the place in the row, progress and Cancel.

jobs = JobQueue()
job = jobs.submit(lambda job: work(job.report, job.cancelled))
for step in job.follow():        # until it is done; step.position, step.stage, step.fraction, step.words
    ...
result = job.result()            # or raises what the work raised
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any

from data_tools.structure_from_motion.job import Cancelled
from nvs_app.web.scheduler import settle
from nvs_app.web.services.threads import run_in_fresh_thread


@dataclass(frozen=True)
class JobProgress:
    """Where a job stands. position: jobs before it, 0 when it is being worked at; fraction: of the stage."""

    position: int
    stage: str
    fraction: float
    words: str
    seconds: float


class Job:
    """One piece of work; `report` and `cancelled` are for the work, the rest for those who wait."""

    def __init__(self, queue: JobQueue, work: Callable[[Job], Any]):
        self._queue, self._work = queue, work
        self._future: Future = Future()
        self._cancel = threading.Event()
        self._changed = threading.Event()
        self._state = ("", 0.0, "")
        self.created = time.monotonic()

    def report(self, stage: str, fraction: float, words: str = "") -> None:
        """Progress of the work; raises Cancelled when the visitor has asked to stop."""
        self._state = (stage, min(1.0, max(0.0, float(fraction))), words)
        self._changed.set()
        if self._cancel.is_set():
            raise Cancelled("cancelled")

    def cancelled(self) -> bool:
        """Whether the work should stop."""
        return self._cancel.is_set()

    def cancel(self) -> None:
        """Asks to stop: at once where the job still waits, else at the next step of the work."""
        self._cancel.set()
        self._future.cancel()
        self._changed.set()

    @property
    def done(self) -> bool:
        return self._future.done()

    def step(self) -> JobProgress:
        """Where it stands now."""
        return JobProgress(self._queue.position(self), *self._state, time.monotonic() - self.created)

    def follow(self) -> Iterator[JobProgress]:
        """Steps as they come, and as time goes, until the job is done."""
        last: tuple | None = None
        while not self.done:
            step = self.step()
            if (shown := (step.position, step.stage, step.fraction, step.words)) != last:
                last = shown
                yield step
            self._changed.clear()
            self._changed.wait(0.25)
            time.sleep(0.02)

    def result(self) -> Any:
        """What the work returned. Raises what it raised; Cancelled when it was stopped."""
        try:
            return self._future.result()
        except CancelledError as error:
            raise Cancelled("cancelled") from error

    def run(self) -> None:
        """Does the work; called by the queue."""
        settle(self._future, lambda: self._work(self))
        self._changed.set()


class JobQueue:
    """A thread that works off jobs one after the other."""

    def __init__(self, name: str = "jobs") -> None:
        self._row: list[Job] = []  # the first is being worked at
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=name)
        self._thread.start()

    def submit(self, work: Callable[[Job], Any]) -> Job:
        """Puts work at the end of the row."""
        job = Job(self, work)
        with self._changed:
            if self._closed:
                job.cancel()
            else:
                self._row.append(job)
                self._changed.notify()
        return job

    def position(self, job: Job) -> int:
        """How many jobs come before this one."""
        with self._changed:
            alive = [other for other in self._row if other is job or not other.done]
            return alive.index(job) if job in alive else 0

    def close(self) -> None:
        """Cancels everything and ends the thread."""
        with self._changed:
            self._closed = True
            row = list(self._row)
            self._changed.notify()
        for job in row:
            job.cancel()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._row and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._row[0]
            run_in_fresh_thread(job.run)
            with self._changed:
                self._row.remove(job)
