"""Held-out PSNR while training: scene folders that are never trained on, and procedural scenes of another seed.

It runs the weight average in a model of its own that is never compiled, so that no evaluation costs a compilation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.evaluation.metrics import psnr
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import normalize_context
from nvs_app.model.lact import LaCT
from nvs_app.scenes.views import spread_views
from nvs_app.training.sampling import sample_views, step_generator
from nvs_app.training.sources import open_scenes
from nvs_app.training.step_losses import lact_hw, smaller

Make = Callable[[list[int], int, tuple[int, int]], Any]
VIEWS_PER_CHUNK, HEAD_VIEWS_PER_CHUNK = 32, 8
MAX_TARGETS = 64
PROCEDURAL_TARGETS = 8


@torch.no_grad()
def render_targets(
    model: LaCT,
    images: Tensor,
    cameras: Cameras,
    num_context: int,
    autocast: contextlib.AbstractContextManager,
    scale: float = 1.0,
) -> Tensor:
    """Float images [b, k, 3, h, w] and cameras in a scene's own frame, context first -> rendered targets.

    scale: LaCT's resolution over that of the images, where the network has a detail head.
    """
    cameras = normalize_context(cameras.c2w[:, :num_context], "auto").apply_cameras(cameras)
    if model.detail_head is not None:
        return _through_head(model, images, cameras, num_context, autocast, scale)
    with autocast:
        state = model.encode(images[:, :num_context], cameras[:, :num_context])
        total = cameras.c2w.shape[1]
        chunks = [
            model.decode(state, cameras[:, start : min(start + VIEWS_PER_CHUNK, total)])
            for start in range(num_context, total, VIEWS_PER_CHUNK)
        ]
    return torch.cat(chunks, dim=1).float()


def _through_head(
    model: LaCT,
    images: Tensor,
    cameras: Cameras,
    num_context: int,
    autocast: contextlib.AbstractContextManager,
    scale: float,
) -> Tensor:
    context, photos = cameras[:, :num_context], images[:, :num_context]
    hw, total = lact_hw(cameras.image_hw, scale, model.config.patch), cameras.c2w.shape[1]
    rendered = []
    with autocast:
        for scene in range(len(images)):  # one after another: the head needs more memory than LaCT
            one = slice(scene, scene + 1)
            own = context[one]
            small = smaller(photos[one], scale, model.config.patch)
            state = model.encode(small, own.scaled_to(hw), photos=photos[one], photo_cameras=own)
            chunks = [
                model.decode_detail(state, cameras[one, start : min(start + HEAD_VIEWS_PER_CHUNK, total)], hw).images
                for start in range(num_context, total, HEAD_VIEWS_PER_CHUNK)
            ]
            rendered.append(torch.cat(chunks, dim=1).float())
    return torch.cat(rendered)


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
        device: torch.device,
        make: Make | None = None,
        procedural: int = 0,
        generate: int = 16,
        views: int = 24,
    ) -> None:
        self.scenes = [scene for path in paths for scene in open_scenes(path, "--evaluation.scenes")]
        for scene in self.scenes:
            if len(scene) <= num_context:
                raise NVSError(f"--evaluation.context: {scene.name} has only {len(scene)} views")
        self.num_context, self.device = num_context, device
        self.make = make if procedural else None
        self.procedural, self.generate, self.views = procedural, generate, views
        self.cache: dict[tuple[int, int], list[tuple[str, Tensor, Cameras, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self.scenes or self.make)

    def _load(self, image_hw: tuple[int, int]) -> list[tuple[str, Tensor, Cameras, int]]:
        """(name, uint8 images [b, k, 3, h, w], cameras [b, k], context views) of everything held out."""
        loaded = []
        for scene in self.scenes:
            context = spread_views(scene.c2w, self.num_context)
            others = [index for index in range(len(scene)) if index not in set(context)]
            stride = -(-len(others) // MAX_TARGETS)
            posed = scene.load(context + others[::stride], image_hw)
            images = posed.images.mul(255).round().to(torch.uint8)
            loaded.append(
                (scene.name, images[None].to(self.device), _batched(posed.cameras).to(self.device), len(context))
            )
        if self.make is not None:
            loaded.append(("procedural", *self._procedural(image_hw)))
        return loaded

    def _procedural(self, image_hw: tuple[int, int]) -> tuple[Tensor, Cameras, int]:
        assert self.make is not None
        context = min(self.num_context, self.views // 2)
        images, c2w, fxfycxcy = [], [], []
        for start in range(0, self.procedural, self.generate):
            posed = self.make(list(range(start, start + self.generate)), self.views, image_hw)
            generator = step_generator(0, 0, 0, posed.images.device)
            targets = min(PROCEDURAL_TARGETS, self.views - context)
            views = sample_views(posed.cameras.c2w, context, targets, 1.0, generator)
            rows = torch.arange(self.generate, device=views.device)[:, None]
            images.append(posed.images[rows, views])
            c2w.append(posed.cameras.c2w[rows, views])
            fxfycxcy.append(posed.cameras.fxfycxcy[rows, views])
        n = self.procedural
        return torch.cat(images)[:n], Cameras(torch.cat(c2w)[:n], torch.cat(fxfycxcy)[:n], image_hw), context

    def evaluate(
        self,
        model: LaCT,
        image_hw: tuple[int, int],
        autocast: Callable[[], contextlib.AbstractContextManager],
        scale: float = 1.0,
    ) -> dict[str, float]:
        """PSNR in dB by name, over the target views of each scene; "mean" over the scenes of folders."""
        if image_hw not in self.cache:
            self.cache[image_hw] = self._load(image_hw)
        figures: dict[str, Tensor] = {}
        for name, images, cameras, context in self.cache[image_hw]:
            views = images.float() / 255
            rendered = render_targets(model, views, cameras, context, autocast(), scale)
            figures[name] = psnr(rendered, views[:, context:]).mean()
        result = {name: round(float(figure), 3) for name, figure in figures.items()}
        scenes = [value for name, value in result.items() if name != "procedural"]
        if scenes:
            result["mean"] = round(sum(scenes) / len(scenes), 3)
        return result


def _batched(cameras: Cameras) -> Cameras:
    return Cameras(cameras.c2w[None], cameras.fxfycxcy[None], cameras.image_hw)
