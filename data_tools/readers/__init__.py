"""Opening scenes: one module a format, each ``read(path) -> Scene``; :func:`open_scene` tells them apart."""

from __future__ import annotations

from pathlib import Path

from data_tools.readers import blender, lact, nerfstudio
from data_tools.readers.fields import load_json
from nvs_app.errors import NVSError
from nvs_app.scenes.scene import Scene

__all__ = ["open_scene"]

# In this order: the first format found in a folder is the one that is read.
LOOKED_FOR = ("transforms.json", "opencv_cameras.json", "transforms_train.json (or _val, _test)")


def open_scene(path: str | Path) -> Scene:
    """Open a scene of any known format.

    Args:
        path: a scene folder, or its camera file. A folder with several camera files is read by the first of
            ``transforms.json`` (nerfstudio, instant-ngp), ``opencv_cameras.json`` (LaCT) and
            ``transforms_{train,val,test}.json`` (Blender/NeRF, all splits together).

    Raises:
        NVSError: nothing known is there, or the camera file is malformed; one line says what and where.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "transforms.json").is_file():
            return nerfstudio.read(path)
        if (path / "opencv_cameras.json").is_file():
            return lact.read(path)
        if blender.files(path):
            return blender.read(path)
        raise NVSError(f"{path}: no scene found, looked for {', '.join(LOOKED_FOR)}")
    if not path.is_file():
        raise NVSError(f"{path}: no such file or folder")
    if path.suffix.lower() != ".json":
        raise NVSError(f"{path}: not a scene, expected a folder or a .json file of cameras")
    content = load_json(path)
    frames = content.get("frames") if isinstance(content, dict) else content
    first = frames[0] if isinstance(frames, list) and frames else None
    if isinstance(first, dict) and "w2c" in first:
        return lact.read(path)
    if isinstance(content, dict) and "frames" in content:
        return blender.read(path) if path.stem in blender.STEMS else nerfstudio.read(path)
    raise NVSError(f'{path}: not a camera file, looked for "frames" with transform_matrix or w2c')
