"""What programs and strangers give to the page's functions: wrong types are told in a sentence, not in the log."""

from __future__ import annotations

from typing import Any

import gradio as gr

from data_tools.readers.lookup import one_line
from nvs_app.errors import NVSError

WRONG = "An argument is of another kind than this function takes."


class PageBlocks(gr.Blocks):
    """gradio's Blocks whose fields refuse wrong values without a traceback."""

    async def preprocess_data(self, *args: Any, **kwargs: Any) -> Any:
        """As gradio's."""
        try:
            return await super().preprocess_data(*args, **kwargs)
        except gr.Error as error:
            raise gr.Error(one_line(str(error.message)), print_exception=False, title="") from error
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError) as error:
            raise gr.Error(WRONG, print_exception=False, title="") from error


def whole(name: str, value: Any) -> int:
    """A whole number, or its digits. Raises NVSError for anything else."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**31 or value != int(value):
        raise NVSError(f"{name}: expected a whole number")
    return int(value)


def text(name: str, value: Any) -> str:
    """A short text. Raises NVSError for anything else."""
    if not isinstance(value, str) or len(value) > 200:
        raise NVSError(f"{name}: expected a short text")
    return value


def value_of(event: gr.EventData, key: str = "") -> Any:
    """What an event brings, or what stands there under a key. Raises NVSError where it brings nothing."""
    try:
        return event.value[key] if key else event.value
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        raise NVSError("Nothing was picked.") from error
