"""A trained network with more write steps, or learned ones: training goes on where it was.

    model = with_changes(load_checkpoint("NAME"), "write_steps=3,write_sizes=learned")
"""

from __future__ import annotations

from dataclasses import replace

import torch

from nvs_app.errors import NVSError
from nvs_app.model.lact import LaCT

NEW_STEP = 0.1  # size of a write step that the network has not been trained with: large enough to be noticed


@torch.no_grad()
def with_changes(model: LaCT, changes: str) -> LaCT:
    """A network of the same weights whose configuration differs.

    Args:
        model: any network.
        changes: "write_steps=N", "write_sizes=one|learned" or both, with a comma between. Learned sizes are 1 for
            the steps that the network had (or what it had learned) and NEW_STEP for those that it had not. With sizes
            of one, a new step is a full one, and the network draws worse until it has been trained.

    Returns:
        A new network on the same device; its card is empty. Raises NVSError for anything else.
    """
    values: dict[str, str] = {}
    for part in changes.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if name not in ("write_steps", "write_sizes") or not equals:
            raise NVSError(f"--init-change: {part!r}, expected write_steps=N or write_sizes=one|learned")
        values[name] = value
    old = model.config
    try:
        steps = int(values.get("write_steps", old.write_steps))
    except ValueError:
        raise NVSError(f"--init-change: write_steps={values['write_steps']!r}, expected a number") from None
    if old.write_sizes == "learned" and values.get("write_sizes") == "one":
        raise NVSError("--init-change: write_sizes=one would forget the sizes that this network has learned")
    changed = LaCT(replace(old, write_steps=steps, write_sizes=values.get("write_sizes", old.write_sizes)))
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
