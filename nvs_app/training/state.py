"""A run on disk: the state that resumes it, and the exported checkpoint.

    OUT/state.pt          everything a resumed run needs, float32; OUT/state_previous.pt the one before
    OUT/NAME/             the weight average in the checkpoint format, for rendering

Both are written under a temporary name and moved into place, so a run killed while saving keeps the older file.
"""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nvs_app.atomic_io import atomic_write
from nvs_app.errors import NVSError, first_line
from nvs_app.model.config import LaCTConfig
from nvs_app.training.optim import FlatParameters, MuonAdamW

FORMAT = "nvs_app training state 1"
OTHER_NETWORK = "the state is of another network; give the same options --model.*, or --resume never"
# What torch.load raises for files that are cut short or of another kind, found by trying.
BROKEN_FILE = (
    OSError,
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    zipfile.BadZipFile,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)


def state_path(out: Path) -> Path:
    return out / "state.pt"


def previous_path(out: Path) -> Path:
    return out / "state_previous.pt"


def find_state(out: Path) -> Path | None:
    """The newest state of a run, or None."""
    return next((path for path in (state_path(out), previous_path(out)) if path.is_file()), None)


def run_tensors(flat: FlatParameters, average: Tensor, optimizer: MuonAdamW) -> dict[str, Tensor]:
    """Every tensor that training changes, by name."""
    return {"parameters": flat.data, "average": average, **optimizer.tensors()}


def save_state(
    out: Path, config: LaCTConfig, flat: FlatParameters, tensors: dict[str, Tensor], counters: dict[str, Any]
) -> Path:
    """Write the state; the one before is kept beside it."""
    path = state_path(out)
    content = {
        "format": FORMAT,
        "model": config.to_dict(),
        "layout": flat.layout(),
        "tensors": {name: tensor.detach().cpu() for name, tensor in tensors.items()},
        "counters": counters,
    }
    with atomic_write(path) as temporary:
        torch.save(content, temporary)
        if path.exists():
            shutil.move(path.resolve(), previous_path(out))  # a link stays where it is
    return path


def read_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU. Raises NVSError for another or a broken file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN_FILE as error:
        raise NVSError(
            f"{path}: unreadable training state ({first_line(error)}); delete it to use "
            f"{previous_path(path.parent).name}, or start anew with --resume never"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise NVSError(f"{path}: not a training state of this program; start anew with --resume never")
    return content


def apply_state(
    path: Path, content: dict[str, Any], flat: FlatParameters, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    """Copy a state into a run's tensors; returns its counters. Raises NVSError when it is of another network."""
    saved = content["tensors"]
    if content["layout"] != flat.layout() or any(
        name not in saved or saved[name].shape != tensor.shape for name, tensor in tensors.items()
    ):
        raise NVSError(f"{path}: {OTHER_NETWORK}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])
    return dict(content["counters"])
