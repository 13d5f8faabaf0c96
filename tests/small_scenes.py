"""A tiny network, with and without a detail head, cameras on a circle, and photos of noise."""

from __future__ import annotations

import torch
from camera_rings import ring_cameras

from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.model.config import LaCTConfig
from nvs_app.model.detail import DetailHeadConfig
from nvs_app.model.lact import LaCT
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages

HEAD = DetailHeadConfig(features=8, groups=4, guide=16, volume=4, blend=8, planes=4, fine_planes=3)


def network(detail: bool) -> LaCT:
    """Random weights; what begins at zero in the head is moved away from it, so that every part of it matters."""
    torch.manual_seed(1)
    model = LaCT(LaCTConfig(dim=32, blocks=2, attention_head_dim=16, detail_head=HEAD if detail else None))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("detail_head.") and not parameter.any():
                parameter.normal_(std=0.1)
    # LaCT below the photos' resolution even where those are tiny.
    lact = {"scale": 0.5, "least": 16, "most": 256}
    model.card = {"normalization": "auto", "name": "tiny", "hash": "abc", "lact_resolution": lact}
    return model


def plain_renderer(detail: bool, **options) -> Renderer:
    """In float32 on the CPU."""
    return Renderer(network(detail), device="cpu", precision="fp32", **options)


def circle(views: int, image_hw: tuple[int, int], radius: float = 5.0) -> Cameras:
    """Cameras around a point beside the origin, which look at it; the principal point is not the centre."""
    height, width = image_hw
    lens = (60.0, 61.0, width / 2 + 1, height / 2 - 2)
    step = 5.5 / max(1, views - 1)
    return ring_cameras(views, image_hw, lens, radius=radius, height=1.5, step=step, centre=(3.0, -2.0, 0.0))


def posed(views: int = 3, image_hw: tuple[int, int] = (32, 40)) -> PosedImages:
    """Photos of noise and their cameras."""
    return PosedImages(torch.rand(views, 3, *image_hw), circle(views, image_hw))


def moved(cameras: Cameras, scale: float) -> Cameras:
    """The same cameras in a world that is scaled, turned and moved."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)))[0]
    world = SimilarityTransform(
        torch.tensor([scale]), (turn * torch.det(turn).sign())[None], torch.tensor([[10.0, -20.0, 5.0]])
    )
    c2w = world.apply_c2w(cameras.c2w[None])[0]
    return Cameras(c2w, cameras.fxfycxcy, cameras.image_hw)
