"""Independent things done by functions as tasks of a Ray cluster: assets that are rendered, scenes.

ADDRESS of --ray: "local" starts a cluster on this machine; "auto" and "host:port" join one from a machine of it;
"ray://host:10001" from outside. The machines must see the files under the same paths (a shared folder) and have the
project's packages; the project's own code is sent along. Where a Ray worker or a machine is lost, Ray gives the task to
another one.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

from nvs_app.errors import NVSError, first_line

EXPECTED = "expected local, auto, host:port or ray://host:port"
RETRIES = 3  # of a task whose Ray worker or machine is lost
# Seconds in which a cluster starts, or is joined. A try of Ray's own ends sooner on a busy machine: its parts have 15
# seconds to start in, a node has 30, and no option changes that.
START_PATIENCE, JOIN_PATIENCE = 300.0, 90.0
T = TypeVar("T")


class Lost(NVSError):
    """The Ray worker of a task was lost more often than it is given to another one."""


def on_ray(
    function: Callable[..., Any], tasks: Iterable[tuple[T, tuple]], address: str, workers: int, shared: Path | None,
    gpus: bool = False,
) -> Generator[tuple[T, Any], None, None]:  # fmt: skip
    """Calls `function` with the arguments of each task; (what names the task, answer) in the order in which they end.

    function: of a module, so that it can be found there. workers: processors of a cluster "local". shared: a folder
    that all machines must see. gpus: each task takes a GPU, where the cluster has any.
    The answer is a `Lost` where the task's Ray worker was lost again and again.

    Raises:
        NVSError: no Ray, no cluster at the address; and what a task raises of it.
    """
    try:
        import ray
    except ImportError as error:
        raise NVSError("--ray needs the package: pip install ray") from error

    _start(ray, address, workers)
    token = None if shared is None else shared.resolve() / f".{uuid.uuid4().hex}.token"
    waiting: dict[Any, T] = {}
    try:
        if token is not None:
            token.touch()
        there = ray.cluster_resources()
        cards = there.get("GPU", 0) if gpus else 0
        named = {"num_cpus": 1, "num_gpus": 1 if cards else 0, "max_retries": RETRIES, "name": function.__name__}
        remote = ray.remote(in_worker).options(**named)
        room = 2 * max(1, int(cards or there.get("CPU", workers)))
        left = iter(tasks)
        while True:
            while len(waiting) < room and (task := next(left, None)) is not None:
                waiting[remote.remote(function, token and str(token), *task[1])] = task[0]
            if not waiting:
                break
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=1.0)
            for reference in done:
                yield waiting.pop(reference), _answer(ray, reference)
    finally:
        if token is not None:
            token.unlink(missing_ok=True)
        ray.shutdown()


def in_worker(function: Callable[..., Any], token: str | None, *arguments: Any) -> Any:
    """What runs in a Ray worker. token: a file in the shared folder that the driver has written: it proves that the
    folder is the same here."""
    if token is not None and not os.path.exists(token):
        here = os.uname().nodename
        raise NVSError(f"{os.path.dirname(token)}: not the same folder on {here}; it must be shared by all machines")
    return function(*arguments)


def _answer(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, NVSError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:  # lost more often than RETRIES allows
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:120]
        return Lost(f"its Ray worker was lost ({reason})")


def _start(ray: Any, address: str, workers: int) -> None:
    """Join or start a cluster, with patience."""
    _reach(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    home = Path(__file__).resolve().parents[1]
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": False}
    if address == "local":
        options |= {"num_cpus": workers, "include_dashboard": False}
    else:
        options |= {"runtime_env": {"py_modules": [str(home / "data_tools"), str(home / "nvs_app")]}}
    give_up = time.monotonic() + (START_PATIENCE if address == "local" else JOIN_PATIENCE)
    before = os.environ.get("PYTHONPATH")
    try:
        if address == "local":
            # Its processes inherit the environment: so they import the code from where it lies. (Ray's own way, a
            # runtime_env, would start every worker twice.)
            os.environ["PYTHONPATH"] = os.pathsep.join([str(home), *filter(None, [before])])
        while True:
            try:
                ray.init(address=address, **options)
                return
            except Exception as error:  # a node that does not start in time is a plain one
                ray.shutdown()
                if time.monotonic() >= give_up:
                    raise NVSError(f"--ray {address}: no cluster ({first_line(error, 160)}); {EXPECTED}") from error
                time.sleep(1.0)
    finally:
        if before is not None:
            os.environ["PYTHONPATH"] = before
        else:
            os.environ.pop("PYTHONPATH", None)


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
