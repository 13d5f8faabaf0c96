"""`python slow_benchmark.py ARGUMENTS...`: the command line, half a second slower a scene, to be killed midway."""

from __future__ import annotations

import sys
import time

from nvs_app.cli import main
from nvs_app.engine import benchmark_run

draw = benchmark_run.draw


def slow_draw(*arguments, **options):
    time.sleep(0.25)
    return draw(*arguments, **options)


if __name__ == "__main__":
    benchmark_run.draw = slow_draw
    sys.exit(main(sys.argv[1:]))
