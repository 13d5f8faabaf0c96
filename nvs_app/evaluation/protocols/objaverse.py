"""Renders of Objaverse objects that were held out of training."""

from __future__ import annotations

from pathlib import Path

from nvs_app.errors import NVSError
from nvs_app.evaluation.protocols.base import Listing, Option, Settings, Views
from nvs_app.evaluation.protocols.choose import by_name, checked, pick_context
from nvs_app.evaluation.protocols.places import SceneFolders
from nvs_app.scenes.views import ViewSplit


class Objaverse(SceneFolders):
    """Held-out renders: cameras drawn at random around each object, the last 8 drawn anew from the first N."""

    name = "objaverse"
    title = "Objaverse, held-out renders"
    source = "renders as in GS-LRM (arXiv 2404.19702) and LaCT (arXiv 2505.23884); neither lists its objects"
    layout = "a folder an object with transforms.json or opencv_cameras.json"
    notes = (
        (
            "Cameras of such renders are drawn at random, so the first N views are a random draw, nested over N; the "
            "last 8 are targets. Which objects were held out is for the trainer to say: --option list=FILE names them."
        ),
    )
    contexts = (4, 8, 16)
    forms = ("nerfstudio", "lact", "blender")
    options = (
        Option("list", "a text file with the name of a held-out object a line (default: all)"),
        Option("targets", "how many of the last views are rendered", default="8"),
        Option("context", "which other views are read", {"first": "the first N", "spread": "evenly spread"}),
    )

    def entries(self, settings: Settings) -> Listing:
        listing = super().entries(settings)
        if not settings.options["list"]:
            return listing
        wanted = _names(Path(settings.options["list"]))
        entries = [entry for entry in listing.entries if entry.name in wanted]
        if not entries:
            raise NVSError(f"--option list: none of its {len(wanted)} objects is in {settings.data}")
        here = {entry.name for entry in entries}
        return Listing(entries, {name: "listed, not in the data" for name in wanted if name not in here})

    def split(self, views: Views, count: int, settings: Settings) -> ViewSplit:
        order, held = by_name(views), self.number(settings, "targets")
        context = pick_context(views, order[:-held], count, settings.options["context"], settings.seed)
        return checked(views, context, order[-held:])


def _names(path: Path) -> dict[str, None]:
    try:
        lines = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise NVSError(f"--option list={path}: cannot be read ({error})") from error
    return dict.fromkeys(lines)
