"""`python -m nvs_app render SCENE ... --checkpoint NAME --context 8 --path orbit --frames 60 --out out.mp4`

Encodes each scene once and renders a camera path: to an mp4 or gif file, or to a folder of PNG files. What the same
command finished is skipped when it runs again, and a folder goes on at its first missing image; what another one made
is left alone, which is an error. With `--state FILE` the encoded scene is saved, and when FILE exists it is used
instead of encoding: then the scene's photos are not needed, and SCENE may be left out (the path goes around the
cameras that the state remembers). The scenes are shared by all GPUs of the machine, by the processes of torchrun, or
by the tasks of a Ray cluster (`--ray`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvs_app.cli.adapting import add_adapt_option
from nvs_app.cli.adding import add_adding_options, check_adding
from nvs_app.cli.common import (
    add_context_options,
    add_model_options,
    add_scene_option,
    field_of_view,
    load_renderer,
    name_scenes,
    no_detail,
    positive_float,
    positive_int,
    read_scene,
    stage,
)
from nvs_app.cli.render_source import (
    DEFAULT_FRAMES,
    PATHS,
    SETTINGS_FILE,
    ImageFolder,
    StateSource,
    path_around,
    path_frame,
    path_from_file,
    settings,
    whole_video,
)
from nvs_app.cli.spread import add_spread_options, kept_renderer, on_cluster, on_gpus
from nvs_app.distributed import own_share
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.model.state import SceneState
from nvs_app.rendering.depth_files import DEFAULT_SCALE, KINDS, DepthFolder, DepthVideo, depth_video
from nvs_app.rendering.renderer import Renderer
from nvs_app.rendering.video import VideoWriter
from nvs_app.rendering.video_record import read_record
from nvs_app.scenes.camera_path import CameraPath, keyframes_along, write_camera_path
from nvs_app.scenes.nerfstudio_frame import to_nerfstudio
from nvs_app.terminal import raise_on_sigterm

DEFAULT_FPS = 24.0


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Registers the command and its options."""
    parser = subparsers.add_parser(
        "render",
        help="render a camera path of one or many scenes to mp4, gif or png",
        description="Encode scenes from some of their photos and render a camera path.",
    )
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="scene, folder or zip of photos, or video")
    add_scene_option(parser)
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
        help="orbit, sway (beside the photos' cameras, to and fro), spiral, capture (the photos' own cameras) or a"
        " nerfstudio camera path FILE (default: orbit)",
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
        help="size of the input views (default: as fine as the rendered images, in the photos' own shape; without a "
        "detail head, the size the checkpoint was trained at)",
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
    group = parser.add_argument_group("depth")
    group.add_argument(
        "--depth",
        action="store_true",
        help="also write depth: NNNNN.depth.png beside each image (depth.json explains it), or beside FILE.mp4 the"
        " colour-mapped video FILE.depth.mp4 (FILE.depth.json has its range)",
    )
    group.add_argument(
        "--depth-format",
        choices=KINDS,
        help="in folders. png: 16 bits; npy: float32, in units of the scene's frame; npz: depth, its uncertainty,"
        " surface and seen (default: png)",
    )
    group.add_argument(
        "--depth-scale",
        type=positive_float,
        metavar="N",
        help=f"values of the PNG files for a depth of one unit of the scene's frame (default: {DEFAULT_SCALE:g}: of"
        " metres, millimetres)",
    )
    add_context_options(parser)
    add_adapt_option(parser)
    add_adding_options(parser)
    add_spread_options(parser)
    add_model_options(parser)


@dataclass(frozen=True)
class RenderJob:
    """One scene to render."""

    name: str
    scene: Path | None
    out: Path
    state: Path | None
    save_path: Path | None

    def absolute(self) -> RenderJob:
        """The same, whatever folder a process works in."""
        paths = (path and path.absolute() for path in (self.scene, self.out, self.state, self.save_path))
        return RenderJob(self.name, *paths)  # type: ignore[arg-type]


