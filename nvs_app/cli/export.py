"""`python -m nvs_app export SCENE --to splats|points|mesh|depth --out FILE`

Encodes a scene, looks at the depth of its own photos, and writes what they agree on: Gaussian splats (.ply, .splat, or
.html, a page that shows them), coloured points (.ply), a mesh (.glb), or the depth maps themselves (a folder). All in
the frame and scale of the scene's cameras.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from nvs_app.cli.adapting import add_adapt_option
from nvs_app.cli.common import (
    add_context_options,
    add_model_options,
    add_scene_option,
    check_writable,
    load_renderer,
    no_detail,
    positive_float,
    positive_int,
    read_scene,
    stage,
)
from nvs_app.cli.render_source import StateSource
from nvs_app.errors import NVSError
from nvs_app.export.depth import write_depth
from nvs_app.export.files import harmonics_degree, offset_words, write_points, write_splats
from nvs_app.export.fusion import LEAST, TOLERANCE, Surfels, fuse
from nvs_app.export.glb import write_glb
from nvs_app.export.html import first_look, write_html
from nvs_app.export.mesh import mesh_of
from nvs_app.export.refine import Refined, hold_out, refine
from nvs_app.export.shading import shaded
from nvs_app.export.splats import FILL_TOLERANCE, Splats, splats_of, thinned
from nvs_app.export.texture import LARGEST, MOST, SMALLEST, textured
from nvs_app.export.views import SurfaceViews, fine_photos, surface_views
from nvs_app.model.state import context_cameras
from nvs_app.rendering.depth_files import DEFAULT_SCALE, KINDS
from nvs_app.scenes.posed import PosedImages
from nvs_app.terminal import raise_on_sigterm

ENDS = {"splats": (".ply", ".splat", ".html"), "points": (".ply",), "mesh": (".glb",), "depth": ("",)}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Registers the command and its options."""
    parser = subparsers.add_parser(
        "export",
        help="write a scene as Gaussian splats, points, a mesh or depth maps",
        description="Write the surfaces that a scene's photos agree on, in the frame and scale of its cameras.",
    )
    parser.add_argument("path", nargs="?", metavar="SCENE", help="scene, folder or zip of photos, or video")
    parser.add_argument("--to", required=True, choices=tuple(ENDS), help="what is written")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="OUT",
        help="splats: FILE.ply, FILE.splat, or a page FILE.html; points: FILE.ply; mesh: FILE.glb; depth: a folder",
    )
    parser.add_argument("--state", metavar="FILE", help="encoded scene (.safetensors): used if it exists, else saved")
    parser.add_argument(
        "--context-hw",
        type=positive_int,
        nargs=2,
        metavar=("H", "W"),
        help="size at which photos are read, and depth is (default: in the photos' own shape, up to what the checkpoint"
        " was trained at)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    group = parser.add_argument_group("surfaces")
    group.add_argument(
        "--least",
        type=positive_int,
        default=LEAST,
        metavar="N",
        help=f"other views that must show a surface (default: {LEAST}; splats also have what no other view could show)",
    )
    group.add_argument(
        "--tolerance",
        type=positive_float,
        metavar="SHARE",
        help="depths that differ by a smaller share of themselves are of one surface (default: "
        f"{TOLERANCE:g}; splats: {FILL_TOLERANCE:g})",
    )
    group.add_argument(
        "--most", type=positive_int, default=1_500_000, metavar="N", help="points or splats, at most (default: 1500000)"
    )
    group.add_argument("--voxel", type=positive_float, metavar="SIZE", help="of a mesh, in units of the scene's frame")
    group.add_argument(
        "--texture",
        type=int,
        metavar="N",
        help=f"of a mesh: texels a side at most, {SMALLEST} to {LARGEST} (default: {MOST}; fewer where the photos hold"
        " no more); 0: no texture but colours at the vertices, and four times the triangles",
    )
    group.add_argument("--depth-format", choices=KINDS, default="png", help="of depth maps (default: png)")
    group.add_argument(
        "--depth-scale", type=positive_float, default=DEFAULT_SCALE, metavar="N",
        help=f"values of PNG depth maps for a depth of one unit (default: {DEFAULT_SCALE:g})",
    )  # fmt: skip
    group.add_argument(
        "--refine",
        type=positive_float,
        metavar="SECONDS",
        help="optimise the splats on the input photos, on a CUDA GPU with gsplat, else in plain torch; some photos are"
        " held out to stop by",
    )
    add_scene_option(parser)
    add_adapt_option(parser)
    add_context_options(parser)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    check(args)
    renderer = load_renderer(args)
    if not renderer.detail:
        raise NVSError(f"export: {no_detail(renderer)}")
    with raise_on_sigterm():
        args.image_hw = args.add_views = args.add_how = None  # of `render`, which `StateSource` asks for
        args.stream = False
        scene = None if args.path is None else read_scene(Path(args.path), args.out.absolute().parent, args.scene)
        source = StateSource(renderer, None if args.state is None else Path(args.state), scene, args)
        state, start = source.encoded(), time.perf_counter()
        cameras = context_cameras(state)
        count = 0 if cameras is None else len(cameras)
        if args.to == "depth":
            with stage(f"depth of {count} views", count) as tell:
                written = write_depth(renderer, state, args.out, args.depth_format, args.depth_scale, tell)
        else:
            with stage(f"depth of {count} views", count) as tell:
                views = surface_views(renderer, state, tell)
            photos = fine_photos(scene, cameras) if args.to == "mesh" and args.texture != 0 and cameras else None
            written = write(args, views, renderer.device, photos)
    print(f"{args.out}: {written}; {source.words}, {time.perf_counter() - start:.1f} s more")
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises NVSError for what can be told before the work."""
    ends = ENDS[args.to]
    if args.out.suffix.lower() not in ends:
        wanted = "a folder" if args.to == "depth" else f"a name that ends in {' or '.join(ends)}"
        raise NVSError(f"--out {args.out}: expected {wanted} for --to {args.to}")
    if args.refine is not None and args.to != "splats":
        raise NVSError(f"--refine {args.refine:g}: only with --to splats")
    if args.voxel is not None and args.to != "mesh":
        raise NVSError(f"--voxel {args.voxel:g}: only with --to mesh")
    if args.texture is not None and args.to != "mesh":
        raise NVSError(f"--texture {args.texture}: only with --to mesh")
    if args.texture and not SMALLEST <= args.texture <= LARGEST:
        raise NVSError(f"--texture {args.texture}: expected 0, or {SMALLEST} to {LARGEST} texels")
    if args.path is None and (args.state is None or not Path(args.state).is_file()):
        raise NVSError("export: no SCENE given; name one, or an existing --state FILE")
    if args.to == "depth":
        if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
            raise NVSError(f"--out {args.out}: is there, and not empty; use another folder")
    elif args.out.exists() and not args.overwrite:
        raise NVSError(f"--out {args.out}: is there; use another name or --overwrite")
    else:
        check_writable("--out", args.out)


def write(
    args: argparse.Namespace, views: SurfaceViews, device: torch.device, photos: PosedImages | None = None
) -> str:
    """Writes points, splats or a mesh; what was written, in words. photos: for a texture, see `textured`."""
    tolerance = args.tolerance or (FILL_TOLERANCE if args.to == "splats" else TOLERANCE)
    if args.to == "mesh":
        with stage("mesh") as tell:
            mesh = mesh_of(views, args.least, tolerance, args.voxel, tell)
        if args.texture != 0:
            with stage("texture") as tell:
                mesh = textured(mesh, views, photos, args.texture or MOST, tell)
        write_glb(args.out, mesh, views.offset)
        return mesh.words
    held = None
    if args.refine is not None:
        if len(views) < 3:
            raise NVSError(f"--refine {args.refine:g}: {len(views)} input views, expected 3 or more: some are held out")
        views, held = hold_out(views)
    with stage("what the views agree on") as tell:
        surfels = fuse(views, args.least, tolerance, fill=args.to == "splats", progress=tell)
    if not len(surfels):
        raise NVSError("export: the views agree on no surface; more photos, closer together, may help")
    if args.to == "points":
        surfels = few(surfels, args.most)
        write_points(args.out, surfels, views.offset)
        return f"{len(surfels)} points"
    with stage("colours") as tell:
        splats, words = shaded(splats_of(surfels), surfels, views, harmonics_degree(args.out), tell), ""
    if len(splats) > args.most:
        print(f"note: {args.most} of {len(splats)} splats are kept, made wider (--most)", file=sys.stderr)
        splats = thinned(splats, args.most)
    if held is not None:
        with stage(f"refining {len(splats)} splats", args.refine) as tell:
            refined = refine(splats, views, held, args.refine, device, tell)
        splats, words = refined.splats, f", {gain(refined)}"
    write_one(args.out, splats, views)
    return f"{len(splats)} splats{words}"


def write_one(out: Path, splats: Splats, views: SurfaceViews) -> None:
    """Splats in the format of the file's name."""
    if out.suffix.lower() == ".html":
        write_html(out, splats, first_look(views.cameras, views.background), out.stem)
    else:
        write_splats(out, splats, views.offset)
    if any(views.offset):
        words = "; a comment of the file says so" if out.suffix.lower() == ".ply" else ""
        print(f"note: {out}: add {offset_words(views.offset)} to positions, which are float32{words}", file=sys.stderr)


def few(surfels: Surfels, most: int) -> Surfels:
    """At most so many, evenly taken from their row."""
    if len(surfels) <= most:
        return surfels
    print(f"note: {most} of {len(surfels)} points are kept (--most)", file=sys.stderr)
    return surfels[torch.arange(most) * len(surfels) // most]


def gain(refined: Refined) -> str:
    """What refinement did, in words."""
    return (
        f"refined in {refined.steps} steps: {refined.before:.2f} to {refined.after:.2f} dB on {refined.held} held-out"
        " input views"
    )
