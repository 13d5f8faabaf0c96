"""Which assets a run has: files, folders, lists and Objaverse uids become tasks with names that stay the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.assets.render_task import RenderOptions, RenderTask
from nvs_app.errors import NVSError, reading

ASSETS = (".glb", ".gltf", ".obj")
LISTS = (".txt", ".list", ".json")
UID = re.compile(r"[0-9a-f]{32}")
MAX_LIST_BYTES = 512 << 20


@dataclass(frozen=True)
class AssetSource:
    """An asset before it has a folder name: see :class:`data_tools.assets.render_task.RenderTask`."""

    key: str
    path: str
    root: str
    uid: str = ""
    object_path: str = ""


def find_assets(inputs: Sequence[str], out: Path) -> list[AssetSource]:
    """All assets of the inputs, in order, none twice.

    Args:
        inputs: .glb, .gltf and .obj files; folders of them, searched within; Objaverse uids; text files with one path
            or uid a line ('#' starts a comment); JSON files with a list of them, or an object uid -> path as
            ``objaverse.load_objects`` returns it. Paths in a list are relative to the list's folder.
        out: not searched.

    Raises:
        NVSError: an input that does not exist or holds no asset.
    """
    found: list[AssetSource] = []
    uids: list[str] = []
    for text in inputs:
        path = Path(text)
        if UID.fullmatch(text) and not path.exists():
            uids.append(text)
            continue
        with reading(text):
            if path.is_dir():
                new = _folder(path, out)
            elif not path.exists():
                raise NVSError(f"{text}: no such file or folder, and no Objaverse uid (32 digits 0-9 a-f)")
            elif path.suffix.lower() in LISTS and path.is_file():
                new = _list(path, uids)
            elif path.suffix.lower() in ASSETS:
                new = [_file(path)]
            else:
                kinds = ", ".join((*ASSETS, *LISTS))
                raise NVSError(f"{text}: expected a folder, an Objaverse uid, or a file of {kinds}")
        found += new
    found += find_uids(list(dict.fromkeys(uids))) if uids else []
    unique = {(source.path, source.uid): source for source in reversed(found)}
    return _distinct([source for source in found if unique.pop((source.path, source.uid), None)])


def _file(path: Path) -> AssetSource:
    absolute = Path(os.path.abspath(path))  # not resolve(): a link's own name and folder count
    return AssetSource(absolute.name, str(absolute), str(absolute.parent))


def _folder(folder: Path, out: Path) -> list[AssetSource]:
    root, closed = Path(os.path.abspath(folder)), Path(os.path.abspath(out))
    found = []
    for parent, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if name[0] != "." and Path(parent, name) != closed)
        for name in sorted(files):
            if name[0] != "." and name.lower().endswith(ASSETS):
                path = Path(parent, name)
                found.append(AssetSource(path.relative_to(root).as_posix(), str(path), str(root)))
    if not found:
        raise NVSError(f"{folder}: no {', '.join(ASSETS)} in it")
    return found


def _list(path: Path, uids: list[str]) -> list[AssetSource]:
    if path.stat().st_size > MAX_LIST_BYTES:
        raise NVSError(f"{path}: a list of more than {MAX_LIST_BYTES >> 20} MiB")
    try:
        text = path.read_text(encoding="utf-8")
        entries: Any = json.loads(text) if path.suffix.lower() == ".json" else None
    except (ValueError, RecursionError) as error:
        raise NVSError(f"{path}: not {'JSON' if path.suffix.lower() == '.json' else 'text'} ({error})") from error
    if isinstance(entries, dict):
        # uid -> path; uid -> anything else (annotations) is a list of uids.
        entries = [value if isinstance(value, str) else key for key, value in entries.items()]
    elif entries is None:
        lines = (line.strip() for line in text.splitlines())
        entries = [line for line in lines if line and line[0] != "#"]
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise NVSError(f"{path}: expected a list of paths and uids, or an object uid -> path")
    found = []
    for entry in entries:
        if UID.fullmatch(entry):
            uids.append(entry)
            continue
        if not entry.lower().endswith(ASSETS) or "\0" in entry:
            raise NVSError(f"{path}: {entry[:80]!r} is neither a {', '.join(ASSETS)} file nor an Objaverse uid")
        # One that is missing is told in the log like any other bad asset; it does not stop the others.
        own = Path(os.path.abspath(path.parent / entry))
        absolute = Path(entry).is_absolute() or ".." in Path(entry).parts
        found.append(AssetSource(own.name if absolute else Path(entry).as_posix(), str(own), str(own.parent)))
    if not entries:
        raise NVSError(f"{path}: an empty list")
    return found


def find_uids(uids: Sequence[str]) -> list[AssetSource]:
    """Objaverse uids, with the file where the package's cache has it; workers download the others.

    Raises:
        NVSError: no ``objaverse`` package, its index can be neither found nor downloaded, or an unknown uid.
    """
    import urllib.error
    from http.client import HTTPException

    try:
        import objaverse
    except ImportError as error:
        raise NVSError(f"{uids[0]}: an Objaverse uid needs the package: pip install objaverse") from error
    where = Path(objaverse._VERSIONED_PATH)
    try:
        paths = objaverse._load_object_paths()
    except (urllib.error.URLError, HTTPException, OSError, EOFError, ValueError) as error:
        raise NVSError(
            f"{uids[0]}: Objaverse's index is not in {where} and cannot be downloaded ({error}); connect to the"
            " network once, or name files instead of uids"
        ) from error
    unknown = [uid for uid in uids if uid not in paths]
    if unknown:
        raise NVSError(f"{unknown[0]}: not in Objaverse's index ({len(unknown)} of {len(uids)} uids)")
    found = []
    for uid in uids:
        file = where / paths[uid]
        there = str(file) if file.is_file() else ""
        found.append(AssetSource(f"{uid}.glb", there, str(file.parent), uid, paths[uid]))
    return found


def _distinct(sources: list[AssetSource]) -> list[AssetSource]:
    """Keys that differ: of equal ones the later get their folder's name in front, or a number."""
    taken: set[str] = set()
    result = []
    for source in sources:
        folder = Path(source.root).name
        numbered = (f"{folder}-{number}/{source.key}" for number in range(2, len(sources) + 2))
        key = next(key for key in (source.key, f"{folder}/{source.key}", *numbered) if key not in taken)
        taken.add(key)
        result.append(source if key == source.key else AssetSource(key, *list(vars(source).values())[1:]))
    return result


def make_tasks(sources: Sequence[AssetSource], out: Path, options: RenderOptions) -> list[RenderTask]:
    """Sources with the names of their scene folders: plain, and told apart by a digest where two would be equal."""
    slugs = [_slug(source.key) for source in sources]
    count = Counter(slug.lower() for slug in slugs)
    tasks = []
    for source, slug in zip(sources, slugs, strict=True):
        name = slug if count[slug.lower()] == 1 else f"{slug}-{_digest(source.key)}"
        where = os.path.abspath(out)
        tasks.append(
            RenderTask(source.key, name, source.path, source.root, where, options, source.uid, source.object_path)
        )
    return tasks


def _slug(key: str) -> str:
    """A folder's name: ASCII, no dot in front, no longer than 100."""
    stem = key.rpartition(".")[0] or key
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "_", stem.replace("/", "__")).strip("._")
    if not slug or len(slug) > 100:
        slug = f"{slug[:90] or 'asset'}-{_digest(key)}"
    return slug


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:8]