def run(args: argparse.Namespace) -> int:
    """Runs the command; 0, or 2 when a scene failed."""
    check_adding(args)
    jobs = plan(args)
    frame = path_frame(args)
    fixed = None if args.path in PATHS else path_from_file(args, frame)  # a wrong file costs no work
    failed = 0

    def told(job: RenderJob, answer: str | NVSError) -> None:
        nonlocal failed
        if isinstance(answer, str):
            print(answer, flush=True)
            return
        if len(jobs) == 1:
            raise answer
        failed += 1
        print(f"error: {job.name}: {' '.join(answer.told.split())}", file=sys.stderr)

    if args.ray is not None:
        tasks = ((job, (job.absolute(), fixed, frame)) for job in jobs)
        for job, answer in on_cluster(args, render_task, tasks, _shared_folder(args)):
            told(job, answer)
        return 2 if failed else 0
    with on_gpus(args, len(jobs), independent=True) as others:
        own, args.device = own_share(jobs, args.device)
        if own:
            renderer = checked(load_renderer(args), args)
        for job in own:
            with raise_on_sigterm():
                told(job, tried(renderer, job, args, fixed, frame))
    return 2 if failed or any(process.returncode for process in others) else 0


def checked(renderer: Renderer, args: argparse.Namespace) -> Renderer:
    """The renderer; with --depth, one that knows depth. Raises NVSError."""
    if args.depth and not renderer.detail:
        raise NVSError(f"--depth: {no_detail(renderer)}")
    return renderer


def render_task(args: argparse.Namespace, job: RenderJob, *of_path: Any) -> str | NVSError:
    """What a Ray worker does for a scene; see `render_one`."""
    return tried(checked(kept_renderer(args), args), job, args, *of_path)


def tried(renderer: Renderer, job: RenderJob, *how: Any) -> str | NVSError:
    """`render_one`, or why not."""
    try:
        return render_one(renderer, job, *how)
    except NVSError as error:
        return error


def _shared_folder(args: argparse.Namespace) -> Path:
    """A folder of --out that is there: all machines must see it."""
    folder = Path(args.out.split("{scene}")[0] + "x").absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def plan(args: argparse.Namespace) -> list[RenderJob]:
    """One job a scene, with its own names. Raises NVSError when several scenes would write the same file, and for
    options of depth that go with nothing."""
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
        check_depth_options(args, out)
        jobs.append(
            RenderJob(name, scene, out, own("--state", args.state, name), own("--save-path", args.save_path, name))
        )
    return jobs


