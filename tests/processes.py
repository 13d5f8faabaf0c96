"""For tests that look at the processes of a command."""

from __future__ import annotations

from pathlib import Path

# A sitecustomize.py for tests of a cluster, whose parts have fifteen seconds to start in, on a busy machine too: they
# go first where that is allowed, without a grammar that takes half of the time of `import ray` where it is installed.
QUICK_RAY = """
import contextlib, os, sys
sys.modules["rfc3987_syntax"] = None
with contextlib.suppress(OSError):
    os.setpriority(os.PRIO_PROCESS, 0, -10)
"""


def children(pid: int, name: str) -> list[int]:
    """Processes below ``pid`` whose command line starts with ``name``."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(entry.name)] = (entry / "cmdline").read_text()
        except OSError:
            continue

    def below(child: int) -> bool:
        while child in parents:
            child = parents[child]
            if child == pid:
                return True
        return False

    return [child for child, title in titles.items() if title.startswith(name) and below(child)]
