"""Encoded scenes in memory up to a number of bytes; the one unused for longest goes to disk and comes back when asked.

A scene leaves memory once its file is whole: on a full disk it stays, above the limit.

cache = StateCache(folder, max_bytes=2 << 30)
cache.put("key", state)
state = cache.get("key")
"""

from __future__ import annotations

import secrets
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import torch

from nvs_app.errors import NVSError
from nvs_app.model.state import SceneState

GONE = "The encoded scene is gone; encode it again."


def state_bytes(state: SceneState) -> int:
    """Bytes of the fast weights, and of the photos and features that a detail head looks at."""
    tensors = [weight for layer in state.fast_weights for weight in layer]
    if state.context is not None:
        tensors += [state.context.images, state.context.features]
    tensors += [] if state.adapted is None else list(state.adapted.tensors().values())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class StateCache:
    """Scene states by name. `folder` holds those that do not fit in `max_bytes`."""

    def __init__(self, folder: Path, max_bytes: int = 2 << 30):
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.RLock()
        self._states: OrderedDict[str, SceneState] = OrderedDict()
        self._spilled: dict[str, tuple[Path, torch.device]] = {}

    def put(self, key: str, state: SceneState) -> None:
        """Keeps a state under a name; an older one of that name is forgotten."""
        with self._lock:
            self.drop(key)
            self._states[key] = state
            self._make_room()

    def get(self, key: str) -> SceneState:
        """The state. Raises NVSError when it was dropped (its visit has ended)."""
        with self._lock:
            if key in self._states:
                self._states.move_to_end(key)
                return self._states[key]
            if key not in self._spilled:
                raise NVSError(GONE)
            path, device = self._spilled[key]
            try:
                state = SceneState.load(path, device)
            except (NVSError, OSError) as error:  # somebody has removed or broken the file
                self.drop(key)
                raise NVSError(GONE) from error
            self.drop(key)
            self._states[key] = state
            self._make_room()
            return state

    def has(self, key: str) -> bool:
        """Whether `get` finds it: in memory, or as a file."""
        with self._lock:
            return key in self._states or key in self._spilled and self._spilled[key][0].is_file()

    def drop(self, key: str) -> None:
        """Forgets a state; nothing happens when it is not there."""
        with self._lock:
            self._states.pop(key, None)
            if key in self._spilled:
                self._spilled.pop(key)[0].unlink(missing_ok=True)

    def bytes_held(self) -> int:
        """Bytes of the states in memory."""
        with self._lock:
            return sum(state_bytes(state) for state in self._states.values())

    def _make_room(self) -> None:
        # The newest stays, also where it alone exceeds the limit: it is being looked at.
        while len(self._states) > 1 and self.bytes_held() > self.max_bytes:
            key, state = next(iter(self._states.items()))
            try:
                path = state.save(self.folder / f"{secrets.token_hex(8)}.safetensors")
            except (NVSError, OSError) as error:
                print(f"warning: an encoded scene stays in memory: {error}", file=sys.stderr)
                return
            self._spilled[key] = (path, state.fast_weights[0].w0.device)
            del self._states[key]
