"""Starts the web application: `python app.py`, then open http://127.0.0.1:7860 (`--help` lists the options)."""

import sys

from nvs_app.web.server import main

if __name__ == "__main__":
    sys.exit(main())
