"""`python -m nvs_app render SCENE ... --checkpoint NAME --context 8 --path orbit --frames 60 --out out.mp4`

Encodes each scene once and renders a camera path: to an mp4 or gif file, or to a folder of PNG files. What is
finished is skipped when the command runs again, and a folder goes on at its first missing image. With
`--state FILE` the encoded scene is saved, and when FILE exists it is used instead of encoding: then the scene's
photos are not needed, and SCENE may be left out (the path goes around the cameras that the state remembers).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nvs_app.cli_common import (
    add_context_options,
    add_model_options,
    field_of_view,
    load_renderer,
    name_scenes,
    positive_float,
    positive_int,
    read_scene,
    stderr_progress,
    trained_image_hw,
)
from nvs_app.cli_render_source import (
    DEFAULT_FRAMES,
    PATHS,
    Source,
    missing_images,
    path_around,
    path_frame,
    path_from_file,
    settings,
)
from nvs_app.engine.film import FilmWriter, save_png
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.camera_path import CameraPath, keyframes_along, write_camera_path
from nvs_app.scenes.nerfstudio_frame import to_nerfstudio

DEFAULT_FPS = 24.0


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Registers the command and its options."""
    parser = subparsers.add_parser(
        "render",
        help="render a camera path of one or many scenes to mp4, gif or png",
        description="Encode scenes from some of their photos and render a camera path.",
    )
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="scene, folder or zip of photos, or video")
    parser.add_argument(
        "--out",
        required=True,
        metavar="OUT",
        help="FILE.mp4, FILE.gif or a folder for PNG; for several scenes a folder, or a name with {scene} in it",
    )
    parser.add_argument(
        "--path",
        default="orbit",
        metavar="PATH",
        help="orbit, spiral, capture (the photos' own cameras) or a nerfstudio camera path FILE (default: orbit)",
    )
    parser.add_argument(
        "--frames",
        type=positive_int,
        metavar="N",
        help=f"number of images (default: {DEFAULT_FRAMES}; a FILE has its own)",
    )
    parser.add_argument(
        "--fps", type=positive_float, metavar="N", help=f"images a second (default: {DEFAULT_FPS:g}, or the FILE's)"
    )
    parser.add_argument(
        "--image-hw",
        type=positive_int,
        nargs=2,
        metavar=("H", "W"),
        help="size of the rendered images (default: the size the checkpoint was trained at, or the FILE's)",
    )
    parser.add_argument(
        "--context-hw",
        type=positive_int,
        nargs=2,
        metavar=("H", "W"),
        help="size of the input views (default: the size the checkpoint was trained at)",
    )
    parser.add_argument(
        "--fov", type=field_of_view, metavar="DEG", help="vertical field of view (default: the scene's, or the FILE's)"
    )
    parser.add_argument("--state", metavar="FILE", help="encoded scene (.safetensors): used if it exists, else saved")
    parser.add_argument("--save-path", metavar="FILE", help="also write the path as nerfstudio camera path JSON")
    parser.add_argument(
        "--path-frame",
        type=Path,
        metavar="RUN",
        help="folder of the nerfstudio run in whose world --path FILE was made and --save-path is to be read",
    )
    parser.add_argument("--overwrite", action="store_true", help="render again what is there")
    add_context_options(parser)
    add_model_options(parser)


@dataclass(frozen=True)
class Job:
    """One scene to render."""

    name: str
    scene: Path | None
    out: Path
    state: Path | None
    save_path: Path | None


def run(args: argparse.Namespace) -> int:
    """Runs the command; 0, or 2 when a scene failed."""
    jobs = plan(args)
    frame = path_frame(args)
    fixed = None if args.path in PATHS else path_from_file(args, frame)  # a wrong file costs no work
    failed = 0
    renderer: Renderer | None = None
    for job in jobs:
        try:
            if finished(job) and not args.overwrite:
                print(f"{job.name}: {job.out} is there, skipped (--overwrite renders it again)")
                continue
            renderer = renderer or load_renderer(args)
            print(render_one(renderer, job, args, fixed, frame))
        except NVSError as error:
            if renderer is None or len(jobs) == 1:
                raise  # no checkpoint: the other scenes would fail alike
            failed += 1
            print(f"error: {job.name}: {' '.join(str(error).split())}", file=sys.stderr)
    return 2 if failed else 0


