"""How views were rendered, in the words of a report: of today's, and of those from before the detail head."""

from __future__ import annotations

import pytest

from nvs_app.evaluation.report.compare import unlike
from nvs_app.evaluation.report.words import rendering_words

WITH_HEAD = {"rendering": {"detail": True, "views": 4, "plan": "256x256, LaCT at 128x128"}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (WITH_HEAD, "256x256, LaCT at 128x128, detail head on 4 views"),
        ({"rendering": {"detail": True, "views": 1}}, "detail head on 1 view"),
        ({"rendering": {"detail": False, "plan": "32x40"}}, "32x40, LaCT alone"),
        ({}, "LaCT alone"),
        ({"working_side": 0, "grids": 1, "mended": False}, "LaCT alone"),
        ({"working_side": 192, "mended": True}, "LaCT alone, working side 192, mended borders"),
        ({"grids": "auto", "mended": True}, "LaCT alone, two grids, mended borders"),
        ({"working_side": 192, "grids": 2}, "LaCT alone, working side 192, two grids"),
    ],
)
def test_rendering_words(values: dict, words: str) -> None:
    assert rendering_words(values) == words


def test_reports_rendered_otherwise_are_told_apart() -> None:
    def report(model: dict) -> dict:
        return {
            "benchmark": {"image_hw": None, "seed": 0, "options": {}},
            "measures": {"normalize_with": "context", "rounded": False},
            "model": {"precision": "fp32", **model},
        }

    old = report({"working_side": 192})
    assert unlike(old, report({"working_side": 192, "grids": 1})) == []
    assert unlike(old, report(WITH_HEAD)) == [
        "rendering: LaCT alone, working side 192; 256x256, LaCT at 128x128, detail head on 4 views"
    ]
