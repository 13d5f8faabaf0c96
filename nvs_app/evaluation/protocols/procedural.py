"""Scenes made on the fly from seeds that no training uses: the whole path without any download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from data_tools.procedural import ProceduralSource
from nvs_app.errors import NVSError
from nvs_app.evaluation.protocols.base import Benchmark, Entry, Listing, Option, Settings, Views
from nvs_app.evaluation.protocols.choose import pick_context
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.views import ViewSplit

WORLD_SEED = 20_000_003  # far from the seeds of training and of its held-out scenes; --seed is added
TARGETS, CANDIDATES = 8, 24
AT_ONCE = 16  # scenes made together on a GPU, at most: launching the kernels costs the same for one
GROUPS = 8  # if there are scenes enough, so that as many GPUs find work


@dataclass(frozen=True)
class Shot:
    """A kind of capture.

    scenes: kinds of the generator, by turns. capture: what the camera does, of `data_tools.procedural.capture_styles`.
    like: the upright kind whose scene of the same turn this one shows again, if both are asked for; else its own.
    """

    scenes: tuple[str, ...]
    capture: str = "plain"
    like: str = ""


SHOTS = {
    "object": Shot(("object",)),
    "room": Shot(("room",)),
    "asset": Shot(("asset",)),
    "outdoor": Shot(("outdoor",)),
    "tabletop": Shot(("tabletop",)),
    "narrow": Shot(("object",), "narrow", "object"),
    "wide": Shot(("room", "outdoor"), "wide"),
    "above": Shot(("object",), "above", "object"),
    "rolled": Shot(("object",), "rolled", "object"),
    "rolled-room": Shot(("room",), "rolled", "room"),
}
_KINDS_HELP = (
    f"kinds by turns, of {', '.join(SHOTS)}; narrow: objects through a lens of 15-25 degrees, wide: rooms and outdoors"
    " through one of 90-105, above: objects from within 15 degrees of the zenith, rolled, rolled-room: every view"
    " turned by 30 degrees; those of objects show the scenes of kind object, if that is among the kinds"
)


class Procedural(Benchmark):
    """Procedural scenes of held-out seeds, by kind of capture: views 0 to 7 are targets, 24 others may be read."""

    name = "procedural"
    title = "Procedural scenes, held-out seeds"
    source = "this project's generator (data_tools.procedural), a world seed that training does not use"
    layout = "nothing"
    notes = (f"A scene has {TARGETS + CANDIDATES} views; context is spread evenly over {CANDIDATES} of them.",)
    contexts = (4, 8, 16)
    options = (
        Option("scenes", "how many", default="8"),
        Option("kinds", _KINDS_HELP, default="object,room"),
        Option("assets", "folder with objects_pack.npz and textures/, which kind asset needs"),
    )
    needs_data = False
    loaders = 1  # one generator, on the device
    ahead = AT_ONCE + 1  # the next group is begun while the network renders the whole of this one

    def entries(self, settings: Settings) -> Listing:
        kinds = [kind.strip() for kind in settings.options["kinds"].split(",")]
        if not set(kinds) <= set(SHOTS):
            raise NVSError(f"--option kinds={settings.options['kinds']}: expected some of {', '.join(SHOTS)}")
        if "asset" in kinds and not settings.options["assets"]:
            raise NVSError("--option kinds: asset needs --option assets=DIR with objects_pack.npz")
        maker = Maker(settings, kinds, self.number(settings, "scenes"))
        return Listing(
            [
                Entry(maker.name(n), partial(MadeScene, maker, n), group=str(n // maker.at_once), kind=maker.kind(n))
                for n in range(maker.count)
            ]
        )

    def split(self, views: Views, count: int, settings: Settings) -> ViewSplit:
        candidates = list(range(TARGETS, TARGETS + CANDIDATES))
        return ViewSplit(pick_context(views, candidates, count, "spread"), list(range(TARGETS)))


class Maker:
    """Makes scenes in fixed groups, so that a scene does not depend on which process asks for it."""

    def __init__(self, settings: Settings, kinds: list[str], count: int) -> None:
        self.settings, self.kinds, self.count = settings, kinds, count
        self.image_hw = settings.image_hw or (256, 256)
        self.at_once = min(AT_ONCE, -(-count // GROUPS)) if settings.device.type == "cuda" else 1
        self._source: ProceduralSource | None = None
        self._held: tuple[int, PosedImages] | None = None

    def kind(self, number: int) -> str:
        """The scene's kind of capture."""
        return self.kinds[number % len(self.kinds)]

    def name(self, number: int) -> str:
        """The scene's name."""
        return f"{self.kind(number)}-{number:03d}"

    def made_from(self, number: int) -> tuple[int, str, str]:
        """The generator's scene number, its kind and the capture."""
        shot, turn = SHOTS[self.kind(number)], number // len(self.kinds)
        base = turn * len(self.kinds) + self.kinds.index(shot.like) if shot.like in self.kinds else number
        return base, shot.scenes[turn % len(shot.scenes)], shot.capture

    def views(self, number: int) -> PosedImages:
        """All views of a scene, uint8 [v, 3, H, W], with depth, on the device. Called by one thread."""
        if self._source is None:
            assets = self.settings.options["assets"]
            seed = WORLD_SEED + self.settings.seed
            self._source = ProceduralSource(self.settings.device, seed, Path(assets) if assets else None)
        group = number // self.at_once
        if self._held is None or self._held[0] != group:
            numbers = range(group * self.at_once, min(self.count, (group + 1) * self.at_once))
            bases, kinds, captures = zip(*map(self.made_from, numbers), strict=True)
            self._held = None  # its memory first
            posed = self._source.batch(bases, TARGETS + CANDIDATES, self.image_hw, kinds, depth=True, captures=captures)
            self._held = (group, posed)
        return self._held[1][number - group * self.at_once]


class MadeScene:
    """A generated scene in the form of a `Scene`."""

    def __init__(self, maker: Maker, number: int) -> None:
        self.maker, self.name, self.root = maker, maker.name(number), Path(maker.name(number))
        self.image_paths = [self.root / f"view_{index:02d}" for index in range(TARGETS + CANDIDATES)]
        self._posed = maker.views(number)
        self.c2w: Float[Tensor, "n 4 4"] = self._posed.cameras.c2w.cpu()

    def __len__(self) -> int:
        return len(self.image_paths)

    def load(self, indices: Sequence[int] | None = None, image_hw: tuple[int, int] | None = None) -> PosedImages:
        """The views, with depth, on the device that made them; they exist at the benchmark's size only."""
        if image_hw not in (None, self.maker.image_hw):
            raise NVSError(f"scene {self.name}: made at {self.maker.image_hw}, asked for {image_hw}")
        rows = torch.arange(len(self)) if indices is None else torch.tensor(list(indices))
        return self._posed[rows.to(self._posed.images.device)]
