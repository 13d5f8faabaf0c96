"""Shared set-up of the tests: array shapes are checked, and torch leaves the machine usable.

Shape annotations (`Float[Tensor, "b v 3 h w"]`) cost nothing in normal use. Here, and only here, every
function of `nvs_app` and `data_tools` is checked against its annotations at each call.

    make test                              everything, after setting up, in two processes
    .venv/bin/python -m pytest tests/geometry   one folder
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

# Before gradio or a hub library is imported by any test: tests speak to nobody.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tests run beside browsers, servers and other children on two cores: waiting threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each worker, and for its children
    os.environ["OMP_NUM_THREADS"] = "1"

# A shell's background job ignores SIGINT, and so would every child process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(["nvs_app", "data_tools"], "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

# torch imports triton late, and that crashes the process where a driver of OpenGL has loaded another LLVM before.
with contextlib.suppress(ImportError):
    import triton  # noqa: F401

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--attacks 2000` for a long attack (tests/attack); its seed is printed and can be given."""
    parser.addoption("--attacks", type=int, default=60, help="mutated uploads of the attack (default: 60)")
    parser.addoption("--attack-seed", type=int, default=0, help="seed of the attack (default: 0)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="session")
def repo() -> Path:
    """The folder that holds README.md."""
    return REPO


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)
