"""How much memory is free, giving it back, and numbers in words for people."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch


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


def trim_memory() -> None:
    """Gives freed memory back to the system, which glibc keeps otherwise: 570 MB after two visits that had encoded a
    dozen photos each. Takes some 30 ms; nothing happens with another C library."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def bytes_words(count: float | int) -> str:
    """As in "1.2 GB"."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            value = count / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def seconds_words(seconds: float | int) -> str:
    """As in "12 s", "3 minutes"; never more exact than an estimate is."""
    if seconds < 1:
        return "a second" if seconds > 0.3 else "a moment"
    if seconds < 10:
        return f"{seconds:.0f} s"
    if seconds < 90:
        return f"{round(seconds / 5) * 5} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def count_words(count: int) -> str:
    """As in "16 k" and "1.05 M"."""
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.0f} k" if count < 999_500 else f"{count / 1e6:.2f} M"


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
