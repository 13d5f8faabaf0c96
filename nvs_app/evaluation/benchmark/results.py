"""What a benchmark run has done so far: a file a scene, written whole or not at all, so that a run can go on.

results = SceneResults(Path("outputs/benchmarks/re10k"), fingerprint)
if (done := results.read("scene")) is None: ...; results.write("scene", record)
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from nvs_app.atomic_io import write_whole
from nvs_app.errors import writing


def fingerprint(description: Any) -> str:
    """A short name for everything that decides the figures; a scene done under another one is not used."""
    text = json.dumps(description, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class SceneResults:
    """Records of scenes in `folder`/scenes. `stale` counts records of other settings that were met."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint, self.stale = folder / "scenes", fingerprint, 0
        with writing(folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """The file of a scene; names that are no file names get a readable one with a hash."""
        plain = re.sub(r"[^\w.-]", "_", name)[:80].lstrip(".")
        if plain != name:
            plain = f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return self.folder / f"{plain}.json"

    def read(self, name: str) -> dict[str, Any] | None:
        """The record of a scene, or None where it is not done, not whole, or done under other settings."""
        try:
            record = json.loads(self.path(name).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(record, dict) or record.get("fingerprint") != self.fingerprint:
            self.stale += 1
            return None
        return record

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Keeps a record. Raises NVSError where the disk refuses."""
        write_whole(self.path(name), json.dumps({"fingerprint": self.fingerprint, **record}, allow_nan=False))

    def clear(self) -> None:
        """Forgets every scene (`--restart`)."""
        for path in self.folder.glob("*.json"):
            path.unlink(missing_ok=True)
