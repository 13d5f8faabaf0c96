"""Configuration of a LaCT network: what it is made of, and the published configurations by name.

>>> from nvs_app.model.config import LaCTConfig, PRESETS
>>> LaCTConfig(dim=384, blocks=10).num_fast_heads
1
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nvs_app.errors import NVSError
from nvs_app.model.detail.config import DetailHeadConfig

ROTARY_PARTS = ("fast", "attention")
# Names that checkpoints written before version 0.3 have in their config.json; read for one release more.
OLD_NAMES = {"key_length": "qk_scale", "patch_values": "value_patch_skip", "fast_start": "share_initial_weights"}


@dataclass(frozen=True)
class LaCTConfig:
    """Sizes of a LaCT network ("Test-Time Training Done Right", arXiv 2505.23884, section 3).

    The defaults of every switch are those of the published network; `rotary` is this project's addition.
    Raises `NVSError` for sizes that do not fit together.
    """

    dim: int = 768
    """Channels of a token."""
    blocks: int = 24
    """Number of blocks (attention inside each view, fast weights over all views, MLP)."""
    patch: int = 8
    """Side of a square patch in pixels; a patch is one token."""
    attention_head_dim: int = 64
    """Channels of one attention head."""
    fast_head_dim: int = 0
    """Channels of one fast-weight head; 0 means one head over all channels."""
    fast_multiplier: int = 2
    """Hidden width of the fast network over its head width."""
    share_initial_weights: bool = False
    """Whether all blocks start from one learned set of fast weights, so that a large memory costs few parameters;
    False, as published: each block learns its own."""
    mlp_multiplier: int = 4
    """Hidden width of the MLP over `dim`."""
    base_lr: float = 0.01
    """Learning rate of the fast weights that the learning-rate head starts from."""
    muon_steps: int = 5
    """Newton-Schulz steps that orthogonalise the update."""
    write_steps: int = 1
    """Steps in which the context is written, each over all tokens as one chunk; 1 as published. The second and
    later ones write what the fast network still misses of each token."""
    qk_scale: float = 1.0
    """Length that q and k are given; 1 as published. At 1 the gate of the fast network hardly leaves its straight
    part, and hidden units are products of two linear ones; longer keys let it tell tokens apart more sharply."""
    value_patch_skip: bool = False
    """v also sees the embedded patch, through a matrix of its own: silu(linear(token) + linear(patch)); False as
    published. A token loses what its patch shows within a few blocks, and late blocks write it too."""
    rotary: str = ""
    """Where ray-coordinate rotary phases act: "" (nowhere, as published) or a '+'-joined choice of
    "fast" (q, k and hidden units of the fast network, by the ray's direction and moment) and "attention" (q and k
    inside a view)."""
    rotary_min_frequency: float = 0.5
    """Lowest angular frequency of the rotary phases, in radians per unit of the normalised frame."""
    rotary_max_frequency: float = 64.0
    """Highest angular frequency; a patch of a 256-pixel image of 50 degrees spans 0.027 rad."""
    detail_head: DetailHeadConfig | None = None
    """Sizes of the detail head (`nvs_app.model.detail`), which renders from the photos what LaCT's tokens locate;
    None, as published: there is none."""

    def __post_init__(self) -> None:
        if self.fast_head_dim == 0:
            object.__setattr__(self, "fast_head_dim", self.dim)
        sizes = ("dim", "blocks", "patch", "attention_head_dim", "fast_multiplier", "mlp_multiplier", "write_steps")
        for name in sizes:
            if int(getattr(self, name)) < 1:
                raise NVSError(f"LaCTConfig: {name} is {getattr(self, name)}, expected a positive integer")
        for name in ("attention_head_dim", "fast_head_dim"):
            if self.dim % getattr(self, name):
                raise NVSError(f"LaCTConfig: {name} is {getattr(self, name)}, expected a divisor of dim ({self.dim})")
        if not self.qk_scale > 0:
            raise NVSError(f"LaCTConfig: qk_scale is {self.qk_scale}, expected a positive number")
        unknown = set(self.rotary_parts) - set(ROTARY_PARTS)
        if unknown:
            raise NVSError(
                f"LaCTConfig: rotary names {sorted(unknown)}, expected a '+'-joined choice of {ROTARY_PARTS}"
            )
        if self.rotary and (self.fast_head_dim % 2 or self.attention_head_dim % 2):
            raise NVSError("LaCTConfig: rotary phases turn pairs of channels, head widths must be even")
        if not 0 < self.rotary_min_frequency <= self.rotary_max_frequency:
            raise NVSError("LaCTConfig: expected 0 < rotary_min_frequency <= rotary_max_frequency")

    @property
    def rotary_parts(self) -> tuple[str, ...]:
        """The parts of the layer that the rotary phases act on."""
        return tuple(part for part in self.rotary.split("+") if part)

    @property
    def num_fast_heads(self) -> int:
        """Number of fast-weight heads."""
        return self.dim // self.fast_head_dim

    @property
    def fast_hidden(self) -> int:
        """Hidden width of one head's fast network."""
        return self.fast_head_dim * self.fast_multiplier

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for `config.json`; a part that is not there is not named."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LaCTConfig:
        """The reverse of `to_dict`; also reads `OLD_NAMES`. Raises `NVSError` for unknown names."""
        values = {OLD_NAMES.get(name, name): value for name, value in values.items()}
        if isinstance(values.get("share_initial_weights"), str):
            values["share_initial_weights"] = values["share_initial_weights"] == "shared"
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise NVSError(f"LaCTConfig: unknown options {sorted(unknown)}, expected some of {sorted(known)}")
        head = values.get("detail_head")
        if isinstance(head, dict):
            values = {**values, "detail_head": DetailHeadConfig.from_dict(head)}
        return cls(**values)


