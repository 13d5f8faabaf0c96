"""Where what comes along with the package lies: checkpoints and example scenes."""

from __future__ import annotations

import sys
from pathlib import Path


def bundled(name: str) -> Path:
    """The folder `name` beside the package in a source tree, else (an installed package) `share/nvs_app/name` of the
    Python environment. It need not exist."""
    beside = Path(__file__).resolve().parents[1] / name
    return beside if beside.is_dir() else Path(sys.prefix) / "share" / "nvs_app" / name
