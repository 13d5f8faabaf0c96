"""The checkpoints to choose from, as the page shows them: what each is, was trained on, reaches and allows.

    for card in list_cards():
        print(card.name, card.parameters, card.licence)

A checkpoint's folder comes from anywhere: nothing in its card is believed to be of the right type, and all of it
is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nvs_app.errors import NVSError
from nvs_app.model.checkpoint import find_checkpoint, list_checkpoints, read_description
from nvs_app.model.config import LaCTConfig
from nvs_app.model.flops import lact_flops

MAX_WORDS = 400  # characters of one entry of a card that are shown
MAX_LINES = 60


@dataclass(frozen=True)
class Card:
    """One checkpoint for display; all texts are plain, not yet escaped.

    Attributes:
        name: what `--checkpoint` takes.
        summary: one line.
        parameters: "30.4 M", or empty where the card does not say.
        network: width, blocks and the like.
        train_image_hw: the size that it renders best, or None.
        licence: of the weights.
        data: what it was trained on, a line each, with licences.
        figures: (what, value): measured quality, training steps and time.
        bytes: size on disk.
        default: taken when none is named.
        problem: why it cannot be used, or None.
    """

    name: str
    summary: str = ""
    parameters: str = ""
    network: str = ""
    train_image_hw: tuple[int, int] | None = None
    licence: str = ""
    data: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()
    bytes: int = 0
    default: bool = False
    problem: str | None = None

    @property
    def choice(self) -> tuple[str, str]:
        """(label, name) for a list to choose from."""
        parts = [self.name, f"{self.parameters} parameters" if self.parameters else ""]
        parts += [_size_words(self.train_image_hw)] if self.train_image_hw else []
        parts += ["cannot be used"] if self.problem else ["default"] if self.default else []
        return " · ".join(part for part in parts if part), self.name

    @property
    def facts(self) -> list[tuple[str, tuple[str, ...]]]:
        """(heading, lines) of everything that is known."""
        found: list[tuple[str, tuple[str, ...]]] = [
            ("Problem", (self.problem,) if self.problem else ()),
            ("Parameters", (self.parameters,) if self.parameters else ()),
            ("Network", (self.network,) if self.network else ()),
            ("Trained at", (_size_words(self.train_image_hw),) if self.train_image_hw else ()),
            ("Figures", tuple(f"{what}: {value}" for what, value in self.figures)),
            ("Training data", self.data),
            ("Licence", (self.licence,) if self.licence else ()),
            ("On disk", (f"{self.bytes / 2**20:.1f} MiB",) if self.bytes else ()),
        ]
        return [(heading, lines) for heading, lines in found if lines]

    def to_html(self) -> str:
        """A `<section class='nvs-card'>` with a heading and a `<dl>`; every text is escaped."""

        def values(lines: tuple[str, ...]) -> str:
            found = "".join(f"<dd>{html.escape(line)}</dd>" for line in lines)
            many = f"<dd><details><summary>{len(lines)} entries</summary><dl>{found}</dl></details></dd>"
            return many if len(lines) > 6 else found

        rows = "".join(f"<div><dt>{heading}</dt>{values(lines)}</div>" for heading, lines in self.facts)
        summary = f"<p>{html.escape(self.summary)}</p>" if self.summary else ""
        mark = " <small>default</small>" if self.default else ""
        return f"<section class='nvs-card'><h3>{html.escape(self.name)}{mark}</h3>{summary}<dl>{rows}</dl></section>"


def list_cards() -> list[Card]:
    """All checkpoints in `checkpoints_dir()`: the default first, then by name; those with a problem last."""
    cards = [read_card(name) for name in list_checkpoints()]
    # As `checkpoint.default_checkpoint`, which stops at a broken folder: here the others still show.
    marked = [card for card in cards if card.default]
    default = cards[0].name if len(cards) == 1 else marked[0].name if len(marked) == 1 else None
    cards = [replace(card, default=card.name == default) for card in cards]
    return sorted(cards, key=lambda card: (card.problem is not None, not card.default, card.name))


def read_card(name: str | Path) -> Card:
    """The card of one checkpoint, by name or folder; a broken one has its `problem` set. `default`: it says so."""
    try:
        folder = find_checkpoint(name)
        description = read_description(folder)
        config = LaCTConfig.from_dict(description["model"])
        missing = [shard for shard in description["shards"] if not (folder / Path(str(shard)).name).is_file()]
        if missing:
            raise NVSError(f"{missing[0]} is missing; fetch or train it again")
    except NVSError as error:
        return Card(_line(Path(name).name), problem=_line(str(error)))
    except (OSError, TypeError, ValueError, RecursionError) as error:
        return Card(_line(Path(name).name), problem=f"its config.json cannot be understood ({_line(str(error))})")
    card = description["card"] if isinstance(description["card"], dict) else {}
    return Card(
        name=_line(folder.name),
        summary=_line(card.get("summary")),
        parameters=_count(card.get("parameters")),
        network=_network(config, description.get("dtype")),
        train_image_hw=_size(card.get("train_image_hw")),
        licence=_line(card.get("licence") or card.get("license")),
        data=tuple(_lines(card.get("data")))[:MAX_LINES],
        figures=tuple(_figures(card, config))[:MAX_LINES],
        bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        default=card.get("default") is True,
    )


def _network(config: LaCTConfig, dtype: Any) -> str:
    words = f"LaCT, width {config.dim}, {config.blocks} blocks, {config.num_fast_heads} fast heads"
    words += f", patch {config.patch}"
    return words + (f", stored as {_line(dtype)}" if isinstance(dtype, str) else "")


def _figures(card: dict[str, Any], config: LaCTConfig) -> Iterable[tuple[str, str]]:
    """Held-out PSNR by size and scene, steps, time, and the work of one image."""
    held_out = card.get("held_out_psnr")
    if isinstance(held_out, dict):
        for size, scenes in held_out.items():
            if isinstance(scenes, dict):
                values = [f"{_line(name)} {value:.2f} dB" for name, value in scenes.items() if _is_number(value)]
                if values:
                    yield f"PSNR at {_line(size).replace('x', '×')}", ", ".join(values)
            elif _is_number(scenes):
                yield f"PSNR, {_line(size)}", f"{scenes:.2f} dB"
    if _is_number(card.get("steps")):
        yield "Training", f"{int(card['steps']):,} steps" + _spent(card)
    size = _size(card.get("train_image_hw"))
    if size is not None:
        tokens = -(-size[0] // config.patch) * -(-size[1] // config.patch)
        yield "One image", f"{lact_flops(config, 0, tokens, tokens) / 1e9:.0f} GFLOP at {_size_words(size)}"


def _spent(card: dict[str, Any]) -> str:
    words = ""
    if _is_number(card.get("train_seconds")):
        minutes = float(card["train_seconds"]) / 60
        words += f" in {minutes:.0f} minutes" if minutes < 120 else f" in {minutes / 60:.1f} hours"
    device = _line(card.get("device"))
    return words + (f" on {device}" if device else "")


def _lines(value: Any, heading: str = "") -> Iterable[str]:
    """Nested lists and objects as lines; one level of headings is enough for people."""
    if isinstance(value, dict):
        for key, inner in list(value.items())[:MAX_LINES]:
            yield from _lines(inner, _line(key))
    elif isinstance(value, list):
        for inner in value[:MAX_LINES]:
            text = _line(inner)
            if text:
                yield f"{heading}: {text}" if heading else text
    elif text := _line(value):
        yield f"{heading}: {text}" if heading else text


def _line(value: Any) -> str:
    """Anything as one line of bounded length; empty for None."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)[: 4 * MAX_WORDS]
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_WORDS]).split())
    return text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…"


def _count(value: Any) -> str:
    if not _is_number(value) or value < 1:
        return ""
    return f"{value / 1e6:.3g} M" if value < 1e9 else f"{value / 1e9:.3g} G"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _size(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(type(side) is int and 0 < side < 10**5 for side in value):
        return value[0], value[1]
    return None


def _size_words(image_hw: tuple[int, int]) -> str:
    return f"{image_hw[1]}×{image_hw[0]}"
