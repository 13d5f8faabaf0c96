"""What README.md says can be done: its tree exists, its commands have these options, its Python runs."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from data_tools.cli import COMMANDS as DATA_TOOLS
from nvs_app.cli import build_parser
from nvs_app.cli.train import read_command_line


def data_tools_parser() -> argparse.ArgumentParser:
    """The parser of `python -m data_tools`, all commands."""
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers(required=True)
    for name in DATA_TOOLS:
        importlib.import_module(name).add_parser(subparsers)
    return parser


def code_blocks(repo: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    text = (repo / "README.md").read_text("utf-8")
    return re.findall(r"^```([a-z]*)\n(.*?)^```", text, re.S | re.M)


def test_tree_exists(repo: Path) -> None:
    """Every path of the README's tree (the block that starts with app.py) is there."""
    text = (repo / "README.md").read_text("utf-8")
    block = re.search(r"```[a-z]*\n(app\.py .*?)```", text, re.S)
    assert block, "README.md shows no tree"
    stack: list[tuple[int, Path]] = []
    for line in block[1].splitlines():
        entry = re.match(r"( *)(\S+)", line)
        if not entry or entry[2].startswith("…"):
            continue
        depth = len(entry[1])
        while stack and stack[-1][0] >= depth:
            stack.pop()
        path = (stack[-1][1] if stack else repo) / entry[2]
        assert path.exists(), f"README.md names {path.relative_to(repo)}, which is not there"
        if entry[2].endswith("/"):
            stack.append((depth, path))


def test_commands_parse(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every `python -m nvs_app ...` and `python -m data_tools ...` is accepted by the command's own parser."""
    lines = [line for _, block in code_blocks(repo) for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("python -m ")]
    assert len(commands) >= 5
    for line in commands:
        package, *words = shlex.split(line, comments=True)[2:]
        if (package, words[0]) == ("nvs_app", "train"):
            read_command_line(words[1:])
            continue
        try:
            parser = build_parser(words[0]) if package == "nvs_app" else data_tools_parser()
            parser.parse_args(words)
        except SystemExit:
            pytest.fail(f"README.md: {line}: {capsys.readouterr().err}")


def test_make_targets_exist(repo: Path) -> None:
    makefile = (repo / "Makefile").read_text("utf-8")
    text = (repo / "README.md").read_text("utf-8")
    named = set(re.findall(r"make (?:PYTHON=\S+ )?(app|test|setup|lint|clean)\b", text))
    assert {"app", "test"} <= named
    assert not [name for name in named if not re.search(rf"^{name}:", makefile, re.M)]


def test_python_example_runs(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the first bundled scene and the bundled checkpoint, smaller and with a shorter orbit."""
    blocks = [block for language, block in code_blocks(repo) if language == "python"]
    (code,) = [block for block in blocks if "gradio_client" not in block]  # that one: tests/web/test_work.py
    scenes = sorted(path.parent for path in (repo / "examples").glob("*/transforms.json"))
    if not scenes or not list((repo / "checkpoints").glob("*/config.json")):
        pytest.skip("no bundled scene or checkpoint")
    code = code.replace('"SCENE"', repr(str(scenes[0]))).replace("60))", "2))").replace("(256, 256)", "(64, 64)")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert tuple(names["images"].shape) == (2, 3, 64, 64)
