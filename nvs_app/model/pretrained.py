"""Weights released by the paper's authors: names, files, and the way into this project's format.

    python -m nvs_app weights fetch scene_res256x256
    python -m nvs_app weights convert obj_res256.pt --out checkpoints/obj_res256

A released file is a pickled dictionary whose "model" is the state dict; it is read with `weights_only=True`,
so that nothing in it can run.
"""

from __future__ import annotations

import pickle
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.config import PRESETS, LaCTConfig

HUB_NAME = "airsplay/lact_nvs"


@dataclass(frozen=True)
class Release:
    """One released file: configuration preset, training size (h, w) and camera convention."""

    preset: str
    image_hw: tuple[int, int]
    normalization: str


RELEASES: dict[str, Release] = {
    **{f"obj_res{size}": Release("lact_l24_d768_ttt2x", (size, size), "object") for size in (256, 512, 1024)},
    **{f"scene_res{size}x{size}": Release("lact_l24_d768_ttt2x", (size, size), "scene") for size in (128, 256, 512)},
    **{
        f"scene_res{h}x{w}": Release("lact_l24_d768_ttt4x", (h, w), "scene")
        for h, w in ((72, 128), (144, 256), (288, 512), (536, 960))
    },
}

_BLOCK_NAMES = {
    "0.ln.weight": "attention_norm.weight",
    "0.f.to_qkv.weight": "attention.to_qkv.weight",
    "0.f.c_proj.weight": "attention.to_out.weight",
    "0.f.q_norm.weight": "attention.q_norm.weight",
    "0.f.k_norm.weight": "attention.k_norm.weight",
    "1.ln.weight": "fast_norm.weight",
    "1.f.w0": "fast.w0",
    "1.f.w1": "fast.w1",
    "1.f.w2": "fast.w2",
    "1.f.to_qkv.weight": "fast.to_qkv.weight",
    "1.f.c_proj.weight": "fast.to_out.weight",
    "1.f.lr_fc.weight": "fast.to_lr.weight",
    "1.f.lr_fc.bias": "fast.to_lr.bias",
    "1.f.o_norm.weight": "fast.out_norm.weight",
    "2.ln.weight": "mlp_norm.weight",
    "2.f.c_fc.weight": "mlp.up.weight",
    "2.f.c_proj.weight": "mlp.down.weight",
}
_OUTER_NAMES = {
    "input_linear.weight": "patch_embed.weight",
    "input_layernorm.weight": "input_norm.weight",
    "image_token_decoder.0.weight": "output_norm.weight",
    "image_token_decoder.1.weight": "output_linear.weight",
}


def our_name(released: str) -> str | None:
    """This project's name of a released parameter, None for an unknown one."""
    match = re.fullmatch(r"blocks\.(\d+)\.module_list\.(.+)", released)
    if match is None:
        return _OUTER_NAMES.get(released)
    name = _BLOCK_NAMES.get(match[2])
    return None if name is None else f"blocks.{match[1]}.{name}"


def convert_state_dict(released: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Rename every parameter; raises `NVSError` naming the unknown ones."""
    unknown = [name for name in released if our_name(name) is None]
    if unknown:
        raise NVSError(f"{where}: unknown parameters {unknown[:3]}, expected those of the released LaCT model")
    return {str(our_name(name)): value for name, value in released.items()}


def infer_config(state_dict: dict[str, Tensor], where: str, attention_head_dim: int = 64) -> LaCTConfig:
    """The configuration that a converted state dict has by its shapes (attention heads: its q_norm's)."""
    try:
        _, head, hidden = state_dict["blocks.0.fast.w0"].shape
        dim, features = state_dict["patch_embed.weight"].shape
        blocks = 1 + max(int(name.split(".")[1]) for name in state_dict if name.startswith("blocks."))
        q_norm = state_dict.get("blocks.0.attention.q_norm.weight")
        mlp = state_dict["blocks.0.mlp.up.weight"].shape[0] // dim
    except (KeyError, ValueError) as error:
        raise NVSError(f"{where}: not a released LaCT model ({error!r} is missing)") from error
    return LaCTConfig(
        dim=dim,
        blocks=blocks,
        patch=round((features // 12) ** 0.5),
        attention_head_dim=attention_head_dim if q_norm is None else q_norm.shape[0],
        fast_head_dim=head,
        fast_multiplier=hidden // head,
        mlp_multiplier=mlp,
    )


def read_released(path: Path) -> dict[str, Tensor]:
    """The "model" of a released `.pt` file under this project's names; raises `NVSError`."""
    if not path.is_file():
        raise NVSError(f"{path}: no such file, expected a released .pt file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise NVSError(f"{path}: not a file of plain tensors that torch.save wrote, or cut short") from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not all(isinstance(value, Tensor) for value in model.values()):
        raise NVSError(f'{path}: has no "model" state dict, expected a file as released by the paper\'s authors')
    return convert_state_dict(model, str(path))


def convert_released(path: Path, out: Path, dtype: str = "float32") -> Path:
    """Convert a released `.pt` file (a known name tells training size and camera convention)."""
    state_dict = read_released(path)
    config = infer_config(state_dict, str(path))
    release = RELEASES.get(path.stem)
    if release is not None and PRESETS[release.preset] != config:
        raise NVSError(f"{path}: shapes are those of {config}, expected {PRESETS[release.preset]} for {path.stem}")
    card = {
        "source": f"{HUB_NAME}/{path.name}",
        "paper": "Test-Time Training Done Right, arXiv 2505.23884",
        "normalization": release.normalization if release else "scene",
        "train_image_hw": list(release.image_hw) if release else [256, 256],
        "licence": "as stated by the authors of the release",
    }
    return save_checkpoint(out, state_dict, config, card, dtype=dtype)  # type: ignore[arg-type]


def fetch_released(name: str, out: Path, dtype: str = "float32") -> Path:
    """Download one released file through huggingface_hub and convert it; `NVSError` without a network."""
    if name not in RELEASES:
        raise NVSError(f"weights {name}: unknown, expected one of {', '.join(sorted(RELEASES))}")
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.errors import HfHubHTTPError

    hub_logging.set_verbosity_error()  # its warnings of every retry would bury the one line below
    try:
        cached = isinstance(try_to_load_from_cache(HUB_NAME, f"{name}.pt"), str)
        if not (cached or constants.HF_HUB_OFFLINE or getproxies()):
            # Without a network the hub's client retries for half a minute; a name that does not resolve says it now.
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
        path = hf_hub_download(HUB_NAME, f"{name}.pt")
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        raise NVSError(
            f"weights {name}: could not be downloaded from {HUB_NAME} ({type(error).__name__}); check the "
            f"network, or download {name}.pt elsewhere and use `weights convert {name}.pt`"
        ) from error
    return convert_released(Path(path), out, dtype)
