"""What pyproject.toml cannot say: an installed package takes the bundled checkpoints and examples along, whatever
their names.

They go to `share/nvs_app/` of the environment, where `nvs_app.bundled` looks for them. An editable installation finds
them in the source tree.
"""

import sys
from pathlib import Path

from setuptools import setup

editable = any("editable" in word for word in sys.argv)
bundled = [*Path("checkpoints").glob("*/config.json"), *Path("examples").glob("*/transforms.json")]
files: dict[str, list[str]] = {}
for described in [] if editable else bundled:
    for file in sorted(described.parent.rglob("*")):
        if file.is_file():
            files.setdefault(f"share/nvs_app/{file.parent.as_posix()}", []).append(file.as_posix())
setup(data_files=sorted(files.items()))
