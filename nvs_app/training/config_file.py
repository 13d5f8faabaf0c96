"""The options of a run as a JSON file, `{"out": "runs/a", "minutes": 30, "optimizer": {"muon_lr": 0.002}}`: what
`train --config FILE` reads and every run writes to OUT/train.json. A name may also be dotted, "optimizer.muon_lr".
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nvs_app.atomic_io import write_whole
from nvs_app.errors import NVSError, reading
from nvs_app.training.config import TrainConfig
from nvs_app.training.old_options import from_old, is_old


@functools.cache
def option_types() -> dict[str, Any]:
    """The type of every option by its dotted name."""
    return dict(_types(TrainConfig, ""))


def _types(cls: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            yield from _types(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, kind


def read_options(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Options by dotted name from a file, and which of them have another name now ("--old is now --new").

    Reads what a run writes to OUT/train.json, a file of options with the flat names of earlier versions, and the
    config.json of a checkpoint, whose card holds the options of its run (its paths by their last part only, and no
    `out`). Raises NVSError for anything else.
    """
    try:
        with reading(f"--config {path}"):
            values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise NVSError(f"--config {path}: no JSON file ({error})") from error
    card = values.get("card") if isinstance(values, dict) else None
    if isinstance(card, dict):
        values = card.get("options")
    if not isinstance(values, dict):
        raise NVSError(f"--config {path}: no options in it, expected an object such as {{'out': 'runs/a', 'steps': 9}}")
    if isinstance(card, dict):
        values = {name: value for name, value in values.items() if name != "out"}
    try:
        if is_old(values):
            return checked(*from_old(values))
        return checked(dotted(values), [])
    except NVSError as error:
        raise NVSError(f"--config {path}: {error}") from None


def dotted(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data": {"pool": 8}} -> {"data.pool": 8}; options that are themselves tables stay whole."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        name = prefix + str(name)
        if isinstance(value, dict) and any(known.startswith(name + ".") for known in option_types()):
            flat |= dotted(value, name + ".")
        else:
            flat[name] = value
    return flat


def checked(values: dict[str, Any], notes: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The values in the types of their options. Raises NVSError for unknown names and wrong types."""
    known = option_types()
    for name in values:
        if name not in known:
            near = similar_options(name)
            raise NVSError(f"{name!r} is no option of train" + (f", did you mean {' or '.join(near)}?" if near else ""))
    return {name: _read(known[name], value, name) for name, value in values.items()}, notes


def similar_options(name: str) -> list[str]:
    """Options that a mistyped name may have meant, in its group or, without the group, in any."""
    near = difflib.get_close_matches(name, option_types(), 2, 0.75)
    last = {option.rpartition(".")[2]: option for option in option_types()}
    return near or [last[each] for each in difflib.get_close_matches(name.rpartition(".")[2], last, 2)]


def _read(kind: Any, value: Any, name: str) -> Any:
    """A JSON value as the type of its option."""
    origin, parts = get_origin(kind), get_args(kind)
    wrong = NVSError(f"{name}: {value!r} is not of type {kind.__name__ if isinstance(kind, type) else kind}")
    if origin is Literal:
        if value not in parts:
            raise NVSError(f"{name}: {value!r}, expected {', '.join(parts)}")
        return value
    if origin is types.UnionType:
        return None if value is None else _read(parts[0], value, name)
    if origin is tuple:
        if not isinstance(value, list | tuple) or (parts[-1] is not ... and len(parts) != len(value)):
            raise wrong
        kinds = parts[:1] * len(value) if parts[-1] is ... else parts
        return tuple(_read(each, item, name) for each, item in zip(kinds, value))
    if origin is dict:
        if not isinstance(value, dict):
            raise wrong
        if parts[1] is str:  # {"dim": 512} is as good as {"dim": "512"}
            value = {key: item if isinstance(item, str) else json.dumps(item) for key, item in value.items()}
        return {str(key): _read(parts[1], item, f"{name} {key}") for key, item in value.items()}
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise wrong
    return value


def make_config(values: dict[str, Any]) -> TrainConfig:
    """The configuration of options by dotted name; nested tables are read too. Raises NVSError."""
    values, _ = checked(dotted(values), [])
    if "out" not in values:
        raise NVSError("train: no folder of the run given, add --out FOLDER")
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, _, field = name.rpartition(".")
        groups.setdefault(group, {})[field] = value
    defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    nested: dict[str, Any] = {
        group: dataclasses.replace(defaults[group], **fields) for group, fields in groups.items() if group
    }
    return TrainConfig(**groups[""], **nested)


def plain(config: TrainConfig) -> dict[str, Any]:
    """The configuration as JSON values, nested."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def write_options(config: TrainConfig) -> Path:
    """Write OUT/train.json."""
    path = config.out / "train.json"
    write_whole(path, json.dumps(plain(config), indent=1) + "\n")
    return path
