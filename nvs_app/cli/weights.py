"""`python -m nvs_app weights list|info|fetch|convert|average|verify`: checkpoints and released weights."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser("weights", help="list, inspect, fetch, convert and verify weights")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="checkpoints here and released weights that can be fetched")
    info = actions.add_parser("info", help="what a checkpoint is: sizes, data, figures")
    info.add_argument("checkpoint", help="name in checkpoints/ or a folder")
    fetch = actions.add_parser("fetch", help="download released weights and convert them")
    fetch.add_argument("name", help="one of the released names that `weights list` shows")
    convert = actions.add_parser("convert", help="convert a released .pt file")
    convert.add_argument("file", type=Path, help="released .pt file")
    average = actions.add_parser("average", help="write the mean of two checkpoints of one run")
    average.add_argument("first", help="checkpoint: a name or a folder")
    average.add_argument("second", help="checkpoint of the same configuration; its card is kept")
    average.add_argument("--share", type=float, default=0.5, help="weight of the second (default: 0.5)")
    for action in (fetch, convert, average):
        action.add_argument("--out", type=Path, help="checkpoint folder (default: in checkpoints/)")
        action.add_argument(
            "--dtype", choices=["float32", "bfloat16", "int8"], default="float32", help="of matrices (default: float32)"
        )
    check = actions.add_parser("verify", help="compare this build on this hardware with recorded outputs")
    check.add_argument("file", type=Path, nargs="+", help="recording(s), .safetensors")
    check.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; returns the exit code."""
    actions = {"list": _list, "info": _info, "fetch": _fetch, "convert": _convert, "average": _average,
               "verify": _verify}  # fmt: skip
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from nvs_app.model.checkpoint import checkpoints_dir, list_checkpoints, read_description
    from nvs_app.model.pretrained import HUB_NAME, RELEASES

    print(f"in {checkpoints_dir()}:")
    for name in list_checkpoints():
        description = read_description(checkpoints_dir() / name)
        print(f"  {name}: {description['card'].get('summary', description['card'].get('source', ''))}")
    print(f"released by the paper's authors ({HUB_NAME}), `weights fetch NAME`:")
    for name, release in RELEASES.items():
        height, width = release.image_hw
        print(f"  {name}: {release.preset}, {height}x{width}, {release.normalization} cameras")
    return 0


def _info(args: argparse.Namespace) -> int:
    from nvs_app.model.checkpoint import find_checkpoint, read_description
    from nvs_app.model.config import LaCTConfig

    folder = find_checkpoint(args.checkpoint)
    description = read_description(folder)
    config = LaCTConfig.from_dict(description["model"])
    size = sum((folder / shard).stat().st_size for shard in description["shards"])
    print(f"{folder}: {description['dtype']}, {len(description['shards'])} shards, {size / 2**20:.1f} MiB")
    print(f"hash {description['hash']}")
    for title, values in (("model", config.to_dict()), ("card", description["card"])):
        print(f"{title}:")
        for key, value in values.items():
            print(f"  {key}: {value}")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from nvs_app.model.checkpoint import checkpoints_dir
    from nvs_app.model.pretrained import fetch_released

    print(fetch_released(args.name, args.out or checkpoints_dir() / args.name, args.dtype))
    return 0


def _convert(args: argparse.Namespace) -> int:
    from nvs_app.model.checkpoint import checkpoints_dir
    from nvs_app.model.pretrained import convert_released

    print(convert_released(args.file, args.out or checkpoints_dir() / args.file.stem, args.dtype))
    return 0


def _average(args: argparse.Namespace) -> int:
    from nvs_app.model.averaging import average_checkpoints
    from nvs_app.model.checkpoint import checkpoints_dir

    names = [Path(name).name for name in (args.first, args.second)]
    out = args.out or checkpoints_dir() / "-".join([*names, "average"])
    print(average_checkpoints(args.first, args.second, out, args.share, args.dtype))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from nvs_app.model.verify import verify

    failed = False
    for path in args.file:
        print(path)
        for what, error, limit in verify(path, args.device):
            good = error <= limit
            failed = failed or not good
            print(f"  {what}: {error:.2e} (limit {limit:.0e}) {'ok' if good else 'TOO LARGE'}")
    return 1 if failed else 0
