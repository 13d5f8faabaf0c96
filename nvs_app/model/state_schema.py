"""What a state file must hold, checked before anything is computed from it: names, types, shapes, finite numbers."""

from __future__ import annotations

import json
import re
from typing import Any

import torch
from torch import Tensor

MAX_BLOCKS = 256
MAX_VIEWS = 5000
MAX_SIDE = 16384
ADAPTED = "adapted."
MAX_ADAPTED_BYTES = 2**25  # some four times what adapting writes for the bundled checkpoint
MAX_RANK = 64
PARAMETER = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+){0,9}")
NAMES = re.compile(
    r"adapted\.(full|up|down)\.[a-z_0-9.]{1,120}|fast_weights\.\d{1,3}\.w[012]|transform\.(scale|rotation|translation)|context\.(images|features|c2w|fxfycxcy)"
)


def check_state(tensors: dict[str, Tensor], meta: Any) -> None:
    """Raises ValueError, one line, where a file could not have been written by `SceneState.save`."""
    for name, tensor in tensors.items():
        if not NAMES.fullmatch(name):
            raise ValueError(f"holds {name[:60]!r}, which no state has")
        half = name == "context.features" or name.startswith(ADAPTED)
        wanted = torch.uint8 if name == "context.images" else torch.float16 if half else torch.float32
        exact = name.startswith("transform.") and tensor.dtype == torch.float64  # float32 in files of before
        if tensor.dtype != wanted and not exact:
            raise ValueError(f"{name} is {tensor.dtype}, expected {wanted}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds numbers that are not finite")
    batch = _check_weights(tensors)
    _check_adapted({name: tensor for name, tensor in tensors.items() if name.startswith(ADAPTED)})
    if any(name.startswith("transform.") for name in tensors):
        _shape(tensors, "transform.scale", (batch,))
        _shape(tensors, "transform.rotation", (batch, 3, 3))
        _shape(tensors, "transform.translation", (batch, 3))
    if any(name.startswith("context.") for name in tensors):
        _, views, _, height, width = _shape(tensors, "context.images", (batch, None, 3, None, None))
        if not 0 < views <= MAX_VIEWS or height % 8 or width % 8 or not 0 < min(height, width) <= MAX_SIDE:
            raise ValueError(f"context.images is {list(tensors['context.images'].shape)}")
        _shape(tensors, "context.features", (batch, views, None, height // 4, width // 4))
        _shape(tensors, "context.c2w", (batch, views, 4, 4))
        _shape(tensors, "context.fxfycxcy", (batch, views, 4))
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in (*meta, *meta.values())):
        raise ValueError("its notes are no texts")
    if meta.get("context_cameras"):
        check_cameras(meta["context_cameras"])


def check_cameras(text: str) -> dict[str, Any]:
    """The context cameras of a state's notes: {"image_hw", "c2w", "fxfycxcy"}. Raises ValueError."""
    values = json.loads(text)
    if not isinstance(values, dict) or set(values) != {"image_hw", "c2w", "fxfycxcy"}:
        raise ValueError("its context cameras are no cameras")
    image_hw = values["image_hw"]
    if not isinstance(image_hw, list) or len(image_hw) != 2 or not all(type(side) is int for side in image_hw):
        raise ValueError("its context cameras have no image_hw of two whole numbers")
    if not all(0 < side <= MAX_SIDE for side in image_hw):
        raise ValueError(f"its context cameras are of {image_hw[0]}x{image_hw[1]} pixels")
    try:
        c2w = torch.tensor(values["c2w"], dtype=torch.float64)
        lens = torch.tensor(values["fxfycxcy"], dtype=torch.float32)
    except (TypeError, RuntimeError, OverflowError) as error:
        raise ValueError("its context cameras hold something that is no number") from error
    views = len(lens) if lens.ndim else 0
    if not 0 < views <= MAX_VIEWS or c2w.shape != (views, 4, 4) or lens.shape != (views, 4):
        raise ValueError(f"its context cameras are {list(c2w.shape)} and {list(lens.shape)}")
    if not bool(torch.isfinite(c2w).all() and torch.isfinite(lens).all()) or not bool((lens[:, :2] > 0).all()):
        raise ValueError("its context cameras hold numbers that are not finite, or a focal length that is not positive")
    return values


def _check_weights(tensors: dict[str, Tensor]) -> int:
    """The batch size."""
    blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("fast_weights.")}
    if not blocks or blocks != set(range(len(blocks))) or len(blocks) > MAX_BLOCKS:
        raise ValueError(f"has the fast weights of {len(blocks)} blocks, not numbered from 0")
    first = tensors.get("fast_weights.0.w0")
    batch = len(first) if first is not None and first.ndim else 0
    if batch < 1:
        raise ValueError("fast_weights.0.w0 is missing or empty")
    for block in sorted(blocks):
        _, heads, dim, hidden = _shape(tensors, f"fast_weights.{block}.w0", (batch, None, None, None))
        _shape(tensors, f"fast_weights.{block}.w2", (batch, heads, dim, hidden))
        _shape(tensors, f"fast_weights.{block}.w1", (batch, heads, hidden, dim))
    return batch


def _check_adapted(tensors: dict[str, Tensor]) -> None:
    """Whether they fit the network's weights only the network knows, see `AdaptedWeights.check`."""
    if sum(tensor.nbytes for tensor in tensors.values()) > MAX_ADAPTED_BYTES:
        raise ValueError(f"its adapted weights take more than {MAX_ADAPTED_BYTES >> 20} MiB")
    for name, tensor in tensors.items():
        kind, parameter = name.removeprefix(ADAPTED).split(".", 1)
        if not PARAMETER.fullmatch(parameter):
            raise ValueError(f"holds {name[:60]!r}, which no state has")
        if kind == "full":
            if f"{ADAPTED}up.{parameter}" in tensors:
                raise ValueError(f"{name} is there twice, whole and of low rank")
            continue
        other = tensors.get(f"{ADAPTED}{'down' if kind == 'up' else 'up'}.{parameter}")
        if other is None:
            raise ValueError(f"{name} is there without its other half")
        up, down = (tensor, other) if kind == "up" else (other, tensor)
        if up.ndim < 2 or down.ndim != up.ndim or up.shape[:-2] != down.shape[:-2] or up.shape[-1] != down.shape[-2]:
            raise ValueError(f"{name} is {list(tensor.shape)}, its other half {list(other.shape)}")
        if not 0 < up.shape[-1] <= MAX_RANK:
            raise ValueError(f"{name} has rank {up.shape[-1]}, expected 1 to {MAX_RANK}")


def _shape(tensors: dict[str, Tensor], name: str, wanted: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape of a tensor, where it is the one wanted (None: any side)."""
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    shape = tuple(tensors[name].shape)
    if len(shape) != len(wanted) or any(side not in (None, there) for side, there in zip(wanted, shape)):
        shown = ", ".join("any" if side is None else str(side) for side in wanted)
        raise ValueError(f"{name} is {list(shape)}, expected [{shown}]")
    return shape
