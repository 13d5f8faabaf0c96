"""DL3DV's benchmark: 140 captures of places, every 8th frame held out."""

from __future__ import annotations

from nvs_app.evaluation.protocols.base import Option, Published, Settings, Views
from nvs_app.evaluation.protocols.places import EveryEighth

SIZES = {"540x960": (540, 960), "256x256": (256, 256)}


class DL3DV(EveryEighth):
    """The protocol of Long-LRM and LaCT on the 140 scenes of DL3DV-Benchmark."""

    name = "dl3dv"
    title = "DL3DV-Benchmark, 140 scenes"
    source = "DL3DV-10K (arXiv 2312.16256); views as in Long-LRM (arXiv 2410.12781) and LaCT (arXiv 2505.23884)"
    layout = "a folder a scene with transforms.json (also in nerfstudio/) and images/ or images_4/"
    notes = (
        (
            "Targets are frames 0, 8, 16, ... in the order of file names. Context views are the cameras nearest to the"
            " means of k-means clusters of all other frames; the papers do not list them and their start differs."
        ),
        "At 540x960 the context is cut to 536x960, whole patches; targets are rendered and compared at 540x960.",
    )
    contexts = (16, 32, 64, 128)
    image_hw = None
    forms = ("nerfstudio",)
    choice = "cluster"
    options = (
        Option("size", "of images", {"540x960": "960 wide, 540 high", "256x256": "centre square"}),
        Option(
            "cluster",
            "what k-means sees of a camera",
            {"kmeans": "position and viewing direction", "kmeans-position": "position alone"},
        ),
    )
    published = tuple(Published("LaCT", n, v) for n, v in ((16, 24.7), (32, 26.9), (64, 28.3), (128, 28.9)))

    def size(self, views: Views, settings: Settings) -> tuple[int, int]:
        return settings.image_hw or SIZES[settings.options["size"]]
