"""A trained network with another configuration of its memory: training goes on from its weights.

    model = with_changes(load_checkpoint("NAME"), "write_steps=3,write_sizes=learned")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from nvs_app.errors import NVSError
from nvs_app.model.lact import LaCT

NEW_STEP = 0.1  # size of a write step that the network has not been trained with: large enough to be noticed
CHANGES = "write_steps=N, write_sizes=one|learned, key_length=L or rotary_max_frequency=F"


def parse_changes(text: str) -> dict[str, Any]:
    """Values by name of changes like "write_steps=3,key_length=4". Raises NVSError for anything else."""
    kinds: dict[str, Callable[[str], Any]] = {
        "write_steps": int, "write_sizes": str, "key_length": float, "rotary_max_frequency": float,
    }  # fmt: skip
    values = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if name not in kinds or not equals:
            raise NVSError(f"--init-change: {part!r}, expected some of {CHANGES}")
        try:
            values[name] = kinds[name](value)
        except ValueError:
            raise NVSError(f"--init-change: {part!r}, expected a number") from None
    return values


@torch.no_grad()
def with_changes(model: LaCT, changes: str) -> LaCT:
    """A network of the same weights whose configuration differs.

    Args:
        model: any network.
        changes: some of "write_steps=N", "write_sizes=one|learned", "key_length=L" and "rotary_max_frequency=F", with
            commas between. Learned sizes are 1 for the steps that the network had (or what it had learned) and
            NEW_STEP for those that it had not: nothing is lost. With sizes of one, a new step is a full one, and the
            network draws worse until it has been trained; so it does, a little, with keys three times as long or
            frequencies twice as high.

    Returns:
        A new network on the same device; its card is empty. Raises NVSError for anything else.
    """
    values, old = parse_changes(changes), model.config
    if old.write_sizes == "learned" and values.get("write_sizes") == "one":
        raise NVSError("--init-change: write_sizes=one would forget the sizes that this network has learned")
    changed = LaCT(replace(old, **values))
    steps = changed.config.write_steps
    state = {name: value for name, value in model.state_dict().items() if not name.endswith(".step_sizes")}
    for name, fresh in changed.state_dict().items():
        if name.endswith(".step_sizes"):
            sizes = torch.full_like(fresh, NEW_STEP).view(steps, -1)
            sizes[: old.write_steps] = 1.0
            before = model.state_dict().get(name)
            if before is not None:
                kept = min(steps, old.write_steps)
                sizes[:kept] = before.view(old.write_steps, -1)[:kept]
            state[name] = sizes.flatten()
    changed.load_state_dict(state, strict=True)
    return changed.to(next(model.parameters()).device)
