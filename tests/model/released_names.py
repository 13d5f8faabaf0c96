"""Names of the release, to write its files in tests."""

from __future__ import annotations

import re

from nvs_app.model.pretrained import _BLOCK_NAMES, _OUTER_NAMES


def released_name(ours: str) -> str:
    """The reverse of `nvs_app.model.pretrained.our_name`; KeyError for a name that the release does not have."""
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", ours)
    if match is None:
        return {v: k for k, v in _OUTER_NAMES.items()}[ours]
    return f"blocks.{match[1]}.module_list." + {v: k for k, v in _BLOCK_NAMES.items()}[match[2]]
