"""Writes the pages of docs/ that follow from the code: command_line.md from every command's `--help`, api.md from the
docstrings of the public API. `tests/test_docs.py` fails where they are out of date.

    .venv/bin/python tools/make_docs.py          # or: make docs
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
WIDTH = "100"  # as wide as help is wrapped

# What the page of the API describes: modules, with the names of those that belong to it (none: all that are public).
API = {
    "The names that `nvs_app` itself gives": {
        "data_tools/readers/__init__.py": ["open_scene"],
        "nvs_app/scenes/scene.py": ["Scene"],
        "nvs_app/geometry/cameras.py": ["Cameras"],
        "nvs_app/rendering/renderer.py": ["Renderer"],
        "nvs_app/model/state.py": ["SceneState"],
        "nvs_app/model/lact.py": ["LaCT"],
    },
    "Cameras, frames and paths": {
        "nvs_app/geometry/cameras.py": [],
        "nvs_app/geometry/normalize.py": [],
        "nvs_app/geometry/paths.py": [],
        "nvs_app/scenes/camera_path.py": [],
    },
    "Views and images": {
        "nvs_app/scenes/views.py": [],
        "nvs_app/scenes/posed.py": [],
    },
    "Rendering": {
        "nvs_app/rendering/plan.py": [],
        "nvs_app/rendering/views.py": [],
        "nvs_app/rendering/video.py": [],
    },
    "Networks and checkpoints": {
        "nvs_app/model/config.py": ["LaCTConfig"],
        "nvs_app/model/checkpoint.py": [],
        "nvs_app/model/pretrained.py": [],
    },
    "Figures": {
        "nvs_app/evaluation/metrics.py": [],
        "nvs_app/evaluation/evaluator.py": [],
    },
}


def printed(work: Callable[[], object]) -> str:
    """What a call prints before it returns or exits."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        work()
    return out.getvalue()


def helps(parser: argparse.ArgumentParser, deepest: bool = False) -> Iterator[tuple[str, str]]:
    """(program, help) of a parser, or with `deepest` of its commands, and of theirs."""
    commands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not deepest or not commands:
        yield parser.prog, parser.format_help()
    for action in commands:
        for command in action.choices.values():
            yield from helps(command, deepest)


def all_helps() -> Iterator[tuple[str, str]]:
    """(program, help) of every command of the project."""
    from data_tools.cli import COMMANDS as DATA_TOOLS
    from nvs_app.cli import COMMANDS, build_parser
    from nvs_app.cli.train import read_command_line
    from nvs_app.integrations.nerfstudio.__main__ import main as nerfstudio
    from nvs_app.terminal import Parser
    from nvs_app.web.server import build_parser as app_parser

    app = app_parser()
    app.prog = "python app.py"
    yield from helps(app)
    for command in COMMANDS:
        if command == "train":
            yield "python -m nvs_app train", unboxed(printed(lambda: read_command_line(["--help-verbose"])))
        else:
            found = dict(helps(build_parser(command), deepest=True))
            yield from ((name, text) for name, text in found.items() if name.split()[3] == command)
    tools = Parser(prog="python -m data_tools")
    subparsers = tools.add_subparsers()
    for module in DATA_TOOLS:
        importlib.import_module(module).add_parser(subparsers)
    yield from helps(tools, deepest=True)
    yield "nvs-ns", printed(lambda: nerfstudio(["--help"]))


def unboxed(text: str) -> str:
    """tyro's help without the frames around its groups."""
    lines = []
    for line in text.splitlines():
        if heading := re.match(r"╭─ (.*?) ─*╮$", line):
            line = f"\n{heading[1]}:"
        elif line.startswith("╰") or re.match(r"│ ─+ │$", line):
            continue
        lines.append(re.sub(r"^│ (.*?) *│$", r"  \1", line).rstrip())
    return "\n".join(lines)


def command_line() -> str:
    """docs/command_line.md."""
    page = [
        "# Command line\n",
        "Made by `tools/make_docs.py` from each command's `--help`. A mistake is answered by one line that says what",
        "to do, and exit code 2; 0 is done, 1 a check or a command that said no, 130 interrupted. Where the package is",
        "installed, `nvs`, `nvs-data` and `nvs-web` are short for `python -m nvs_app`, `python -m data_tools` and",
        "`python app.py`. The options of `train` can also stand in a file, `train --config RUN.json`.",
    ]
    with mock.patch.dict(os.environ, COLUMNS=WIDTH):
        for program, text in all_helps():
            page += [f"\n## {program}\n", "```", text.strip(), "```"]
    return "\n".join(page) + "\n"


def signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """`name(arguments) -> result` of a function, `name(fields)` of a class."""
    if isinstance(node, ast.FunctionDef):
        result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
        text = f"{node.name}({ast.unparse(node.args)}){result}"
    else:
        init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        fields = [ast.unparse(n) for n in node.body if isinstance(n, ast.AnnAssign)]
        text = f"{node.name}({', '.join(fields) if init is None else ast.unparse(init.args)})"
    return re.sub(r"\((self|cls)(, )?", "(", text, count=1)


def described(node: ast.FunctionDef | ast.ClassDef, of: str = "") -> Iterator[str]:
    """A function or a class with its public methods, as Markdown."""
    names = [ast.unparse(decorator) for decorator in node.decorator_list]
    is_value = any(name.endswith("property") for name in names)
    title = f"{of}{node.name}" if is_value else of + signature(node)
    kind = "class " if isinstance(node, ast.ClassDef) else ""
    text = textwrap.indent(str(ast.get_docstring(node)), "    ")
    yield f"{'####' if of else '###'} {kind}`{of}{node.name}`\n\n```text\n{title}\n\n{text}\n```\n"
    if isinstance(node, ast.ClassDef):
        for inner in public(node.body):
            yield from described(inner, f"{node.name}.")


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """What has a docstring and a name that is not private."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_" and ast.get_docstring(node):
            yield node


def api() -> str:
    """docs/api.md."""
    page = [
        "# The API\n",
        "Made by `tools/make_docs.py` from the docstrings. `from nvs_app import Renderer, Scene, SceneState, Cameras,",
        "LaCT, open_scene` is what stays as it is between versions; the modules below it are what the commands use.",
        "[conventions.md](conventions.md) has axes, units and shapes; mistakes raise `nvs_app.errors.NVSError`.\n",
    ]
    shown: set[tuple[str, str]] = set()
    for heading, modules in API.items():
        page.append(f"## {heading}\n")
        for path, names in modules.items():
            tree = ast.parse((ROOT / path).read_text("utf-8"))
            nodes = [n for n in public(tree.body) if (n.name in names or not names) and (path, n.name) not in shown]
            assert nodes and not set(names) - {node.name for node in nodes}, (path, names)
            shown.update((path, node.name) for node in nodes)
            module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            page.append(f"From `{module}`:\n")
            page += [line for node in nodes for line in described(node)]
    return "\n".join(page).rstrip() + "\n"


PAGES = {"docs/command_line.md": command_line, "docs/api.md": api}

if __name__ == "__main__":
    for path, make in PAGES.items():
        (ROOT / path).write_text(make(), "utf-8")
        print(path)
