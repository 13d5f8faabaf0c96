"""`python -m nvs_app benchmark-speed --checkpoint NAME`: how fast this device encodes and renders.

Random photos and cameras on a circle: the time does not depend on what is in them. Views are rendered by LaCT alone,
at the sizes that are asked for and at those where it works for the detail head, and by the head at each size.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nvs_app.cli.common import add_model_options, load_renderer, positive_int
from nvs_app.evaluation.evaluate import versions
from nvs_app.evaluation.report.files import write_json
from nvs_app.evaluation.report.words import rendering_words
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.rendering.device import device_name
from nvs_app.rendering.renderer import Renderer
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
        help="rendered sizes; the largest is encoded (default: 128 256)",
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

    sizes = sorted(set(args.sizes))
    generator = torch.Generator().manual_seed(0)
    photos = torch.rand(args.views, 3, sizes[-1], sizes[-1], generator=generator)
    context = PosedImages(photos, circle(args.views, sizes[-1]))
    words = renderer.plan_encode(context.cameras.image_hw).words
    figures = {f"encode {args.views} views {words}": timed(lambda: renderer.encode(context))}
    state = renderer.encode(context)
    # LaCT alone first: at the sizes that it renders itself, and at those where it works for the head.
    alone = Renderer(renderer.model, renderer.device, renderer.precision, detail=False)
    plans = {size: renderer.plan_render((size, size)) for size in sizes}
    for side in sorted({plan.lact_hw[0] for plan in plans.values() if plan.detail} | {*sizes}):
        figures[f"render 1 view {side}x{side}, LaCT alone"] = timed(
            functools.partial(alone.render, state, circle(1, side))
        )
    for size, plan in plans.items() if renderer.detail else ():
        figures[f"render 1 view {plan.words}, detail head"] = timed(
            functools.partial(renderer.render, state, circle(1, size))
        )

    millions = sum(p.numel() for p in renderer.model.parameters()) / 1e6
    name = renderer.card.get("name")
    how = rendering_words({"rendering": renderer.settings()})
    print(f"{name}, {millions:.1f} M parameters, {renderer.precision}, {how}, {device_name(renderer.device)}")
    longest = max(28, *map(len, figures))
    for what, times in figures.items():
        print(f"  {what:<{longest}} median {times['median_ms']:8.1f} ms   best {times['best_ms']:8.1f} ms")
    if args.json is not None:
        report = {
            "checkpoint": {"name": name, "hash": renderer.card.get("hash")},
            "device": device_name(renderer.device),
            "threads": torch.get_num_threads(),
            "precision": renderer.precision,
            "rendering": renderer.settings(),
            "repeats": args.repeats,
            "figures": figures,
            "versions": versions(),
        }
        write_json(report, args.json, "--json")
    return 0
