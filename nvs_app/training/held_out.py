"""Held-out PSNR while training: scene folders that are never trained on, and procedural scenes of another seed.

The figures are `evaluate_scene`'s, of a renderer around the weight average: a model of its own that is never compiled,
so that no evaluation costs a compilation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.evaluation.evaluate import EvalConfig, evaluate_scene
from nvs_app.geometry.cameras import Cameras
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages
from nvs_app.training.sources import open_scenes

Make = Callable[[list[int], int, tuple[int, int]], PosedImages]
MAX_TARGETS = 64
PROCEDURAL_TARGETS = 8


@dataclass(frozen=True)
class LoadedViews:
    """All views of a scene in memory, in the form of a `Scene`: float32 or uint8 images, cameras on the CPU."""

    name: str
    root: Path
    image_paths: list[Path]
    posed: PosedImages

    @property
    def c2w(self) -> Float[Tensor, "n 4 4"]:
        """OpenCV axes."""
        return self.posed.cameras.c2w

    def __len__(self) -> int:
        return len(self.posed)

    def cameras(self, indices: Sequence[int] | None = None, image_hw: tuple[int, int] | None = None) -> Cameras:
        """Some of the cameras, at the one size that there is."""
        assert image_hw in (None, self.posed.cameras.image_hw)
        return self.posed.cameras if indices is None else self.posed.cameras[list(indices)]

    def load(self, indices: Sequence[int] | None = None, image_hw: tuple[int, int] | None = None) -> PosedImages:
        """Some of the views, at the one size that there is."""
        assert image_hw in (None, self.posed.cameras.image_hw)
        rows = list(range(len(self)) if indices is None else indices)
        return PosedImages(self.posed.images[rows], self.posed.cameras[rows])


class HeldOut:
    """The held-out scenes of a run, loaded once a resolution.

    paths: scenes or folders of scenes; num_context: evenly spread context views, the other views (at most 64) are
    targets; make: a procedural generator of a seed that is not trained on, or None; procedural: how many of its
    scenes; generate, views: sizes of its call, those of training, so that a compiled generator is not compiled again.
    """

    def __init__(
        self,
        paths: list[Path],
        num_context: int,
        make: Make | None = None,
        procedural: int = 0,
        generate: int = 16,
        views: int = 24,
    ) -> None:
        self.scenes = [scene for path in paths for scene in open_scenes(path, "--evaluation.scenes")]
        for scene in self.scenes:
            if len(scene) <= num_context:
                raise NVSError(f"--evaluation.context: {scene.name} has only {len(scene)} views")
        self.num_context = num_context
        self.make = make if procedural else None
        self.procedural, self.generate, self.views = procedural, generate, views
        self.cache: dict[tuple[int, int], list[tuple[LoadedViews, EvalConfig]]] = {}

    def __bool__(self) -> bool:
        return bool(self.scenes or self.make)

    def _load(self, image_hw: tuple[int, int]) -> list[tuple[LoadedViews, EvalConfig]]:
        """Everything held out at a size; of folders the views that are used alone."""
        loaded = []
        for scene in self.scenes:
            split = EvalConfig(self.num_context, image_hw, max_targets=MAX_TARGETS).choose(scene)
            used = split.context + split.target
            context, target = range(len(split.context)), range(len(split.context), len(used))
            views = LoadedViews(
                scene.name, scene.root, [scene.image_paths[i] for i in used], scene.load(used, image_hw)
            )
            loaded.append((views, EvalConfig(image_hw=image_hw, context=tuple(context), target=tuple(target))))
        return loaded + ([] if self.make is None else self._procedural(self.make, image_hw))

    def _procedural(self, make: Make, image_hw: tuple[int, int]) -> list[tuple[LoadedViews, EvalConfig]]:
        config = EvalConfig(min(self.num_context, self.views // 2), image_hw, max_targets=PROCEDURAL_TARGETS)
        root, loaded = Path("procedural"), []
        names = [root / str(view) for view in range(self.views)]
        for start in range(0, self.procedural, self.generate):
            posed = make(list(range(start, start + self.generate)), self.views, image_hw)
            cameras = posed.cameras.to("cpu")
            for row, images in enumerate(posed.images):
                loaded.append((LoadedViews("procedural", root, names, PosedImages(images, cameras[row])), config))
        return loaded[: self.procedural]

    def evaluate(self, renderer: Renderer, image_hw: tuple[int, int]) -> dict[str, float]:
        """PSNR in dB by name, over the target views of each scene; "procedural" over scenes, "mean" over the scenes of
        folders."""
        if image_hw not in self.cache:
            self.cache[image_hw] = self._load(image_hw)
        figures: dict[str, list[float]] = {}
        chunk = renderer.fixed_chunk(image_hw)
        for scene, config in self.cache[image_hw]:
            result = evaluate_scene(renderer, scene, config, baselines=(), chunk=chunk)
            figures.setdefault(scene.name, []).append(math.nan if result["psnr"] is None else result["psnr"])
        means = {name: sum(values) / len(values) for name, values in figures.items()}
        scenes = [value for name, value in means.items() if name != "procedural"]
        if scenes:
            means["mean"] = sum(scenes) / len(scenes)
        return {name: round(value, 3) for name, value in means.items()}
