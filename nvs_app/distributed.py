"""Several processes of one run: start, all-reduce, and a small channel for decisions and results.

One process a device, NCCL on CUDA and gloo on CPUs, with torchrun's environment variables (RANK, LOCAL_RANK,
WORLD_SIZE, MASTER_ADDR, MASTER_PORT), so several machines work. Without torchrun, `processes` starts the other
processes of this machine itself.

Gradients lie in one flat buffer (`optim.FlatParameters`), so averaging them is one all-reduce after the backward
pass: 33 million parameters take about a millisecond over NVLink, less than the bookkeeping of overlapping it.
Decisions (stop, evaluate, save, progress) go through the rendezvous store and never touch the device.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nvs_app.errors import NVSError

PATIENCE = timedelta(minutes=30)
T = TypeVar("T")


class World:
    """This process's place among the processes of a run. A single process needs no process group."""

    def __init__(self, device: str = "auto") -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        local = int(os.environ.get("LOCAL_RANK", 0))
        cuda = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
        self.device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if cuda and ":" in device and self.size == 1:
            self.device = torch.device(device)
        if cuda:
            torch.cuda.set_device(self.device)
        self.store: dist.Store | None = None
        if self.size > 1:
            store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
            store.set_timeout(PATIENCE)
            dist.init_process_group(
                "nccl" if cuda else "gloo",
                store=dist.PrefixStore("collectives", store),
                rank=rank,
                world_size=size,
                timeout=PATIENCE,
                device_id=self.device if cuda else None,
            )
            self.store = dist.PrefixStore("decisions", store)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def average_(self, flat: Tensor) -> None:
        """Mean over all processes, in place, of a contiguous tensor."""
        if self.size > 1:
            if self.device.type == "cuda":
                dist.all_reduce(flat, op=dist.ReduceOp.AVG)
            else:
                dist.all_reduce(flat)
                flat.div_(self.size)

    def sum_(self, *tensors: Tensor) -> None:
        """Sum over all processes, in place; tensors of one type, which may lie turned. One call for them all."""
        if self.size > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])  # NCCL takes contiguous tensors only
            dist.all_reduce(flat)
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def share(self, count: int) -> tuple[int, int]:
        """First of `count` things that are this process's, and the one behind its last; shares differ by one."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def broadcast_(self, *tensors: Tensor) -> None:
        """The values of process 0 for everyone, in place."""
        if self.size > 1:
            for tensor in tensors:
                whole = tensor.contiguous()
                dist.broadcast(whole, src=0)
                if whole is not tensor:
                    tensor.copy_(whole)

    def broadcast_object(self, key: str, value: Any = None) -> Any:
        """What process 0 passes, as plain JSON values, for everyone. `key` is used once in a run."""
        if self.store is None:
            return value
        if self.is_main:
            self.store.set(key, json.dumps(value))
            return value
        return json.loads(self.store.get(key))

    def gather_objects(self, key: str, values: list[Any]) -> list[list[Any]] | None:
        """What every process passes, as plain JSON values in order of rank, for process 0; None for the others.

        `key` is used once in a run. Process 0 waits for the slowest, however long it takes.
        """
        if self.store is None:
            return [values]
        if not self.is_main:
            for number, value in enumerate(values):  # one by one: the store takes 8 MB at a time
                self.store.set(f"{key} {self.rank} {number}", json.dumps(value))
            self.store.set(f"{key} {self.rank}", str(len(values)))
            return None
        gathered = [values]
        for rank in range(1, self.size):
            while not self.store.check([f"{key} {rank}"]):
                time.sleep(0.2)
            numbers = range(int(self.store.get(f"{key} {rank}")))
            gathered.append([json.loads(self.store.get(f"{key} {rank} {number}")) for number in numbers])
        return gathered

    def raise_flag(self, name: str) -> None:
        """Tell process 0 something without waiting, from any process."""
        if self.store is not None:
            self.store.add(name, 1)

    def flag(self, name: str) -> bool:
        """True when some process raised the flag."""
        return self.store is not None and self.store.check([name])

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


class Workers:
    """The other processes of this machine, started by the first one (which becomes rank 0)."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], independent: bool = False) -> None:
        """independent: they do not wait for each other: one may say that it failed (2), and take its time."""
        self.processes, self.independent = processes, independent
        self.good = (None, 0, 2) if independent else (None, 0)
        self.ending = False
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        # A worker that died leaves the others waiting in a collective for ever: end the run instead.
        while not self.ending:
            for process in self.processes:
                if process.poll() not in self.good and not self.ending:
                    print(
                        f"error: worker process {process.pid} ended with status {process.returncode}",
                        file=sys.stderr,
                        flush=True,
                    )
                    self._stop()
                    os._exit(1)
            time.sleep(1.0)

    def _stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()

    def finish(self, failed: bool = False) -> None:
        """Wait for the workers to end by themselves, or end them when this process failed."""
        if self.independent and not failed:
            while any(process.poll() is None for process in self.processes):
                time.sleep(0.1)
        self.ending = True
        deadline = time.monotonic() + (0 if failed else 60)
        for process in self.processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def under_torchrun() -> bool:
    """True when the environment already says which process of a run this is."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


@contextlib.contextmanager
def torchrun_world(device: str) -> Iterator[tuple[World | None, str]]:
    """The place of this process among those of torchrun, left at the end, and its device; None without torchrun."""
    world = World(device) if under_torchrun() else None
    try:
        yield world, device if world is None else str(world.device)
    finally:
        if world is not None:
            world.close()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def own_share(things: list[T], device: str) -> tuple[list[T], str]:
    """What this process of torchrun does of independent things, and on which device; everything, without torchrun.

    By turns, so that no process needs to know what the others do, and there is nothing to wait for.
    """
    if not under_torchrun():
        return things, device
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return things[rank::size], device


def process_count(gpus: int, device: str, most: int | None = None) -> int:
    """How many processes of this machine do a run: a GPU each, on a CPU as many as are asked for (`gpus`).

    gpus: 0: all GPUs, or one process on a CPU. most: things to be done. Raises NVSError where there are fewer GPUs.
    """
    if under_torchrun():
        return 1
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    there = 1 if on_cpu or ":" in device else torch.cuda.device_count()
    if not on_cpu and gpus > there:
        raise NVSError(f"--gpus {gpus}: {there} with --device {device}")
    count = gpus or there
    return count if most is None else max(1, min(count, most))


@contextlib.contextmanager
def processes(count: int, arguments: Sequence[str], independent: bool = False) -> Iterator[list[subprocess.Popen]]:
    """Process 0 of `count` in the block, as torchrun would have set it (RANK, WORLD_SIZE, …); the others are started
    as `python ARGUMENTS`, and the block waits for them at its end. Yields those; independent: see `Workers`.
    """
    if count == 1:
        yield []
        return
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    before, started = dict(os.environ), []
    for rank in range(1, count):
        environment = {**before, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        started.append(subprocess.Popen([sys.executable, *arguments], env=environment))
    os.environ.update(shared, RANK="0", LOCAL_RANK="0")
    workers, failed = Workers(started, independent), True
    try:
        yield started
        failed = False
    finally:
        workers.finish(failed)
        for name in (*shared, "RANK", "LOCAL_RANK"):
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


class StopSignals:
    """Once there is something to save, remembers SIGTERM and SIGINT instead of dying of them; a second SIGINT
    interrupts at once. Before (loading data and the first step may take minutes) the first signal ends the process."""

    def __init__(self) -> None:
        self.received = ""
        self.something_to_save = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and (self.received or not self.something_to_save):
            raise KeyboardInterrupt
        if not self.something_to_save:
            raise SystemExit(128 + number)  # as a shell reports a process that died of it; `finally` clauses run
        self.received = signal.Signals(number).name

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
