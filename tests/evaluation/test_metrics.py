"""PSNR, SSIM and LPIPS against other implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nvs_app.errors import NVSError
from nvs_app.evaluation.metrics import LPIPS, psnr, sharpness, ssim
from nvs_app.scenes.images import to_uint8


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    truth = torch.rand(*shape)
    return (truth + 0.1 * torch.randn(*shape)).clamp(0, 1), truth


def test_psnr() -> None:
    a, b = pair(4, 3, 20, 30)
    expected = [-10 * math.log10(float(((x - y) ** 2).mean())) for x, y in zip(a, b)]
    assert torch.allclose(psnr(a, b), torch.tensor(expected), atol=1e-4)
    assert psnr(a, a).tolist() == [100.0] * 4  # not infinite
    assert psnr(a[0], b[0]).shape == ()
    assert torch.allclose(psnr(torch.full((3, 8, 8), 0.5), torch.zeros(3, 8, 8)), torch.tensor(6.0206), atol=1e-3)
    assert torch.equal(psnr(a + 5, b), psnr(torch.ones_like(a), b))  # clamped to what a screen shows
    rounded = psnr(a, b, rounded=True)
    assert not torch.equal(rounded, psnr(a, b)) and torch.allclose(rounded, psnr(a, b), atol=0.05)
    assert torch.allclose(rounded, psnr(to_uint8(a).movedim(-1, -3) / 255.0, b), atol=1e-5)


def test_ssim_is_scikit_images() -> None:
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    a, b = pair(3, 3, 40, 33)
    expected = [
        structural_similarity(
            x.double().numpy(),
            y.double().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(a, b)
    ]
    assert np.allclose(ssim(a, b).numpy(), expected, atol=1e-5)
    assert torch.allclose(ssim(b, b), torch.ones(3), atol=1e-5)
    with pytest.raises(NVSError, match="11x11"):
        ssim(a[..., :10], b[..., :10])


def test_sharpness_by_hand() -> None:
    # Stripes one pixel wide: differences of 1 across, none down; half the contrast is a quarter of the energy.
    stripes = (torch.arange(8) % 2).float().expand(3, 6, 8)
    half = 0.25 + 0.5 * stripes
    assert sharpness(stripes, stripes).item() == pytest.approx(1)
    assert sharpness(half, stripes).item() == pytest.approx(0.25, abs=1e-4)
    assert sharpness(stripes, half).item() == pytest.approx(4, abs=1e-3)
    assert torch.allclose(sharpness(half.mT, stripes.mT), sharpness(half, stripes))  # down as across
    assert sharpness(3 * stripes - 1, stripes).item() == pytest.approx(1)  # clamped to what a screen shows
    # Luma: stripes that are green alone have 0.587 of the difference.
    green = stripes * torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)
    assert sharpness(green, stripes).item() == pytest.approx(0.587**2, abs=1e-4)


def test_sharpness_of_real_images_and_plain_ones() -> None:
    torch.manual_seed(1)
    photo = torch.nn.functional.interpolate(torch.rand(2, 3, 16, 16), size=(64, 64), mode="bilinear")
    blurred = torch.nn.functional.avg_pool2d(photo, 9, stride=1, padding=4, count_include_pad=False)
    noisy = photo + 0.1 * torch.randn_like(photo)
    assert sharpness(photo, photo).shape == (2,)
    assert (sharpness(blurred, photo) < 0.5).all() and (sharpness(noisy, photo) > 1.5).all()
    plain = torch.full((3, 20, 20), 0.4)
    assert sharpness(plain, plain).item() == 1 and sharpness(0.9 * plain, plain).item() == pytest.approx(1)
    assert 1e3 < sharpness(torch.rand(3, 20, 20), plain).item() < 1e6
    # A plain image with the last bit of a photo's rounding still counts as one without gradients.
    assert 0.4 < sharpness(plain, (plain + torch.rand(3, 20, 20) / 255).mul(255).round() / 255).item() <= 1


def test_to_uint8_rounds() -> None:
    image = torch.tensor([0.0, 0.5 / 255, 0.499 / 255, 1.0, 1.2, -0.3]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert to_uint8(image)[0, 0, :, 0].tolist() == [0, 1, 0, 255, 255, 0]


def lpips_weights() -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = {}
    channels = 3
    sizes = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256}
    sizes |= dict.fromkeys((17, 19, 21, 24, 26, 28), 512)
    for index, size in sizes.items():
        weights[f"features.{index}.weight"] = torch.randn(size, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
        weights[f"features.{index}.bias"] = 0.1 * torch.randn(size)
        channels = size
    for stage, size in enumerate((64, 128, 256, 512, 512)):
        weights[f"lin{stage}.model.1.weight"] = torch.rand(1, size, 1, 1)
    return weights


def test_lpips_from_a_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVS_LPIPS_WEIGHTS", raising=False)
    assert LPIPS.find() is None
    weights = lpips_weights()
    torch.save({k: v for k, v in weights.items() if k.startswith("features")}, tmp_path / "vgg16.pth")
    with pytest.raises(NVSError, match="lin0"):
        LPIPS.find(tmp_path)
    torch.save({k: v for k, v in weights.items() if k.startswith("lin")}, tmp_path / "heads.pt")
    monkeypatch.setenv("NVS_LPIPS_WEIGHTS", str(tmp_path))
    lpips = LPIPS.find()
    a, b = pair(2, 3, 32, 48)
    distance = lpips(a, b)
    assert distance.shape == (2,) and (distance > 0).all()
    assert torch.allclose(lpips(a, a), torch.zeros(2))

    # The definition, written once more with functional calls.
    import torch.nn.functional as F

    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = (((t * 2 - 1) - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1) for t in (a, b))
    expected, stage = torch.zeros(2), 0
    for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        if index in (5, 10, 17, 24):
            x, y = F.max_pool2d(x, 2), F.max_pool2d(y, 2)
        w, bias = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
        x, y = (F.relu(F.conv2d(t, w, bias, padding=1)) for t in (x, y))
        if index in (2, 7, 14, 21, 28):
            unit = (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square()
            expected += (unit * weights[f"lin{stage}.model.1.weight"]).sum(1).mean((1, 2))
            stage += 1
    assert torch.allclose(distance, expected, rtol=1e-3)
    with pytest.raises(NVSError, match="no such file"):
        LPIPS.find(tmp_path / "absent.pth")
    for name in ("no.pt", "no.safetensors"):
        (tmp_path / name).write_bytes(b"no")
        with pytest.raises(NVSError, match=f"{name}: expected tensors by name"):
            LPIPS.find(tmp_path / name)
    # As a term of a training loss: gradients reach the image, the network stays as it is.
    a.requires_grad_()
    lpips(a, b).sum().backward()
    assert a.grad is not None and a.grad.abs().sum() > 0 and not any(p.requires_grad for p in lpips.parameters())
