"""The project's lists of packages agree, and the set-up does not repeat itself."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path


def canonical(requirement: str) -> str:
    """`Hugging_Face>=1` -> `hugging-face`."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def pins(repo: Path) -> dict[str, str]:
    lines = (repo / "requirements.txt").read_text("utf-8").splitlines()
    return {canonical(line): line for line in lines if line.strip() and not line.startswith("#")}


def test_requirements_are_pinned(repo: Path) -> None:
    loose = [line for line in pins(repo).values() if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert not loose


def test_project_needs_are_among_the_pins(repo: Path) -> None:
    project = tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    missing = [name for name in wanted if canonical(name) not in pins(repo)]
    assert not missing


def set_up(folder: Path) -> str:
    """What `tools/setup.sh app` prints in `folder`."""
    done = subprocess.run(
        ["bash", "tools/setup.sh", "app"],
        cwd=folder,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_setup_does_its_work_once_and_recovers(repo: Path, tmp_path: Path) -> None:
    """With an empty list of packages, in a path with spaces."""
    folder = tmp_path / "a path with spaces"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(repo / "tools" / "setup.sh", folder / "tools")
    (folder / "requirements.txt").write_text("# none\n")
    python = folder / ".venv" / "bin" / "python"

    assert "installing" in set_up(folder) and python.exists()
    assert set_up(folder) == ""

    (folder / "requirements.txt").write_text("# none yet\n")
    changed = set_up(folder)
    assert "installing" in changed and "creating" not in changed

    # Cut short: the interpreter is there, pip is not, and the stamp was never written.
    (folder / ".venv" / ".made-from").unlink()
    for pip in (folder / ".venv" / "lib").glob("python*/site-packages/pip"):
        shutil.rmtree(pip)
    assert "creating" in set_up(folder)
    assert set_up(folder) == ""


def test_setup_refuses_an_old_python(repo: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase "$2" in *platform*) echo 3.9.2 ;; *) exit 1 ;; esac\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["bash", "tools/setup.sh", "app"],
        cwd=repo,
        env={**os.environ, "PYTHON": str(old)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "3.9.2" in done.stderr and "3.11 or 3.12 is needed" in done.stderr


def test_setup_names_what_the_system_lacks(repo: Path, tmp_path: Path) -> None:
    """Without root, a missing library is asked for by name and nothing is made."""
    for name, script in {"ldconfig": "echo libc.so.6", "id": "echo 1000", "sudo": "exit 1"}.items():
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    (tmp_path / "tools").mkdir()
    shutil.copy(repo / "tools" / "setup.sh", tmp_path / "tools")
    done = subprocess.run(
        ["bash", "tools/setup.sh", "test"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "apt-get install" in done.stderr and "libgl1 libglib2.0-0" in done.stderr
    assert not (tmp_path / ".venv").exists()


# Used where they are, done without where they are not: triton comes with torch's CUDA build.
UNPINNED = {"triton", "pillow_heif"}
PACKAGE_OF = {"PIL": "pillow", "cv2": "opencv-python"}


def test_every_import_is_pinned(repo: Path) -> None:
    own = {"nvs_app", "data_tools", *(path.stem for path in (repo / "tests").rglob("*.py"))}
    imported: dict[str, str] = {}
    for top in ("app.py", "nvs_app", "data_tools", "tests"):
        for path in [repo / top] if top.endswith(".py") else (repo / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                else:
                    continue
                imported |= {name.split(".")[0]: str(path.relative_to(repo)) for name in names}
    foreign = imported.keys() - sys.stdlib_module_names - own - UNPINNED
    missing = {
        name: imported[name] for name in foreign if canonical(PACKAGE_OF.get(name, name)) not in pins(repo)
    }
    assert not missing, f"imported, but not in requirements.txt: {missing}"
