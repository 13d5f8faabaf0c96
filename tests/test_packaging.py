"""The project's lists of packages agree, and the set-up does not repeat itself."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest


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


@pytest.mark.slow
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
# gsplat comes with nerfstudio, and draws on a GPU only.
UNPINNED = {"gsplat", "triton", "pillow_heif"}
PACKAGE_OF = {"PIL": "pillow", "cv2": "opencv-python", "skimage": "scikit-image"}


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
    missing = {name: imported[name] for name in foreign if canonical(PACKAGE_OF.get(name, name)) not in pins(repo)}
    assert not missing, f"imported, but not in requirements.txt: {missing}"


def test_the_wheel_is_whole(repo: Path, tmp_path: Path) -> None:
    """Built without a network: every file of the packages, the entry points, and the checkpoints and examples where
    the installed package looks for them."""
    tree = tmp_path / "tree"
    clutter = shutil.ignore_patterns("__pycache__", "*.tmp")
    for name in ("nvs_app", "data_tools"):
        shutil.copytree(repo / name, tree / name, ignore=clutter)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(repo / name, tree)
    (tree / "checkpoints" / "mine").mkdir(parents=True)
    (tree / "checkpoints" / "mine" / "config.json").write_text("{}")
    (tree / "examples" / "one" / "images").mkdir(parents=True)
    (tree / "examples" / "one" / "transforms.json").write_text("{}")
    (tree / "examples" / "one" / "images" / "000.jpg").write_text("")
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-w", "wheels"]
    build = [sys.executable, "-m", "pip", "wheel", *options, str(tree)]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
        archive.extractall(tmp_path / "installed")
    wanted = {
        path.relative_to(tree).as_posix() for top in ("nvs_app", "data_tools") for path in (tree / top).rglob("*.*")
    }
    assert wanted <= names and any(name.endswith(".js") for name in wanted)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"nvs_app", "data_tools"}
    shared = {name.partition(".data/data/share/nvs_app/")[2] for name in names} - {""}
    assert shared == {"checkpoints/mine/config.json", "examples/one/transforms.json", "examples/one/images/000.jpg"}
    modules = re.findall(r"^[\w-]+ = ([\w.]+):\w+$", points, re.M)
    files = [{f"{path}.py", f"{path}/__init__.py"} for path in (module.replace(".", "/") for module in modules)]
    assert len(files) >= 6 and all(either & names for either in files)
    code = "import nvs_app.bundled as b, nvs_app.model.checkpoint as c"
    code += "; print(b.__file__, c.checkpoints_dir(), b.bundled('examples'), sep='\\n')"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    environment.pop("NVS_CHECKPOINTS", None)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(sys.prefix)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    module, *folders, prefix = done.stdout.splitlines()
    assert module.startswith(str(tmp_path))
    assert folders == [f"{prefix}/share/nvs_app/checkpoints", f"{prefix}/share/nvs_app/examples"]
