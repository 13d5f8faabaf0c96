"""Checkpoints on disk: `checkpoints/NAME/config.json` beside safetensors shards.

`config.json` holds {"format", "model": LaCTConfig, "card": {...}, "dtype", "shards": [names], "hash"}. With
dtype "int8" every matrix is stored as signed bytes and one float32 scale a row (symmetric, rounding to
nearest), a quarter of the size; vectors stay float32. The weights of a detail head lie in a shard of their own
(`detail_head.safetensors`), in float16 unless all is float32: bytes would cost it more than they save.

    save_checkpoint(Path("checkpoints/mine"), model.state_dict(), model.config, {"data": "…"}, dtype="int8")
    model = load_checkpoint("mine")
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from nvs_app.bundled import bundled
from nvs_app.errors import NVSError
from nvs_app.model.config import LaCTConfig
from nvs_app.model.lact import LaCT

FORMAT = "nvs_app checkpoint 1"
MAX_SHARD_BYTES = 15 * 2**20
SCALE_SUFFIX = "::scale"
HEAD = "detail_head."
Dtype = Literal["float32", "bfloat16", "int8"]


def checkpoints_dir() -> Path:
    """Where checkpoints live: $NVS_CHECKPOINTS, else `checkpoints/` beside the package, else (an installed package)
    `share/nvs_app/checkpoints` of the Python environment."""
    if named := os.environ.get("NVS_CHECKPOINTS"):
        return Path(named)
    return bundled("checkpoints")


def list_checkpoints() -> list[str]:
    """Names of the checkpoints in `checkpoints_dir()`, sorted."""
    return sorted(path.parent.name for path in checkpoints_dir().glob("*/config.json"))


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix [..., m, n] -> int8 of that shape and float32 scales [..., m, 1]; error <= scale / 2."""
    weight = weight.float()
    scale = weight.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
    return (weight / scale).round().clamp(-127, 127).to(torch.int8), scale


def _encode(state_dict: dict[str, Tensor], dtype: Dtype) -> dict[str, Tensor]:
    encoded: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        value = value.detach().float().cpu().contiguous()
        if name.startswith(HEAD):
            encoded[name] = value if dtype == "float32" else value.half()
        elif dtype == "int8" and value.dim() >= 2:
            encoded[name], encoded[name + SCALE_SUFFIX] = quantize_rows(value)
        elif dtype == "bfloat16" and value.dim() >= 2:
            encoded[name] = value.bfloat16()
        else:
            encoded[name] = value
    return encoded


