"""Something made in the background while the network trains: one thread, and on a GPU one stream of its own.

    prefetch = Prefetch(device)
    prefetch.start(7, lambda: source.batch(...))     # returns at once
    posed = prefetch.take(7)                         # waits for it; None when 7 was never started

What is made must not depend on when: here scenes are functions of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from nvs_app.scenes.posed import PosedImages


class Prefetch:
    """At most one batch of posed images on its way."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.threads = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self.key: int | None = None
        self.future: Future[PosedImages] | None = None

    def start(self, key: int, make: Callable[[], PosedImages]) -> None:
        """Begin to make what `take(key)` will return, unless it is on its way already."""
        if self.key == key:
            return
        if self.future is not None:
            self.future.result()
        if self.stream is not None:  # the maker reads what the main stream wrote before this call
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
        self.key, self.future = key, self.threads.submit(self._make, make)

    def _make(self, make: Callable[[], PosedImages]) -> PosedImages:
        if self.stream is None:
            return make()
        torch.cuda.set_device(self.device)  # the current device belongs to a thread
        with torch.cuda.stream(self.stream):
            return make()

    def take(self, key: int) -> PosedImages | None:
        """The result, safe to use on the current stream; None (and nothing on its way) for another key."""
        future, same = self.future, self.key == key
        self.key = self.future = None
        made = None if future is None else future.result()
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            if made is not None:
                depth = [] if made.depth is None else [made.depth]
                for tensor in (made.images, made.cameras.c2w, made.cameras.fxfycxcy, *depth):
                    tensor.record_stream(current)  # its memory is not reused before the main stream has read it
        return made if same else None
