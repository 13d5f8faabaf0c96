"""mip-NeRF 360: nine captures around something, every 8th frame held out."""

from __future__ import annotations

import re

from nvs_app.evaluation.protocols.base import Option, Settings, Views
from nvs_app.evaluation.protocols.places import EveryEighth
from nvs_app.scenes.scene import Scene

INDOORS = ("room", "counter", "kitchen", "bonsai")


class MipNeRF360(EveryEighth):
    """mip-NeRF 360's scenes with the split that it and 3D Gaussian Splatting use."""

    name = "mipnerf360"
    title = "mip-NeRF 360"
    source = "mip-NeRF 360 (arXiv 2111.12077); sizes as in 3D Gaussian Splatting (arXiv 2308.04079)"
    layout = "a folder a scene with sparse/0 (COLMAP) and images/"
    notes = ("Published figures of methods that optimise read all other frames; ours read the number of views shown.",)
    contexts = (16, 32, 64)
    image_hw = None
    forms = ("colmap",)
    options = (
        Option(
            "size",
            "of images",
            {
                "published": "a quarter of the stored size outdoors, half indoors (room, counter, kitchen, bonsai)",
                "256": "256 pixels high, the stored aspect",
                "512": "512 pixels high, the stored aspect",
            },
        ),
        Option(
            "context",
            "which of the other frames are read",
            {"kmeans": "k-means over positions and directions", "spread": "evenly over the cameras"},
        ),
    )

    def size(self, views: Views, settings: Settings) -> tuple[int, int]:
        if settings.image_hw is not None:
            return settings.image_hw
        assert isinstance(views, Scene)
        height, width = views.image_hws.amin(0).tolist()
        if settings.options["size"] == "published":
            shrunk = re.fullmatch(r"images_(\d)", views.image_paths[0].parent.name)  # images/ may be absent
            factor = max(1.0, (2 if views.name in INDOORS else 4) / (int(shrunk[1]) if shrunk else 1))
            return (round(height / factor), round(width / factor))
        chosen = int(settings.options["size"])
        return (chosen, round(width * chosen / height))
