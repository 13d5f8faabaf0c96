"""NeRF synthetic: eight Blender objects, the test split rendered from some of the training views."""

from __future__ import annotations

from nvs_app.errors import NVSError
from nvs_app.evaluation.protocols.base import Option, Settings, Views
from nvs_app.evaluation.protocols.choose import checked, pick_context
from nvs_app.evaluation.protocols.places import SceneFolders
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit

DIETNERF_8 = (26, 86, 2, 55, 75, 93, 16, 73)


class NeRFSynthetic(SceneFolders):
    """The test split of NeRF's synthetic scenes from N of the 100 training views."""

    name = "nerf-synthetic"
    title = "NeRF synthetic, test split"
    source = "NeRF (arXiv 2003.08934); few-view lists of DietNeRF (arXiv 2104.00677) and FreeNeRF (arXiv 2303.07418)"
    layout = "a folder a scene with transforms_train.json and transforms_test.json"
    notes = ("RGBA renders are composited on white.",)
    contexts = (4, 8, 16)
    image_hw = (800, 800)
    forms = ("blender",)
    options = (
        Option(
            "context",
            "which training views are read",
            {
                "spread": "evenly spread over the cameras",
                "first": "the first N of the training split",
                "dietnerf": "DietNeRF's eight: 26, 86, 2, 55, 75, 93, 16, 73 (8 views only)",
            },
        ),
        Option(
            "test",
            "which test views are rendered",
            {"all": "all 200", "every8": "every 8th, 25 views, as DietNeRF and FreeNeRF do"},
        ),
    )

    def default_contexts(self, settings: Settings) -> tuple[int, ...]:
        return (8,) if settings.options["context"] == "dietnerf" else self.contexts

    def split(self, views: Views, count: int, settings: Settings) -> ViewSplit:
        assert isinstance(views, Scene)
        train = [index for index, split in enumerate(views.split) if split == "train"]
        test = [index for index, split in enumerate(views.split) if split == "test"]
        how = settings.options["context"]
        if how == "dietnerf":
            if count != 8 or len(train) <= max(DIETNERF_8):
                raise NVSError(f"scene {views.name}: DietNeRF's list has 8 of 100 views, not {count} of {len(train)}")
            context = [train[number] for number in DIETNERF_8]
        else:
            context = pick_context(views, train, count, how, settings.seed)
        return checked(views, context, test[:: 8 if settings.options["test"] == "every8" else 1])
