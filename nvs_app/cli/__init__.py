"""The command line: `python -m nvs_app COMMAND ...` (`--help` lists the commands).

A command is a module with `add_parser(subparsers)` and `run(args) -> int | None`, or, where it reads its words itself,
with `main(words) -> int | None`. Only the module of the command
that was typed is imported: training on a machine without gradio or imageio must not import them.

Exit codes: 0 done; 1 a check or a command said no; 2 a mistake in what was asked (one line `error: ...` on
stderr, no traceback); 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from nvs_app.terminal import Parser, run_cli

# command -> (module, one line for --help). The help lives here so that --help imports no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "render": ("nvs_app.cli.render", "render a camera path of one or many scenes to mp4, gif or png"),
    "export": ("nvs_app.cli.export", "write a scene as Gaussian splats, points, a mesh or depth maps"),
    "eval": ("nvs_app.cli.eval", "measure PSNR and SSIM on held-out views of scenes, or run a benchmark"),
    "report": ("nvs_app.cli.report", "show, compare and draw the reports of benchmarks"),
    "train": ("nvs_app.cli.train", "train a model (also under torchrun)"),
    "weights": ("nvs_app.cli.weights", "list, fetch, convert and verify weights"),
    "benchmark-speed": ("nvs_app.cli.benchmark_speed", "time encoding and decoding on this device"),
    "benchmark-web": ("nvs_app.cli.benchmark_web", "time the viewer's connection, alone and with many visitors"),
}


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser, with the full options of `command` only; the other commands are there by name and help line."""
    parser = Parser(
        prog="python -m nvs_app",
        description="Posed images in, new views out: write a scene into fast weights, render any camera.",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, help_line) in COMMANDS.items():
        own = getattr(importlib.import_module(module), "add_parser", None) if name == command else None
        if own is not None:
            own(subparsers)
        else:
            subparsers.add_parser(name, help=help_line)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code. `argv` without the program's name; None is sys.argv."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in argv if not word.startswith("-")), None)

    def work() -> int | None:
        if command in COMMANDS and argv[0] == command:
            module = importlib.import_module(COMMANDS[command][0])
            if hasattr(module, "main"):
                return module.main(argv[1:])
        args = build_parser(command).parse_args(argv)
        args.words = argv  # for other processes that take part
        return importlib.import_module(COMMANDS[args.command][0]).run(args)

    return run_cli(work, str(command))
