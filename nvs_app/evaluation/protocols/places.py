"""Protocols whose scenes are folders, and finding these."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from data_tools.readers import FORMATS, open_scene, recognise
from data_tools.readers.lookup import natural
from nvs_app.errors import NVSError, reading
from nvs_app.evaluation.protocols.base import Benchmark, Entry, Listing, Settings, data_folder
from nvs_app.evaluation.protocols.choose import checked, hold_out, pick_context
from nvs_app.scenes.views import Views, ViewSplit


class SceneFolders(Benchmark):
    """A protocol whose scenes are folders at or below the data folder."""

    forms: tuple[str, ...] = ()
    """Readers that recognise the folders; where there is one it opens them."""
    depth: int = 3

    def entries(self, settings: Settings) -> Listing:
        data, form = data_folder(settings), self.forms[0] if len(self.forms) == 1 else None
        folders = scene_folders(data, self.is_scene, self.depth)
        if not folders:
            raise NVSError(f"--data {data}: no scene found, expected {self.layout}")
        names = [folder.resolve().name for folder in folders]
        if len(set(names)) < len(names):
            names = [folder.relative_to(data).as_posix() for folder in folders]
        return Listing([Entry(name, partial(open_scene, folder, form)) for name, folder in zip(names, folders)])

    def is_scene(self, folder: Path) -> bool:
        """Whether one of the readers recognises a folder."""
        return any(FORMATS[name].recognise(folder) for name in self.forms)


class EveryEighth(SceneFolders):
    """Every 8th frame is a target; of the others those are read that an option of the protocol says."""

    choice: str = "context"
    """The option's name; its values are modes of `pick_views`."""

    def split(self, views: Views, count: int, settings: Settings) -> ViewSplit:
        candidates, targets = hold_out(views, 8)
        how = settings.options[self.choice]
        return checked(views, pick_context(views, candidates, count, how, settings.seed), targets)


def scene_folders(data: Path, is_scene: Callable[[Path], bool], depth: int) -> list[Path]:
    """The folders below `data` (or itself) that are scenes, in the order of their names; a scene is not searched."""
    if is_scene(data):
        return [data]
    if depth == 0:
        return []
    found: list[Path] = []
    for child in sorted(subfolders(data), key=lambda path: natural(path.name)):
        found += scene_folders(child, is_scene, depth - 1)
    return found


def subfolders(data: Path) -> list[Path]:
    """The visible folders in a folder. Raises NVSError where it cannot be read."""
    with reading(f"--data {data}"):
        return [path for path in data.iterdir() if path.is_dir() and not path.name.startswith(".")]


def entries_of_path(path: Path, name: str) -> list[Entry]:
    """The scene or scenes (a chunk, a category) of a path that a reader recognises."""
    form = recognise(path)[0]
    keys = form.keys(path) if form.keys else []
    if len(keys) <= 1:
        return [Entry(name, partial(open_scene, path))]
    return [Entry(f"{name}#{key}", partial(open_scene, path, None, key), group=name) for key in keys]
