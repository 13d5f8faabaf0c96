"""How close a rendered image is to the photo: PSNR, SSIM, sharpness, and LPIPS where its weights are at hand.

    from nvs_app.evaluation.metrics import psnr, sharpness, ssim
    psnr(render, photo)            # [v] decibels, one an image
    sharpness(render, photo)       # [v] 1: as sharp as the photo, below: blurred, above: noise or ringing

All functions take float images in [0, 1], shape [..., 3, H, W], and return one number an image, shape [...].
"""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nvs_app.errors import NVSError

MIN_MSE = 1e-10  # identical images get 100 dB instead of infinity, so that averages and JSON stay finite


def psnr(
    prediction: Float[Tensor, "*b c h w"], target: Float[Tensor, "*b c h w"], *, rounded: bool = False
) -> Float[Tensor, "*b"]:
    """Peak signal-to-noise ratio in dB of each image: -10 log10(mean squared error), at most 100.

    prediction, target: [*b, c, h, w] in [0, 1]; the prediction is clamped to that range.
    rounded: round the prediction to 8 bits first, as if it had been saved as PNG (changes about 0.01 dB).
    """
    prediction = _displayed(prediction, rounded)
    mse = (prediction - target.float()).square().flatten(-3).mean(-1)
    return -10.0 * mse.clamp_min(MIN_MSE).log10()


def depth_error(depth: Float[Tensor, "*b h w"], true: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b"]:
    """Median of |depth - true| / true over the pixels of each view that show a surface; NaN where none does.

    depth, true: z along the camera's axis, in the same units; `true` is 0 without a surface, and inf for sky.
    """
    surface = (true > 0) & true.isfinite()
    relative = (depth - true).abs() / torch.where(surface, true, 1.0)
    return torch.where(surface, relative, torch.nan).flatten(-2).nanmedian(-1).values


def ssim(
    prediction: Float[Tensor, "*b c h w"], target: Float[Tensor, "*b c h w"], *, rounded: bool = False
) -> Float[Tensor, "*b"]:
    """Structural similarity of each image (Wang et al. 2004), in [-1, 1], averaged over channels and pixels.

    11x11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03, data range 1, population variance, only windows that
    lie inside the image: the numbers of scikit-image's structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1).

    Raises NVSError when a side is shorter than 11 pixels.
    """
    height, width = prediction.shape[-2:]
    if min(height, width) < 11:
        raise NVSError(f"SSIM: images are {height}x{width}; its window needs at least 11x11")
    batch, channels = prediction.shape[:-3], prediction.shape[-3]
    x = _displayed(prediction, rounded).reshape(-1, 1, height, width)
    y = target.float().reshape(-1, 1, height, width)
    offsets = torch.arange(11, dtype=torch.float32, device=x.device) - 5
    line = torch.exp(-offsets.square() / (2 * 1.5**2))
    line = line / line.sum()

    # On a GPU the images are taken as channels: torch's own kernel for that is exact, where cuDNN's convolutions
    # round to TF32 (and the differences of squares below lose what is left).
    shape = (5, len(x), height, width) if x.is_cuda else (5 * len(x), 1, height, width)
    groups = shape[1]
    maps = torch.cat([x, y, x * x, y * y, x * y]).reshape(shape)
    maps = F.conv2d(maps, line.view(1, 1, 1, 11).expand(groups, 1, 1, 11), groups=groups)
    maps = F.conv2d(maps, line.view(1, 1, 11, 1).expand(groups, 1, 11, 1), groups=groups)
    mean_x, mean_y, square_x, square_y, product = maps.reshape(5, len(x), *maps.shape[-2:])
    var_x, var_y = square_x - mean_x.square(), square_y - mean_y.square()
    covariance = product - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    )
    return similarity.reshape(*batch, channels, -1).mean((-2, -1))


_LUMA = (0.299, 0.587, 0.114)  # of gamma-coded R, G, B (Rec. 601)
# Mean squared difference of neighbours, across and down, that rounding to 8 bits makes: each pixel's (1/255)^2 / 12,
# twice for a difference, twice for two directions.
_ROUNDING_ENERGY = 4 / (12 * 255**2)


def sharpness(
    prediction: Float[Tensor, "*b 3 h w"], target: Float[Tensor, "*b 3 h w"], *, rounded: bool = False
) -> Float[Tensor, "*b"]:
    """Gradient energy of each image in parts of its photo's: 1 where it is as sharp, below where it is blurred,
    above where it has noise, ringing or edges that the photo has not.

    The energy is the mean of the squared differences of neighbouring pixels' luma (Rec. 601), right and down. What
    rounding to 8 bits adds by itself, 5e-6, is added to both energies: so a photo without any gradient gives 1 for
    a plain rendering and a large but finite number for one with structure. It compares amounts, not places: a sharp
    image of something else has 1 as well, so read it beside PSNR, which blur may leave high.

    prediction, target: [*b, 3, h, w] in [0, 1]; the prediction is clamped to that range.
    rounded: round the prediction to 8 bits first, as in `psnr`.
    """
    ours, photo = (_gradient_energy(image) for image in (_displayed(prediction, rounded), target.float()))
    return (ours + _ROUNDING_ENERGY) / (photo + _ROUNDING_ENERGY)


