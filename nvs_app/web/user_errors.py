"""A user's mistake as one sentence in the page: the wrapper of every function that is given to gradio."""

from __future__ import annotations

import contextlib
import functools
import html
import inspect
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import gradio as gr

from data_tools.structure_from_motion.job import Cancelled
from nvs_app.errors import NVSError


def report_user_errors(function: Callable) -> Callable:
    """A user's mistake becomes one sentence in the page, and no traceback in the log."""

    @contextlib.contextmanager
    def sentences() -> Iterator[None]:
        try:
            yield
        except Cancelled as error:
            raise gr.Error("Cancelled.", print_exception=False, duration=4, title="") from error
        except CancelledError as error:  # a newer request of the same visit took its place
            raise gr.Error("A newer request took its place.", print_exception=False, duration=4, title="") from error
        except NVSError as error:
            words = html.escape(" ".join(error.told.split()), quote=False)
            raise gr.Error(words, print_exception=False, duration=12, title="") from error
        except OSError as error:  # a full disk, say; its path is the server's own business
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            reason = error.strerror or "reason unknown"
            words = f"The server could not read or write a file ({reason}). Try again later."
            raise gr.Error(words, print_exception=False, duration=12, title="") from error

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def steps(*values: Any) -> Iterator[Any]:
            with sentences():
                yield from function(*values)

        return steps

    @functools.wraps(function)
    def once(*values: Any) -> Any:
        with sentences():
            return function(*values)

    return once
