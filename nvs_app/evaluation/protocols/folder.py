"""Any scenes at hand: a folder of them, or one."""

from __future__ import annotations

from data_tools.readers import FORMATS
from data_tools.readers.lookup import natural
from nvs_app.errors import NVSError
from nvs_app.evaluation.protocols.base import Benchmark, Entry, Listing, Option, Settings, Views, data_folder
from nvs_app.evaluation.protocols.choose import checked, hold_out, pick_context
from nvs_app.evaluation.protocols.places import entries_of_path, subfolders
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit


class Folder(Benchmark):
    """Your own scenes. The same targets at every number of context views, so that the numbers compare."""

    name = "folder"
    title = "Scenes of a folder"
    source = "no paper: targets as in mip-NeRF 360 (every 8th frame), or the scene's own test split"
    layout = "a scene of any format that has cameras, or a folder of such"
    notes = ("Context views are spread evenly over the cameras that are not held out.",)
    contexts = (4, 8, 16)
    options = (
        Option(
            "targets",
            "which views are rendered",
            {
                "auto": "the scene's test split where it has one, else every 8th frame",
                "every8": "every 8th frame",
                "rest": "all that are not read: other views at every number of context views",
            },
        ),
    )

    def entries(self, settings: Settings) -> Listing:
        data = data_folder(settings)
        if any(form.recognise(data) for form in FORMATS.values()):
            return Listing(entries_of_path(data, data.resolve().name))
        entries: list[Entry] = []
        absent: dict[str, str] = {}
        for child in sorted(subfolders(data), key=lambda path: natural(path.name)):
            try:
                entries += entries_of_path(child, child.name)
            except NVSError as error:
                absent[child.name] = str(error)
        if not entries:
            raise NVSError(f"--data {data}: no scene in it; {next(iter(absent.values()), 'it has no folder')}")
        return Listing(entries, absent)

    def split(self, views: Views, count: int, settings: Settings) -> ViewSplit:
        how = settings.options["targets"]
        everything = list(range(len(views)))
        if how == "rest":
            context = pick_context(views, everything, count, "spread", settings.seed)
            return checked(views, context, [index for index in everything if index not in set(context)])
        candidates, targets = hold_out(views, 8)
        own = [index for index in everything if isinstance(views, Scene) and views.split[index] == "test"]
        if how == "auto" and own:
            targets, candidates = own, [index for index in everything if index not in set(own)]
        return checked(views, pick_context(views, candidates, count, "spread", settings.seed), targets)
