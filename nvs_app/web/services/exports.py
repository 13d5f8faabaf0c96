"""What a visitor takes away: videos, images, the scene, the encoded state, a COLMAP project, snapshots.

    export_video(render, cameras, 24, Path("out.mp4"), progress, cancelled)     # or .gif, or .zip of PNG files
    command_line("out.mp4", "path.json", checkpoint="NAME", state_file="scene.safetensors")
    save_scene(scene, Path("scene.zip"))

Every file is written under a temporary name and renamed at the end: it is whole or absent.
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image, PngImagePlugin
from torch import Tensor

from data_tools.colmap_export import save_colmap as write_colmap
from data_tools.readers.points import uploaded_points
from data_tools.structure_from_motion.scene import write_ply
from nvs_app.atomic_io import atomic_write
from nvs_app.errors import NVSError, writing
from nvs_app.geometry.cameras import Cameras, vertical_fov
from nvs_app.model.state import SceneState
from nvs_app.rendering.video import VideoWriter
from nvs_app.scenes.images import to_uint8
from nvs_app.scenes.scene import Scene
from nvs_app.web.services.truth import FractionCallback, RenderFunction, render_chunks

KINDS = (".mp4", ".gif", ".zip")
SNAPSHOT_KEY = "nvs_camera"  # of the PNG's text entry


def export_video(
    render: RenderFunction,
    cameras: Cameras,
    fps: float | int,
    out: Path,
    progress: FractionCallback | None = None,
    cancelled: Callable[[], bool] | None = None,
    chunk: int | None = None,
) -> Path:
    """Renders a path [n] to a video, or to a zip of PNG files named 00000.png and so on.

    Args:
        render: renders cameras [k] as images [k, 3, h, w] in [0, 1].
        out: its suffix says what is written: .mp4, .gif or .zip.
        progress, cancelled: told after, asked before each call of `render`.
        chunk: views in one call; None goes by their size.

    Raises:
        NVSError: another suffix, or the file cannot be written. Cancelled: nothing is left behind.
    """
    parts = render_chunks(render, cameras, chunk, progress, cancelled)
    if out.suffix.lower() not in KINDS:
        raise NVSError(f"{out.name}: expected a name that ends in {', '.join(KINDS)}")
    if out.suffix.lower() != ".zip":
        with VideoWriter(out, float(fps)) as video:
            for images in parts:
                video.add(images)
        return out
    with _zip(out) as packed:
        number = 0
        for images in parts:
            for image in to_uint8(images).cpu().numpy():
                buffer = io.BytesIO()
                Image.fromarray(image).save(buffer, "PNG")
                packed.writestr(f"{number:05d}.png", buffer.getvalue())
                number += 1
    return out


def command_line(
    out: str | Path,
    path_file: str | Path,
    *,
    checkpoint: str,
    state_file: str | Path,
    detail: bool = True,
    views: int | None = None,
) -> str:
    """The command that renders the same images, quoted for a shell; files as they are called where it will run.

    Args:
        out: what it writes; a .zip becomes the folder of its name, which is what the command can write.
        path_file: the camera path (`web.services.paths.save_path`), whose size and rate hold.
        checkpoint: its name or folder.
        state_file: the encoded scene.
        detail, views: see `Renderer`; those of the checkpoint unless given.
    """
    target = str(out)
    words = ["python", "-m", "nvs_app", "render", "--state", str(state_file), "--path", str(path_file)]
    words += ["--checkpoint", checkpoint]
    words += ["--no-detail"] if not detail else []
    words += ["--look-at", str(views)] if detail and views is not None else []
    words += ["--out", target.removesuffix(".zip") if target.lower().endswith(".zip") else target]
    return shlex.join(words)


def save_scene(scene: Scene, out: Path) -> Path:
    """A zip of a nerfstudio scene: transforms.json, its images, sparse.ply where there are points. Raises NVSError."""
    points = uploaded_points(scene)

    def fill(folder: Path) -> None:
        scene.save(folder)
        if points is not None and not (folder / "sparse.ply").exists():
            write_ply(folder / "sparse.ply", points.xyz, points.rgb)

    return _zip_of_folder(out, fill)


def save_colmap(scene: Scene, out: Path) -> Path:
    """A zip of a COLMAP project: images/ and sparse/0/*.bin (see `data_tools.colmap_export`). Raises NVSError."""
    return _zip_of_folder(out, lambda folder: write_colmap(scene, folder, uploaded_points(scene)))


def save_state(state: SceneState, out: Path) -> Path:
    """The encoded scene as `nvs_app render --state` takes it. Raises NVSError."""
    if out.suffix != ".safetensors":
        raise NVSError(f"{out.name}: expected a name that ends in .safetensors")
    return state.save(out)


def save_snapshot(
    image: Float[Tensor, "3 h w"], camera: Cameras, out: Path, facts: dict[str, str] | None = None
) -> Path:
    """An image as PNG that remembers its camera, in a text entry named "nvs_camera".

    Args:
        image: in [0, 1].
        camera: one camera [1] in the scene's own frame, OpenCV axes.
        facts: more to remember, such as the scene's name and the checkpoint.
    """
    if len(camera) != 1:
        raise NVSError(f"snapshot: {len(camera)} cameras, expected one")
    values = {
        **(facts or {}),
        "c2w": camera.c2w[0].detach().cpu().double().flatten().tolist(),
        "fxfycxcy": camera.fxfycxcy[0].detach().cpu().double().tolist(),
        "image_hw": list(camera.image_hw),
        "vertical_fov_degrees": float(vertical_fov(camera)[0]),
        "axes": "OpenCV camera axes, row by row, the scene's own frame",
    }
    entries = PngImagePlugin.PngInfo()
    entries.add_itxt(SNAPSHOT_KEY, json.dumps(values, ensure_ascii=False))
    with atomic_write(out, out.name) as temporary:
        Image.fromarray(to_uint8(image).cpu().numpy()).save(temporary, format="PNG", pnginfo=entries)
    return out


def _zip_of_folder(out: Path, fill: Callable[[Path], Any]) -> Path:
    """Fills a temporary folder beside `out` and packs it."""
    if out.suffix != ".zip":
        raise NVSError(f"{out.name}: expected a name that ends in .zip")
    with writing(out.name):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(".tmp", f".{out.stem}.", out.parent, ignore_cleanup_errors=True) as work:
            folder = Path(work) / "scene"
            fill(folder)
            with _zip(out) as packed:
                for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                    packed.write(path, path.relative_to(folder).as_posix())
    return out


@contextlib.contextmanager
def _zip(out: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file without compression: images and binary models do not shrink."""
    with atomic_write(out, out.name) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as packed:
        yield packed
