"""Things made in the background while the network works: threads, and on a GPU a stream for each of them.

    prefetcher = Prefetcher(device)
    take = prefetcher.start(lambda: source.batch(...))     # returns at once
    posed = take()                                         # waits for it; raises what making it raised

What is made must not depend on when: scenes are functions of their names or numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class HasTensors(Protocol):
    """What names its tensors, so that they may go from one stream to another."""

    def tensors(self) -> list[Tensor]: ...


Made = TypeVar("Made", bound=HasTensors)


class Prefetcher:
    """Makes things in `threads` threads, in the order of `start`."""

    def __init__(self, device: torch.device, threads: int = 1) -> None:
        self.device = device
        if device.type == "cuda" and device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch", initializer=self._set_up)

    def _set_up(self) -> None:
        if self.device.type == "cuda":  # the current device and the current stream belong to a thread
            torch.cuda.set_device(self.device)
            torch.cuda.set_stream(torch.cuda.Stream(self.device))

    def start(self, make: Callable[[], Made]) -> Callable[[], Made]:
        """Begins to make something; the function that is returned waits for it and gives it, once, safe to use on the
        stream of whoever calls that."""
        begun = torch.cuda.current_stream(self.device).record_event() if self.device.type == "cuda" else None
        return functools.partial(self._take, self.pool.submit(self._make, make, begun))

    def _make(self, make: Callable[[], Made], begun: torch.cuda.Event | None) -> tuple[Made, torch.cuda.Event | None]:
        if begun is None:
            return make(), None
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(begun)  # the maker reads what the main stream wrote before `start`
        return make(), stream.record_event()

    def _take(self, future: Future[tuple[Made, torch.cuda.Event | None]]) -> Made:
        made, ready = future.result()
        if ready is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(ready)
            for tensor in made.tensors():
                if tensor.is_cuda:
                    tensor.record_stream(current)  # its memory is not reused before this stream has read it
        return made

    def close(self) -> None:
        """Drops what has not begun and waits for the rest."""
        self.pool.shutdown(wait=True, cancel_futures=True)
