"""nerfstudio's commands for the method `lact`: `nvs-ns`, or `python -m nvs_app.integrations.nerfstudio`.

    nvs-ns train --data SCENE                  as ns-train lact --data SCENE
    nvs-ns viewer --load-config CONFIG         as ns-viewer
    nvs-ns render camera-path --load-config CONFIG --camera-path-filename PATH
    nvs-ns eval --load-config CONFIG
    nvs-ns views CONFIG                        the same measurement with python -m nvs_app eval

They are nerfstudio's own, entered from here: also where the project is not installed, and with a mistake told in one
line (exit code 2). `--help` after a command shows nerfstudio's help.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from nvs_app.errors import NVSError
from nvs_app.terminal import Parser, run_cli
from nvs_app.torchvision_ops import declare

COMMANDS = {
    "train": ("nerfstudio.scripts.train", "write a scene into fast weights: --data SCENE [options] [dataparser]"),
    "viewer": ("nerfstudio.scripts.viewer.run_viewer", "look at an encoded scene: --load-config CONFIG"),
    "render": ("nerfstudio.scripts.render", "camera-path, interpolate, spiral or dataset: --load-config CONFIG"),
    "eval": ("nerfstudio.scripts.eval", "PSNR and SSIM of the eval split: --load-config CONFIG"),
    "views": (None, "print the command that measures the same views without nerfstudio: CONFIG"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    lines = "\n".join(f"  {name:8}{text}" for name, (_, text) in COMMANDS.items())
    parser = Parser(
        prog="nvs-ns",
        description=f"nerfstudio's commands for the method lact.\n\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="COMMAND --help shows the options of a command.",
    )
    parser.add_argument("command", choices=tuple(COMMANDS), metavar="COMMAND")
    command = parser.parse_args(argv[:1]).command
    rest = argv[1:]
    return run_cli(lambda: print_views(rest) if command == "views" else enter(command, rest), command)


def prepare() -> None:
    """Makes nerfstudio importable and our method known to it."""
    declare()
    # Of nerfstudio 1.1.5 itself, at its import and at its indexing with lists.
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("ignore", message="Using a non-tuple sequence for multidimensional indexing")
    try:
        importlib.import_module("nerfstudio")
    except ModuleNotFoundError as error:
        raise NVSError("nerfstudio is not installed; run pip install -r requirements.txt") from error
    if "lact" not in importlib.metadata.entry_points(group="nerfstudio.method_configs").names:
        known = os.environ.get("NERFSTUDIO_METHOD_CONFIGS", "")
        ours = "lact=nvs_app.integrations.nerfstudio.method:lact"
        os.environ["NERFSTUDIO_METHOD_CONFIGS"] = ",".join(filter(None, (known, ours)))


def enter(command: str, rest: list[str]) -> int:
    """Runs nerfstudio's own command with its own parser."""
    prepare()
    module, _ = COMMANDS[command]
    assert module is not None
    before = sys.argv
    sys.argv = [f"nvs-ns {command}", *(["lact"] if command == "train" else []), *rest]
    try:
        importlib.import_module(module).entrypoint()
    finally:
        sys.argv = before
    return 0


def print_views(rest: list[str]) -> int:
    """Prints the `eval` command of this project for a run's context views and eval split."""
    parser = Parser(prog="nvs-ns views", description=COMMANDS["views"][1])
    parser.add_argument("config", type=Path, metavar="CONFIG", help="config.yml of the run")
    config_path = parser.parse_args(rest).config
    if not config_path.is_file():
        raise NVSError(f"{config_path}: no such file, expected the config.yml of a run")
    prepare()
    from nerfstudio.utils.eval_utils import eval_setup

    from data_tools.readers import open_scene
    from nvs_app.rendering.plan import LaCTResolution

    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the one line
        config, pipeline, _, _ = eval_setup(config_path)
    if config.method_name != "lact":
        raise NVSError(f"{config_path}: a run of {config.method_name}, expected one of lact")
    manager = pipeline.datamanager
    scene = open_scene(manager.get_datapath())
    places = {path.resolve(): index for index, path in enumerate(scene.image_paths)}
    try:
        names = pipeline.model.encoded().meta["context_images"].splitlines()
        context = [places[Path(name).resolve()] for name in names]
        targets = [places[path.resolve()] for path in manager.eval_dataset.scene.image_paths]
    except KeyError as error:
        raise NVSError(f"{manager.get_datapath()}: {error} is no view of it as this project reads it") from error
    height, width = manager.eval_dataset.image_hws[0]
    words = ["python", "-m", "nvs_app", "eval", str(manager.get_datapath())]
    words += ["--context-views", ",".join(map(str, context)), "--target-views", ",".join(map(str, targets))]
    words += ["--image-hw", str(height), str(width), "--checkpoint", str(config.pipeline.model.checkpoint)]
    words += [] if config.pipeline.model.detail else ["--no-detail"]
    words += ["--look-at", str(config.pipeline.model.look_at)] if config.pipeline.model.look_at else []
    renderer = pipeline.model.renderer
    if renderer.detail and renderer.lact != LaCTResolution.of_card(renderer.card):
        print("note: the run has another resolution of LaCT than its checkpoint, which eval takes", file=sys.stderr)
    print(shlex.join(words))
    return 0


if __name__ == "__main__":
    sys.exit(main())
