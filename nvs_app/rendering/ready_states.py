"""Scenes rendered last, as a GPU reads them: on the device, their fast weights as the blocks want them."""

from __future__ import annotations

from collections import deque

import torch

from nvs_app.model.lact import LaCT, Prepared
from nvs_app.model.state import SceneState

KEPT = 4


class ReadyStates:
    """The last few of them, by the very states that were given."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._kept: deque[tuple[SceneState, SceneState, Prepared]] = deque(maxlen=KEPT)

    def state(self, state: SceneState, network: LaCT) -> tuple[SceneState, Prepared]:
        """A state on the device and its fast weights as the blocks of its network read them; kept on a GPU."""
        for own, there, prepared in tuple(self._kept):
            if own is state:
                return there, prepared
        there = state.to(self.device)
        prepared = network.prepare(there)
        if self.device.type == "cuda":
            self._kept.appendleft((state, there, prepared))
        return there, prepared
