"""Heavy work in threads that end with it.

OpenMP gives every thread that ever multiplied matrices a pool of its own, for as long as the thread lives. As soon as
all pools together have more threads than the machine has cores, none of them spins any more while it waits, not even
for microseconds, and each of the hundreds of operations of an image first has to wake its pool: on two cores 128x128
pixels took 90 ms in place of 62 because another thread had encoded a scene before and was idle since.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def run_in_fresh_thread(work: Callable[[], Result]) -> Result:
    """Does the work in a thread that ends with it, and waits. Returns and raises what `work` does."""
    with ThreadPoolExecutor(1, "apart") as pool:
        return pool.submit(work).result()