def _gradient_energy(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(-3)
    luma = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    across, down = (luma.diff(dim=dim).square().flatten(-2) for dim in (-1, -2))
    # Not the mean of an empty tensor, where an image is one pixel wide or high.
    return across.sum(-1) / max(across.shape[-1], 1) + down.sum(-1) / max(down.shape[-1], 1)


def _displayed(images: Tensor, rounded: bool) -> Tensor:
    images = images.float().clamp(0, 1)
    return (images * 255.0).round() / 255.0 if rounded else images


# --- LPIPS --------------------------------------------------------------------------------------------------------

# torchvision's VGG-16 `features`: index of the convolutions, and after which ReLU a stage is read off.
_VGG_CONVS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


class LPIPS(torch.nn.Module):
    """Learned perceptual distance (Zhang et al. 2018), VGG-16 version, from weights on this machine.

    Its weights are not part of this project and nothing is downloaded: `LPIPS.find()` looks at a file or folder
    that holds torchvision's VGG-16 (`features.N.weight`) and the linear heads of the lpips package
    (`linN.model.1.weight`), as .pt, .pth or .safetensors.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        missing = []
        self.stages = torch.nn.ModuleList()
        channels = 3
        for stage, convs in enumerate(_VGG_CONVS):
            layers: list[torch.nn.Module] = [] if stage == 0 else [torch.nn.MaxPool2d(2)]
            for index in convs:
                weight, bias = (_pick(weights, f"features.{index}.{part}") for part in ("weight", "bias"))
                if weight is None or bias is None:
                    missing.append(f"features.{index}")
                    continue
                conv = torch.nn.Conv2d(channels, weight.shape[0], 3, padding=1)
                conv.load_state_dict({"weight": weight, "bias": bias})
                channels = weight.shape[0]
                layers += [conv, torch.nn.ReLU()]
            self.stages.append(torch.nn.Sequential(*layers))
            head = _pick(weights, f"lin{stage}.model.1.weight")
            if head is None:
                missing.append(f"lin{stage}.model.1.weight")
            else:
                self.register_buffer(f"head{stage}", head.float(), persistent=False)
        if missing:
            raise NVSError(f"LPIPS weights: {', '.join(missing[:3])} missing; give VGG-16 and the lpips heads")
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @staticmethod
    def find(path: str | Path | None = None) -> LPIPS | None:
        """LPIPS from `path` or from $NVS_LPIPS_WEIGHTS; None when neither is given. A wrong path is an NVSError."""
        path = path or os.environ.get("NVS_LPIPS_WEIGHTS")
        if not path:
            return None
        path = Path(path)
        suffixes = (".pt", ".pth", ".safetensors")
        files = [f for f in sorted(path.glob("*")) if f.suffix in suffixes] if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise NVSError(f"LPIPS weights {path}: no such file, or a folder without {', '.join(suffixes)}")
        weights: dict[str, Tensor] = {}
        for file in files:
            try:
                safe = file.suffix == ".safetensors"
                weights |= load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, TypeError, UnpicklingError, SafetensorError) as error:
                reason = str(error).partition("\n")[0]
                raise NVSError(f"LPIPS weights {file}: expected tensors by name ({reason})") from error
        return LPIPS(weights)

    def forward(self, prediction: Float[Tensor, "*b 3 h w"], target: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b"]:
        """Distance of each image, 0 for equal ones. Images in [0, 1]."""
        batch = prediction.shape[:-3]
        x, y = (
            ((image.float().clamp(0, 1) * 2 - 1).reshape(-1, *image.shape[-3:]) - self.shift) / self.scale
            for image in (prediction, target)
        )
        total = torch.zeros(x.shape[0], device=x.device)
        for index, stage in enumerate(self.stages):
            x, y = stage(x), stage(y)
            unit_x, unit_y = (f / (f.square().sum(1, keepdim=True) + 1e-10).sqrt() for f in (x, y))
            difference = (unit_x - unit_y).square()
            total = total + F.conv2d(difference, getattr(self, f"head{index}")).mean((1, 2, 3))
        return total.reshape(batch)


def _pick(weights: dict[str, Tensor], name: str) -> Tensor | None:
    """The tensor called `name`, also under the prefixes that published files put before it."""
    for prefix in ("", "vgg.", "net."):
        if prefix + name in weights:
            return weights[prefix + name]
    return None
