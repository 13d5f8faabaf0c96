"""Images without cameras become a scene: photos, a zip of photos or a video, through structure from motion.

    report = reconstruct(["plush.zip"], "scenes/plush", progress=print)
    scene = open_input("plush.zip", workdir="renders")     # any input: with cameras it is opened, else as above

    python -m data_tools photos plush.zip scenes/plush
    python -m nvs_app render plush.zip --out plush.mp4

The output folder is a nerfstudio scene (``transforms.json``, ``images/``) with ``sparse.ply`` and ``report.json``.
Until it is whole, everything lies in its ``.sfm`` folder; a run that was stopped goes on from there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data_tools.readers import holds_scene, open_scene, split_key
from data_tools.readers.archives import extract, is_archive
from data_tools.structure_from_motion.job import Cancelled, ProgressCallback
from data_tools.structure_from_motion.photo_files import find_images, is_image_name, scene_root
from data_tools.structure_from_motion.report import PhotoOptions, PhotoReport, input_key
from data_tools.structure_from_motion.run import WORK, reconstruct
from data_tools.structure_from_motion.video import is_video
from nvs_app.errors import NVSError, Refusal
from nvs_app.scenes.scene import Scene

__all__ = ["Cancelled", "PhotoOptions", "PhotoReport", "open_input", "reconstruct", "scene_root"]


def open_input(
    path: str | Path,
    workdir: str | Path | None = None,
    progress: ProgressCallback | None = None,
    cancelled: Callable[[], bool] | None = None,
    options: PhotoOptions | None = None,
    key: str | None = None,
) -> Scene:
    """Open whatever a user has: a scene with cameras as it is, an archive of one, photos, or a video.

    Args:
        path: a scene of any known format (also ``PATH#KEY``), a zip or tar file of one, a folder or archive of
            photos, or a video.
        workdir: where unpacked and reconstructed scenes are kept, under a name made of the input's and a digest of
            its content, so that the second time costs nothing; the input's own folder unless given.
        progress, cancelled, options: as for :func:`reconstruct`.
        key: which scene, where the input holds several; also ``PATH#KEY``.

    Returns:
        The scene; of a reconstructed one ``notes`` holds the report.

    Raises:
        NVSError, Cancelled: as :func:`reconstruct` and ``open_scene`` do.
    """
    path, key = split_key(path, key)
    archive = is_archive(path) and not holds_scene(path)  # a .torch chunk is a zip file too
    if not archive and not is_video(path) and not _is_photo_folder(path):
        if path.is_file() and is_image_name(path):
            what = "one photo alone has no cameras; give a folder or zip of photos"
            raise NVSError(f"{path}: {what}", Refusal.NO_SCENE)
        return open_scene(path, None, key)
    options = options or PhotoOptions()
    digest = input_key([path], options)
    folder = Path(workdir or path.resolve().parent) / f"{path.resolve().name.split('.')[0]}-{digest[:8]}"
    if archive:
        if folder.is_dir() and not (folder / "report.json").exists() and not (folder / WORK).exists():
            return open_scene(scene_root(folder), None, key, within=folder)
        unpacked = folder.parent / f".{folder.name}.unpacked"
        try:
            if not (folder / "transforms.json").exists():
                if progress is not None:
                    progress("unpack", 0.0, path.name)
                shutil.rmtree(unpacked, ignore_errors=True)
                extract(path, unpacked)
                if holds_scene(scene_root(unpacked)):
                    os.replace(unpacked, folder)
                    return open_scene(scene_root(folder), None, key, within=folder)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
    report = reconstruct([path], folder, options, progress, cancelled)
    scene = open_scene(folder)
    return replace(scene, name=path.name.split(".")[0], notes=(*scene.notes, *report.lines()))


def _is_photo_folder(path: Path) -> bool:
    return path.is_dir() and not holds_scene(path) and bool(find_images([path]))
