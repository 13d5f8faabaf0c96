"""`python -m nvs_app benchmark-speed --checkpoint NAME`: how fast this device encodes and draws.

Random pictures and cameras on a circle: the time does not depend on what is in them. Views are drawn at the size that
is asked for (as while the hand moves), and again enlarged where the working side says so, and on two grids where
`render` does so (as at rest and in films).
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nvs_app.cli_common import add_model_options, load_renderer, positive_int
from nvs_app.engine.evaluate import device_name, versions
from nvs_app.engine.working_size import finer_than
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.report.files import write_json
from nvs_app.report.tables import drawing_words
from nvs_app.scenes.posed import PosedImages


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Registers the command and its options."""
    parser = subparsers.add_parser(
        "benchmark-speed",
        help="time encoding and decoding on this device",
        description="Median and best of some repeats, after one that warms up.",
    )
    parser.add_argument("--views", type=positive_int, default=8, metavar="N", help="context views (default: 8)")
    parser.add_argument(
        "--sizes",
        type=positive_int,
        nargs="+",
        default=[128, 256],
        metavar="S",
        help="decoded sizes; the largest is encoded (default: 128 256)",
    )
    parser.add_argument("--repeats", type=positive_int, default=5, metavar="N", help="timed runs (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    renderer = load_renderer(args)

    def circle(views: int, size: int) -> Cameras:
        angle = torch.linspace(0, 2 * torch.pi, views + 1)[:views]
        eye = torch.stack((2 * angle.cos(), 2 * angle.sin(), torch.full_like(angle, 0.7)), dim=-1)
        c2w = look_at(eye, torch.zeros(views, 3), torch.tensor([0.0, 0.0, 1.0]).expand(views, 3))
        fxfycxcy = torch.tensor([1.2 * size, 1.2 * size, size / 2, size / 2]).expand(views, 4)
        return Cameras(c2w, fxfycxcy, (size, size))

    def finished(what: Callable[[], object]) -> None:
        what()
        if renderer.device.type == "cuda":
            torch.cuda.synchronize(renderer.device)

    def timed(what: Callable[[], object]) -> dict[str, float]:
        finished(what)  # warms up: memory pools, kernels
        times = []
        for _ in range(args.repeats):
            start = time.perf_counter()
            finished(what)
            times.append(1e3 * (time.perf_counter() - start))
        return {"median_ms": statistics.median(times), "best_ms": min(times)}

    size = max(args.sizes)
    generator = torch.Generator().manual_seed(0)
    context = PosedImages(torch.rand(args.views, 3, size, size, generator=generator), circle(args.views, size))
    written = "x".join(map(str, renderer.written_hw((size, size))))
    enlarged = f", written at {written}" if size < renderer.working_side else ""
    figures = {f"encode {args.views} views {size}x{size}{enlarged}": timed(lambda: renderer.encode(context))}
    state = renderer.encode(context)
    for side in sorted(args.sizes):
        camera = circle(1, side)
        draw = functools.partial(renderer.render, state, camera)
        figures[f"decode 1 view {side}x{side}"] = timed(functools.partial(draw, quick=True))
        hw, finer = (side, side), finer_than(state, camera)
        drawn_hw, asked = renderer.drawn_hw(hw, finer=finer), renderer.grids
        at = f" at {drawn_hw[0]}x{drawn_hw[1]}" if drawn_hw != renderer.drawn_hw(hw, quick=True) else ""
        ways = [(1, at), (2, f"{at} twice")][: renderer.grids_of(hw, finer=finer)]
        for grids, drawn in ways:
            if drawn:
                renderer.grids = grids
                figures[f"decode 1 view {side}x{side}, drawn{drawn}"] = timed(draw)
        renderer.grids = asked

    millions = sum(p.numel() for p in renderer.model.parameters()) / 1e6
    name = renderer.card.get("name")
    drawing = renderer.drawing()
    working = drawing_words(drawing)
    print(f"{name}, {millions:.1f} M parameters, {renderer.precision}{working}, {device_name(renderer.device)}")
    longest = max(28, *map(len, figures))
    for what, times in figures.items():
        print(f"  {what:<{longest}} median {times['median_ms']:8.1f} ms   best {times['best_ms']:8.1f} ms")
    if args.json is not None:
        report = {
            "checkpoint": {"name": name, "hash": renderer.card.get("hash")},
            "device": device_name(renderer.device),
            "threads": torch.get_num_threads(),
            "precision": renderer.precision,
            **drawing,
            "repeats": args.repeats,
            "figures": figures,
            "versions": versions(),
        }
        write_json(report, args.json, "--json")
    return 0
