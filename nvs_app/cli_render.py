"""`python -m nvs_app render SCENE ... --checkpoint NAME --context 8 --path orbit --frames 60 --out out.mp4`

Encodes each scene once and renders a camera path: to an mp4 or gif file, or to a folder of PNG files. What is
finished is skipped when the command runs again, and a folder goes on at its first missing picture. With
`--state FILE` the encoded scene is saved, and when FILE exists it is used instead of encoding: then the scene's
pictures are not needed, and SCENE may be left out (the path goes around the cameras that the state remembers).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from nvs_app.engine.film import FilmWriter, save_png
from nvs_app.engine.framing import (
    context_cameras,
    vertical_fov,
    with_vertical_fov,
)
from nvs_app.engine.renderer import Renderer
from nvs_app.engine.working_size import enlarged_hw
from nvs_app.errors import NVSError
from nvs_app.geometry import paths
from nvs_app.geometry.cameras import Cameras, crop_resize_cameras
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.model.state import SceneState
from nvs_app.report.tables import DRAWN_BEFORE
from nvs_app.scenes.camera_path import CameraPath, keyframes_along, read_camera_path, write_camera_path
from nvs_app.scenes.nerfstudio_frame import read_frame, to_nerfstudio, to_scene
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import choose_views

PATHS = ("orbit", "spiral", "capture")
DEFAULT_FRAMES = 60
DEFAULT_FPS = 24.0
SETTINGS_FILE = "render.json"  # beside the pictures of a folder: what they were rendered with


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Registers the command and its options."""
    parser = subparsers.add_parser(
        "render",
        help="render a camera path of one or many scenes to mp4, gif or png",
        description="Encode scenes from some of their pictures and render a camera path.",
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
        help="orbit, spiral, capture (the pictures' own cameras) or a nerfstudio camera path FILE (default: orbit)",
    )
    parser.add_argument(
        "--frames",
        type=positive_int,
        metavar="N",
        help=f"number of pictures (default: {DEFAULT_FRAMES}; a FILE has its own)",
    )
    parser.add_argument(
        "--fps", type=positive_float, metavar="N", help=f"pictures a second (default: {DEFAULT_FPS:g}, or the FILE's)"
    )
    parser.add_argument(
        "--image-hw",
        type=positive_int,
        nargs=2,
        metavar=("H", "W"),
        help="size of the rendered pictures (default: the size the checkpoint was trained at, or the FILE's)",
    )
    parser.add_argument(
        "--context-hw",
        type=positive_int,
        nargs=2,
        metavar=("H", "W"),
        help="size of the input pictures (default: the size the checkpoint was trained at)",
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
        help="folder of the nerfstudio run in whose world --path FILE was drawn and --save-path is to be read",
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
    """A film that is there is whole, since it is renamed into place. Folders are looked at picture by picture."""
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
    source = Source(renderer, job, scene, args)
    image_hw = tuple(args.image_hw or trained_image_hw(renderer))
    cameras, fps = fixed or (path_around(args, scene, source.state, image_hw), args.fps or DEFAULT_FPS)
    if job.save_path is not None:
        saved = cameras if frame is None else to_nerfstudio(frame, cameras)
        editing = keyframes_along(saved, fps)
        write_camera_path(job.save_path, CameraPath(saved, fps, editing.pop("keyframes"), editing))
    todo = list(range(len(cameras)))
    if not is_film(job.out):
        todo = missing_pictures(job.out, len(cameras), settings(source, cameras, args.path), args.overwrite)
        if not todo:
            return f"{job.name}: all {len(cameras)} pictures in {job.out} are there, skipped"

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
        f"{job.name}: {job.out}, {len(cameras)} pictures of {cameras.image_hw[0]}x{cameras.image_hw[1]}{kept}; "
        f"{source.words}, {milliseconds:.0f} ms a picture"
    )


class Source:
    """Where the fast weights of a job come from: an existing --state file, or pictures that are encoded when, and
    only when, something is to be rendered."""

    def __init__(self, renderer: Renderer, job: Job, scene: Scene | None, args: argparse.Namespace):
        self.renderer, self.job, self.scene = renderer, job, scene
        self.state: SceneState | None = None
        self.context: list[int] = []
        self.context_hw: tuple[int, int] = tuple(args.context_hw or trained_image_hw(renderer))
        if job.state is not None and job.state.is_file():
            self.state = SceneState.load(job.state)
            self.words = f"state from {job.state}"
        elif scene is None:
            raise NVSError(f"--state {job.state}: not there, and no SCENE to encode")
        else:
            self.context = choose_context(scene, args)
            self.words = ""

    def key(self) -> str:
        """A digest of the context cameras, the same whether the state is read or is still to be encoded."""
        if self.state is not None:
            remembered = context_cameras(self.state)
            side = str(self.state.meta.get("working_side"))  # states of before have none
            values = None
            if remembered is not None:
                values = [list(remembered.image_hw), remembered.c2w.tolist()]
                written = enlarged_hw(remembered.image_hw, int(side) if side.isdecimal() else 0, self.renderer.patch)
                values += [list(written)] if written != remembered.image_hw else []
        else:
            assert self.scene is not None
            written = self.renderer.written_hw(self.context_hw)
            enlarged = min(self.context_hw) < self.renderer.working_side
            values = [list(self.context_hw if enlarged else written), self.scene.c2w[self.context].tolist()]
            values += [list(written)] if enlarged else []
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]

    def encoded(self) -> SceneState:
        """The state; encodes and saves it on the first call where it was not there."""
        if self.state is None:
            assert self.scene is not None
            posed = self.scene.load(self.context, self.context_hw)
            start = time.perf_counter()
            self.state = self.renderer.encode(posed)
            seconds = time.perf_counter() - start
            height, width = self.context_hw
            self.words = f"encoded {len(self.context)} views of {height}x{width} in {seconds:.1f} s"
            if self.job.state is not None:
                try:
                    self.state.save(self.job.state)
                except OSError as error:
                    raise NVSError(f"--state {self.job.state}: not written ({error.strerror or error})") from error
        return self.state


