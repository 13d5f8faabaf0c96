"""Training losses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nvs_app.errors import NVSError
from nvs_app.training.losses import dssim, image_loss, load_lpips, perceptual_distance


def test_equal_images_cost_nothing() -> None:
    x = torch.rand(2, 3, 3, 32, 32)
    loss, parts = image_loss(x, x.clone(), perceptual=0.5)
    assert loss < 1e-6
    assert parts["psnr"] == pytest.approx(100.0)


def test_mse_and_psnr() -> None:
    target = torch.zeros(2, 2, 3, 16, 16)
    prediction = torch.full_like(target, 0.1)
    prediction[1] = 0.01
    loss, parts = image_loss(prediction, target, perceptual=0.0)
    assert loss == pytest.approx((0.01 + 0.0001) / 2)
    assert parts["psnr"] == pytest.approx((20 + 40) / 2)  # of images, not of the mean error


def test_structure_term_sees_blur_more_than_brightness() -> None:
    target = torch.rand(4, 3, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(target, 3, 1, 1)
    shift = (blurred - target).square().mean().sqrt()
    assert perceptual_distance(blurred, target) > 3 * perceptual_distance(target + shift, target)


def test_gradients_are_finite_where_the_image_is_flat() -> None:
    prediction = torch.ones(1, 1, 3, 32, 32, requires_grad=True)
    loss, _ = image_loss(prediction, torch.ones(1, 1, 3, 32, 32), perceptual=1.0)
    loss.backward()
    assert prediction.grad is not None and prediction.grad.isfinite().all()


def test_small_and_odd_images() -> None:
    assert 0 <= dssim(torch.rand(1, 3, 5, 9), torch.rand(1, 3, 5, 9)) <= 1
    image_loss(torch.rand(1, 1, 3, 24, 40), torch.rand(1, 1, 3, 24, 40))


def test_missing_lpips_is_named(tmp_path: Path) -> None:
    with pytest.raises(NVSError, match="--loss.lpips-file"):
        load_lpips(tmp_path / "lpips.pt", torch.device("cpu"))
    (tmp_path / "lpips.pt").write_bytes(b"no")
    with pytest.raises(NVSError, match="TorchScript"):
        load_lpips(tmp_path / "lpips.pt", torch.device("cpu"))


def test_balance_makes_every_image_count_alike():
    target = torch.zeros(1, 2, 3, 16, 16)
    shares = []
    for inverse_mse_power in (0.0, 1.0):
        prediction = torch.stack([torch.full((3, 16, 16), 0.1), torch.full((3, 16, 16), 0.6)])[None]
        prediction.requires_grad_()
        loss, parts = image_loss(prediction, target, perceptual=0.0, inverse_mse_power=inverse_mse_power)
        loss.backward()
        assert parts["mse"] == pytest.approx((0.01 + 0.36) / 2, rel=1e-5)
        # what an image's error, made a little smaller in proportion, takes off the loss
        gain = (prediction.grad * prediction.detach()).sum((0, 2, 3, 4))
        shares.append(float(gain[0] / gain.sum()))
    assert shares[0] == pytest.approx(0.01 / 0.37, rel=1e-3)
    assert shares[1] == pytest.approx(0.5, abs=0.05)
