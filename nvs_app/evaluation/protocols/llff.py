"""LLFF: eight forward-facing captures, every 8th frame held out."""

from __future__ import annotations

from nvs_app.evaluation.protocols.base import Option
from nvs_app.evaluation.protocols.places import EveryEighth


class LLFF(EveryEighth):
    """The forward-facing scenes of LLFF with the split of NeRF and the context of RegNeRF."""

    name = "llff"
    title = "LLFF, forward-facing scenes"
    source = "LLFF (arXiv 1905.00889); targets as in NeRF (arXiv 2003.08934), context as in RegNeRF (arXiv 2112.00724)"
    layout = "a folder a scene with poses_bounds.npy and images/ (or images_4/, images_8/)"
    notes = (
        "A scene that also has a COLMAP model (sparse/0) is read from poses_bounds.npy, as the published figures are.",
    )
    contexts = (3, 6, 9)
    image_hw = (378, 504)
    forms = ("llff",)
    options = (
        Option(
            "context",
            "which of the other frames are read",
            {"even": "evenly by number, first and last included (RegNeRF)", "spread": "evenly over the cameras"},
        ),
    )
