"""A trained network with another configuration of its memory: training goes on from its weights.

model = with_changes(load_checkpoint("NAME"), "write_steps=2,value_patch_skip=true")
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.model.config import read_option
from nvs_app.model.detail.config import DetailHeadConfig
from nvs_app.model.lact import LaCT

CHANGES = ("write_steps", "qk_scale", "rotary_max_frequency", "value_patch_skip", "detail_head")
SWEEPS = ("views", "planes", "fine_planes", "finest_planes", "reach")
"""Sizes of a detail head that its weights do not depend on."""


def parse_changes(text: str) -> dict[str, Any]:
    """Values by name of changes like "write_steps=3,qk_scale=4". Raises NVSError for anything else."""
    values = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if name not in CHANGES or not equals:
            raise NVSError(f"--model.config-override: {part!r}, expected NAME=VALUE of {', '.join(CHANGES)}")
        try:
            values[name] = read_option(name, value)
        except NVSError as error:
            raise NVSError(f"--model.config-override: {error}") from None
    return values


@torch.no_grad()
def with_changes(model: LaCT, changes: str) -> LaCT:
    """A network of the same weights whose configuration differs.

    Args:
        model: any network.
        changes: some of "write_steps=N", "qk_scale=L", "rotary_max_frequency=F", "value_patch_skip=true" and
            "detail_head=true", with commas between. A new detail head begins untrained; one that is there gets the
            usual head's third sweep, second layer and refinement, or with "detail_head=reach:4+planes:24" other sweeps
            (`SWEEPS`). The matrix from patches to v begins at zero and
            changes nothing. With one more write step the network renders worse until it has been
            trained; so it does, a little, with keys three times as long or frequencies twice as high.

    Returns:
        A new network on the same device; its card is empty. Raises NVSError for anything else, and where a matrix
        that has been trained would be forgotten.
    """
    values, old = parse_changes(changes), model.config
    if old.value_patch_skip and not values.get("value_patch_skip", True):
        raise NVSError("--model.config-override: value_patch_skip=false would forget what this network has learned")
    if old.detail_head is not None and "detail_head" in values:
        values["detail_head"] = _head_with(old.detail_head, values["detail_head"], changes)
    changed = LaCT(replace(old, **values))
    state = model.state_dict()
    for name, fresh in changed.state_dict().items():
        if name.endswith(".patch_to_v.weight") and name not in state:
            state[name] = torch.zeros_like(fresh)
        if name.startswith("detail_head."):
            state[name] = _fitted(state[name], fresh) if name in state else fresh
    changed.load_state_dict(state, strict=True)
    return changed.to(next(model.parameters()).device)


def _head_with(old: DetailHeadConfig, asked: DetailHeadConfig | None, changes: str) -> DetailHeadConfig:
    """The sizes of a head that is there and keeps its weights. asked: as `changes` says, defaults where it does not."""
    if asked == DetailHeadConfig.usual():
        return old.with_parts_of(asked)
    text = next(part for part in changes.split(",") if part.strip().startswith("detail_head"))
    named = [size.partition(":")[0].strip() for size in text.partition("=")[2].split("+")]
    gone = "finest_planes" in named and asked is not None and bool(asked.finest_planes) != bool(old.finest_planes)
    if asked is None or gone or not set(named) <= set(SWEEPS):
        raise NVSError(
            "--model.config-override: only detail_head=true, or other sweeps of those it has "
            f"({', '.join(SWEEPS)}), keep what this network's head has learned"
        )
    return replace(old, **{name: getattr(asked, name) for name in named})


def _fitted(old: Tensor, fresh: Tensor) -> Tensor:
    """A head's weights for more inputs, the new ones at zero, or for upsampling by 2 where they were for 4."""
    if old.shape[0] == 4 * fresh.shape[0]:
        old = old.unflatten(0, (-1, 2, 2, 2, 2)).mean((2, 4)).flatten(0, 2)
    if old.shape == fresh.shape:
        return old
    fitted = torch.zeros_like(fresh)
    fitted[:, : old.shape[1]] = old
    return fitted
