"""DL3DV's benchmark: 140 captures of places, every 8th frame held out."""

from __future__ import annotations

from nvs_app.evaluation.protocols.base import (
    Benchmark,
    Listing,
    Option,
    Published,
    Settings,
    Views,
    data_folder,
)
from nvs_app.evaluation.protocols.choose import checked, choose_context, hold_out
from nvs_app.evaluation.protocols.places import as_listing, is_form, scene_folders
from nvs_app.scenes.views import ViewSplit

SIZES = {"540x960": (540, 960), "256x256": (256, 256)}


class DL3DV(Benchmark):
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
        "At 540x960 the context is cut to 536x960, whole patches; targets are drawn and compared at 540x960.",
    )
    contexts = (16, 32, 64, 128)
    image_hw = None
    options = (
        Option("size", "of images", {"540x960": "960 wide, 540 high", "256x256": "centre square"}),
        Option(
            "cluster",
            "what k-means sees of a camera",
            {"kmeans": "position and viewing direction", "kmeans-position": "position alone"},
        ),
    )
    published = tuple(Published("LaCT", n, v) for n, v in ((16, 24.7), (32, 26.9), (64, 28.3), (128, 28.9)))

    def entries(self, settings: Settings) -> Listing:
        data = data_folder(settings)
        return as_listing(data, scene_folders(data, is_form("nerfstudio")), self.layout, "nerfstudio")

    def size(self, views: Views, settings: Settings) -> tuple[int, int]:
        return settings.image_hw or SIZES[settings.options["size"]]

    def split(self, views: Views, count: int, settings: Settings) -> ViewSplit:
        candidates, targets = hold_out(views, 8)
        return checked(views, choose_context(views, candidates, count, settings.options["cluster"]), targets)
