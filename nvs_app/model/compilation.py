"""What is compiled, and how: once a process for all networks, blocks and chunks, whatever their numbers of tokens.

call = compiled if fast else plainly
call(function)(varying(x, 0), weights)
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, as it is."""
    return function


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled, once for all blocks and networks of a process."""
    for name in ("recompile_limit", "cache_size_limit"):  # of which torch's versions have one
        if hasattr(torch._dynamo.config, name):
            # Networks of several sizes and precisions, and one view or several.
            setattr(torch._dynamo.config, name, max(64, getattr(torch._dynamo.config, name)))
    # Every width is a constant: a second network's must not make those of all networks unknown, as is the default.
    return torch.compile(function, dynamic=False)


def varying(x: Tensor, *axes: int) -> Tensor:
    """`x`, with axes marked whose length changes from call to call: a compilation serves all lengths but 1."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and to import it takes a second
        return x
    for axis in axes:
        if x.shape[axis] > 1:
            torch._dynamo.maybe_mark_dynamic(x, axis)
    return x
