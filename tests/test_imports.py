"""The house keeps its shape: imports run one way and in no circle, the core stays light, files stay small.

The order is errors -> geometry -> scenes -> data_tools and geometry -> model -> rendering -> evaluation -> training
-> adaptation, with the command line, the web page and the plug-ins on top.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
OURS = ("nvs_app", "data_tools")

# What a part may import of ours. The longest prefix that fits a module says which part it belongs to.
BASE = ("nvs_app.errors", "nvs_app.bundled", "nvs_app.atomic_io", "nvs_app.machine", "nvs_app.distributed")
CORE = ("nvs_app.geometry", "nvs_app.scenes", "nvs_app.model")
SCENE_SOURCES = ("data_tools.procedural", "data_tools.readers", "data_tools.shards")
# What a machine that trains uses.
RUNNING = ("nvs_app.rendering", "nvs_app.evaluation", "nvs_app.training", "nvs_app.adaptation")
HEADLESS = (*CORE, *RUNNING, "data_tools.procedural")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "nvs_app.errors": (),
    "nvs_app.bundled": (),
    "nvs_app.machine": (),
    "nvs_app.distributed": ("nvs_app.errors",),
    "nvs_app.terminal": ("nvs_app.errors",),
    "nvs_app.atomic_io": ("nvs_app.errors",),
    "nvs_app.geometry": ("nvs_app.errors",),
    "nvs_app.scenes": (*BASE, "nvs_app.geometry"),
    "nvs_app.model": (*BASE, "nvs_app.geometry"),
    "nvs_app.rendering": (*BASE, *CORE),
    "nvs_app.evaluation": (*BASE, *CORE, *SCENE_SOURCES, "nvs_app.rendering"),
    "nvs_app.export": (*BASE, *CORE, "nvs_app.rendering", "nvs_app.evaluation"),
    "nvs_app.training": (*BASE, *CORE, *SCENE_SOURCES, "nvs_app.rendering", "nvs_app.evaluation"),
    "nvs_app.adaptation": (*BASE, *CORE, "nvs_app.rendering", "nvs_app.evaluation.metrics", "nvs_app.training.losses"),
    "data_tools": (*BASE, "nvs_app.terminal", "nvs_app.geometry", "nvs_app.scenes"),
    # The faces stand on top of everything.
    "nvs_app.cli": OURS,
    "nvs_app.__main__": OURS,
    "nvs_app.web": OURS,
    "nvs_app.integrations": OURS,
    "nvs_app.nerfstudio_plugin": OURS,
    "nvs_app.engine": ("nvs_app.rendering",),  # a former name
    "nvs_app.torchvision_ops": (),
    "nvs_app": OURS,  # the public API: imported when it is asked for
}

# Not on every machine that trains. The library imports them, if at all, inside the function that needs them.
KERNELS = "_triton"  # modules of GPU kernels: triton is not everywhere
OPTIONAL = "nerfstudio gradio tyro av imageio imageio_ffmpeg pycolmap trimesh plotly tensorboard open3d gsplat".split()


def module_name(path: Path) -> str:
    """`nvs_app/model/lact.py` -> `nvs_app.model.lact`."""
    parts = path.relative_to(REPO).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_files() -> dict[str, Path]:
    """Every module of ours and its file."""
    return {module_name(p): p for package in OURS for p in sorted((REPO / package).rglob("*.py"))}


def inside(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def part_of(module: str) -> str:
    """The entry of MAY_IMPORT that rules `module`."""
    parts = [prefix for prefix in MAY_IMPORT if inside(module, prefix) and prefix != "nvs_app" or module == prefix]
    assert parts, f"{module}: MAY_IMPORT does not say what it may import"
    return max(parts, key=len)


def imports_of(source: str, module: str, is_package: bool) -> set[str]:
    """Full names of the modules of ours imported anywhere in `source`, inside functions too.

    `from a.b import c` counts as `a.b.c` where that is a module of ours, else as `a.b`.
    """
    modules = source_files()
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join(package[: len(package) - node.level + 1] + ([base] if base else []))
            names = {f"{base}.{alias.name}" for alias in node.names}
            found.update(name if name in modules else base for name in names)
    return {name for name in found if name.split(".")[0] in OURS}


def wrong_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """What `module` imports of ours and may not."""
    part = part_of(module)
    allowed = (*MAY_IMPORT[part], part)
    return sorted(name for name in imports_of(source, module, is_package) if not any(inside(name, a) for a in allowed))


def test_imports_run_one_way() -> None:
    wrong = {
        module: names
        for module, path in source_files().items()
        if (names := wrong_imports(path.read_text("utf-8"), module, path.name == "__init__.py"))
    }
    assert not wrong, f"imports against the order: {wrong}"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nvs_app.geometry.x", "import nvs_app.scenes.scene"),
        ("nvs_app.geometry.x", "from ..model import lact"),
        ("nvs_app.model.x", "def f():\n    from nvs_app.scenes.posed import PosedImages"),
        ("data_tools.x", "from nvs_app.rendering import renderer"),
        ("nvs_app.rendering.x", "import nvs_app.evaluation.metrics"),
        ("nvs_app.evaluation.x", "from nvs_app.training import losses"),
        ("nvs_app.training.x", "from nvs_app import cli"),
    ],
)
def test_the_check_sees_a_wrong_import(module: str, source: str) -> None:
    assert wrong_imports(source, module)


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """Modules that import each other, also by way of others, inside functions, and for type checking alone."""
    reached = {module: set(names) for module, names in imports.items()}
    for between in imports:
        for names in reached.values():
            if between in names:
                names |= reached[between]
    found = {frozenset(n for n in reached[m] if m in reached.get(n, ())) for m in imports if m in reached[m]}
    return [set(circle) for circle in found]


def test_no_imports_in_a_circle() -> None:
    files = source_files()
    imports = {
        module: imports_of(path.read_text("utf-8"), module, path.name == "__init__.py") & files.keys()
        for module, path in files.items()
    }
    assert sum(map(len, imports.values())) > 500
    assert not circles(imports)


def test_the_check_sees_a_circle() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]


def run_python(code: str) -> str:
    """Standard output of `code` in a new interpreter, without the shape checks of conftest.py."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=REPO, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_core_needs_no_optional_package() -> None:
    core = [
        module
        for module in source_files()
        if any(inside(module, part) for part in HEADLESS)
        or module in ("nvs_app.cli.train", "nvs_app.cli.eval", "nvs_app.cli.report")
        if not module.endswith(KERNELS)
    ]
    assert core
    run_python(
        "import importlib, sys\n"
        f"for name in {OPTIONAL!r}: sys.modules[name] = None\n"
        f"for name in {core!r}: importlib.import_module(name)"
    )


