"""Scenes and checkpoints for the command line, and the command line in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_scenes import caller, write_scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `write_scenes`."""
    folder = tmp_path_factory.mktemp("cli with a space")
    write_scenes(folder)
    return folder


@pytest.fixture
def here(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    """As `cli`, but in this process."""
    return caller(folder, capsys, monkeypatch)
