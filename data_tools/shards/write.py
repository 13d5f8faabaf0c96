"""Scenes -> training shards: tars in the WebDataset layout that stream into the trainer from disk or over http(s).

    python -m data_tools shards captures/* chunks/000000.torch OUT --max-side 256 --scenes-per-shard 64
    python -m nvs_app train --out RUN --minutes 30 --data.sources shards:OUT 1 procedural 1

One sample a scene, as `data_tools.shards.read` describes it; any WebDataset reader opens the tars. OUT/index.json lists
the finished shards, their scenes, and the scenes left out with the reason. Shards are written under a temporary name
and renamed; the same command goes on where it was stopped and gives the same bytes as an uninterrupted run.

The tars are written by `tarfile` and not by the `webdataset` package: it would add nothing to these few lines, and the
machines that train do not have it (see `data_tools.shards.tar_stream`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2

from data_tools.readers import open_scene, recognise, scene_keys
from data_tools.shards.read import FORMAT, INDEX, load_object
from data_tools.shards.samples import MIB, ShardOptions, make_sample
from nvs_app.atomic_io import write_whole
from nvs_app.errors import NVSError

__all__ = ["ShardOptions", "ShardReport", "list_scenes", "make_sample", "write_shards"]

# What reading a stranger's scene may raise; anything else is a mistake of ours and should be seen.
FAULTS = (NVSError, OSError, ValueError, RuntimeError, MemoryError, cv2.error)


@dataclass
class ShardReport:
    """What a run did. shards, scenes: in all; present: shards that were there already; skipped: scene -> reason."""

    shards: int = 0
    scenes: int = 0
    views: int = 0
    present: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def list_scenes(sources: Sequence[str | Path]) -> list[str]:
    """References for `open_scene`, in order: scenes, the scenes of files that hold many, those of folders of scenes.

    Raises:
        NVSError: a source that does not exist or holds nothing like a scene.
    """
    found: list[str] = []
    for source in map(str, sources):
        path = Path(source)
        if "#" in source and not path.exists():
            found.append(source)
            continue
        try:
            found += _references(path)
        except NVSError:
            # A folder among them that cannot be read stays in the list, to be reported as skipped.
            folders = sorted(p for p in path.iterdir() if p.name[0] != ".") if path.is_dir() else []
            own = [reference for folder in folders for reference in _try_references(folder)]
            if not own:
                raise
            found += own
    return list(dict.fromkeys(found))


def _references(path: Path) -> list[str]:
    recognise(path)
    return [f"{path}#{key}" for key in scene_keys(path)] or [str(path)]


def _try_references(path: Path) -> list[str]:
    try:
        return _references(path)
    except FAULTS:
        return [str(path)] if path.is_dir() else []


def write_shards(
    sources: Sequence[str | Path],
    out: str | Path,
    options: ShardOptions | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, text: None,
) -> ShardReport:
    """Write or go on writing shards.

    Args:
        sources: see :func:`list_scenes`; a scene that cannot be read is left out and told.
        out: folder of the shards.
        options: see :class:`ShardOptions`.
        progress: called with (scenes done, scenes in all, a line or "").

    Raises:
        NVSError: wrong sources, a folder with shards of other sources or options, a full disk, no scene at all.
    """
    options, out = options or ShardOptions(), Path(out)
    references = list_scenes(sources)
    digest = hashlib.sha256("\n".join(references).encode("utf-8", "surrogateescape")).hexdigest()
    index: dict[str, Any] = {
        "format": FORMAT, "version": 1, "complete": False, "options": json.loads(json.dumps(asdict(options))),
        "sources": len(references), "sources_sha256": digest, "next": 0, "shards": [], "skipped": [],
    }  # fmt: skip
    try:
        out.mkdir(parents=True, exist_ok=True)
        start = _resume(out, index)
        index["next"], present = start, len(index["shards"])
        _write_index(out, index)
        progress(start, len(references), f"{present} shards there already" if present else "")
        while start < len(references):
            start = _write_shard(out, index, references, start, options, progress)
        index["complete"] = True
        _write_index(out, index)
    except OSError as error:
        raise NVSError(f"{error.filename or out}: cannot be written ({error.strerror or error})") from error
    shards = index["shards"]
    if not shards:
        reason = f" ({index['skipped'][0]['reason']})" if index["skipped"] else ""
        raise NVSError(f"{out}: none of {len(references)} scenes could be used{reason}")
    return ShardReport(
        len(shards), sum(s["scenes"] for s in shards), sum(s["views"] for s in shards), present,
        {entry["scene"]: entry["reason"] for entry in index["skipped"]},
    )  # fmt: skip


def _resume(out: Path, index: dict[str, Any]) -> int:
    """Put what an earlier run finished into ``index``; returns the number of the next source."""
    path = out / INDEX
    if not path.exists():
        if any(out.glob("*.tar")):
            raise NVSError(f"{out}: holds .tar files but no {INDEX}; choose another folder or remove them")
        return 0
    before = load_object(str(path), path.read_bytes())
    if before.get("format") != FORMAT:
        raise NVSError(f"{path}: not an index of shards; choose another folder")
    for name, what in (("options", "options"), ("sources_sha256", "scenes")):
        if before.get(name) != index[name]:
            raise NVSError(f"{out}: holds shards of other {what}; choose another folder or remove it")
    try:
        for shard in before["shards"]:
            file = out / shard["file"]
            if not file.is_file() or file.stat().st_size != shard["bytes"]:
                break  # written again, with all after it, so that the order stays
            index["shards"].append(shard)
        start = index["shards"][-1]["sources"][1] if index["shards"] else 0
        if len(index["shards"]) == len(before["shards"]):
            start = max(start, before["next"])
        index["skipped"] = [entry for entry in before["skipped"] if entry["number"] < start]
    except (KeyError, TypeError, IndexError) as error:
        raise NVSError(f"{path}: malformed; remove the folder and start anew") from error
    return start


def _write_shard(
    out: Path,
    index: dict[str, Any],
    references: list[str],
    start: int,
    options: ShardOptions,
    progress: Callable[[int, int, str], None],
) -> int:
    """One shard from ``references[start:]``; returns the number of the next source."""
    number = len(index["shards"])
    name = f"shard-{number:06d}.tar"
    keys: list[str] = []
    temporary, views, at = out / f".{name}.tmp", 0, start
    try:
        with temporary.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            while at < len(references) and not _full(file.tell(), len(keys), options):
                key = f"{at:08d}-{_slug(references[at])}"
                try:
                    scene = open_scene(references[at])
                    files = make_sample(scene, options)
                except FAULTS as error:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    index["skipped"].append({"number": at, "scene": references[at], "reason": reason})
                    progress(at + 1, len(references), f"{references[at]}: left out: {reason}")
                else:
                    for extension, data in files.items():
                        info = tarfile.TarInfo(f"{key}.{extension}")  # no date and no owner: equal bytes every time
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
                    keys.append(key)
                    views += len(files) - 1
                    progress(at + 1, len(references), "")
                at += 1
        index["next"] = at
        if keys:
            os.replace(temporary, out / name)
            size = (out / name).stat().st_size
            shard = {"file": name, "scenes": len(keys), "views": views, "bytes": size, "sources": [start, at]}
            index["shards"].append({**shard, "keys": keys})
        _write_index(out, index)
    finally:
        temporary.unlink(missing_ok=True)
    return at


def _full(size: int, scenes: int, options: ShardOptions) -> bool:
    by_number = options.scenes_per_shard and scenes >= options.scenes_per_shard
    return bool(by_number or (options.shard_mib and size >= options.shard_mib * MIB))


def _slug(reference: str) -> str:
    """A part of a key: no dot, no slash, ASCII."""
    name = reference.rpartition("#")[2].rstrip("/")
    return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(name).name)[:60] or "scene"


def _write_index(out: Path, index: dict[str, Any]) -> None:
    write_whole(out / INDEX, json.dumps(index, indent=1) + "\n")
