"""The part of a network's weights that is optimised for one scene, as differences that begin at nothing.

Whole: the detail head's. Low rank: LaCT's matrices, W + up @ down with `up` zero at first; not those with which LaCT
only writes, since a scene that is written stays as it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nvs_app.model.adapted import AdaptedWeights
from nvs_app.model.lact import LaCT
from nvs_app.model.state import SceneState

HEAD = "detail_head."
WRITES = ("fast.w0", "fast.w1", "fast.w2", "to_lr.weight", "patch_to_v.weight")


class TrainedWeights:
    """Differences that are trained, float32 on the network's device. rank: of LaCT's matrices; 0 leaves LaCT alone.
    start: differences to go on from.

    Attributes:
        head, lact: what an optimizer is given.
    """

    def __init__(self, network: LaCT, rank: int, seed: int, start: AdaptedWeights | None = None) -> None:
        self.base = {name: value.detach() for name, value in network.named_parameters()}
        self.full: dict[str, Tensor] = {}
        self.low_rank: dict[str, tuple[Tensor, Tensor]] = {}
        generator = torch.Generator().manual_seed(seed)
        for name, value in self.base.items():
            if name.startswith(HEAD):
                self.full[name] = torch.zeros_like(value, requires_grad=True)
            elif rank and value.ndim == 2 and min(value.shape) >= 2 * rank and not name.endswith(WRITES):
                rows, columns = value.shape
                down = torch.randn(rank, columns, generator=generator) / math.sqrt(columns)
                up = value.new_zeros(rows, rank).requires_grad_()
                self.low_rank[name] = (up, down.to(value.device).requires_grad_())
        for name, value in ({} if start is None else start.full).items():
            if name in self.full:
                self.full[name].data.copy_(value)
        for name, pair in ({} if start is None else start.low_rank).items():
            if name in self.low_rank and pair[0].shape == self.low_rank[name][0].shape:
                for own, value in zip(self.low_rank[name], pair):
                    own.data.copy_(value)
        self.head = list(self.full.values())
        self.lact = [part for pair in self.low_rank.values() for part in pair]

    def parameters(self) -> dict[str, Tensor]:
        """The adapted parameters by name, through which gradients flow."""
        base = [self.base[name] for name in self.full]
        found = dict(zip(self.full, torch._foreach_add(base, self.head), strict=True)) if self.full else {}
        return found | {name: self.base[name] + up @ down for name, (up, down) in self.low_rank.items()}

    def adapted(self, values: list[Tensor]) -> AdaptedWeights:
        """The differences as a scene keeps them: rounded to float16, without those that are nothing. values: in the
        order of `head` and `lact`."""
        kept = [value.detach().to("cpu", torch.float16) for value in values]
        full = {name: value for name, value in zip(self.full, kept) if value.any()}
        pairs = zip(kept[len(self.full) :: 2], kept[len(self.full) + 1 :: 2])
        low_rank = {name: pair for name, pair in zip(self.low_rank, pairs, strict=True) if pair[0].any()}
        return AdaptedWeights(full, low_rank)


class Decoder(nn.Module):
    """`LaCT.decode`, or `decode_detail`, with other weights and their gradients; `network` itself never changes."""

    def __init__(self, network: LaCT) -> None:
        super().__init__()
        self.network = network.with_own_modules().requires_grad_(False)

    def render(self, weights: TrainedWeights, *arguments) -> Tensor:
        """As `forward`, with the weights trained."""
        named = {f"network.{name}": value for name, value in weights.parameters().items()}
        return torch.func.functional_call(self, named, arguments)

    def forward(self, state: SceneState, cameras, lact_hw: tuple[int, int], sampling) -> Tensor:
        """Images [1, v, 3, H, W] of cameras [1, v] in the normalised frame."""
        if state.context is None:
            return self.network.decode(state, cameras)
        return self.network.decode_detail(state, cameras, lact_hw, sampling).images
