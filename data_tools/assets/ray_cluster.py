"""The same per-asset function on a Ray cluster: `python -m data_tools objaverse INPUT... OUT --ray ADDRESS`.

A Ray task hands its asset to a render worker of its own (as in :mod:`data_tools.assets.pool`), which lives as long
as the Ray worker does, so that a crash or a hang in a driver costs one asset and not a Ray worker. The asset's
folder is whole or absent, and the second try finds it if the first one had finished.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from data_tools.assets.pool import RenderWorker, failure
from data_tools.assets.render_task import DIED, RenderTask
from data_tools.ray_tasks import Lost, on_ray

_KEPT: dict[tuple[int, int], RenderWorker] = {}  # in a Ray worker: its render worker


def render_task(values: dict[str, Any], timeout: float) -> dict[str, Any]:
    """What runs in a Ray worker; values: a :class:`RenderTask` as JSON."""
    return render_watched(RenderTask.from_json(values), timeout)


def render_watched(task: RenderTask, timeout: float) -> dict[str, Any]:
    """Render one asset on this process's render worker, replaced when it dies; never hangs, never dies with it."""
    for last in (False, True):
        worker = _KEPT.pop(task.options.image_hw, None) or RenderWorker(task.options.image_hw, os.getpid())
        try:
            answer = _ask(worker, task, timeout, last)
        except BaseException:
            worker.stop()
            raise
        if answer is None or answer["status"] in ("died", "timeout"):
            worker.stop()
        else:
            _KEPT[task.options.image_hw] = worker
        if answer is not None:
            return answer
    raise AssertionError("the last try always answers")


def _ask(worker: RenderWorker, task: RenderTask, timeout: float, last: bool) -> dict[str, Any] | None:
    import selectors
    import time

    with selectors.DefaultSelector() as selector:
        selector.register(worker, selectors.EVENT_READ)
        while True:
            if worker.ready and worker.task is None:
                worker.give(task)
            if selector.select(0.25):
                answers = worker.read()
                if answers is None:
                    ending = worker.ending()
                    return failure(task, DIED, f"{ending}, 2 times", time.monotonic() - worker.since) if last else None
                if answers:
                    return answers[0]
            fault = worker.fault(timeout)
            if fault is not None:
                return failure(task, *fault, time.monotonic() - worker.since)


def run_on_ray(
    tasks: Sequence[RenderTask], address: str, workers: int, timeout: float, out: Path
) -> Generator[dict[str, Any], None, None]:
    """Render all tasks on Ray; one answer each, in the order in which they are done.

    Raises NVSError: no Ray, no cluster at the address, OUT is not the same folder on all its machines.
    """
    arguments = ((task, (task.to_json(), timeout)) for task in tasks)
    with contextlib.closing(on_ray(render_task, arguments, address, workers, out)) as answers:
        for task, answer in answers:
            yield failure(task, DIED, str(answer), 0.0) if isinstance(answer, Lost) else answer
