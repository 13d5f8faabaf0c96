"""What a recorded rendering gives is what the plain one gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from camera_rings import ring_cameras

from nvs_app.geometry.cameras import Cameras
from nvs_app.model.adapted import AdaptedWeights
from nvs_app.model.config import LaCTConfig
from nvs_app.model.detail import DetailHeadConfig
from nvs_app.model.lact import LaCT
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages


def circle(n: int, turn: float = 0.0) -> Cameras:
    return ring_cameras(n, (32, 48), (60.0, 60.0, 24.0, 16.0), radius=2.0, height=0.8, start=turn)


@pytest.mark.gpu
@pytest.mark.parametrize("head", [None, DetailHeadConfig(features=8, groups=4, guide=16, volume=4, blend=8)])
def test_replays_equal_plain_renderings(head: DetailHeadConfig | None) -> None:
    torch.manual_seed(0)
    renderer = Renderer(LaCT(LaCTConfig(dim=32, blocks=2, attention_head_dim=16, detail_head=head)), "cuda")
    states = [renderer.encode(PosedImages(torch.rand(4, 3, 32, 48), circle(4))) for _ in range(2)]
    own = AdaptedWeights({"output_linear.weight": 0.1 * torch.randn(192, 32).half()})
    states.append(replace(states[0], adapted=own))  # the same tensors, another network
    cameras = [circle(1, turn) for turn in (0.1, 0.5, 0.9, 1.3)]
    recorded = [[renderer.render(state, camera) for camera in cameras] for state in states]
    for state, images in zip(states, recorded, strict=True):
        for camera, image in zip(cameras, images, strict=True):
            plain = Renderer(renderer.model, "cuda", renderer.precision)  # its first rendering is never a replay
            torch.testing.assert_close(image, plain.render(state, camera), rtol=0, atol=2e-3)
    assert not torch.equal(recorded[0][3], recorded[1][3])
    assert not torch.equal(recorded[0][3], recorded[2][3])
