"""nerfstudio looks for a program `ffmpeg` before it renders; imageio-ffmpeg carries one under another name."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path


@cache
def provide_ffmpeg() -> str | None:
    """Puts imageio-ffmpeg's program last on this process's PATH as `ffmpeg`, where the system has none.

    Returns:
        The program that will be found; None where there is none to be had.
    """
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None
    folder = tempfile.TemporaryDirectory(prefix="nvs_ffmpeg_")
    _folders.append(folder)
    link = Path(folder.name) / "ffmpeg"
    link.symlink_to(program)
    os.environ["PATH"] = os.pathsep.join(filter(None, (os.environ.get("PATH"), folder.name)))
    return str(link)


_folders: list[tempfile.TemporaryDirectory] = []  # removed at exit
