"""What a benchmark is: where its scenes are, which views are read and rendered, at which size, and who says so.

A protocol is a subclass of `Benchmark` in a file of its own. Where papers differ, or leave something open, there is an
`Option`; the report prints the choice that was used. Nothing here renders: `evaluation.benchmark.run` does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from nvs_app.errors import NVSError
from nvs_app.scenes.scene import inside
from nvs_app.scenes.views import Views, ViewSplit


@dataclass(frozen=True)
class Option:
    """A choice that papers make differently, or leave open.

    choices: name -> what it means; empty where any text goes. The first is the default unless `default` says.
    """

    name: str
    help: str
    choices: Mapping[str, str] = field(default_factory=dict)
    default: str = ""

    def __post_init__(self) -> None:
        if not self.default and self.choices:
            object.__setattr__(self, "default", next(iter(self.choices)))


@dataclass(frozen=True)
class Published:
    """A figure from a paper's table, to stand beside ours. context: number of views; psnr: dB; of: whose method."""

    of: str
    context: int
    psnr: float


@dataclass(frozen=True)
class Settings:
    """What a run asks of a benchmark.

    data: the folder with the scenes; None where none is needed. contexts: numbers of context views, ascending; empty
    takes the benchmark's. image_hw: (height, width); None takes the benchmark's. seed: of choices that are drawn.
    options: every option of the benchmark by name. device: where generated scenes are made.
    """

    data: Path | None = None
    contexts: tuple[int, ...] = ()
    image_hw: tuple[int, int] | None = None
    seed: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    device: torch.device = torch.device("cpu")


@dataclass(frozen=True)
class Entry:
    """One scene: its name, unique in the benchmark, and how to open it. Entries of the same `group` are best opened
    by the same process one after the other (they share a file, or are made together). The report also gives the means
    of each `kind`, where scenes have one."""

    name: str
    open: Callable[[], Views]
    group: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Listing:
    """The scenes that are there, and name -> reason of those that should be but are not."""

    entries: list[Entry]
    absent: dict[str, str] = field(default_factory=dict)


class Benchmark:
    """A protocol. Subclasses set the fields and answer the three questions: which scenes, which views, which size."""

    name: str = ""
    title: str = ""
    source: str = ""
    """Paper or repository that the protocol is from."""
    layout: str = ""
    """What the data folder looks like."""
    notes: tuple[str, ...] = ()
    """What the source leaves open, and our choice."""
    contexts: tuple[int, ...] = (8,)
    image_hw: tuple[int, int] | None = (256, 256)
    """None: decided by `size` for each scene."""
    options: tuple[Option, ...] = ()
    published: tuple[Published, ...] = ()
    needs_data: bool = True
    loaders: int = 4
    """Threads that load scenes ahead on a GPU; 1 where scenes must be opened in order."""
    ahead: int = 2
    """Scenes that wait loaded on a GPU, at least."""

    def default_contexts(self, settings: Settings) -> tuple[int, ...]:
        """The numbers of context views of the published table."""
        return self.contexts

    def entries(self, settings: Settings) -> Listing:
        """The scenes, in a fixed order. Reads no image. Raises NVSError when there is none."""
        raise NotImplementedError

    def split(self, views: Views, count: int, settings: Settings) -> ViewSplit:
        """Context and target views of a scene. Raises NVSError where the scene does not have them."""
        raise NotImplementedError

    def size(self, views: Views, settings: Settings) -> tuple[int, int]:
        """(height, width) at which the scene is read and rendered."""
        size = settings.image_hw or self.image_hw
        assert size is not None, f"{self.name}: no size"
        return size

    def remarks(self, views: Views, settings: Settings) -> list[str]:
        """What about this scene departs from the protocol, a line each."""
        return []

    def complete(self, settings: Settings) -> Settings:
        """`settings` with every default filled in. Raises NVSError for what this benchmark does not know."""
        known = {option.name: option for option in self.options}
        for name, value in settings.options.items():
            if name not in known:
                shown = ", ".join(known) or "none"
                raise NVSError(f"--option {name}: benchmark {self.name} has no such option, it has {shown}")
            choices = known[name].choices
            if choices and value not in choices:
                raise NVSError(f"--option {name}={value}: expected one of {', '.join(choices)}")
        options = {name: settings.options.get(name, option.default) for name, option in known.items()}
        if self.needs_data and settings.data is None:
            raise NVSError(f"--benchmark {self.name}: give --data DIR with {self.layout}")
        if settings.data is not None and not settings.data.exists():
            raise NVSError(f"--data {settings.data}: no such folder")
        filled = replace(settings, options=options)
        return replace(filled, contexts=tuple(sorted(set(settings.contexts or self.default_contexts(filled)))))

    def number(self, settings: Settings, name: str) -> int:
        """An option that is a positive whole number."""
        text = settings.options[name]
        if not re.fullmatch(r"\d{1,9}", text) or int(text) < 1:
            raise NVSError(f"--option {name}={text}: expected a whole number of 1 or more")
        return int(text)


def data_folder(settings: Settings) -> Path:
    """The data folder of settings that `Benchmark.complete` has checked."""
    assert settings.data is not None, "complete() was not called"
    return settings.data


def view_name(views: Views, index: int) -> str:
    """The image's path under the scene's folder, which may be a link."""
    path = views.image_paths[index]
    return inside(path, views.root) or path.as_posix()


def stable_seed(*parts: object) -> int:
    """A seed from names and numbers that no run, machine or Python version changes."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
