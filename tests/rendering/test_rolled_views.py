"""Views that are rolled, or from straight above, come out as well as upright ones: no saw-teeth at their edges.

With the bundled checkpoint, on procedural scenes of seeds that no training uses.
"""

from __future__ import annotations

import pytest
import torch

from data_tools.procedural import ProceduralSource
from nvs_app.evaluation.metrics import psnr
from nvs_app.rendering.renderer import Renderer

HW = (96, 96)
SCENES, TARGETS, VIEWS = 2, 4, 12  # the other eight views are read


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
            context = views[list(range(TARGETS, VIEWS))]
            rendered = renderer.render(renderer.encode(context), views.cameras[:TARGETS])
            values.append(psnr(rendered, views.images[:TARGETS]).mean())
        figures[capture] = float(torch.stack(values).mean())
    assert figures["plain"] > 18  # far above what a blank image gives, so that the comparison means something
    assert figures["rolled"] > figures["plain"] - 1
    assert figures["above"] > figures["plain"] - 1
