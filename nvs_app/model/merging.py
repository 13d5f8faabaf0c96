"""The fast-weight heads of a trained network made one, so that its memory holds more: twice as many rows of the
output matrix for every value, hidden units that see all of a key.

The blocks of the old heads lie on the diagonal of the new matrices, the rest is zero. Channel pairs that rotary
phases turn go where the new layer has about the same frequency. What is drawn changes (keys are now of one length
together, and a write step is one for all): a network needs some training after it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.model.config import LaCTConfig
from nvs_app.model.rotary import NUM_COORDINATES


def merged_channels(heads: int, width: int) -> Tensor:
    """Where channel c of head h goes: [heads, width] -> indices of heads * width channels in one head.

    Channels i and i + width / 2 are a pair; pairs run over (coordinate, frequency), then those that are not turned.
    """
    pairs, all_pairs = width // 2, heads * width // 2
    count, new_count = pairs // NUM_COORDINATES, all_pairs // NUM_COORDINATES
    place = torch.full((heads, pairs), -1)
    for head in range(heads):
        for pair in range(count * NUM_COORDINATES):
            coordinate, frequency = divmod(pair, count)
            place[head, pair] = coordinate * new_count + frequency * heads + head
    taken = set(place.flatten().tolist())
    place[place < 0] = torch.tensor([i for i in range(all_pairs) if i not in taken], dtype=place.dtype)
    return torch.cat([place, place + all_pairs], dim=1)


def merged_state(state: dict[str, Tensor], config: LaCTConfig) -> tuple[dict[str, Tensor], LaCTConfig]:
    """Weights and configuration with one fast-weight head in place of several. Raises NVSError for learned sizes."""
    if config.write_sizes != "one":
        raise NVSError("fast_head_dim: write sizes learned for each head cannot be merged")
    heads, width, hidden = config.num_fast_heads, config.fast_head_dim, config.fast_hidden
    channels, units = merged_channels(heads, width), merged_channels(heads, hidden)
    merged = dict(state)
    for name, value in state.items():
        owner, _, leaf = name.rpartition(".fast.")
        if not owner:
            continue
        if leaf in ("w0", "w2"):
            new = value.new_zeros(1, heads * width, heads * hidden)
            for h in range(heads):
                new[0, channels[h][:, None], units[h]] = value[h]
            merged[name] = new
        elif leaf == "w1":
            new = value.new_zeros(1, heads * hidden, heads * width)
            for h in range(heads):
                new[0, units[h], h * width : (h + 1) * width] = value[h]
            merged[name] = new
        elif leaf == "to_qkv.weight":
            new = value.clone().view(3, heads * width, -1)
            new[:2, channels.flatten()] = value.view(3, heads * width, -1)[:2]
            merged[name] = new.view(value.shape)
        elif leaf in ("to_lr.weight", "to_lr.bias"):
            merged[name] = value.view(3, heads, *value.shape[1:]).mean(1)
        elif leaf == "out_norm.weight":
            merged[name] = value.repeat(heads)
    return merged, replace(config, fast_head_dim=heads * width)
