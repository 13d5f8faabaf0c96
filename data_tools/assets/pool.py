"""Worker processes that render assets: watched, timed, and replaced when they die.

    for answer in run_pool(tasks, workers=4, timeout=120.0):
        ...

A worker that dies (a crashed driver, the system's memory killer) is replaced and its asset tried once more on the new
one; a second death fails the asset. An asset that takes longer than ``timeout`` or more memory than ``max_memory``
fails at once. Answers come in the order in which assets are done.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

from data_tools.assets.render_task import DIED, TIMEOUT, FatalError, RenderTask
from data_tools.assets.renderer import thread_environment

START_SECONDS = 120.0
MAX_MEMORY = 16 << 30  # of one worker
RECYCLE = 1000  # assets, after which a worker is replaced: drivers leak
TRIES = 2


class RenderWorker:
    """One render worker process; not safe for threads."""

    def __init__(self, image_hw: tuple[int, int], device: int = 0, share: int = 1) -> None:
        """
        Args:
            device: number of the GPU, counted round.
            share: how many workers share the machine's cores.
        """
        settings = json.dumps({"image_hw": list(image_hw), "device": device})
        home = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "data_tools.assets.worker", settings, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **thread_environment(share), "PYTHONPATH": path},
        )
        self.buffer = b""
        self.task: RenderTask | None = None
        self.ready = False
        self.name = ""
        self.done = 0
        self.since = time.monotonic()

    def fileno(self) -> int:
        """Of its answers, for selectors."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def give(self, task: RenderTask) -> None:
        """Hand over a task."""
        self.task, self.since = task, time.monotonic()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; reading its answer will tell
            self.process.stdin.write(json.dumps(task.to_json()).encode() + b"\n")
            self.process.stdin.flush()

    def read(self) -> list[dict[str, Any]] | None:
        """Answers that have come, to be called when there is something to read; None when the process is gone.

        Raises:
            FatalError: the worker cannot render or write anything.
        """
        data = os.read(self.fileno(), 1 << 20)
        if not data:
            return None
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        answers = []
        for line in lines:
            values = json.loads(line)
            if "fatal" in values:
                raise FatalError(values["fatal"])
            if "ready" in values:
                self.ready, self.name, self.since = True, values["ready"], time.monotonic()
            else:
                answers.append(values)
                self.done += 1
                self.task = None
        return answers

    def memory(self) -> int:
        """Resident bytes, 0 where the system does not tell."""
        try:
            pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return 0

    def fault(self, timeout: float, max_memory: int = MAX_MEMORY) -> tuple[str, str] | None:
        """(status, what to say) where its asset takes too long or too much memory."""
        spent = time.monotonic() - self.since
        if self.task is not None and self.ready:
            if spent > timeout:
                return TIMEOUT, f"took longer than {timeout:g} s"
            used = self.memory()
            if used > max_memory:
                return DIED, f"took more than {max_memory / 2**30:.1f} GiB of memory"
        elif not self.ready and spent > START_SECONDS:
            raise FatalError(f"a render worker did not start within {START_SECONDS:g} s")
        return None

    def ending(self) -> str:
        """How the process ended, after :meth:`read` gave None."""
        code = self.process.wait()
        return f"the renderer died ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"

    def stop(self) -> None:
        """Kill it and wait for its end."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def failure(task: RenderTask, status: str, error: str, seconds: float) -> dict[str, Any]:
    """The answer for an asset whose worker could not give one."""
    return {"asset": task.key, "scene": task.name, "status": status, "views": 0, "error": error,
            "seconds": round(seconds, 3)}  # fmt: skip


def run_pool(
    tasks: Iterable[RenderTask],
    image_hw: tuple[int, int],
    workers: int,
    timeout: float,
    max_memory: int = MAX_MEMORY,
) -> Generator[dict[str, Any], None, None]:
    """Render all tasks; one answer each, as the module says. Closing the generator kills the workers.

    Raises:
        FatalError: nothing can be rendered or written.
    """
    pool = _Pool(image_hw, workers, timeout, max_memory)
    try:
        yield from pool.run(iter(tasks))
    finally:
        pool.stop()


class _Pool:
    def __init__(self, image_hw: tuple[int, int], workers: int, timeout: float, max_memory: int) -> None:
        self.image_hw, self.workers, self.timeout, self.max_memory = image_hw, workers, timeout, max_memory
        self.selector = selectors.DefaultSelector()
        self.alive: list[RenderWorker] = []
        self.again: deque[RenderTask] = deque()
        self.deaths: dict[str, int] = {}
        self.idle_deaths = 0

    def run(self, tasks: Iterator[RenderTask]) -> Iterator[dict[str, Any]]:
        waiting = next(tasks, None)
        devices = 0
        while waiting is not None or self.again or self.alive:
            more = waiting is not None or bool(self.again)
            while more and len(self.alive) < self.workers:
                worker = RenderWorker(self.image_hw, devices, self.workers)
                devices += 1
                self.alive.append(worker)
                self.selector.register(worker, selectors.EVENT_READ)
            for worker in list(self.alive):
                if worker.ready and worker.task is None:
                    if self.again:
                        worker.give(self.again.popleft())
                    elif waiting is not None and worker.done < RECYCLE:
                        worker.give(waiting)
                        waiting = next(tasks, None)
                    else:
                        self.remove(worker)
                elif not worker.ready and waiting is None and not self.again:
                    self.remove(worker)
            for key, _ in self.selector.select(0.25):
                yield from self.heard(key.fileobj)
            for worker in list(self.alive):
                yield from self.watch(worker)

    def heard(self, worker: Any) -> Iterator[dict[str, Any]]:
        answers = worker.read()
        if answers is not None:
            self.idle_deaths = 0
            yield from answers
            return
        task, spent, ending = worker.task, time.monotonic() - worker.since, worker.ending()
        self.remove(worker)
        if task is None:
            self.idle_deaths += 1
            if self.idle_deaths > 3:
                raise FatalError(f"{ending} before it had anything to render, {self.idle_deaths} times")
            return
        self.deaths[task.key] = self.deaths.get(task.key, 0) + 1
        if self.deaths[task.key] < TRIES:
            self.again.append(task)
        else:
            yield failure(task, DIED, f"{ending}, {TRIES} times", spent)

    def watch(self, worker: RenderWorker) -> Iterator[dict[str, Any]]:
        if worker not in self.alive:
            return
        fault = worker.fault(self.timeout, self.max_memory)
        if fault is not None:
            assert worker.task is not None
            yield failure(worker.task, *fault, time.monotonic() - worker.since)
            self.remove(worker)

    def remove(self, worker: RenderWorker) -> None:
        self.selector.unregister(worker)
        self.alive.remove(worker)
        worker.stop()

    def stop(self) -> None:
        for worker in self.alive:
            worker.process.kill()
        for worker in list(self.alive):
            self.remove(worker)
        self.selector.close()
