"""Mistakes at both command lines: one line, exit code 2, no usage and no traceback before it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from data_tools.cli import main as data_tools
from nvs_app import cli
from nvs_app.errors import NVSError
from nvs_app.terminal import run_cli, whole_number


def told(capsys: pytest.CaptureFixture[str], run, words: list[str]) -> str:
    try:
        code = run(words)
    except SystemExit as end:
        code = end.code
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: COMMAND (`python -m data_tools --help`"),
        (["convrt"], "; did you mean convert? (`python -m data_tools --help`"),
        (["convert", "a", "b", "--max-veiws", "3"], "unknown option --max-veiws; did you mean --max-views? ("),
        (["convert", "a", "b", "c"], "unexpected 'c' (`python -m data_tools convert --help`"),
        (["convert", "a", "b", "--max-views", "0"], "--max-views: 0: expected a whole number of 1 or more (`"),
        (["convert", "a", "b", "--max-views", "two"], "--max-views: two: expected a whole number of 1 or more"),
        (["shards", "a", "b", "--max-side", "0"], "--max-side: 0: expected"),
        (["contact-sheet", "--out", "x.png", "--scenes", "0"], "--scenes: 0: expected"),
        (["convert", "nowhere", "out"], "nowhere: no such file or folder"),
    ],
)
def test_data_tools(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in told(capsys, data_tools, words)


def test_nvs_app(capsys: pytest.CaptureFixture[str]) -> None:
    assert "required: COMMAND (`python -m nvs_app --help`" in told(capsys, cli.main, [])
    line = told(capsys, cli.main, ["render", "scene", "--out", "x.mp4", "--frames", "none"])
    assert "--frames" in line and "`python -m nvs_app render --help` shows" in line


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is rendered first."""
    (tmp_path / "file").write_text("")
    line = told(capsys, data_tools, ["contact-sheet", "--out", str(tmp_path / "file" / "sheet.png")])
    assert str(tmp_path / "file") in line


def raising(error: BaseException):
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (NVSError("where: what,\n remedy"), 2, "error: where: what, remedy"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 2, "error: a/b: No space left on device"),
        (ModuleNotFoundError("no", name="plotly.graph"), 2, "the package 'plotly.graph' is not installed"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_guarded(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(raising(error), "train") == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "I/O error"), ModuleNotFoundError("no", name="nvs_app.x"), KeyError("x")]
)
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        run_cli(raising(error), "train")


def test_whole_number() -> None:
    assert whole_number(0)("0") == 0 and whole_number(1)("7") == 7
