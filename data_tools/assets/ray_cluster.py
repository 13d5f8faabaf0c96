"""The same per-asset function on a Ray cluster: `python -m data_tools objaverse INPUT... OUT --ray ADDRESS`.

ADDRESS: "local" starts a cluster of ``--workers`` processors on this machine; "auto" and "host:port" join one from a
machine of it; "ray://host:10001" from outside. The machines must see INPUT and OUT under the same paths (a shared
folder) and have the project's packages; the project's own code is sent along.

A Ray task hands its asset to a render worker of its own (as in :mod:`data_tools.assets.pool`), which lives as long
as the Ray worker does, so that a crash or a hang in a driver costs one asset and not a Ray worker. Where a Ray worker
or a machine is lost, Ray gives the task to another one; the asset's folder is whole or absent, and the second try finds
it if the first one had finished.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from data_tools.assets.pool import RenderWorker, failure
from data_tools.assets.render_task import DIED, FatalError, RenderTask
from nvs_app.errors import NVSError

EXPECTED = "expected local, auto, host:port or ray://host:port"
RETRIES = 3  # of a task whose Ray worker or machine is lost
_KEPT: dict[tuple[int, int], RenderWorker] = {}  # in a Ray worker: its render worker


def render_task(values: dict[str, Any], timeout: float, token: str) -> dict[str, Any]:
    """What runs in a Ray worker.

    Args:
        values: a :class:`RenderTask` as JSON.
        token: a file in OUT that the driver has written: it proves that OUT is the same folder here.
    """
    task = RenderTask.from_json(values)
    if not os.path.exists(token):
        raise FatalError(
            f"{task.out}: not the same folder on {os.uname().nodename}; OUT must be shared by all machines"
        )
    return render_watched(task, timeout)


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
    tasks: Sequence[RenderTask], image_hw: tuple[int, int], address: str, workers: int, timeout: float, out: Path
) -> Generator[dict[str, Any], None, None]:
    """Render all tasks on Ray; one answer each, in the order in which they are done.

    Raises:
        NVSError: no Ray, no cluster at the address. FatalError: as `run_pool`.
    """
    try:
        import ray
    except ImportError as error:
        raise NVSError("--ray needs the package: pip install ray") from error

    _start(ray, address, workers)
    token = out / f".{uuid.uuid4().hex}.token"
    waiting: dict[Any, RenderTask] = {}
    try:
        token.touch()
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(render_task)
        left = iter(tasks)
        room = 2 * max(1, int(ray.cluster_resources().get("CPU", workers)))
        while True:
            for task in left:
                waiting[remote.remote(task.to_json(), timeout, str(token.resolve()))] = task
                if len(waiting) >= room:
                    break
            if not waiting:
                break
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=1.0)
            for reference in done:
                yield _answer(ray, reference, waiting.pop(reference))
    finally:
        token.unlink(missing_ok=True)
        ray.shutdown()


def _answer(ray: Any, reference: Any, task: RenderTask) -> dict[str, Any]:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, NVSError):
            raise FatalError(str(cause)) from error
        raise
    except ray.exceptions.RayError as error:  # lost more often than RETRIES allows
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:120]
        return failure(task, DIED, f"its Ray worker was lost ({reason})", 0.0)


def _start(ray: Any, address: str, workers: int) -> None:
    """Join or start a cluster."""
    _reach(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    home = Path(__file__).resolve().parents[2]
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": False}
    try:
        if address == "local":
            # Its processes inherit the environment: so they import the code from where it lies. (Ray's own way, a
            # runtime_env, would start every worker twice.)
            before = os.environ.get("PYTHONPATH")
            os.environ["PYTHONPATH"] = os.pathsep.join([str(home), *filter(None, [before])])
            try:
                ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
            finally:
                if before is None:
                    del os.environ["PYTHONPATH"]
                else:
                    os.environ["PYTHONPATH"] = before
        else:
            code = [str(home / "data_tools"), str(home / "nvs_app")]
            ray.init(address=address, runtime_env={"py_modules": code}, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:160]
        raise NVSError(f"--ray {address}: no cluster ({reason}); {EXPECTED}") from error


def _reach(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would go on trying for minutes."""
    import socket

    if address in ("local", "auto"):
        return
    host, _, port = address.removeprefix("ray://").rstrip("/").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NVSError(f"--ray {address}: no cluster there ({reason}); {EXPECTED}") from error
