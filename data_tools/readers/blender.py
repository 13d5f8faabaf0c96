"""Scenes of the NeRF-synthetic kind: ``transforms_{train,val,test}.json`` with RGBA images.

The fields are those of nerfstudio's file (poses with OpenGL axes, ``camera_angle_x`` in radians); file paths
lack their suffix, and the name of the file is the split.
"""

from __future__ import annotations

from pathlib import Path

from data_tools.readers.fields import Record, SceneBuilder, scene_label
from data_tools.readers.json_files import expect_images, frame_records, load_json
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
    # One file's absent image is none of another's.
    expect_images([record for file in found for record in _records(file)], builder)
    for file in found:
        add_transforms(builder, file, STEMS.get(file.stem))
    return builder.build()


def _records(file: Path) -> list[Record]:
    """The frames of a camera file; what is wrong with them is told when they are added."""
    content = load_json(file)
    frames = content.get("frames") if isinstance(content, dict) else None
    return frame_records(scene_label(file), frames, empty=True) if isinstance(frames, list) else []
