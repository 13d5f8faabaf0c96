"""What docs/security.md and the files beside it say is so: options, versions, files, and that the service starts."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nvs_app.web.server import build_parser
from nvs_app.web.upload_limits import UploadLimits


def options() -> set[str]:
    return {text for action in build_parser()._actions for text in action.option_strings}


def test_options_versions_and_files_are_there(repo: Path) -> None:
    text = (repo / "docs" / "security.md").read_text("utf-8")
    own = {"--state", "--attacks", "--attack-seed"}  # of render, and of the tests
    assert set(re.findall(r"`[^`\n]*?(--[a-z-]+)", text)) - own <= options()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (repo / "requirements.txt").read_text("utf-8"), re.M))
    for name in ("opencv-python", "ray", "nerfstudio"):
        assert f"{name} {pinned[name]}" in text, name
    for path in set(re.findall(r"`((?:docs|tests)/[\w/.-]+)`", text)):
        assert (repo / path).exists(), path
    assert UploadLimits().unclaimed_seconds == 300 and UploadLimits().free_bytes == 1 << 30


def test_the_service_starts_with_options_that_there_are(repo: Path) -> None:
    text = (repo / "docs" / "deploy" / "nvs-web.service").read_text("utf-8")
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.M)
    words = shlex.split(line)
    assert words[1] == "app.py" and (repo / words[1]).is_file()
    args = build_parser().parse_args(words[2:])
    assert args.host == "127.0.0.1" and args.auth_file is not None and args.root_path.startswith("https://")
    proxy = (repo / "docs" / "deploy" / "nginx.conf").read_text("utf-8")
    assert f"proxy_pass http://{args.host}:{args.port};" in proxy
    assert int(re.search(r"client_max_body_size (\d+)m", proxy)[1]) > args.upload_mb  # type: ignore[index]
    for header in ("Host", "X-Forwarded-Host", "X-Forwarded-For", "Upgrade"):
        assert f"proxy_set_header {header} " in proxy


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_the_service(repo: Path, tmp_path: Path) -> None:
    text = (repo / "docs" / "deploy" / "nvs-web.service").read_text("utf-8")
    copy = tmp_path / "nvs-web.service"
    copy.write_text(text.replace("/opt/nvs/.venv/bin/python", sys.executable), "utf-8")
    found = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert "nvs-web.service" not in found.stderr, found.stderr
