"""Depth maps of a scene's own photos, with the photos and their cameras: a nerfstudio scene whose frames have depth.

write_depth(renderer, state, Path("depth"))     # 00000.png, 00000.depth.png, ..., transforms.json, depth.json
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import opencv_to_opengl
from nvs_app.model.state import SceneState, context_cameras
from nvs_app.rendering.depth_files import DEFAULT_SCALE, DepthFolder
from nvs_app.rendering.renderer import Renderer
from nvs_app.rendering.video import save_png


def write_depth(
    renderer: Renderer,
    state: SceneState,
    out: Path,
    kind: str = "png",
    scale: float = DEFAULT_SCALE,
    progress: Callable[[int], None] | None = None,
) -> str:
    """Writes the folder, whole or not at all, and says what is in it.

    kind, scale: see `DepthFolder`. progress: called with the number of views done so far.
    Raises NVSError: no photos in the state, or `out` cannot be written.
    """
    cameras = context_cameras(state)
    if state.context is None or cameras is None:
        raise NVSError(
            "export: the state holds no photos, it was encoded without a detail head; encode the scene again"
        )
    photos = state.context.images[0]
    work = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        work.mkdir(parents=True)
        maps = DepthFolder(work, kind, scale)
        maps.start()
        done = 0
        for part in renderer.stream(state, cameras, depth=True):
            for row in range(len(part)):
                photo = photos[done].cpu()
                save_png(photo.float() / 255 if photo.dtype == torch.uint8 else photo.float(), work / f"{done:05d}.png")
                maps.save(done, part[row : row + 1])
                done += 1
                if progress is not None:
                    progress(done)
        height, width = cameras.image_hw
        frames = []
        for index, (pose, lens) in enumerate(zip(opencv_to_opengl(cameras.c2w).tolist(), cameras.fxfycxcy.tolist())):
            fx, fy, cx, cy = lens
            names = {"file_path": f"{index:05d}.png", "depth_file_path": maps.path(index).name}
            size = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height}
            frames.append({**names, **size, "transform_matrix": pose})
        (work / "transforms.json").write_text(json.dumps({"camera_model": "OPENCV", "frames": frames}, indent=1) + "\n")
        if out.is_dir():
            out.rmdir()  # empty, or the system refuses
        os.replace(work, out)
    except OSError as error:
        raise NVSError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    beyond = f"; {maps.beyond} pixels lie beyond the largest depth of this scale" if maps.beyond else ""
    return f"depth of {done} views of {height}x{width}{beyond}"
