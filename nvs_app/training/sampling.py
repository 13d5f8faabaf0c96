"""From scenes with many views to training examples: choose views, normalise, augment; batched, on the device.

Everything draws from the generator it is given, so a step's examples are a function of (seed, step, rank).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import normalize_context
from nvs_app.scenes.posed import PosedImages
from nvs_app.training.capture import like_captures
from nvs_app.training.schedule import ViewCount


@dataclass(frozen=True)
class Examples:
    """A batch of training examples, cameras in the normalised frame.

    context_images [b, vc, 3, h, w] and target_images [b, vt, 3, h, w]: float32 in [0, 1].
    context_depth [b, vc, h, w], target_depth [b, vt, h, w]: z in units of the normalised frame, 0 without a surface,
    inf for sky, NaN where it is not known; None where no source of the run knows it.
    """

    context_images: Tensor
    context: Cameras
    target_images: Tensor
    target: Cameras
    context_depth: Tensor | None = None
    target_depth: Tensor | None = None


@dataclass(frozen=True)
class Augmentation:
    """Changes of a scene that keep its images and cameras consistent."""

    mirror: float = 0.0
    """Chance that the world is reflected (images flipped, cameras with it)."""
    colour: float = 0.0
    """Chance that colour channels are permuted and bent (x^gamma keeps black and white, so backgrounds stay)."""
    scale: float = 0.0
    """The normalised world is scaled by 1 - this to 1 + this."""
    repeat: float = 0.0
    """Chance that the first target is one of the context views, so that detail must come back whole."""
    capture: float = 0.0
    """Chance that the context looks like a real capture: light, lens, hand, noise, JPEG, cameras a little wrong."""
    flaws: dict[str, float] = field(default_factory=dict)
    """How strongly such a context is changed, FLAW SHARE ... in parts of the usual (0: not at all), of exposure, drift
    (of light along the walk), vignetting, defocus, motion (blur), rolling (shutter), sharpening, noise, jpeg, pose and
    focal; those left out: 1."""


@dataclass(frozen=True)
class PoolOptions:
    """What a process keeps of a source at one resolution, and how it draws from that.

    Attributes:
        size: scenes to hold, about. views: made, or kept, of each scene.
        fresh: new scenes a step (may be a fraction).
        even_view_prob: chance that context views are evenly spread.
        seed, rank, world: of the run; each process has scenes of its own.
    """

    image_hw: tuple[int, int]
    size: int
    views: int
    fresh: float
    even_view_prob: float
    seed: int
    rank: int = 0
    world: int = 1


def step_generator(seed: int, step: int, stream: int, device: torch.device | str) -> torch.Generator:
    """Random numbers of a step; `stream` keeps ranks and purposes apart."""
    mixed = (seed * 1_000_003 + step) * 8191 + stream
    return torch.Generator(device).manual_seed((mixed * 0x9E3779B97F4A7C15) % 2**63)


def sample_views(
    c2w: Float[Tensor, "b v 4 4"], num_context: int, num_target: int, even_view_prob: float, generator: torch.Generator
) -> Int[Tensor, "b k"]:
    """Indices of distinct views, context first: [b, num_context + num_target].

    With chance `even_view_prob` a scene's context is spread evenly (farthest point by camera position, in units of the
    mean distance from the mean position, and half as much by viewing direction), else it is random. Targets are random
    among the rest. With fewer views than asked for, the remaining targets repeat views that are not context.
    """
    b, v = c2w.shape[:2]
    device = c2w.device
    noise = torch.rand(b, v, generator=generator, device=device)
    spreads = torch.rand(b, 1, generator=generator, device=device) < even_view_prob
    targets = torch.rand(b, v, generator=generator, device=device)
    centres = c2w[..., :3, 3] - c2w[..., :3, 3].mean(1, keepdim=True)
    size = centres.norm(dim=-1).mean(1)[:, None, None].clamp_min(1e-6)
    features = torch.cat([centres / size, 0.5 * c2w[..., :3, 2]], dim=-1)
    distances = torch.cdist(features, features)
    order = noise.argsort(1, descending=True)
    picks = [order[:, :1]]
    nearest = torch.full((b, v), torch.inf, device=device)
    for _ in range(num_context - 1):
        row = distances.gather(1, picks[-1][..., None].expand(-1, 1, v))[:, 0]
        nearest = torch.minimum(nearest, row).scatter(1, picks[-1], -1.0)
        picks.append(nearest.argmax(1, keepdim=True))
    context = torch.where(spreads, torch.cat(picks, 1), order[:, :num_context])
    rest = targets.scatter(1, context, -1.0).argsort(1, descending=True)[:, : v - num_context]
    repeats = -(-num_target // rest.shape[1])
    return torch.cat([context, rest.repeat(1, repeats)[:, :num_target]], dim=1)


def draw_views(
    images: Sequence[Tensor],
    cameras: Sequence[Cameras],
    which: list[int],
    count: ViewCount,
    even_view_prob: float,
    generator: torch.Generator,
    device: torch.device,
) -> PosedImages:
    """Views of the scenes `which`, whose numbers of views differ: images [b, k, 3, h, w] and cameras, context first.

    images: [v, 3, h, w] of each scene; cameras: [v] of each, on the CPU. device: where what is drawn goes. See
    `sample_views`; a scene with too few views repeats context views rather than show a target.
    """
    num_context, num_target = count.context, count.target
    chosen, c2w, fxfycxcy = [], [], []
    for scene in which:
        own = cameras[scene]
        context = min(num_context, len(own.c2w) - 1)
        views = sample_views(own.c2w[None], context, num_context + num_target - context, even_view_prob, generator)[0]
        if context < num_context:
            views = torch.cat(
                [
                    views[:context].repeat(-(-num_context // context))[:num_context],
                    views[context : context + num_target],
                ]
            )
        chosen.append(images[scene][views.to(images[scene].device)])
        c2w.append(own.c2w[views])
        fxfycxcy.append(own.fxfycxcy[views])
    joined = Cameras(torch.stack(c2w), torch.stack(fxfycxcy), cameras[which[0]].image_hw)
    return PosedImages(torch.stack(chosen).to(device, non_blocking=True), joined.to(device))


def mirror_world(posed: PosedImages, mirrored: Tensor) -> PosedImages:
    """Reflect the worlds of the scenes where `mirrored` [b] holds: x -> -x.

    The reflected camera must stay right-handed, so its x axis turns too: R -> S R S, t -> S t, the image is
    flipped left to right and the principal point moves to width - cx.
    """
    cameras = posed.cameras
    sign = torch.ones(4, device=cameras.device)
    sign[0] = -1
    c2w = torch.where(mirrored[:, None, None, None], sign[:, None] * cameras.c2w * sign, cameras.c2w)
    intrinsics = cameras.fxfycxcy.clone()
    intrinsics[..., 2] = torch.where(mirrored[:, None], cameras.image_hw[1] - intrinsics[..., 2], intrinsics[..., 2])
    flip = mirrored[:, None, None, None]
    images = torch.where(flip[..., None], posed.images.flip(-1), posed.images)
    depth = None if posed.depth is None else torch.where(flip, posed.depth.flip(-1), posed.depth)
    return PosedImages(images, Cameras(c2w, intrinsics, cameras.image_hw), depth)


def change_colours(images: Tensor, changed: Tensor, generator: torch.Generator) -> Tensor:
    """Permute and bend the colour channels of the scenes where `changed` [b] holds; float images in [0, 1]."""
    b, device = images.shape[0], images.device
    order = torch.rand(b, 3, generator=generator, device=device).argsort(1)
    gamma = torch.exp((torch.rand(b, 3, generator=generator, device=device) - 0.5) * 0.6)
    permuted = images.gather(2, order[:, None, :, None, None].expand_as(images))
    bent = permuted.clamp_min(1e-6).pow(gamma[:, None, :, None, None])
    return torch.where(changed[:, None, None, None, None], bent, images)


def repeat_context(posed: PosedImages, num_context: int, repeated: Tensor, generator: torch.Generator) -> PosedImages:
    """Put a random context view in place of the first target in the scenes where `repeated` [b] holds."""
    b, k = posed.images.shape[:2]
    device = posed.images.device
    drawn = torch.randint(num_context, (b,), generator=generator, device=device)
    index = torch.arange(k, device=device).repeat(b, 1)
    index[:, num_context] = torch.where(repeated, drawn, num_context)
    rows = torch.arange(b, device=device)[:, None]
    return posed[rows, index]


def make_examples(
    posed: PosedImages, num_context: int, augmentation: Augmentation, generator: torch.Generator
) -> Examples:
    """uint8 images [b, k, 3, h, w] and cameras [b, k], context first -> normalised, augmented float examples.

    The frame and scale come from the context cameras alone, as they will when the model is used.
    """
    b, device = posed.images.shape[0], posed.images.device
    chances = torch.rand(b, 3, generator=generator, device=device)
    if augmentation.repeat:
        repeated = torch.rand(b, generator=generator, device=device) < augmentation.repeat
        posed = repeat_context(posed, num_context, repeated, generator)
    if augmentation.mirror:
        posed = mirror_world(posed, chances[:, 0] < augmentation.mirror)
    images = posed.images.float().mul_(1 / 255)
    if augmentation.colour:
        images = change_colours(images, chances[:, 1] < augmentation.colour, generator)
    transform = normalize_context(posed.cameras.c2w[:, :num_context], "auto")
    cameras, scale = transform.normalise(posed.cameras), transform.scale.float()
    if augmentation.scale:
        factor = 1 + augmentation.scale * (2 * chances[:, 2] - 1)
        c2w = cameras.c2w.clone()
        c2w[..., :3, 3] *= factor[:, None, None]
        cameras, scale = Cameras(c2w, cameras.fxfycxcy, cameras.image_hw), scale * factor
    context_images, context = images[:, :num_context], cameras[:, :num_context]
    if augmentation.capture:
        real = torch.rand(b, generator=generator, device=device) < augmentation.capture
        context_images, context = like_captures(context_images, context, real, generator, augmentation.flaws)
    depth = None if posed.depth is None else posed.depth.float() * scale[:, None, None, None]
    return Examples(
        context_images, context, images[:, num_context:], cameras[:, num_context:],
        None if depth is None else depth[:, :num_context], None if depth is None else depth[:, num_context:],
    )  # fmt: skip
