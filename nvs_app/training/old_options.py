"""Flat options of versions before 0.3, of command lines, files and cards: read for one release, with a note.

Values that were small languages in a string ("4:12:3,8:8", "128:0,256:0.8", "a=2,b") become what they meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from data_tools.shards.read import is_shards
from nvs_app.errors import NVSError
from nvs_app.model.config import OLD_NAMES, PRESETS, LaCTConfig

# Options that are called as before.
UNCHANGED = ("out", "name", "minutes", "process_minutes", "steps", "resume", "seed", "device", "gpus")
NEW_NAMES = {name: name for name in UNCHANGED} | {
    "model": "model.preset",  # and model.config_override
    "init": "model.init",
    "config_override": "model.config_override",
    "init_change": "model.config_override",
    "checkpointing": "model.checkpointing",
    "precision": "model.precision",
    "compile": "model.compile",
    "data": "data.sources",
    "kinds": "data.kinds",
    "assets": "data.assets",
    "pool": "data.pool",
    "pool_views": "data.pool_views",
    "generate": "data.generate",
    "reuse": "data.reuse",
    "prefetch": "data.prefetch",
    "resolutions": "views.resolutions",
    "views": "views.counts",
    "tokens": "views.tokens",
    "scenes": "views.scenes",
    "even_view_prob": "views.even_view_prob",
    "spread": "views.even_view_prob",
    "mirror": "augmentation.mirror",
    "colour": "augmentation.colour",
    "capture": "augmentation.capture",
    "repeat": "augmentation.repeat",
    "scale_jitter": "augmentation.scale",
    "lact_scale": "detail.lact_scales",
    "head_views": "detail.head_views",
    "depth_weight": "detail.depth_weight",
    "lact_weight": "detail.lact_weight",
    "lact_lr": "detail.lact_lr",
    "perceptual": "loss.perceptual",
    "inverse_mse_power": "loss.inverse_mse_power",
    "balance": "loss.inverse_mse_power",
    "lpips_file": "loss.lpips_file",
    "lpips_weight": "loss.lpips_weight",
    "muon_lr": "optimizer.muon_lr",
    "adam_lr": "optimizer.adam_lr",
    "weight_decay": "optimizer.weight_decay",
    "clip": "optimizer.clip",
    "grad_skip_factor": "optimizer.grad_skip_factor",
    "spike": "optimizer.grad_skip_factor",
    "ema": "optimizer.ema",
    "schedule": "schedule.kind",
    "warmup_steps": "schedule.warmup_steps",
    "decay_share": "schedule.decay_share",
    "eval_scenes": "evaluation.scenes",
    "eval_context": "evaluation.context",
    "eval_minutes": "evaluation.minutes",
    "eval_procedural": "evaluation.procedural",
    "save_minutes": "output.save_minutes",
    "state": "output.state",
    "export": "output.export",
    "log_every": "output.log_every",
    "profile": "output.profile",
    "tensorboard": "output.tensorboard",
    "reserve_seconds": "output.reserve_seconds",
}
SWITCHES = ("checkpointing", "prefetch", "state", "tensorboard")
GROUPS = {new.partition(".")[0] for new in NEW_NAMES.values() if "." in new}


def is_old(values: dict[str, Any]) -> bool:
    """Whether options of a file have the flat names: some of those that mean nothing else now."""
    return any(name in NEW_NAMES and name not in UNCHANGED and name not in GROUPS for name in values)


def from_old(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Options by dotted name, and what is to be said of those renamed. Raises NVSError for unknown names and values.

    Values are texts of a command line or JSON values of a file; an unknown name is left to the reader of new ones.
    """
    new: dict[str, Any] = {}
    notes = []
    value: Any
    for name, value in values.items():
        target = NEW_NAMES.get(name, name)
        if target != name:
            also = " and --model.config-override" if name == "model" else ""
            notes.append(f"--{name.replace('_', '-')} is now --{target.replace('_', '-')}{also}")
        try:
            value = READERS[name](value) if name in READERS else value
            if isinstance(value, str) and name not in TEXTS and name not in READERS:
                value = _number(value)
        except (ValueError, LookupError, TypeError, AttributeError):
            old, now = (each.replace("_", "-") for each in (name, target))
            raise NVSError(f"--{old}: {value!r} cannot be read; better use --{now} (see --help-verbose)") from None
        if name == "model":
            new["model.preset"], override = value
            new["model.config_override"] = override | new.get("model.config_override", {})
        elif target == "model.config_override":
            new[target] = new.get(target, {}) | value
        else:
            new[target] = value
    if values.get("init") and "model" in values:  # whose configuration wins
        changes = values.get("config_override", values.get("init_change", ""))
        new |= {"model.preset": "small", "model.config_override": _pairs(changes)}
    elif values.get("config_override") or values.get("init_change"):
        if not values.get("init"):
            raise NVSError("--config-override: expected --init beside it")
    return new, notes


