"""Finding the scenes of a data folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from data_tools.readers import FORMATS, open_scene, recognise
from nvs_app.errors import NVSError
from nvs_app.evaluation.protocols.base import Entry, Listing, natural


def scene_folders(data: Path, is_scene: Callable[[Path], bool], depth: int = 3) -> list[Path]:
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
    try:
        return [path for path in data.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise NVSError(f"--data {data}: cannot be read ({error.strerror or error})") from error


def scene_names(data: Path, folders: list[Path]) -> list[str]:
    """Each folder's own name where that tells them apart, else its path below `data`."""
    own = [folder.resolve().name for folder in folders]
    if len(set(own)) == len(own):
        return own
    return [folder.relative_to(data).as_posix() for folder in folders]


def as_listing(data: Path, folders: list[Path], expected: str, form: str | None = None) -> Listing:
    """Entries that open the folders with the reader of `form`. Raises NVSError when there is no folder."""
    if not folders:
        raise NVSError(f"--data {data}: no scene found, expected {expected}")
    return Listing(
        [Entry(name, partial(open_scene, folder, form)) for name, folder in zip(scene_names(data, folders), folders)]
    )


def is_form(*names: str) -> Callable[[Path], bool]:
    """A test for folders that one of these readers recognises; all readers where none is named."""

    def found(path: Path) -> bool:
        forms: Iterable = (FORMATS[name] for name in names) if names else FORMATS.values()
        return any(form.recognise(path) for form in forms)

    return found


def entries_of_path(path: Path, name: str) -> list[Entry]:
    """The scene or scenes (a chunk, a category) of a path that a reader recognises."""
    form = recognise(path)[0]
    keys = form.keys(path) if form.keys else []
    if len(keys) <= 1:
        return [Entry(name, partial(open_scene, path))]
    return [Entry(f"{name}#{key}", partial(open_scene, path, None, key), group=name) for key in keys]
