"""Scenes anywhere below a folder, as archives of data sets and downloads have them.

scenes_below(Path("nerf_synthetic"), is_scene)      # {"chair": .../chair, "lego": .../lego}
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from data_tools.readers.lookup import IMAGES, NO_PHOTOS
from nvs_app.errors import NVSError, Refusal

MOST_FOLDERS, DEEPEST = 2000, 8
FEW_IMAGES = 3  # as many images directly in a folder make it one of photos
OWN_REPORT = "report.json"  # beside what structure from motion wrote: a result, not what a folder of photos is


class SeveralScenes(NVSError):
    """Several scenes where one is asked for. choices: their names."""

    def __init__(self, message: str = "", choices: tuple[str, ...] = ()):
        super().__init__(message, Refusal.SEVERAL_SCENES)
        self.choices = choices


def scenes_below(folder: Path, is_scene: Callable[[Path], bool]) -> dict[str, Path]:
    """The scenes in folders inside ``folder``, by name in its order; none inside another, none of linked folders.

    Their names are those of their folders, or where two agree, of the folders above too. A folder that has photos of
    its own holds none: what lies in it was made of them.
    """
    found: list[Path] = []
    level, seen = [folder], 0
    for _ in range(DEEPEST):
        inner: list[Path] = []
        for path in level:
            try:
                entries = sorted(os.scandir(path), key=lambda entry: entry.name)
            except OSError:
                continue
            if path == folder and sum(bool(IMAGES.search(entry.name)) for entry in entries) >= FEW_IMAGES:
                return {}
            folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
            inner += [
                p for p in folders if p.name[0] != "." and p.name != "__MACOSX" and not NO_PHOTOS.fullmatch(p.name)
            ]
        level = []
        for path in inner:
            seen += 1
            if seen > MOST_FOLDERS:
                break
            if (path / OWN_REPORT).is_file():
                continue
            (found if is_scene(path) else level).append(path)
    names = Counter(path.name for path in found)
    named = {path.name if names[path.name] == 1 else "_".join(path.relative_to(folder).parts): path for path in found}
    return dict(sorted(named.items()))