def test_kernels_need_little_but_triton() -> None:
    """A machine that trains may have no more than torch, triton, numpy, Pillow and jaxtyping."""
    pytest.importorskip("triton", reason="triton is not installed (make setup)")
    kernels = [module for module in source_files() if module.endswith(KERNELS)]
    assert kernels
    run_python(
        "import importlib, sys\n"
        f"for name in {[*OPTIONAL, 'cv2', 'beartype', 'einops', 'safetensors', 'rich']!r}: sys.modules[name] = None\n"
        f"for name in {kernels!r}: importlib.import_module(name)"
    )


def test_the_package_alone_is_light() -> None:
    """And gives its public names when asked for them."""
    code = "import sys, nvs_app; print('torch' in sys.modules, 'numpy' in sys.modules)"
    code += "; from nvs_app import *; print(Renderer.__name__, open_scene.__name__, __version__)"
    assert run_python(code).split() == ["False", "False", "Renderer", "open_scene", "0.1.0"]


def test_import_does_no_work() -> None:
    """Importing a module starts no device, no thread pool of its own, no sub-process, and writes nothing."""
    modules = [m for m in source_files() if not m.endswith(("__main__", KERNELS))]
    out = run_python(
        "import sys, threading, json\n"
        "events = []\n"
        "def hook(event, args):\n"
        "    if event in ('subprocess.Popen', 'socket.connect', 'os.mkdir'): events.append(event)\n"
        "    if event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+'):\n"
        "        if '__pycache__' not in str(args[0]): events.append(f'open {args[0]}')\n"
        "import torch, cv2, numpy, PIL.Image, huggingface_hub\n"  # what others do is not ours to answer for
        f"for name in {OPTIONAL!r}: sys.modules[name] = None\n"
        "sys.addaudithook(hook)\n"
        "import importlib\n"
        f"modules = {modules!r}\n"
        "for name in modules:\n"
        "    try: importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error:\n"
        f"        if error.name.split('.')[0] not in {OPTIONAL!r}: raise\n"
        "print(json.dumps({'events': events, 'cuda': torch.cuda.is_initialized(),\n"
        "                  'threads': [t.name for t in threading.enumerate()]}))"
    )
    seen = json.loads(out.strip().splitlines()[-1])
    assert seen == {"events": [], "cuda": False, "threads": ["MainThread"]}


OTHERS = ("gsplat.js",)  # a library of others, as they publish it


@pytest.mark.parametrize("package", [*OURS, "tests"])
def test_files_stay_small(package: str) -> None:
    files = [p for p in (REPO / package).rglob("*") if p.suffix in {".py", ".js", ".css", ".html"}]
    files = [p for p in files if p.name not in OTHERS]
    long = {str(p.relative_to(REPO)): n for p in files if (n := len(p.read_text("utf-8").splitlines())) > 400}
    assert not long, f"over 400 lines, so two ideas: {long}"


def tracked_files() -> list[Path]:
    """The files that git tracks; skips where this is no clone (an unpacked archive)."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git clone")
    return [p for name in listed.stdout.split("\0") if name and (p := REPO / name).is_file()]


def test_tracked_tree_is_small() -> None:
    sizes = {p.relative_to(REPO): p.stat().st_size for p in tracked_files()}
    mib = 2.0**20
    checkpoints = sum(n for p, n in sizes.items() if p.parts[0] == "checkpoints")
    assert checkpoints < 40 * mib
    assert sum(sizes.values()) - checkpoints < 24 * mib
    big = {str(p): n for p, n in sizes.items() if n >= 16 * mib}
    assert not big, f"16 MiB or more in one file: {big}"


def test_every_checkpoint_has_its_row() -> None:
    """checkpoints/README.md tells where each checkpoint comes from."""
    text = (REPO / "checkpoints" / "README.md").read_text("utf-8")
    names = [p.parent.name for p in (REPO / "checkpoints").glob("*/config.json")]
    missing = [name for name in names if f"`{name}`" not in text]
    assert names and not missing, f"no row in checkpoints/README.md: {missing}"
    for name in names:
        card = (REPO / "checkpoints" / name / "README.md").read_text("utf-8")
        wanted = ("## Data", "## Intended use", "## Figures", "## Limits", "licence")
        assert all(part in card for part in wanted), f"checkpoints/{name}/README.md has not all of {wanted}"
