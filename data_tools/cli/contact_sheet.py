"""`contact-sheet`: a PNG of what the network sees; `procedural-bench`: how fast it is made.

python -m data_tools contact-sheet --out sheet.png --kind room --scenes 6 --views 6 --assets FOLDER
python -m data_tools procedural-bench --device cuda
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.terminal import whole_number

# As in data_tools.procedural, which only these commands import.
_KINDS = ("object", "asset", "room", "outdoor", "tabletop")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register both commands."""
    sheet = subparsers.add_parser("contact-sheet", help="write a PNG: one row a procedural scene, one column a view")
    sheet.add_argument("--out", type=Path, required=True, help="PNG to write")
    sheet.add_argument("--kind", choices=(*_KINDS, "all"), default="all", help="kind of scene")
    sheet.add_argument("--scenes", type=whole_number(1), default=6, help="scenes (of each kind)")
    sheet.add_argument("--views", type=whole_number(1), default=6, help="views of each scene")
    sheet.add_argument("--first", type=whole_number(0), default=0, help="number of the first scene")
    sheet.set_defaults(run=run_sheet)
    bench = subparsers.add_parser("procedural-bench", help="print views per second of the generator as one JSON line")
    bench.add_argument(
        "--scenes", type=whole_number(1), nargs="+", default=[16, 64, 128], help="scenes a batch, in turn"
    )
    bench.add_argument("--views", type=whole_number(1), default=24, help="views of each scene")
    bench.add_argument("--repeats", type=whole_number(1), default=4, help="timed batches of each kind")
    bench.add_argument("--profile", type=Path, help="also write a table of the slowest operators here")
    bench.set_defaults(run=run_bench)
    for parser in (sheet, bench):
        parser.add_argument("--seed", type=int, default=0, help="seed of the world")
        parser.add_argument("--assets", type=Path, help="folder with objects_pack.npz and textures/")
        parser.add_argument("--device", default="cpu", help="cpu or cuda")
        parser.add_argument(
            "--image-hw", type=whole_number(8), nargs=2, default=(128, 128), metavar=("H", "W"), help="pixels"
        )


def _source(options: argparse.Namespace):
    from data_tools.procedural import ProceduralSource

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise NVSError(f"--device {options.device}: no GPU here, use --device cpu")
    return ProceduralSource(options.device, options.seed, options.assets)


def tile_sheet(images: Tensor) -> Image.Image:
    """uint8 [rows, columns, 3, H, W] to one image."""
    rows, columns, _, height, width = images.shape
    flat = images.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    return Image.fromarray(flat.cpu().numpy())


def run_sheet(options: argparse.Namespace) -> int:
    """Write the sheet."""
    options.out.parent.mkdir(parents=True, exist_ok=True)  # a place that cannot be written costs no work
    source = _source(options)
    kinds = _KINDS if options.kind == "all" else (options.kind,)
    rows = []
    for kind in kinds:
        for index in range(options.first, options.first + options.scenes):
            rows.append(source.batch([index], options.views, tuple(options.image_hw), [kind]).images.cpu())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tile_sheet(torch.cat(rows)).save(options.out)
    print(f"{options.out}: {len(rows)} scenes x {options.views} views")
    return 0


def run_bench(options: argparse.Namespace) -> int:
    """Time batches of the default mix at every size, and of every kind at the smallest.

    ``cpu_ms`` is the time until the call of ``batch`` returns: what the host spends launching kernels and waiting for
    the few counts that it needs; ``ms`` is the time until the images are there.
    """
    started = time.perf_counter()
    source = _source(options)
    cuda = source.device.type == "cuda"
    wait = torch.cuda.synchronize if cuda else (lambda: None)
    wait()
    result: dict[str, object] = {"init_s": round(time.perf_counter() - started, 2)}
    image_hw, views = tuple(options.image_hw), options.views

    def batch(number: int, scenes: int, kind: str | None) -> None:
        first = number * scenes
        kinds = None if kind is None else [kind] * scenes
        source.batch(range(first, first + scenes), views, image_hw, kinds)

    def timed(scenes: int, kind: str | None) -> dict[str, float]:
        started = time.perf_counter()
        for number in range(2):  # compiles on the first calls
            batch(number, scenes, kind)
        wait()
        warm = time.perf_counter() - started
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        launch, times = 0.0, []
        for number in range(2, 2 + options.repeats):
            started = time.perf_counter()
            batch(number, scenes, kind)
            launch += (time.perf_counter() - started) / options.repeats
            wait()
            times.append(time.perf_counter() - started)
        seconds = sum(times) / len(times)
        row = {"views_per_s": round(scenes * views / seconds, 1), "ms": round(seconds * 1e3, 2),
               "worst_ms": round(max(times) * 1e3, 2), "cpu_ms": round(launch * 1e3, 2),
               "warm_up_s": round(warm, 2)}  # fmt: skip
        if cuda:
            row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        return row

    for scenes in options.scenes:
        result[f"mixed_{scenes}"] = timed(scenes, None)
    for kind in _KINDS:
        result[f"{kind}_{options.scenes[0]}"] = timed(options.scenes[0], kind)
    if cuda:
        result["device"] = torch.cuda.get_device_name()
    if options.profile:
        activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
        with torch.profiler.profile(activities=activities) as profiler:
            batch(100, options.scenes[0], None)
            wait()
        orders = (["self_cuda_time_total"] if cuda else []) + ["self_cpu_time_total"]
        averages = profiler.key_averages()
        tables = [averages.table(sort_by=order, row_limit=40, max_name_column_width=70) for order in orders]
        options.profile.write_text("\n".join(tables))
    result.update(views=views, image_hw=list(image_hw))
    print(json.dumps(result))
    return 0
