"""CUDA graphs: a view that is rendered again and again from one scene is launched as one piece.

A view is some hundreds of small kernels, and the host needs longer to launch them than a GPU to run them. The second
time that the same scene is rendered at the same size, the launches are recorded; from then on they are replayed.

    graphs = CudaGraphs()
    output = graphs.run(("scene", 256, 256), lambda c2w, k: render(c2w, k), c2w, k, holds=state)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KEPT = 6  # recordings; each holds its scene and the memory of one rendering


@dataclass
class RecordedGraph:
    """A recorded rendering: its inputs, overwritten before each replay, and its output, overwritten by it."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Any
    holds: Any


class CudaGraphs:
    """Recordings by key, the ones not used for longest are forgotten."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Hashable, Any] = OrderedDict()
        self._recorded: OrderedDict[Hashable, RecordedGraph] = OrderedDict()

    def run(self, key: Hashable, work: Callable[..., Any], *inputs: Tensor, holds: Any) -> Any:
        """`work(*inputs)`, recorded at the second call with a key, replayed from the third on.

        key: says everything about the work but the values of `inputs`, among it the tensors that it reads, which
        `holds` keeps alive. The output is valid until the next call: copy what must stay.
        """
        found = self._recorded.get(key)
        if found is not None:
            self._recorded.move_to_end(key)
            for own, given in zip(found.inputs, inputs, strict=True):
                own.copy_(given)
            found.graph.replay()
            return found.output
        if key not in self._seen:
            # The first time everything is loaded and tuned, which cannot be recorded.
            self._seen[key] = holds
            if len(self._seen) > KEPT:
                self._seen.popitem(last=False)
            return work(*inputs)
        del self._seen[key]
        own = tuple(given.clone() for given in inputs)
        graph = torch.cuda.CUDAGraph()
        # Other threads may be reading other scenes meanwhile: only this thread's launches belong to the recording.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = work(*own)
        self._recorded[key] = RecordedGraph(graph, own, output, holds)
        if len(self._recorded) > KEPT:
            self._recorded.popitem(last=False)
        graph.replay()
        return output

    def forget(self, held: object) -> None:
        """Drops the recordings whose `holds` is a tuple with `held` in it."""
        for kept in (self._seen, self._recorded):
            for key, value in list(kept.items()):
                holds = value.holds if isinstance(value, RecordedGraph) else value
                if isinstance(holds, tuple) and any(part is held for part in holds):
                    del kept[key]
