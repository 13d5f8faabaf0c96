"""The pages of docs/ are what the code says, and name what is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("make_docs", REPO / "tools" / "make_docs.py")
assert spec is not None and spec.loader is not None
make_docs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_docs)


@pytest.mark.parametrize("path", sorted(make_docs.PAGES))
def test_pages_made_of_the_code_are_up_to_date(path: str) -> None:
    there, made = (REPO / path).read_text("utf-8"), make_docs.PAGES[path]()
    assert len(made.splitlines()) > 500
    # Where argparse breaks a line differs between versions of Python.
    assert there.split() == made.split(), f"{path} is out of date: run `make docs`"
