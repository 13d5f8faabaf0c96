"""Weights adapted to one scene: what is to be added to some weights of a network, which itself stays as it is.

    network = adapted.applied_to(model)         # another LaCT, which shares all other weights with `model`

Kept as float16: differences of whole weights, and low-rank ones (up @ down) of large matrices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nvs_app.errors import NVSError

FULL, UP, DOWN = "full", "up", "down"
Network = TypeVar("Network", bound=nn.Module)  # a LaCT, whose module knows the states that hold these weights


@dataclass(frozen=True, eq=False)
class AdaptedWeights:
    """Differences by the names of parameters, float16, on the CPU.

    full: [*shape of the parameter]. low_rank: (up [..., m, r], down [..., r, n]) of a parameter [..., m, n].
    """

    full: dict[str, Tensor] = field(default_factory=dict)
    low_rank: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def differences(self, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """What is added to each parameter, float32 on `device`."""
        found = {name: value.to(device).float() for name, value in self.full.items()}
        for name, (up, down) in self.low_rank.items():
            found[name] = up.to(device).float() @ down.to(device).float()
        return found

    def tensors(self) -> dict[str, Tensor]:
        """By the names of a scene file, after its prefix."""
        named = {f"{FULL}.{name}": value for name, value in self.full.items()}
        for name, (up, down) in self.low_rank.items():
            named |= {f"{UP}.{name}": up, f"{DOWN}.{name}": down}
        return named

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> AdaptedWeights | None:
        """What `tensors` gave; None where nothing is named. Raises KeyError where half of a pair is missing."""
        of: dict[str, dict[str, Tensor]] = {FULL: {}, UP: {}, DOWN: {}}
        for name, value in tensors.items():
            kind, _, parameter = name.partition(".")
            of[kind][parameter] = value
        pairs = {name: (of[UP][name], of[DOWN][name]) for name in sorted({*of[UP], *of[DOWN]})}
        return cls(of[FULL], pairs) if tensors else None

    def check(self, network: nn.Module) -> None:
        """Raises NVSError where these are not differences of weights of `network`."""
        shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
        own = {name: tuple(value.shape) for name, value in self.full.items()}
        own |= {name: (*up.shape[:-1], down.shape[-1]) for name, (up, down) in self.low_rank.items()}
        for name, shape in own.items():
            if shapes.get(name) != shape:
                raise NVSError(
                    f"state: adapted weights {name[:80]} {list(shape)} fit no weight of this checkpoint; use the "
                    "checkpoint that the scene was adapted with, or encode the scene again"
                )

    def applied_to(self, network: Network, exact: nn.Module | None = None) -> Network:
        """A network with the differences added, each weight of the type that it has in `network`; nothing in `network`
        changes, and weights without a difference are shared.

        exact: the same network before its weights were rounded to bfloat16, to which small differences are added before
        rounding: added to rounded ones, most would be lost. Raises NVSError where they do not fit.
        """
        self.check(network)
        lact: Any = network
        changed = lact.with_own_modules()
        base = dict((exact or network).named_parameters())
        device = next(network.parameters()).device
        for name, difference in self.differences(device).items():
            kept = network.get_parameter(name)
            value = (base[name].detach().to(device).float() + difference).to(kept.dtype)
            owner, _, leaf = name.rpartition(".")
            setattr(changed.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))
        return changed
