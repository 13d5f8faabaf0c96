"""Where and in which precision a network runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from nvs_app.errors import NVSError

PRECISIONS = ("auto", "fp32", "bf16")


def fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 beat float32: on GPUs, and on CPUs with AVX512-BF16 or AMX (2.4 times as
    fast on an EPYC with the former). CPUs without them were 5 to 7 times slower than in float32."""
    if device.type == "cpu":
        known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return device.type == "cuda"


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
