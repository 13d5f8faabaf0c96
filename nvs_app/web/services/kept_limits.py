"""How much visitors may keep on the server: of each owner and in all; the oldest goes first, unless it is pinned.

A file named ``pinned`` in a kept scene's folder, which the operator puts there, keeps it for good. Of what went to make
room a small file ``NAME.gone`` tells its owner for a month.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nvs_app.atomic_io import write_whole
from nvs_app.errors import NVSError
from nvs_app.web.sessions import MIB, folder_bytes

PINNED, GONE = "pinned", ".gone"
TOLD_DAYS = 30  # of what went to make room


@dataclass(frozen=True)
class KeptLimits:
    """Bytes that may be kept: by one owner, and by all."""

    owner_bytes: int = 8192 * MIB
    all_bytes: int = 32768 * MIB


def make_room(root: Path, owner: str, owner_of: Callable[[Path], str | None], limits: KeptLimits) -> list[Path]:
    """Removes the oldest kept scenes until owner and folder are within their limits.

    Args:
        root: the folder of --keep, the newest scene in it.
        owner: whose scene it is; where he is over his limit, only his own go.
        owner_of: the owner of a kept scene's folder, None where it is none.

    Returns:
        What was removed.

    Raises:
        NVSError: what is left is pinned, or the newest, and still too much; the newest is removed.
    """
    found = [(folder, whose) for folder in root.iterdir() if (whose := owner_of(folder)) is not None]
    scenes = sorted(found, key=lambda entry: entry[0].stat().st_mtime)
    sizes = {folder: folder_bytes(folder) for folder, _ in scenes}
    if not scenes:
        return []
    newest, gone = scenes[-1][0], []
    for mine, most in ((True, limits.owner_bytes), (False, limits.all_bytes)):
        counted = [folder for folder, whose in scenes if folder in sizes and (whose == owner or not mine)]
        used = sum(sizes[folder] for folder in counted)
        for folder in counted:
            if used <= most:
                break
            if folder == newest or (folder / PINNED).exists():
                continue
            used -= sizes.pop(folder)
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder)
        if used > most:
            shutil.rmtree(newest, ignore_errors=True)
            raise NVSError(f"keep: {used // MIB} MB would be kept, {most // MIB} MB at most; keep a smaller scene")
    return gone


def remember_gone(root: Path, name: str, owner: str, words: str) -> None:
    """Leaves a note for the owner of a kept scene that went to make room."""
    write_whole(root / f"{name}{GONE}", json.dumps({"owner": owner, "words": words}))


def gone(root: Path, owner: str) -> list[str]:
    """What this owner kept and is not there any more, in words, the latest first. Old notes go."""
    found = []
    for path in root.glob(f"*{GONE}"):
        try:
            when = path.stat().st_mtime
            if time.time() - when > TOLD_DAYS * 86400:
                path.unlink(missing_ok=True)
                continue
            note = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(note, dict) and note.get("owner") == owner:
            found.append((when, str(note.get("words"))))
    return [words for _, words in sorted(found, reverse=True)]
