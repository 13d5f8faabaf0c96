"""How a report's views were rendered, in words; reports of before the detail head have other settings.

rendering_words(report["model"])        # "256x256, LaCT at 128x128, detail head on 4 views"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rendering_words(values: Mapping[str, Any]) -> str:
    """Of values["rendering"] (`Renderer.settings`); where there is none, of the "working_side", "grids" and "mended" of
    an older report, each of which it may lack."""
    rendering = values.get("rendering")
    if rendering is None:
        words = ["LaCT alone"]
        words += [f"working side {values['working_side']}"] if values.get("working_side") else []
        words += ["two grids"] if values.get("grids") in (2, "auto") else []
        words += ["mended borders"] if values.get("mended") else []
    else:
        words = [rendering["plan"]] if "plan" in rendering else []
        views = rendering.get("views")
        words.append(f"detail head on {views} view{'s'[: views != 1]}" if rendering["detail"] else "LaCT alone")
    return ", ".join(words)
