"""`convert`: any scene with cameras becomes a nerfstudio scene or a COLMAP project.

python -m data_tools convert captures/garden scenes/garden --max-views 100
python -m data_tools convert scenes/garden colmap/garden --to colmap
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nvs_app.errors import NVSError
from nvs_app.terminal import whole_number


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    from data_tools.readers import FORMATS

    parser = subparsers.add_parser(
        "convert", help="convert a scene with cameras to a nerfstudio transforms.json, or to COLMAP"
    )
    parser.add_argument("input", help="scene folder or camera file; FILE#KEY for one scene of many")
    parser.add_argument("output", type=Path, help="folder to write, absent or empty")
    parser.add_argument("--format", choices=tuple(FORMATS), help="the format, instead of recognising it")
    parser.add_argument("--scene", metavar="KEY", help="one scene of a file or folder that holds many")
    parser.add_argument("--max-views", type=whole_number(1), metavar="N", help="keep at most N views, evenly spread")
    parser.add_argument(
        "--to", choices=("nerfstudio", "colmap"), default="nerfstudio", help="what is written (default: nerfstudio)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert; 0, or 1 where some scenes of many were skipped."""
    from data_tools.convert import convert

    try:
        done = convert(options.input, options.output, options.format, options.scene, options.max_views, to=options.to)
    except OSError as error:  # a full disk, a folder that must not be written
        raise NVSError(f"{error.filename or options.output}: {error.strerror or error}") from error
    return 1 if done.failed else 0
