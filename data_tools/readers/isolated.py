"""Strangers' files are read in a child process, within limits of memory and time.

    source = isolated(inspect, [upload], folder)      # what inspect returns; NVSError as it raises
    warm()                                            # once, when a server starts: the first call waits less

The readers have limits of their own (bytes, views, entries), which hold wherever they run. What no reader can
foresee, a decoder that asks for ten times the file or never comes to an end, hits the walls of a child process here,
and neither takes the memory of a server nor holds its interpreter. A helper process imports the readers once and
forks a child for each call, which costs milliseconds where a new interpreter with torch would cost seconds.

The command line reads its user's own files in its own process: the readers' limits are the same there, the process
ends with the command, Ctrl-C is at hand, and a helper would add its start, seconds, to each command.

It is a wall against exhaustion and crashes, no sandbox: a child may do what its user may do.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nvs_app.errors import NVSError

T = TypeVar("T")
MIB = 1 << 20
AT_ONCE = 2  # children beside each other; further calls wait
NICENESS = 5  # whoever looks at a scene goes before whoever brings one
STATUS = struct.Struct("<i")
SERVE = "from data_tools.readers.isolated import serve; serve()"


@dataclass(frozen=True)
class ProcessLimits:
    """What one call may use.

    Attributes:
        memory_bytes: beyond what the helper holds already (Linux; elsewhere only time is limited).
        cpu_seconds: of all its threads.
        wall_seconds: of waiting for it; longer, because others may hold the processor.
    """

    memory_bytes: int = 1024 * MIB
    cpu_seconds: int = 60
    wall_seconds: int = 300


def isolated(function: Callable[..., T], *args: Any, limits: ProcessLimits | None = None, what: str = "") -> T:
    """Call ``function(*args)`` in a child process.

    Args:
        function: a function of one of our modules, by its name there; arguments and result can be pickled.
        limits: see :class:`ProcessLimits`.
        what: what an error calls the input.

    Returns:
        What the function returns.

    Raises:
        NVSError: what the function raises; or it used up its memory or time, or ended its process.
    """
    limits = limits or ProcessLimits()
    what = what or "this file"
    if not hasattr(os, "fork"):
        return function(*args)
    request = pickle.dumps((function.__module__, function.__qualname__, args, limits, os.getcwd()))
    with _turns:
        try:
            answer, status = _helper.call(request, limits.wall_seconds)
        except TimeoutError:
            raise NVSError(f"{what}: not read within {limits.wall_seconds} s; send less at once") from None
    if not answer:
        if -status in (signal.SIGXCPU, signal.SIGKILL):
            raise NVSError(f"{what}: reading it takes more than {limits.cpu_seconds} s; send less at once")
        raise NVSError(f"{what}: cannot be read (its decoder ended with {status})")
    kind, value = pickle.loads(answer)
    if kind == "result":
        return value
    if kind == "memory":
        raise NVSError(f"{what}: reading it takes more than {limits.memory_bytes // MIB} MB of memory; send less")
    if kind == "refused":
        raise value
    sys.stderr.write(value)  # ours: the log has where it happened
    raise NVSError(f"{what}: cannot be read ({value.strip().splitlines()[-1].split(':')[0]})")


def warm() -> None:
    """Starts the helper process without waiting for it."""
    if hasattr(os, "fork"):
        _helper.start()


class _Helper:
    """The helper process, from the side of those who call; started when it is first needed, and again if it dies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._process: subprocess.Popen | None = None

    def start(self) -> socket.socket:
        with self._lock:
            if self._process is not None and self._process.poll() is None and self._line is not None:
                return self._line
            if self._line is not None:
                self._line.close()
            self._line, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", SERVE],
                    stdin=theirs.fileno(),  # its end tells the helper that we are gone
                    stdout=subprocess.DEVNULL,
                    cwd=Path(__file__).resolve().parents[2],
                    env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                    start_new_session=True,  # Ctrl-C comes to us
                )
            return self._line

    def call(self, request: bytes, seconds: float | int) -> tuple[bytes, int]:
        """The child's answer, empty where it gave none, and its exit code."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                try:
                    socket.send_fds(self.start(), [b"x"], [theirs.fileno()])
                except OSError as error:
                    raise NVSError("files cannot be read just now; try again") from error
            ours.settimeout(seconds)
            parts = []
            with contextlib.suppress(ConnectionError):
                ours.sendall(struct.pack("<Q", len(request)) + request)
                while part := ours.recv(MIB):
                    parts.append(part)
        whole = b"".join(parts)
        if len(whole) < STATUS.size:
            raise NVSError("files cannot be read just now; try again")
        return whole[: -STATUS.size], STATUS.unpack(whole[-STATUS.size :])[0]


_helper = _Helper()
_turns = threading.BoundedSemaphore(AT_ONCE)


def serve() -> None:
    """The helper process: forks a child for each socket that comes in, until its own line ends."""
    import av  # noqa: F401
    import cv2

    import data_tools.readers  # noqa: F401  # torch and the readers, once

    cv2.setNumThreads(1)
    gc.collect()
    gc.freeze()  # a child that collects would copy every page it looks at
    line = socket.socket(fileno=os.dup(0))
    selector = selectors.DefaultSelector()
    selector.register(line, selectors.EVENT_READ)
    wake, ended = os.pipe()
    os.set_blocking(ended, False)
    signal.set_wakeup_fd(ended)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector.register(wake, selectors.EVENT_READ)
    running: dict[int, socket.socket] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is line:
                _, fds, _, _ = socket.recv_fds(line, 1, 1)
                if not fds:  # whoever started us is gone
                    os.killpg(os.getpgrp(), signal.SIGKILL)
                caller = socket.socket(fileno=fds[0])
                child = _forked(caller)
                if child:
                    running[child] = caller
                    selector.register(caller, selectors.EVENT_READ, child)
            elif key.fileobj == wake:
                os.read(wake, 4096)
            elif key.data in running:  # the caller waits no longer
                with contextlib.suppress(ProcessLookupError):
                    os.kill(key.data, signal.SIGKILL)
                selector.unregister(key.fileobj)
        for child in list(running):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                caller = running.pop(child)
                with contextlib.suppress(KeyError):
                    selector.unregister(caller)
                with caller, contextlib.suppress(OSError):
                    caller.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))


def _forked(caller: socket.socket) -> int:
    """Takes a request and forks the child that answers it; returns its number, 0 where there is no request."""
    try:
        caller.settimeout(10)
        (length,) = struct.unpack("<Q", _exactly(caller, 8))
        module, name, args, limits, cwd = pickle.loads(_exactly(caller, length))
        importlib.import_module(module)  # here, so that the next child has it
    except (OSError, EOFError):
        caller.close()
        return 0
    child = os.fork()
    if child:
        return child
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        os.chdir(cwd)
        _limit(limits)
        answer = _answer(module, name, args)
        caller.settimeout(None)
        caller.sendall(answer)
    finally:
        os._exit(0)


def _answer(module: str, name: str, args: tuple) -> bytes:
    """What the function says, pickled."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return pickle.dumps(("result", found(*args)), protocol=5)
    except NVSError as error:
        return pickle.dumps(("refused", error))
    except MemoryError:
        return pickle.dumps(("memory", None))
    except Exception as error:  # noqa: BLE001  # told to the caller, who has the log
        if "memory" in str(error).lower():  # torch and OpenCV have exceptions of their own for it
            return pickle.dumps(("memory", None))
        return pickle.dumps(("fault", traceback.format_exc()))


def _limit(limits: ProcessLimits) -> None:
    import resource

    for signum in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # no /proc: not Linux
        data = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmData"))
        most = 1024 * int(data.split()[1]) + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _exactly(caller: socket.socket, length: int) -> bytes:
    parts = []
    while length:
        part = caller.recv(min(length, MIB))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
