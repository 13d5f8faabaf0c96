"""RealEstate10K, two views in, three views between them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from data_tools.readers import FORMATS, Format, open_scene
from data_tools.readers.json_files import load_json
from nvs_app.errors import NVSError
from nvs_app.evaluation.protocols.base import Benchmark, Entry, Listing, Option, Published, Settings, Views, data_folder
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import ViewSplit

INDEX = "evaluation_index_re10k.json"


class RealEstate10K(Benchmark):
    """pixelSplat's evaluation index, which MVSplat, LVSM and LagerNVS share."""

    name = "re10k"
    title = "RealEstate10K, two context views"
    source = "pixelSplat (arXiv 2312.12337), assets/evaluation_index_re10k.json of its repository"
    layout = "pixelSplat's chunks (*.torch, also in test/), or camera files KEY.txt with their frames"
    notes = (
        "The index lists 2 context and 3 target frames a scene; null entries have too little overlap and are skipped.",
    )
    contexts = (2,)
    options = (
        Option("index", f"the index file (default: {INDEX} in the data folder or above it)"),
        Option(
            "resize",
            "how frames are brought to 256x256",
            {
                "pixelsplat": "Lanczos to height 256 in 8 bits, then the centre 256x256, as pixelSplat does",
                "area": "centre square first, then an antialiased filter, as this project trains",
            },
        ),
    )
    published = (Published("LagerNVS", 2, 31.4), Published("LVSM", 2, 29.7), Published("pixelSplat", 2, 26.1))
    loaders = 1  # scenes of one chunk come one after the other, and the reader keeps one chunk in memory

    def entries(self, settings: Settings) -> Listing:
        data = data_folder(settings)
        wanted = load_index(find_index(data, settings.options["index"]))
        folder = next((path for path in (data, data / "test") if _form(path)), None)
        if folder is None:
            raise NVSError(f"--data {data}: no scene found, expected {self.layout}")
        form = _form(folder)
        assert form is not None and form.keys is not None
        present = form.keys(folder)
        lanczos = settings.options["resize"] == "pixelsplat"
        entries: list[Entry] = []
        for key in present:
            if (frames := wanted.get(key)) is not None:
                opener = partial(open_indexed, folder, form.name, key, frames, lanczos)
                entries.append(Entry(key, opener, group=str(len(entries) // 16)))
        if not entries:
            raise NVSError(f"--data {data}: none of its {len(present)} scenes is in the index")
        here = set(present)
        absent = {key: "in the index, not in the data" for key, value in wanted.items() if value and key not in here}
        return Listing(entries, absent)

    def split(self, views: Views, count: int, settings: Settings) -> ViewSplit:
        assert isinstance(views, IndexedScene)
        if count != len(views.index["context"]):
            raise NVSError(f"--context {count}: the index lists {len(views.index['context'])} context views")
        numbers = frame_numbers(views.scene)
        chosen = {}
        for what in ("context", "target"):
            missing = [number for number in views.index[what] if number not in numbers]
            if missing:
                raise NVSError(f"scene {views.name}: no frame {missing[0]}, which the index lists as {what}")
            chosen[what] = [numbers[number] for number in views.index[what]]
        return ViewSplit(chosen["context"], chosen["target"])


@dataclass
class IndexedScene:
    """A scene with its entry of the index, resized as pixelSplat does."""

    scene: Scene
    index: dict[str, list[int]]
    lanczos: bool

    def __post_init__(self) -> None:
        self.name, self.root = self.scene.name, self.scene.root
        self.image_paths: list[Path] = self.scene.image_paths
        self.c2w: Float[Tensor, "n 4 4"] = self.scene.c2w

    def __len__(self) -> int:
        return len(self.scene)

    def load(self, indices: Sequence[int] | None = None, image_hw: tuple[int, int] | None = None) -> PosedImages:
        """As `Scene.load`, with the resizing of the option."""
        if not self.lanczos or image_hw is None:
            return self.scene.load(indices, image_hw)
        return lanczos_crop(self.scene.load(indices), image_hw)


def lanczos_crop(posed: PosedImages, image_hw: tuple[int, int]) -> PosedImages:
    """Pillow's Lanczos filter on 8-bit pixels to the size that covers `image_hw`, then its centre; pixelSplat's order.

    posed: [v, 3, H, W] in [0, 1], on the CPU. The resize may round the width by half a pixel: the intrinsics follow.
    """
    height, width = posed.images.shape[-2:]
    factor = max(image_hw[0] / height, image_hw[1] / width)
    scaled_hw = (round(height * factor), round(width * factor))
    top, left = (scaled_hw[0] - image_hw[0]) // 2, (scaled_hw[1] - image_hw[1]) // 2
    images = torch.empty(len(posed), 3, *image_hw)
    for slot, image in enumerate((posed.images * 255).round().to(torch.uint8)):
        resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(scaled_hw[::-1], Image.Resampling.LANCZOS)
        cut = resized.crop((left, top, left + image_hw[1], top + image_hw[0]))
        images[slot] = torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8).view(*image_hw, 3).movedim(-1, 0)
    cameras = posed.cameras.scaled_to(scaled_hw)
    shift = cameras.fxfycxcy.new_tensor([0.0, 0.0, left, top])
    return PosedImages(images / 255, Cameras(cameras.c2w, cameras.fxfycxcy - shift, image_hw))


def frame_numbers(scene: Scene) -> dict[int, int]:
    """Frame number in the camera file -> view. A camera file whose frames are not all there has fewer views."""
    file = scene.root / f"{scene.name}.txt"
    if not scene.encoded and file.is_file():
        lines = [line.split() for line in file.read_text("utf-8", errors="replace").splitlines()[1:] if line.split()]
        if len(lines) != len(scene):
            views = {path.stem: index for index, path in enumerate(scene.image_paths)}
            return {number: views[words[0]] for number, words in enumerate(lines) if words[0] in views}
    return {number: number for number in range(len(scene))}


def find_index(data: Path, named: str) -> Path:
    """The index file. Raises NVSError when it is not there."""
    places = [Path(named)] if named else [data / INDEX, data / "assets" / INDEX, data.parent / INDEX]
    for path in places:
        if path.is_file():
            return path
    raise NVSError(f"--option index={named or INDEX}: no such file; pixelSplat's repository has it in assets/")


def load_index(path: Path) -> dict[str, dict[str, list[int]] | None]:
    """Scene key -> {"context": [...], "target": [...]}, or None for a scene that is to be skipped. Raises NVSError."""
    content = load_json(path)
    if not isinstance(content, dict) or not content:
        raise NVSError(f"{path}: expected an object of scene keys")
    for key, value in content.items():
        if value is not None and not (
            isinstance(value, dict) and all(_is_numbers(value.get(what)) for what in ("context", "target"))
        ):
            raise NVSError(f"{path}: scene {key}: expected lists of frame numbers as context and target, or null")
    return content


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)


def open_indexed(folder: Path, form: str, key: str, frames: dict[str, list[int]], lanczos: bool) -> IndexedScene:
    """The scene `key` of a folder with its entry of the index."""
    return IndexedScene(open_scene(folder, form, key), frames, lanczos)


def _form(path: Path) -> Format | None:
    forms = [FORMATS[name] for name in ("pixelsplat", "realestate10k")]
    return next((form for form in forms if path.is_dir() and form.recognise(path)), None)
