"""Where the name and password come from, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvs_app.errors import NVSError
from nvs_app.web.server import _auth, build_parser


def given(*words: object) -> str | None:
    return _auth(build_parser().parse_args([str(word) for word in words]))


def test_the_password_from_the_line_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVS_AUTH", raising=False)
    assert given() is None and given("--auth", "me:a:b") == "me:a:b"
    file = tmp_path / "secret"
    file.write_text("you:from a file\nsecond line\n")
    assert given("--auth-file", file) == "you:from a file"
    monkeypatch.setenv("NVS_AUTH", "env:word")
    assert given() == "env:word" and given("--auth", "me:b") == "me:b" and given("--auth-file", file)[:3] == "you"
    monkeypatch.setenv("NVS_AUTH", "")
    assert given() is None


@pytest.mark.parametrize("content", [b"", b"name only\n", b":word\n", b"name:\n", b"\xff\xfe"])
def test_a_file_without_them_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(NVSError, match="--auth-file .*(expected USER:PASSWORD|no text)"):
        given("--auth-file", file)
    with pytest.raises(NVSError, match="--auth-file .*No such file"):
        given("--auth-file", tmp_path / "nothing")
    with pytest.raises(NVSError, match="^--auth: expected USER:PASSWORD$"):
        given("--auth", "nobody")
