"""Starts the web application: `python app.py`, then open http://127.0.0.1:7860 (`--help` lists the options)."""

import os
import sys

# Before torch: its threads would spin while they wait, and on a machine with other work (visitors, structure from
# motion) keep the cores from whoever could go on; encoding took seven times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from nvs_app.web.server import main

if __name__ == "__main__":
    sys.exit(main())
