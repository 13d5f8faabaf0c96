"""What visitors keep on the server has a limit for each and in all; the oldest goes, what is pinned stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nvs_app.errors import NVSError
from nvs_app.web.services.kept_limits import PINNED, KeptLimits, make_room


def kept(root: Path, *scenes: tuple[str, str, int]) -> None:
    """Scenes (name, owner, bytes), the oldest first."""
    for age, (name, owner, size) in enumerate(scenes):
        folder = root / name
        folder.mkdir(parents=True)
        (folder / "state").write_bytes(bytes(size))
        (folder / "owner").write_text(owner)
        os.utime(folder, (1000 + age, 1000 + age))


def owner_of(folder: Path) -> str | None:
    return (folder / "owner").read_text()[:1] or None if (folder / "owner").exists() else None


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_the_owners_oldest_goes_first(tmp_path: Path) -> None:
    kept(tmp_path, ("1", "b", 500), ("2", "a", 500), ("3", "a", 500), ("4", "a", 500))
    gone = make_room(tmp_path, "a", owner_of, KeptLimits(1100, 5000))
    assert [folder.name for folder in gone] == ["2"] and names(tmp_path) == {"1", "3", "4"}


def test_of_all_the_oldest_goes_whoever_kept_it(tmp_path: Path) -> None:
    kept(tmp_path, ("1", "b", 500), ("2", "c", 500), ("3", "a", 500))
    make_room(tmp_path, "a", owner_of, KeptLimits(5000, 1100))
    assert names(tmp_path) == {"2", "3"}


def test_what_is_pinned_stays(tmp_path: Path) -> None:
    kept(tmp_path, ("1", "a", 500), ("2", "a", 500), ("3", "a", 500))
    (tmp_path / "1" / PINNED).touch()
    os.utime(tmp_path / "1", (1000, 1000))
    make_room(tmp_path, "a", owner_of, KeptLimits(1100, 5000))
    assert names(tmp_path) == {"1", "3"}


def test_one_that_is_too_large_alone_is_refused_and_others_stay_apart(tmp_path: Path) -> None:
    kept(tmp_path, ("1", "b", 500), ("2", "a", 5 << 20))
    (tmp_path / "notes.txt").write_text("the operator's own")
    with pytest.raises(NVSError, match="keep: 5 MB would be kept, 1 MB at most"):
        make_room(tmp_path, "a", owner_of, KeptLimits(1 << 20, 1 << 30))
    assert names(tmp_path) == {"1", "notes.txt"}
