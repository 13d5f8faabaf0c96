"""Networks with the weights of single scenes, beside the one that all scenes share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import torch

from nvs_app.errors import NVSError
from nvs_app.model.adapted import AdaptedWeights
from nvs_app.model.lact import LaCT

KEPT = 3  # networks; each holds a copy of the weights that differ


class AdaptedNetworks:
    """The last few of them, made when they are first asked for.

    shared: the network of all other scenes, which never changes. forget: called with a network that is dropped.
    fused: what the blocks compute in where they are to be fused and compiled, as those of `shared`; else None.
    exact: gives the shared network before its weights were rounded to bfloat16; None where they were not.
    """

    def __init__(
        self,
        shared: LaCT,
        forget: Callable[[object], None],
        fused: torch.dtype | None,
        exact: Callable[[], LaCT] | None = None,
    ) -> None:
        self.shared, self.forget, self.fused, self.exact = shared, forget, fused, exact
        self._lock = threading.Lock()
        self._made: OrderedDict[int, tuple[AdaptedWeights, LaCT]] = OrderedDict()

    def apart(self, forget: Callable[[object], None], original: LaCT) -> AdaptedNetworks:
        """The same, with networks of its own and `original` at hand."""
        return AdaptedNetworks(self.shared, forget, self.fused, lambda: original)

    def network(self, adapted: AdaptedWeights) -> LaCT:
        """The shared network with these differences. Raises NVSError where they do not fit."""
        with self._lock:
            found = self._made.get(id(adapted))  # an id of something that is kept is nothing else's
            if found is None:
                network = adapted.applied_to(self.shared, self.original())
                if self.fused is not None:
                    network.fuse(self.fused, compile=True)
                found = self._made[id(adapted)] = (adapted, network)
                if len(self._made) > KEPT:
                    self.forget(self._made.popitem(last=False)[1][1])
            self._made.move_to_end(id(adapted))
            return found[1]

    def original(self) -> LaCT:
        """The shared network with unrounded weights, not to be changed. Raises NVSError where its file was replaced."""
        if self.exact is None:
            return self.shared
        exact = self.exact()
        if exact.card.get("hash") != self.shared.card.get("hash"):
            raise NVSError(f"checkpoint {self.shared.card.get('name')}: its files were replaced; start anew")
        return exact
