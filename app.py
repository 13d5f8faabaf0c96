"""Starts the web application: `python app.py`, then open http://127.0.0.1:7860 (`--help` lists the options)."""

import os
import sys

# Before torch: its threads spin for milliseconds while they wait for one another, and on a machine with other work
# (the browser, structure from motion) keep the cores from whoever could go on. Spinning this short costs nothing
# on a quiet machine; two servers on two cores drew a frame in 500 ms instead of 700.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from nvs_app.web.server import main

if __name__ == "__main__":
    sys.exit(main())