def read_shares(text: str | dict[str, float]) -> dict[str, float]:
    """`"procedural=0.8,scans=0.2"` -> {"procedural": 0.8, "scans": 0.2}; a name without weight counts 1."""
    if isinstance(text, dict):
        return text
    shares = {}
    for part in re.split(r",(?![^{]*\})", text) if text else []:  # not at the commas inside braces
        name, equals, weight = part.strip().rpartition("=")
        if not equals:
            name, weight = weight, ""
        try:
            shares[name] = float(weight or 1)
        except ValueError:
            if not is_shards(part.strip()):  # an address may hold = itself
                raise
            name = part.strip()
            shares[name] = 1.0
        if not name:
            raise ValueError("expected NAME=WEIGHT")
    return shares


def read_resolutions(text: str) -> list[list[int | float]]:
    """`"128:0,144x256:0.8"` -> [[128, 128, 0.0], [144, 256, 0.8]]."""
    rows: list[list[int | float]] = []
    for part in text.split(","):
        size, _, begins = part.strip().partition(":")
        height, *width = size.lower().split("x")
        rows.append([int(height), int(*width) if width else int(height), float(begins or 0)])
    return rows


def read_counts(text: str) -> list[list[int | float]]:
    """`"4:12:3,8:8"` -> [[4, 12, 3.0], [8, 8, 1.0]]."""
    rows = []
    for part in text.split(","):
        context, target, *weight = part.strip().split(":")
        rows.append([int(context), int(target), float(*weight) if weight else 1.0])
    return rows


def read_model(text: str) -> tuple[str, dict[str, str]]:
    """Preset and changes of a preset's name, `key=value,...` (after an optional preset), or a JSON object."""
    if text.strip().startswith("{"):
        published = next(name for name, config in PRESETS.items() if config == LaCTConfig())
        return published, {OLD_NAMES.get(name, name): _text(value) for name, value in json.loads(text).items()}
    first, _, rest = text.strip().partition(",")
    return ("small", _pairs(text)) if "=" in first else (first, _pairs(rest))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "+".join(f"{name}:{size}" for name, size in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _pairs(text: str) -> dict[str, str]:
    pairs = dict(part.strip().split("=", 1) for part in text.split(",") if part.strip())
    pairs = {OLD_NAMES.get(name, name): value for name, value in pairs.items()}
    if pairs.get("share_initial_weights") in ("own", "shared"):
        pairs["share_initial_weights"] = "true" if pairs["share_initial_weights"] == "shared" else "false"
    return pairs


def _numbers(text: str) -> list[int | float]:
    return [_number(part) for part in text.split(",") if part.strip()]


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _path(text: str) -> str | None:
    return text or None


TEXTS = (*UNCHANGED[:2], "resume", "device", "init", "precision", "compile", "schedule", "export")
READERS: dict[str, Callable[[Any], Any]] = {
    "model": read_model,
    "config_override": _pairs,
    "init_change": _pairs,
    "data": read_shares,
    "kinds": read_shares,
    "scenes": lambda text: {size: max(1, int(number)) for size, number in read_shares(text).items()},
    "assets": _path,
    "lpips_file": _path,
    "resolutions": read_resolutions,
    "views": read_counts,
    "lact_scale": _numbers,
    "head_views": _numbers,
    "eval_scenes": lambda text: [part.strip() for part in text.split(",") if part.strip()],
}