def read_option(name: str, text: str) -> int | float | str | bool | DetailHeadConfig | None:
    """The value of a field of LaCTConfig, written as text. Raises NVSError where it is not of the field's type.

    detail_head: "false", "true" (its usual sizes), or sizes such as "views:6+planes:24".
    """
    if name == "detail_head":
        return _read_head(text)
    kind = str(next(field.type for field in dataclasses.fields(LaCTConfig) if field.name == name))
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text]
        return {"int": int, "float": float, "str": str}[kind](text)
    except (KeyError, ValueError):
        raise NVSError(f"{name}={text!r} is not of type {kind}") from None


def _read_head(text: str) -> DetailHeadConfig | None:
    if text in ("false", "true"):
        return DetailHeadConfig.usual() if text == "true" else None
    fields = dataclasses.fields(DetailHeadConfig)
    kinds = {field.name: {"int": int, "float": float}[str(field.type)] for field in fields}
    values = {}
    for part in text.split("+"):
        key, _, value = part.partition(":")
        try:
            values[key] = kinds[key](value)
        except (KeyError, ValueError):
            raise NVSError(
                f"detail_head={text!r}: {part!r}, expected true, false or SIZE:NUMBER+... of {', '.join(kinds)}"
            ) from None
    return DetailHeadConfig(**values)


PRESETS: dict[str, LaCTConfig] = {
    # The published configurations (hub name airsplay/lact_nvs): width 768, patch 8, one fast head.
    "lact_l24_d768_ttt2x": LaCTConfig(dim=768, blocks=24, fast_multiplier=2),
    "lact_l24_d768_ttt4x": LaCTConfig(dim=768, blocks=24, fast_multiplier=4),
    "lact_l14_d768_ttt2x": LaCTConfig(dim=768, blocks=14, fast_multiplier=2),
    "lact_l14_d768_ttt4x": LaCTConfig(dim=768, blocks=14, fast_multiplier=4),
    # This project's own.
    "small": LaCTConfig(dim=384, blocks=10, rotary="fast+attention"),
    "tiny": LaCTConfig(dim=64, blocks=2, attention_head_dim=32, rotary="fast+attention"),
}
