"""Lets torchvision be imported where its compiled half cannot be loaded.

PyPI's Linux wheels of torchvision are linked to CUDA. Beside a CPU build of torch their library does not load, and
`import torchvision` ends in "operator torchvision::nms does not exist": its Python half describes two operators that
only the library declares. nerfstudio imports torchvision at its very top (`ns-train`, `ns-render`, ...) and needs
none of those operators.

`declare` declares them without an implementation. It is the project's entry point of the group `torch.backends`, which
torch calls at the end of its own import; so it comes before any torchvision, in the console scripts of nerfstudio
too. It does nothing unless torch is a CPU build and torchvision one for CUDA: where the library can be loaded, a
second declaration would be an error. TORCH_DEVICE_BACKEND_AUTOLOAD=0 turns the entry point off.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare() -> bool:
    """Declares the operators if torchvision could not be imported without; whether it did. Safe to call again."""
    import torch

    if torch.version.cuda is not None or getattr(torch.version, "hip", None) is not None or not _built_for_cuda():
        return False
    missing = [name for name in OPERATORS if not hasattr(torch.ops.torchvision, name)]
    for name in missing:
        torch.library.define(f"torchvision::{name}", SCHEMA)
    return bool(missing)


def _built_for_cuda() -> bool:
    """Whether the installed torchvision is a CUDA build, from its version file; it is not imported."""
    try:
        found = importlib.util.find_spec("torchvision")
        text = Path(found.origin).with_name("version.py").read_text("utf-8") if found and found.origin else ""
    except (OSError, ValueError, ImportError):
        return False
    return re.search(r"__version__ = '[^']*\+cu\d+'", text) is not None
