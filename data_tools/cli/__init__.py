"""Command line of the data tools: `python -m data_tools contact-sheet --out sheet.png --kind all`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from nvs_app.terminal import Parser, run_cli

COMMANDS = (
    "data_tools.cli.contact_sheet",
    "data_tools.cli.convert",
    "data_tools.cli.examples",
    "data_tools.cli.objaverse",
    "data_tools.cli.photos",
    "data_tools.cli.shards",
)
"""Modules with ``add_parser(subparsers)``, which sets ``run`` as the default function of its parsers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; a user's mistake is one line and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)

    def work() -> int | None:
        parser = Parser(prog="python -m data_tools", description="Scenes in, scenes out.")
        subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
        for name in COMMANDS:
            importlib.import_module(name).add_parser(subparsers)
        options = parser.parse_args(arguments)
        return options.run(options)

    return run_cli(work, " ".join(arguments[:1]))
