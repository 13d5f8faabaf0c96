"""A render worker: a process that takes tasks as lines of JSON and answers each with a line of JSON.

    python -m data_tools.assets.worker '{"image_hw": [512, 512], "device": 0}'

A process of its own, because a stranger's file may crash a driver or hang a decoder; whoever started it
(:class:`data_tools.assets.pool.RenderWorker`) watches the clock and its memory. It ends when its input ends and, on
Linux, when its parent dies, so that a killed run leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any


def main() -> int:
    """Answer tasks until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    _die_with_parent(int(sys.argv[2]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # drivers and packages print what they like to stdout

    from data_tools.assets.render_task import FatalError, RenderTask, render_asset
    from data_tools.assets.renderer import AssetRenderer
    from nvs_app.errors import NVSError

    def answer(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    settings = json.loads(sys.argv[1])
    try:
        renderer = AssetRenderer(tuple(settings["image_hw"]), settings["device"])
    except NVSError as error:
        answer({"fatal": str(error)})
        return 1
    answer({"ready": renderer.name})
    for line in sys.stdin:
        try:
            answer(render_asset(RenderTask.from_json(json.loads(line)), renderer))
        except FatalError as error:
            answer({"fatal": str(error)})
            return 1
    return 0


def _die_with_parent(parent: int) -> None:
    """Ask Linux for SIGKILL at the parent's death; elsewhere the end of the input must do."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