def plan(args: argparse.Namespace) -> list[Job]:
    """One job a scene, with its own names. Raises NVSError when several scenes would write the same file."""
    named = name_scenes(args.scenes)
    if not named:
        if args.state is None:
            raise NVSError("render: no SCENE given; name scene folders, or an existing --state FILE")
        if not Path(args.state).is_file():
            raise NVSError(f"--state {args.state}: not there, and no SCENE to encode; give one of the two")
        named_paths: Iterable[tuple[str, Path | None]] = [(Path(args.state).stem, None)]
    else:
        named_paths = list(named.items())
    several = len(named) > 1

    def own(option: str, text: str | None, name: str) -> Path | None:
        if text is None:
            return None
        if several and "{scene}" not in text:
            if option == "--out" and not Path(text).suffix:
                return Path(text) / name
            raise NVSError(f"{option} {text}: {len(named)} scenes would share it; put {{scene}} into the name")
        return Path(text.replace("{scene}", name))

    jobs = []
    for name, scene in named_paths:
        out = own("--out", args.out, name)
        assert out is not None
        if out.suffix.lower() not in ("", ".mp4", ".gif") and not out.is_dir():
            raise NVSError(f"--out {out}: expected a name that ends in .mp4 or .gif, or a folder for PNG files")
        jobs.append(Job(name, scene, out, own("--state", args.state, name), own("--save-path", args.save_path, name)))
    return jobs


def is_film(out: Path) -> bool:
    """A file, as opposed to a folder of PNG files."""
    return out.suffix.lower() in (".mp4", ".gif") and not out.is_dir()


def finished(job: Job) -> bool:
    """A film that is there is whole, since it is renamed into place. Folders are looked at image by image."""
    return is_film(job.out) and job.out.is_file()


def render_one(
    renderer: Renderer,
    job: Job,
    args: argparse.Namespace,
    fixed: tuple[Cameras, float] | None,
    frame: SimilarityTransform | None,
) -> str:
    """Encodes and renders one scene; returns the line to print. `fixed`: the path of a file. `frame`: of the path
    that is written. Raises NVSError."""
    scene = None if job.scene is None else read_scene(job.scene, job.out.absolute().parent)
    source = Source(renderer, job.state, scene, args)
    image_hw = tuple(args.image_hw or trained_image_hw(renderer))
    cameras, fps = fixed or (path_around(args, scene, source.state, image_hw), args.fps or DEFAULT_FPS)
    if job.save_path is not None:
        saved = cameras if frame is None else to_nerfstudio(frame, cameras)
        editing = keyframes_along(saved, fps)
        write_camera_path(job.save_path, CameraPath(saved, fps, editing.pop("keyframes"), editing))
    todo = list(range(len(cameras)))
    if not is_film(job.out):
        todo = missing_images(job.out, len(cameras), settings(source, cameras, args.path), args.overwrite)
        if not todo:
            return f"{job.name}: all {len(cameras)} images in {job.out} are there, skipped"

    state = source.encoded()
    start = time.perf_counter()
    with stderr_progress() as progress:
        task = progress.add_task(job.name, total=len(cameras), completed=len(cameras) - len(todo))
        if is_film(job.out):
            with FilmWriter(job.out, fps) as film:
                for images in renderer.stream(state, cameras):
                    film.add(images)
                    progress.advance(task, len(images))
        else:
            rest = iter(todo)
            for images in renderer.stream(state, cameras[todo]):
                for image in images:
                    save_png(image, job.out / f"{next(rest):05d}.png")
                    progress.advance(task)
    milliseconds = 1e3 * (time.perf_counter() - start) / len(todo)
    kept = f" ({len(cameras) - len(todo)} were there)" if len(todo) < len(cameras) else ""
    return (
        f"{job.name}: {job.out}, {len(cameras)} images of {source.plan(cameras.image_hw).words}{kept}; "
        f"{source.words}, {milliseconds:.0f} ms an image"
    )


