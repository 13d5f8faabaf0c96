"""`python -m nvs_app benchmark-speed --checkpoint NAME`: how fast this device encodes and renders.

    python -m nvs_app benchmark-speed --sizes 128 256 512 1024
    python -m nvs_app benchmark-speed --preset lact_l24_d768_ttt4x --context-hw 536 960 --compile --plain \
        --tokens 32768 386000 1030000 --html speed.html

Photos and cameras are random: the time does not depend on what is in them. Views are rendered by LaCT alone, at the
sizes that are asked for and at those where it works for the detail head, and by the head at each size. Each time stands
beside its floor (`nvs_app.evaluation.speed`) and, with --plain, beside the plain path of the same run. Under torchrun
all processes encode together, one a GPU; the first one tells.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from nvs_app.cli.common import add_model_options, check_writable, load_renderer, positive_int
from nvs_app.distributed import World, torchrun_world
from nvs_app.evaluation import speed
from nvs_app.evaluation.evaluate import versions
from nvs_app.evaluation.report.files import write_json
from nvs_app.evaluation.report.words import rendering_words
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.rendering.device import device_name
from nvs_app.rendering.renderer import Renderer


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Registers the command and its options."""
    parser = subparsers.add_parser(
        "benchmark-speed",
        help="time encoding and decoding on this device",
        description="Median and best of some repeats, after those that warm up.",
    )
    parser.add_argument("--views", type=positive_int, default=8, metavar="N", help="context views (default: 8)")
    parser.add_argument(
        "--tokens",
        type=positive_int,
        nargs="+",
        metavar="N",
        help="encode as many views as have so many context tokens, each in turn (default: --views of them)",
    )
    parser.add_argument(
        "--context-hw",
        type=positive_int,
        nargs=2,
        metavar=("H", "W"),
        help="size of the context views (default: the largest of --sizes)",
    )
    parser.add_argument(
        "--sizes", type=positive_int, nargs="+", default=[128, 256], metavar="S", help="rendered (default: 128 256)"
    )
    parser.add_argument(
        "--at-once", type=positive_int, nargs="+", default=[1], metavar="N", help="views rendered at once (default: 1)"
    )
    parser.add_argument("--repeats", type=positive_int, default=5, metavar="N", help="timed runs (default: 5)")
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), help="random weights of this configuration in place of a checkpoint"
    )
    parser.add_argument("--plain", action="store_true", help="also time the plain path, and compare what comes out")
    parser.add_argument(
        "--profile",
        type=positive_int,
        default=0,
        metavar="N",
        help="also name the N kernels that each takes longest in",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write them as a page")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    check_writable("--json", args.json)
    check_writable("--html", args.html)
    with torchrun_world(args.device) as (world, args.device):
        report = _measured(args, world)
        if world is not None and not world.is_main:
            return 0
    _print(report)
    if args.json is not None:
        write_json(report, args.json, "--json")
    if args.html is not None:
        from nvs_app.evaluation.report.speed_page import write_speed_page

        write_speed_page(report, args.html)
    return 0


def _renderers(args: argparse.Namespace) -> tuple[Renderer, Renderer | None]:
    """The renderer, and the plain one that it is compared with."""
    if args.preset is None:
        renderer = load_renderer(args)
    else:
        torch.manual_seed(0)  # the same weights in every process
        renderer = Renderer(LaCT(PRESETS[args.preset]), args.device, args.precision, detail=args.detail)
        renderer.card["name"] = f"{args.preset}, random weights"
        if args.compile:
            renderer.model.fuse(renderer.dtype, compile=True)
    if not args.plain:
        return renderer, None
    model = copy.copy(renderer.model)  # the same weights, but not the fused ones
    model.fuse(None)
    return renderer, Renderer(model, renderer.device, renderer.precision, False, args.detail, args.look_at)


def _measured(args: argparse.Namespace, world: World | None) -> dict:
    renderer, plain = _renderers(args)
    sizes = sorted(set(args.sizes))
    context_hw = tuple(args.context_hw or (sizes[-1], sizes[-1]))
    plan = renderer.plan_encode(context_hw)
    ceilings = speed.Ceilings.of(renderer.device, renderer.dtype)
    figures: dict[str, speed.Row] = {}
    state = None
    for tokens in args.tokens or [args.views * plan.tokens]:
        row, state = speed.encoding(renderer, plain, tokens, context_hw, args.repeats, ceilings, world, args.profile)
        figures[f"encode {row['views']} views {plan.words}"] = row
    assert state is not None
    # LaCT alone first: at the sizes that it renders itself, and at those where it works for the head.
    alone = Renderer(renderer.model, renderer.device, renderer.precision, detail=False)
    plain_alone = plain and Renderer(plain.model, plain.device, plain.precision, detail=False)
    plans = {size: renderer.plan_render((size, size)) for size in sizes}
    for count in args.at_once:
        views = f"{count} view{'s' if count > 1 else ''}"
        for side in sorted({plan.lact_hw[0] for plan in plans.values() if plan.detail} | {*sizes}):
            figures[f"render {views} {side}x{side}, LaCT alone"] = speed.rendering(
                alone, plain_alone, state, (side, side), count, args.repeats, ceilings, args.profile
            )
        for size, plan in plans.items() if renderer.detail else ():
            figures[f"render {views} {plan.words}, detail head"] = speed.rendering(
                renderer, plain, state, (size, size), count, args.repeats, ceilings, args.profile
            )
    return {
        "checkpoint": {"name": renderer.card.get("name"), "hash": renderer.card.get("hash")},
        "parameters": sum(p.numel() for p in renderer.model.parameters()),
        "device": device_name(renderer.device),
        "processes": 1 if world is None else world.size,
        "threads": torch.get_num_threads(),
        "precision": renderer.precision,
        "compiled": args.compile,
        "rendering": renderer.settings(),
        "repeats": args.repeats,
        "ceilings": {"tflops": ceilings.flops / 1e12, "gb_per_s": ceilings.bytes / 1e9},
        "figures": figures,
        "versions": versions(),
    }


def _print(report: dict) -> None:
    """The figures as a table."""
    figures, ceilings = report["figures"], report["ceilings"]
    title = (
        f"{report['checkpoint']['name']}, {report['parameters'] / 1e6:.1f} M parameters, {report['precision']}"
        f"{', compiled' if report['compiled'] else ''}, {rendering_words(report)}, {report['device']}"
        f"{', {} processes'.format(report['processes']) if report['processes'] > 1 else ''}; it multiplies at"
        f" {ceilings['tflops']:.3g} TFLOP/s and copies at {ceilings['gb_per_s']:.0f} GB/s"
    )
    columns = {
        "tokens": ("tokens", "{:,}"), "median_ms": ("median ms", "{:.2f}"), "best_ms": ("best ms", "{:.2f}"),
        "plain_ms": ("plain ms", "{:.2f}"), "floor_ms": ("floor ms", "{:.2f}"), "peak_gib": ("peak GiB", "{:.1f}"),
        "views_per_s": ("views/s", "{:.0f}"), "difference": ("differs by", "{:.2g}"),
    }  # fmt: skip
    columns = {key: column for key, column in columns.items() if any(key in row for row in figures.values())}
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for heading, _ in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for what, row in figures.items():
        table.add_row(what, *(form.format(row[key]) if key in row else "" for key, (_, form) in columns.items()))
    Console(width=max(120, 80 + max(map(len, figures)))).print(table)
    for what, row in figures.items():
        for number, (name, calls, spent) in enumerate(row.get("kernels", ())):
            print(f"{what if not number else '':{max(map(len, figures))}}  {spent:9.2f} ms  {calls:6d} x  {name[:100]}")