def choose_context(scene: Scene, args: argparse.Namespace) -> list[int]:
    """The input views: listed, or --context of them; all where the scene has no more (none need be held out)."""
    if args.context_views is None and args.context >= len(scene):
        return list(range(len(scene)))
    return choose_views(scene, args.context, args.mode, args.seed, args.context_views, target=None).context


def path_frame(args: argparse.Namespace) -> SimilarityTransform | None:
    """The way from the scene's frame to that of --path-frame; None without the option."""
    if args.path_frame is None:
        return None
    if len(args.scenes) > 1:
        raise NVSError(f"--path-frame {args.path_frame}: the world of one scene, but {len(args.scenes)} are given")
    return read_frame(args.path_frame, Path(args.scenes[0]) if args.scenes else None)


def path_from_file(args: argparse.Namespace, frame: SimilarityTransform | None) -> tuple[Cameras, float]:
    """The cameras and the speed of a nerfstudio path, at the size that was asked for, in the scene's frame."""
    file = Path(args.path)
    if not file.is_file():
        raise NVSError(f"--path {args.path}: expected {', '.join(PATHS)} or a camera path file that exists")
    path = read_camera_path(file)
    if args.frames is not None and args.frames != len(path.cameras):
        raise NVSError(f"--frames {args.frames}: {file} has {len(path.cameras)} cameras of its own; leave --frames out")
    cameras = path.cameras if frame is None else to_scene(frame, path.cameras)
    # As in nerfstudio, the vertical field of view stays whatever the frame's shape.
    fov = vertical_fov(cameras) if args.fov is None else args.fov
    cameras = with_vertical_fov(cameras, fov, None if args.image_hw is None else tuple(args.image_hw))
    return cameras, args.fps or path.fps


def path_around(
    args: argparse.Namespace, scene: Scene | None, state: SceneState | None, image_hw: tuple[int, int]
) -> Cameras:
    """A path by name, from all cameras of the scene, or from those that the state remembers."""
    if scene is not None:
        cameras = scene.cameras(None, image_hw)
    else:
        remembered = None if state is None else context_cameras(state)
        if remembered is None:
            raise NVSError(f"--state {args.state}: it remembers no cameras; give SCENE, or --path FILE")
        cameras = crop_resize_cameras(remembered, image_hw)
    path = getattr(paths, args.path)(cameras, args.frames or DEFAULT_FRAMES)
    return path if args.fov is None else with_vertical_fov(path, args.fov)


def settings(source: Source, cameras: Cameras, path: str) -> dict[str, Any]:
    """What decides how the pictures of a folder look."""
    card = source.renderer.card
    numbers = json.dumps([cameras.c2w.tolist(), cameras.fxfycxcy.tolist()]).encode()
    return {
        "checkpoint": card.get("name"),
        "checkpoint_hash": card.get("hash"),
        "context": source.key(),
        "path": path,
        "cameras": hashlib.sha256(numbers).hexdigest()[:16],
        "frames": len(cameras),
        "image_hw": list(cameras.image_hw),
        **source.renderer.drawing(),
    }


def missing_pictures(folder: Path, count: int, wanted: dict[str, Any], overwrite: bool) -> list[int]:
    """Numbers of the pictures still to render. Raises NVSError when the folder holds pictures of another rendering,
    or pictures of this name that no rendering of ours left there."""
    file = folder / SETTINGS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if isinstance(found, dict):
            found = {**DRAWN_BEFORE, **found}
        there = {path.name for path in folder.glob("[0-9][0-9][0-9][0-9][0-9].png")}
        if not overwrite and found is None and there:
            raise NVSError(f"--out {folder}: holds pictures of another origin; use another folder or --overwrite")
        if not overwrite and found is not None and found != wanted:
            changed = ", ".join(key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key])
            raise NVSError(f"--out {folder}: rendered with another {changed}; use another folder or --overwrite")
        if overwrite:
            for name in there if found is not None else ():
                (folder / name).unlink()  # ours, and perhaps more of them than the new path has
            there = set()
        file.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise NVSError(f"--out {folder}: cannot be used ({error}); give another folder") from error
    return [index for index in range(count) if f"{index:05d}.png" not in there]
