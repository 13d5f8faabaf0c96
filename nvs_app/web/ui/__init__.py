"""What the browser gets: templates, styles and scripts of the page.

fill("photo.html", name="a<b.jpg", image_html="<img>")     # names that end in _html are markup, all others text
"""

from __future__ import annotations

import functools
import html
from pathlib import Path
from string import Template

FOLDER = Path(__file__).parent


def fill(name: str, /, **values: object) -> str:
    """A template of this folder with each $place filled; what is no markup (`*_html`) is escaped."""
    texts = {key: str(value) if key.endswith("_html") else escaped(value) for key, value in values.items()}
    return template(name).substitute(texts).strip()


@functools.cache
def template(name: str) -> Template:
    """A file of this folder."""
    return Template((FOLDER / name).read_text("utf-8"))


def escaped(text: object) -> str:
    """A text as it may stand in markup, also between quotes."""
    return html.escape(str(text))
