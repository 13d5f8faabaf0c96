"""What the README and docs/ say can be done: commands have these options, links lead somewhere, Python runs."""

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
from nvs_app.training.old_options import NEW_NAMES, UNCHANGED

REPO = Path(__file__).resolve().parent.parent
PAGES = [
    REPO / "README.md",
    REPO / "CONTRIBUTING.md",
    REPO / ".ci" / "README.md",
    *sorted((REPO / "docs").glob("*.md")),
    *sorted((REPO / "checkpoints").glob("**/*.md")),
]
NAMES = REPO / "docs" / "names.md"  # speaks of what was before
LOG = REPO / "checkpoints" / "TRAINING.md"  # too


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    return re.findall(r"^```([a-z]*)\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)


def commands(page: Path) -> list[list[str]]:
    """The words of every command in a page's bash blocks."""
    text = "".join(block for language, block in blocks(page) if language == "bash").replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def data_tools_parser() -> argparse.ArgumentParser:
    """The parser of `python -m data_tools`, all commands."""
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers(required=True)
    for name in DATA_TOOLS:
        importlib.import_module(name).add_parser(subparsers)
    return parser


def check(words: list[str]) -> None:
    """Raises, or exits, where a command has no such option."""
    if words[:2] == ["python", "-m"] and words[2:4] == ["nvs_app", "train"]:
        read_command_line(words[4:])
    elif words[:3] == ["python", "-m", "nvs_app"]:
        build_parser(words[3]).parse_args(words[3:])
    elif words[:3] == ["python", "-m", "data_tools"]:
        data_tools_parser().parse_args(words[3:])
    elif words[:2] == ["python", "app.py"]:
        from nvs_app.web.server import build_parser as app_parser

        app_parser().parse_args(words[2:])
    elif words[0] == "make":
        target = next(word for word in words[1:] if "=" not in word)
        assert re.search(rf"^{target}:", (REPO / "Makefile").read_text("utf-8"), re.M)
    else:  # nerfstudio's own commands are tried in tests/integrations
        assert words[0].startswith(("ns-", ".venv/bin/")) or words[:2] == [".", ".venv/bin/activate"]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page)], ids=lambda page: str(page.relative_to(REPO))
)
def test_commands_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(page):
        try:
            check(words)
        except SystemExit:
            pytest.fail(f"{page.name}: {shlex.join(words)}: {capsys.readouterr().err}")


def test_the_readme_is_short_and_has_its_commands() -> None:
    found = [" ".join(words[:4]) for words in commands(REPO / "README.md")]
    assert {"make app", "make test", "python -m nvs_app render", "python -m data_tools photos"} <= set(found)
    assert len((REPO / "README.md").read_text("utf-8").splitlines()) <= 125


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in (NAMES, LOG)], ids=lambda page: str(page.relative_to(REPO))
)
def test_options_named_in_prose_exist(page: Path) -> None:
    known = (REPO / "docs" / "command_line.md").read_text("utf-8")
    # nerfstudio's, the tests', and torchrun's.
    theirs = r"--(pipeline|machine|load-config|data$|output-path|camera-path|rendered-output|eval-mode|attack|nproc)"
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*[a-z]", page.read_text("utf-8")))
    missing = [name for name in named if name not in known and not re.match(theirs, name)]
    assert not missing, f"{page.name} names options that no command has: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S))
    gone = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not gone, f"{page.name}: {gone}"


def test_tree_exists() -> None:
    """Every path of the tree in docs/architecture.md (the block that starts with app.py) is there."""
    text = (REPO / "docs" / "architecture.md").read_text("utf-8")
    block = re.search(r"```[a-z]*\n(app\.py .*?)```", text, re.S)
    assert block, "docs/architecture.md shows no tree"
    stack: list[tuple[int, Path]] = []
    for line in block[1].splitlines():
        entry = re.match(r"( *)(\S+)", line)
        assert entry, line
        depth = len(entry[1])
        while stack and stack[-1][0] >= depth:
            stack.pop()
        path = (stack[-1][1] if stack else REPO) / entry[2]
        assert path.exists(), f"docs/architecture.md names {path.relative_to(REPO)}, which is not there"
        if entry[2].endswith("/"):
            stack.append((depth, path))


def test_old_and_new_names() -> None:
    """docs/names.md has every old option that is read, and its modules of now are there and those of before are not."""
    text = NAMES.read_text("utf-8")
    for old, new in NEW_NAMES.items():
        assert old in UNCHANGED or f"`--{old}` | `--{new}`".replace("_", "-") in text, f"no row for --{old}"
    rows = re.findall(r"^\| (.*) \| (.*) \|$", text.partition("## Modules")[2].partition("##")[0], re.M)[2:]
    assert len(rows) > 10
    for row in rows:
        for cell, there in zip(row, (False, True)):
            for name in re.findall(r"`((?:nvs_app|data_tools)[\w.]+)`", cell):
                assert module_is_there(name) == there, name


def module_is_there(name: str) -> bool:
    """Whether a module of ours, or a package with code, has this name, and not as a former one."""
    path = REPO / name.replace(".", "/")
    files = [file for file in (path.with_suffix(".py"), *path.glob("*.py")) if file.is_file()]
    return any("former name" not in file.read_text("utf-8") for file in files)


def test_python_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the first bundled scene and the bundled checkpoint, smaller and with a shorter orbit."""
    (code,) = [block for language, block in blocks(REPO / "README.md") if language == "python"]
    scene = min(path.parent for path in (REPO / "examples").glob("*/transforms.json"))
    code = code.replace('"SCENE"', repr(str(scene))).replace("60))", "2))").replace("(256, 256)", "(64, 64)")
    code = code.replace("(scene, 8)", "(scene, 3)")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert tuple(names["images"].shape) == (2, 3, 64, 64)