def record_of(out: Path) -> dict[str, Any] | None:
    """What a video, or a folder of images, that is there was made of; None where nothing says it."""
    try:
        if is_video(out):
            return read_record(out)
        found = json.loads((out / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_video(out: Path) -> bool:
    """A file, as opposed to a folder of PNG files."""
    return out.suffix.lower() in (".mp4", ".gif") and not out.is_dir()


def check_depth_options(args: argparse.Namespace, out: Path) -> None:
    """Raises NVSError for an option that would be without effect."""
    for option, value in (("--depth-format", args.depth_format), ("--depth-scale", args.depth_scale)):
        if value is not None and not args.depth:
            raise NVSError(f"{option} {value}: only with --depth")
        if value is not None and is_video(out):
            raise NVSError(f"{option} {value}: depth of a video is a video, colour-mapped; give --out a folder")
    if args.depth_scale is not None and args.depth_format not in (None, "png"):
        raise NVSError(f"--depth-scale {args.depth_scale:g}: of PNG only; {args.depth_format} holds plain numbers")


def render_one(
    renderer: Renderer,
    job: RenderJob,
    args: argparse.Namespace,
    fixed: tuple[Cameras, float] | None,
    frame: SimilarityTransform | None,
) -> str:
    """Encodes and renders one scene; returns the line to print. `fixed`: the path of a file. `frame`: of the path
    that is written. Raises NVSError."""
    scene = None if job.scene is None else read_scene(job.scene, job.out.absolute().parent, args.scene)
    source = StateSource(renderer, job.state, scene, args)
    image_hw = tuple(args.image_hw or renderer.train_image_hw)
    cameras, fps = fixed or (path_around(args, scene, source.state, image_hw), args.fps or DEFAULT_FPS)
    if args.depth and not source.detail:
        raise NVSError(f"--depth: {job.state} was encoded without a detail head, which is what knows depth")
    record = settings(source, cameras, args.path, None if args.overwrite else record_of(job.out))
    if is_video(job.out):
        record["fps"] = fps
        todo = [] if whole_video(job.out, record, args.depth, args.overwrite) else list(range(len(cameras)))
    else:
        kind, scale = args.depth_format or "png", args.depth_scale or DEFAULT_SCALE
        folder = ImageFolder(job.out, len(cameras), DepthFolder(job.out, kind, scale) if args.depth else None)
        todo = folder.missing(record, args.overwrite)
    if job.save_path is not None:
        saved = cameras if frame is None else to_nerfstudio(frame, cameras)
        editing = keyframes_along(saved, fps)
        write_camera_path(job.save_path, CameraPath(saved, fps, editing.pop("keyframes"), editing))
    if not todo:
        there = f"{job.out} is" if is_video(job.out) else f"all {len(cameras)} images in {job.out} are"
        return f"{job.name}: {there} there, by the same command; skipped (--overwrite renders again)"
    count = len(todo)
    state, start = source.encoded(), time.perf_counter()
    if is_video(job.out):
        write_video(renderer, state, cameras, job, fps, args.depth, record)
    else:
        write_images(renderer, state, cameras, job, folder, todo)
    milliseconds = 1e3 * (time.perf_counter() - start) / count
    kept = f" ({len(cameras) - count} were there)" if count < len(cameras) else ""
    return (
        f"{job.name}: {job.out}, {len(cameras)} images of {source.plan(cameras.image_hw).words}{kept}; "
        f"{source.words}, {milliseconds:.0f} ms an image"
    )


def write_video(
    renderer: Renderer,
    state: SceneState,
    cameras: Cameras,
    job: RenderJob,
    fps: float,
    depth: bool,
    record: dict[str, Any],
) -> None:
    """The video, and with `depth` that of the depth."""
    with contextlib.ExitStack() as stack:
        tell = stack.enter_context(stage(f"{job.name}: rendering {len(cameras)} images", len(cameras)))
        video = stack.enter_context(VideoWriter(job.out, fps, record))
        maps = stack.enter_context(DepthVideo(depth_video(job.out), fps, record)) if depth else None
        done = 0
        for part in renderer.stream(state, cameras, depth=depth):
            video.add(part.images if maps else part)
            if maps is not None:
                maps.add(part)
            done += len(part)
            tell(done)


def write_images(
    renderer: Renderer, state: SceneState, cameras: Cameras, job: RenderJob, folder: ImageFolder, todo: list[int]
) -> None:
    """The images `todo` of a folder, and their depth maps where it has them."""
    done = 0
    with stage(f"{job.name}: rendering {len(todo)} images", len(todo)) as tell:
        for part in renderer.stream(state, cameras[todo], depth=folder.depth is not None):
            for row in range(len(part)):
                folder.save(todo[done], part[row : row + 1])
                done += 1
                tell(done)
    if folder.depth is not None and folder.depth.beyond:
        farthest = 65535 / folder.depth.scale
        print(
            f"note: {folder.depth.beyond} pixels lie farther than {farthest:g}, the largest depth of a PNG of this"
            " --depth-scale; they say that. A smaller scale, or --depth-format npy, keeps them",
            file=sys.stderr,
        )
