"""`python slow_benchmark.py ARGUMENTS...`: the command line, half a second slower a scene, to be killed midway."""

from __future__ import annotations

import sys
import time

from nvs_app.cli import main
from nvs_app.engine import benchmark_run

measure = benchmark_run.measure


def slow_measure(*arguments, **options):
    time.sleep(0.5)
    return measure(*arguments, **options)


if __name__ == "__main__":
    benchmark_run.measure = slow_measure
    sys.exit(main(sys.argv[1:]))
