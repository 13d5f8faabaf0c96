"""`python -m nvs_app train --out RUN [options]`: train a network (see nvs_app/training/trainer.py).

On a machine with several GPUs this starts one process for each by itself; under torchrun it takes part in the run
that torchrun set up. The last line of output is a JSON summary.

Options are read by tyro. A machine that lacks it trains from a file: `train --config RUN.json`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nvs_app.errors import NVSError
from nvs_app.training.config import TrainConfig
from nvs_app.training.config_file import (
    checked,
    make_config,
    option_types,
    read_options,
    similar_options,
    write_options,
)
from nvs_app.training.old_options import NEW_NAMES, SWITCHES, UNCHANGED, from_old

PROGRAM = "python -m nvs_app train"
DESCRIPTION = (
    "Train a network from procedural scenes, scene folders, or a mix, and export a checkpoint. Give --minutes (whole "
    "wall-clock) or --steps. Run again with the same --out to resume. --config FILE reads options from a JSON file "
    "first, such as the train.json that every run leaves in its folder; what is given beside it wins."
)


def main(words: Sequence[str]) -> int:
    """Run the command; `words` are those after `train`."""
    return run(read_command_line(words))


def read_command_line(words: Sequence[str]) -> TrainConfig:
    """The configuration that a command line asks for; a note on stderr where it uses old names. Raises NVSError."""
    try:
        import tyro

        has_tyro = True
    except ImportError:
        has_tyro = False
    # Without tyro the old names, and those that are as before, are all that can be read.
    old, rest = _take(words, [name for name in NEW_NAMES if not has_tyro or name not in UNCHANGED])
    files, rest = _take(rest, ["config"])
    values: dict[str, Any] = {}
    notes: list[str] = []
    if "config" in files:
        values, notes = read_options(Path(files["config"]))
    if old:
        given, renamed = checked(*from_old(old))
        values, notes = values | given, notes + renamed
    if notes:
        print(f"note: old names are read for one release more: {', '.join(notes)}", file=sys.stderr)
    if not has_tyro:
        if rest:
            raise NVSError(
                f"train: {rest[0]}: the package 'tyro' is not installed; run pip install tyro, or give the options in "
                "a file, train --config RUN.json"
            )
        return make_config(values)
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(
                TrainConfig, args=[*to_words(values), *rest], prog=PROGRAM, description=DESCRIPTION, compact_help=True
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise NVSError(_one_line(told.getvalue())) from None


def _take(words: Sequence[str], names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Options of these names with their values, and the other words."""
    taken: dict[str, Any] = {}
    rest = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        option, equals, value = word.partition("=")
        name = option[2:].replace("-", "_") if option.startswith("--") else ""
        if name in SWITCHES and name in names:
            taken[name] = True
        elif name.removeprefix("no_") in SWITCHES and name.removeprefix("no_") in names:
            taken[name.removeprefix("no_")] = False
        elif name in names:
            if not equals and not waiting:
                raise NVSError(f"{option}: expected a value after it")
            taken[name] = value if equals else waiting.pop(0)
        else:
            rest.append(word)
    return taken, rest


def to_words(values: dict[str, Any]) -> list[str]:
    """Options by dotted name as words of the command line."""
    words = []
    for name, value in values.items():
        option = name.replace("_", "-")
        if option_types()[name] is bool:
            group, dot, last = option.rpartition(".")
            words.append(f"--{option}" if value else f"--{group}{dot}no-{last}")
        else:
            words += [f"--{option}", *_flat(value)]
    return words


def _flat(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, tuple):
        return [word for item in value for word in _flat(item)]
    return [str(value)]


def _one_line(told: str) -> str:
    """What tyro says in a box, in one line."""
    text = " ".join(re.sub(r"[─-╿]", " ", told).split())
    text = re.split(r"(?:Argument helptext|For full helptext|Perhaps you meant)", text)[0].strip()
    text = re.sub(r"^(Unrecognized options|Value error|Invalid choice|Required options|Parsing error) ", "", text)
    text = re.sub(r"Missing from .*?: (--\S+).*", r"missing \1", text)
    unknown = re.search(r"^Unrecognized options: --(\S+?)(?:[,=]|$)", text)
    near = similar_options(unknown[1].replace("-", "_")) if unknown else []
    hint = ", did you mean " + " or ".join("--" + name.replace("_", "-") for name in near) + "?" if near else ""
    return f"train: {text}{hint} (`{PROGRAM} --help` shows what there is)"


def run(config: TrainConfig) -> int:
    """Train; starts the other processes of this machine when there are several devices and no torchrun."""
    # Compiled kernels outlive the run; a machine that cleans its temporary folder keeps them too.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "nvs_app" / "inductor"))
    from nvs_app.distributed import process_count, processes
    from nvs_app.training.trainer import run as train

    count = process_count(config.gpus, config.device)
    words = ["-m", "nvs_app", "train", "--config", str(write_options(config))] if count > 1 else []
    with processes(count, words):
        train(config)
    return 0
