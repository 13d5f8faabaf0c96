"""Where and in which precision a network runs."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from nvs_app.errors import NVSError

PRECISIONS = ("auto", "fp32", "bf16")


@functools.cache
def fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 beat float32: on GPUs, and on CPUs where it was just tried, in 30 ms.

    What a processor says of itself does not tell: with AVX512-BF16, an EPYC was 2.4 times as fast as in float32, and
    a Xeon whose AMX is hidden from a virtual machine only half as fast. Without either it is 5 to 7 times slower.
    """
    if device.type != "cpu":
        return device.type == "cuda"
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not (known.get("avx512_bf16") or known.get("amx_bf16")):
        return False
    rough, fine = product_seconds((torch.bfloat16, torch.float32))
    return rough < 0.9 * fine


def product_seconds(dtypes: tuple[torch.dtype, ...]) -> list[float]:
    """Processor time of a product of 256 tokens in each of the types, by turns, the least of some: others may be
    working on this machine."""
    both = [tuple(torch.ones(side, 512, dtype=dtype) for side in (256, 512)) for dtype in dtypes]
    times: list[list[float]] = [[] for _ in dtypes]
    for _ in range(16):
        for (tokens, weight), spent in zip(both, times, strict=True):
            start = time.process_time()
            torch.nn.functional.linear(tokens, weight)
            spent.append(time.process_time() - start)
    return [min(spent) for spent in times]


def pick_device(device: torch.device | str | None) -> torch.device:
    """None or "auto": the first GPU, else the CPU. Raises NVSError for a device that this machine has not."""
    if device is None or str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise NVSError(f"device: {device!r}, expected auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise NVSError(f"device: {device} is not there, {torch.cuda.device_count()} GPUs are visible; use cpu")
    return chosen


def device_name(device: torch.device) -> str:
    """The device in words: the GPU's name, or the CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def is_memory_error(error: BaseException) -> bool:
    """Whether memory ran out, in the words of the CPU's or the GPU's allocator."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text or "out of memory" in text


class OutOfMemory(NVSError):
    """Memory ran out: less at once may still fit."""


@contextlib.contextmanager
def within_memory(device: torch.device, what: str, remedy: str) -> Iterator[None]:
    """Raises `OutOfMemory`, one clear sentence, where memory runs out inside."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_memory_error(error):
            raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory(f"{what} does not fit in the memory of {device}; {remedy}") from error


def free_memory(device: torch.device) -> int:
    """Bytes that can be used on a device: a GPU's own, or main memory within the limit of a container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _meminfo("MemAvailable")
    if free is None:
        pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}) else None
        free = 4 << 30 if pages is None else pages * os.sysconf("SC_PAGE_SIZE")
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else max(0, min(free, limit - used))


def bytes_words(count: float | int) -> str:
    """As in "1.2 GB"."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            value = count / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _meminfo(key: str) -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" where there is no limit
        return None