def _shards(tensors: dict[str, Tensor], max_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in tensors.items():
        if size and size + value.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    return shards


def save_checkpoint(
    folder: Path | str,
    state_dict: dict[str, Tensor],
    config: LaCTConfig,
    card: dict[str, Any],
    dtype: Dtype = "float32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write a checkpoint folder; an existing one is replaced only once the new one is whole.

    Args:
        folder: where to.
        state_dict: of a `LaCT` of this configuration.
        config: its configuration.
        card: what a reader should know: data, steps, normalization ("auto"|"object"|"scene"),
            train_image_hw, …
        dtype: storage type of matrices.
        max_shard_bytes: largest shard (one tensor is never cut).
    Returns:
        `folder` as a Path.
    """
    folder = Path(folder)
    expected = {name: value.shape for name, value in _empty_model(config).state_dict().items()}
    given = {name: value.shape for name, value in state_dict.items()}
    if expected != given:
        wrong = sorted(set(expected.items()) ^ set(given.items()))[:3]
        raise NVSError(f"{folder}: weights do not fit the configuration, first differences: {wrong}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    names, digest = [], hashlib.sha256()
    encoded = _encode(state_dict, dtype)
    head = {name: encoded.pop(name) for name in list(encoded) if name.startswith(HEAD)}
    shards = _shards(encoded, max_shard_bytes)
    files = {f"model-{i + 1:02d}-of-{len(shards):02d}.safetensors": shard for i, shard in enumerate(shards)}
    for name, shard in {**files, **({f"{HEAD}safetensors": head} if head else {})}.items():
        content = save(shard)  # `save_file` would write a file that only its owner may read
        (temporary / name).write_bytes(content)
        digest.update(content)
        names.append(name)
    description = {
        "format": FORMAT,
        "model": config.to_dict(),
        "card": card,
        "dtype": dtype,
        "shards": names,
        "hash": digest.hexdigest(),
    }
    (temporary / "config.json").write_text(json.dumps(description, indent=1) + "\n")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def _empty_model(config: LaCTConfig) -> LaCT:
    with torch.device("meta"):
        return LaCT(config)


def find_checkpoint(name_or_folder: Path | str) -> Path:
    """A folder as given, or a name in `checkpoints_dir()`. Raises `NVSError` listing the names there are."""
    for folder in (Path(name_or_folder), checkpoints_dir() / str(name_or_folder)):
        if (folder / "config.json").is_file():
            return folder
    names = ", ".join(list_checkpoints()) or "none is there"
    raise NVSError(
        f"checkpoint {name_or_folder}: not found, expected a folder with config.json, or a name from "
        f"{checkpoints_dir()} ({names})"
    )


def default_checkpoint() -> str:
    """The checkpoint that is meant when none is named: the only one in checkpoints/, else the one whose card (in
    its config.json) says "default": true. Raises NVSError listing the names there are."""
    names = list_checkpoints()
    if len(names) == 1:
        return names[0]
    if not names:
        raise NVSError(f"--checkpoint: {checkpoints_dir()} holds none; train or fetch one, or give a folder")
    marked = [name for name in names if read_description(find_checkpoint(name))["card"].get("default") is True]
    if len(marked) == 1:
        return marked[0]
    raise NVSError(f"--checkpoint: name one of {', '.join(names)} (from {checkpoints_dir()}), or a folder")


def read_description(folder: Path) -> dict[str, Any]:
    """`config.json` of a checkpoint, its format checked."""
    try:
        description = json.loads((folder / "config.json").read_text())
        if description["format"] != FORMAT:
            raise NVSError(f"{folder}/config.json: format {description['format']!r}, expected {FORMAT!r}")
        for key in ("model", "card", "dtype", "shards", "hash"):
            description[key]
    except (ValueError, KeyError, TypeError) as error:
        raise NVSError(f"{folder}/config.json: not a checkpoint description ({error!r})") from error
    return description


def load_state_dict(folder: Path, description: dict[str, Any]) -> dict[str, Tensor]:
    """All tensors of a checkpoint as float32."""
    stored: dict[str, Tensor] = {}
    for name in description["shards"]:
        if Path(name).name != name:
            raise NVSError(f"{folder}/config.json: shard name {name!r} leaves the folder")
        try:
            stored.update(load_file(folder / name))
        except (OSError, SafetensorError) as error:
            raise NVSError(f"{folder}/{name}: unreadable shard ({error}); fetch the checkpoint again") from error
    return {
        name: value.float() * stored[name + SCALE_SUFFIX] if name + SCALE_SUFFIX in stored else value.float()
        for name, value in stored.items()
        if not name.endswith(SCALE_SUFFIX)
    }


def load_checkpoint(name_or_folder: Path | str, device: torch.device | str = "cpu") -> LaCT:
    """Load a checkpoint by name or folder, names checked strictly, as float32 in evaluation mode.

    The model's `card` gets "name" and "hash" beside what was saved. Raises `NVSError`.
    """
    folder = find_checkpoint(name_or_folder)
    description = read_description(folder)
    model = _empty_model(LaCTConfig.from_dict(description["model"]))
    state_dict = load_state_dict(folder, description)
    try:
        model.load_state_dict(state_dict, strict=True, assign=True)
    except RuntimeError as error:
        raise NVSError(f"{folder}: weights do not fit config.json: {' '.join(str(error).split())}") from error
    model.card = {
        "normalization": "auto",
        **description["card"],
        "name": folder.name,
        "hash": description["hash"],
    }
    return model.requires_grad_(True).to(device).eval()
