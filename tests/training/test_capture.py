"""Captures as people make them."""

from __future__ import annotations

import torch

from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.training.capture import FLAWS, compressed, like_captures


def setting() -> tuple[torch.Tensor, Cameras]:
    generator = torch.Generator().manual_seed(0)
    eye = torch.randn(3, 4, 3, generator=generator)
    c2w = look_at(eye, torch.zeros(3, 4, 3), torch.tensor([0.0, 0.0, 1.0]).expand(3, 4, 3))
    images = torch.rand(3, 4, 3, 16, 24, generator=generator)
    return images, Cameras(c2w, torch.tensor([20.0, 20, 12, 8]).expand(3, 4, 4), (16, 24))


def test_only_the_scenes_that_are_meant_change_and_only_a_little() -> None:
    images, cameras = setting()
    before = images.clone()
    changed = torch.tensor([True, False, True])
    results = [like_captures(images, cameras, changed, torch.Generator().manual_seed(5)) for _ in range(2)]
    (new, moved), (again, _) = results
    assert torch.equal(new, again) and torch.equal(images, before)
    assert torch.equal(new[1], images[1]) and torch.equal(moved.c2w[1], cameras.c2w[1])
    assert new.min() >= 0 and new.max() <= 1
    rotation = moved.c2w[..., :3, :3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand(3, 4, 3, 3), atol=1e-4, rtol=0)
    shift = (moved.c2w[..., :3, 3] - cameras.c2w[..., :3, 3]).norm(dim=-1)
    assert shift.max() < 0.03 and torch.equal(moved.fxfycxcy[..., 2:], cameras.fxfycxcy[..., 2:])
    strong = [like_captures(images, cameras, changed, torch.Generator().manual_seed(i))[0] for i in range(6)]
    assert max((x[0] - images[0]).abs().mean() for x in strong) > 0.02


def test_compression_is_that_of_blocks() -> None:
    images, _ = setting()
    smooth = torch.nn.functional.avg_pool2d(images.flatten(0, 1), 7, 1, 3).view_as(images)
    fine = compressed(smooth, torch.tensor([1e-4, 0.5, 1.0]))
    error = (fine - smooth).square().mean((1, 2, 3, 4)).sqrt()
    assert error[0] < 1e-3 < error[1] < error[2] < 0.1
    assert torch.equal(compressed(smooth, torch.zeros(3)), smooth)
    flat = torch.full((1, 1, 3, 8, 16), 0.5)
    torch.testing.assert_close(compressed(flat, torch.ones(1)), flat, atol=0.02, rtol=0)
    assert torch.equal(compressed(images[..., :12], torch.ones(3)), images[..., :12])  # no whole blocks


def test_each_flaw_can_be_had_alone() -> None:
    images, cameras = setting()
    every = torch.tensor([True, True, True])

    def alone(name: str, seed: int, share: float = 1.0):
        strengths = {**dict.fromkeys(FLAWS, 0.0), name: share}
        return like_captures(images, cameras, every, torch.Generator().manual_seed(seed), strengths)

    for name in FLAWS:
        found = [alone(name, seed, 10.0) for seed in range(3)]  # of images so small hardly anything moves
        new = torch.stack([x for x, _ in found]) - images
        moved = torch.stack([c.c2w for _, c in found]) - cameras.c2w
        assert (new.abs().amax() > 1e-3) == (name != "pose"), name
        assert (moved.abs().amax() > 1e-4) == (name == "pose"), name
        zoom = torch.stack([c.fxfycxcy for _, c in found]) / cameras.fxfycxcy
        assert (zoom != 1).any() == (name == "focal") and (zoom - 1).abs().max() < 0.02, name
    unchanged, same = alone("noise", 0, 0.0)
    torch.testing.assert_close(unchanged, images, atol=1e-5, rtol=0)
    assert torch.equal(same.c2w, cameras.c2w)


def test_drift_follows_the_walk() -> None:
    _, cameras = setting()
    # Two walks of 24 photos: neighbours are changed alike, ends are not.
    line = torch.linspace(-1, 1, 24)[:, None] * torch.tensor([1.0, 0.2, 0.1])
    c2w = torch.eye(4).repeat(2, 24, 1, 1)
    c2w[..., :3, 3] = line
    grey = torch.full((2, 24, 3, 8, 8), 0.4)
    walk = Cameras(c2w, cameras.fxfycxcy[:1, :1].expand(2, 24, 4), (8, 8))
    strengths = {**dict.fromkeys(FLAWS, 0.0), "drift": 1.0}
    new, _ = like_captures(grey, walk, torch.tensor([True, True]), torch.Generator().manual_seed(1), strengths)
    light = new.mean((-1, -2)).log()
    steps = (light[:, 1:] - light[:, :-1]).abs()
    assert light.std(1).max() > 0.02 and steps.max() < 0.5 * (light.amax(1) - light.amin(1)).max()
