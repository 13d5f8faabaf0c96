"""`python slow_benchmark.py ARGUMENTS...`: the command line, half a second slower a scene, to be killed midway."""

from __future__ import annotations

import sys
import time

from nvs_app.cli import main
from nvs_app.evaluation.benchmark import run as benchmark_run

render_case = benchmark_run.render_case


def slow_render(*arguments, **options):
    time.sleep(0.25)
    return render_case(*arguments, **options)


if __name__ == "__main__":
    benchmark_run.render_case = slow_render
    sys.exit(main(sys.argv[1:]))
