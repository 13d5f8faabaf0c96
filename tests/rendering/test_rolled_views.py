"""Views that are rolled, or from straight above, come out as well as upright ones: no saw-teeth at their edges.

With the bundled checkpoint, on procedural scenes of seeds that no training uses.
"""

from __future__ import annotations

import pytest
import torch

from data_tools.procedural import ProceduralSource
from nvs_app.evaluation.metrics import psnr
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.views import spread_views

HW = (96, 96)
SCENES, TARGETS, VIEWS, CONTEXT = 3, 4, 20, 8


@pytest.mark.slow
def test_rolled_views_and_views_from_above_lose_less_than_a_decibel() -> None:
    renderer = Renderer.from_checkpoint(None, "cpu")
    source = ProceduralSource("cpu", seed=20_000_003)
    figures = {}
    for capture in ("plain", "rolled", "above"):
        posed = source.batch(range(SCENES), VIEWS, HW, ["object"] * SCENES, captures=[capture] * SCENES)
        values = []
        for scene in range(SCENES):
            views = posed[scene].float()
            others = views[list(range(TARGETS, VIEWS))]
            context = others[spread_views(others.cameras.c2w, CONTEXT)]
            rendered = renderer.render(renderer.encode(context), views.cameras[:TARGETS])
            values.append(psnr(rendered, views.images[:TARGETS]).mean())
        figures[capture] = float(torch.stack(values).mean())
    assert figures["plain"] > 18  # far above what a blank image gives, so that the comparison means something
    assert figures["rolled"] > figures["plain"] - 1
    assert figures["above"] > figures["plain"] - 1
