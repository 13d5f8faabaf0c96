"""`shards`: scenes of any known format become tars that stream into the trainer.

python -m data_tools shards captures/* chunks/000000.torch OUT --max-side 256
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nvs_app.terminal import whole_number


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "shards",
        help="write scenes as training shards (WebDataset tars)",
        description="Write scenes as WebDataset tars, one sample a scene. Run again to go on after a stop.",
    )
    parser.add_argument(
        "scenes", nargs="+", metavar="SCENE", help="scene, FILE#KEY, file of many scenes, or folder of scenes"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the shards and their index.json")
    count, or_none = whole_number(1), whole_number(0)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--image-hw", type=count, nargs=2, metavar=("H", "W"), help="crop and resize images to it")
    size.add_argument("--max-side", type=count, default=0, metavar="N", help="shrink images with a longer side")
    parser.add_argument("--quality", type=or_none, default=92, metavar="Q", help="of JPEG, 1-100; 0: PNG (default 92)")
    parser.add_argument("--max-views", type=count, default=0, metavar="N", help="keep at most N views, evenly spread")
    parser.add_argument("--scenes-per-shard", type=count, default=0, metavar="N", help="end a shard after N scenes")
    parser.add_argument(
        "--shard-mib", type=or_none, default=256, metavar="N", help="or at N MiB (default 256; 0: never)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write; 0, or 1 where scenes were left out."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from data_tools.shards.write import ShardOptions, write_shards

    chosen = ShardOptions(
        image_hw=tuple(options.image_hw) if options.image_hw else None,
        max_side=options.max_side,
        quality=options.quality,
        max_views=options.max_views,
        scenes_per_shard=options.scenes_per_shard,
        shard_mib=options.shard_mib,
    )
    columns = (TextColumn("scenes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("scenes", total=None)

        def progress(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total)
            if text:
                bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

        written = write_shards(options.scenes, options.out, chosen, progress)
    there = f" ({written.present} there already)" if written.present else ""
    print(
        f"{options.out}: {written.scenes} scenes, {written.views} views in {written.shards} shards{there},"
        f" {len(written.skipped)} scenes left out"
    )
    return 1 if written.skipped else 0
