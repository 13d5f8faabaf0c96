"""One process of test_two_encoders: `python two_encoders.py OUT`, with torchrun's environment variables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from small_scenes import circle, plain_renderer

from nvs_app.distributed import World
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages


def encoders() -> dict[str, Renderer]:
    """The ways a scene is encoded."""
    fused = plain_renderer(False)
    fused.model.fuse(torch.float32)
    return {"lact": plain_renderer(False), "head": plain_renderer(True), "fused": fused}


def photos() -> PosedImages:
    """Five views: shares of two processes differ."""
    return PosedImages(torch.rand(5, 3, 32, 40, generator=torch.Generator().manual_seed(0)), circle(5, (32, 40)))


def strict(collective: Callable) -> Callable:
    """It refuses what NCCL refuses; gloo would take turned tensors, too."""

    def call(tensor: torch.Tensor, *rest: object, **named: object) -> object:
        if not tensor.is_contiguous():
            raise ValueError("Tensors must be contiguous")
        return collective(tensor, *rest, **named)

    return call


def encoded(world: World | None) -> dict[str, SceneState]:
    """The scene, encoded in every way."""
    return {name: renderer.encode(photos(), chunk=2, world=world) for name, renderer in encoders().items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.all_reduce, dist.broadcast = strict(dist.all_reduce), strict(dist.broadcast)
    place = World("cpu")
    turned = torch.full((2, 3), float(place.rank + 1)).t()
    place.sum_(turned, torch.ones(1))
    assert torch.equal(turned, torch.full((3, 2), 3.0))
    turned = torch.full((2, 3), float(place.rank + 1)).t()
    place.broadcast_(turned)
    assert torch.equal(turned, torch.ones(3, 2))
    for name, state in encoded(place).items():
        state.save(Path(sys.argv[1]) / f"{name}{place.rank}.safetensors")
    place.close()
