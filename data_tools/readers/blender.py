"""Scenes of the NeRF-synthetic kind: ``transforms_{train,val,test}.json`` with RGBA images.

The fields are those of nerfstudio's file (poses with OpenGL axes, ``camera_angle_x`` in radians); file paths
lack their suffix, and the name of the file is the split.
"""

from __future__ import annotations

from pathlib import Path

from data_tools.readers.fields import SceneBuilder
from data_tools.readers.nerfstudio import add_transforms
from nvs_app.errors import NVSError
from nvs_app.scenes.scene import SPLITS, Scene

STEMS = {f"transforms_{split}": split for split in SPLITS}


def files(folder: Path) -> list[Path]:
    """The camera files of a folder, in the order train, val, test."""
    return [path for stem in STEMS if (path := folder / f"{stem}.json").is_file()]


def read(path: Path) -> Scene:
    """Read a folder (all splits together, in the order train, val, test) or one of its camera files.

    Raises:
        NVSError: any malformed field, a missing image, no camera file.
    """
    found = files(path) if path.is_dir() else [path]
    if not found:
        raise NVSError(f"{path}: no transforms_train.json, transforms_val.json or transforms_test.json")
    builder = SceneBuilder(path if path.is_dir() else path.parent)
    for file in found:
        add_transforms(builder, file, STEMS.get(file.stem))
    return builder.build()
