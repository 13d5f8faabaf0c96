"""`python -m nvs_app COMMAND`: hands over to nvs_app.cli."""

import sys

from nvs_app.cli import main

if __name__ == "__main__":
    sys.exit(main())
