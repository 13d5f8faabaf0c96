"""What encoding and adapting cost: operations, counted, and bytes, by models fitted to measurements."""

from __future__ import annotations

from nvs_app.model.flops import lact_flops
from nvs_app.rendering.plan import RenderPlan
from nvs_app.rendering.renderer import CUDA_TOKENS, Renderer

# Bytes a value that a detail head's sweep looks up, with what is computed from it; measured on CPUs, which score a few
# rows at a time, before and since they do.
SWEEP = {"cpu": 5, "cuda": 14}
GRADIENT_TOKEN, GRADIENT_PIXEL = 170, 12_000  # bytes a channel and block, and a pixel, of a step of adapting; the same
SPARE = 0.9  # of the free memory that work may take
FEATURES = 60  # bytes a pixel of the photos, of its convolutions


def encoding_flops(renderer: Renderer, views: int, image_hw: tuple[int, int]) -> float:
    """Floating-point operations of encoding `views` photos of `image_hw`."""
    plan = renderer.plan_encode(image_hw)
    flops = lact_flops(renderer.model.config, views * plan.tokens, 0, plan.tokens)
    head = renderer.model.config.detail_head
    if head is None or not renderer.detail:
        return flops
    # 3x3 convolutions at a half, a quarter and an eighth of the resolution; the sweep is as much as those of the guide.
    half, quarter = 12 * 32 + 2 * 32 * 32, 128 * 64 + 4 * 64 * 64 + 64 * head.features
    eighth = (64 + head.features) * head.guide + 4 * head.guide**2
    pixels = views * plan.render_hw[0] * plan.render_hw[1]
    return flops + 18.0 * pixels * (half / 4 + quarter / 16 + 2 * eighth / 64)


def encoding_bytes(renderer: Renderer, views: int, image_hw: tuple[int, int]) -> int:
    """Memory that encoding `views` photos of `image_hw` takes on the renderer's device, beyond the network itself.

    What stays for each token (pixels, rotary phases, the token twice, thrice where v sees the patch), what a group of
    views needs while it passes a block (about 170 bytes a channel, measured on CPUs), the fast weights with their
    gradients; and with a detail head, after that, what it works with and what the state keeps for it.
    """
    config, patch = renderer.model.config, renderer.patch
    plan = renderer.plan_encode(image_hw)
    tokens = views * plan.tokens
    rotary = 0
    if "attention" in config.rotary_parts:
        rotary += config.attention_head_dim
    if "fast" in config.rotary_parts:
        rotary += config.fast_head_dim + config.fast_hidden
    half = 2 if renderer.precision == "bf16" else 4
    copies = 3 if config.value_patch_skip else 2
    staying = tokens * (4 * 3 * patch**2 + half * rotary + copies * half * config.dim)
    passing = _views_at_once(renderer, plan, views) * plan.tokens * config.dim * 170
    heads = config.num_fast_heads
    weights = 3 * heads * config.fast_head_dim * config.fast_hidden * 4
    lact = int(1.2 * staying) + passing + weights * (config.blocks + 6)
    if config.detail_head is None or not renderer.detail:
        return lact
    # LaCT's tokens are still there when the head comes.
    kept = context_bytes(renderer, views, image_hw)
    return max(lact, int(1.2 * staying) + weights * config.blocks + _head_bytes(renderer, views, plan)) + kept


def adapting_bytes(renderer: Renderer, views: int, image_hw: tuple[int, int], groups: int, targets: int) -> int:
    """Memory that adapting a scene of `views` photos takes beyond the network and the scene (`adaptation.adapt`).

    The scene without each of `groups` of its views and without those that stop, and the work of writing them or of a
    step that renders `targets` views with gradients, whichever is more; the photos, and the network once more.
    """
    config = renderer.model.config
    plan = renderer.plan_encode(image_hw)
    weights = 12 * config.num_fast_heads * config.fast_head_dim * config.fast_hidden * config.blocks
    pixels = plan.render_hw[0] * plan.render_hw[1]
    step = targets * (plan.tokens * config.dim * config.blocks * GRADIENT_TOKEN + pixels * GRADIENT_PIXEL)
    scenes = (groups + 1) * (weights + context_bytes(renderer, views, image_hw))
    own = 2 * 4 * sum(value.numel() for value in renderer.model.parameters())
    return scenes + 24 * views * pixels + own + max(step, encoding_bytes(renderer, views, image_hw))


def context_bytes(renderer: Renderer, views: int, image_hw: tuple[int, int]) -> int:
    """What a state keeps of `views` photos of `image_hw` for the detail head: the photos as bytes, their features (and
    log depth and its scale) in half precision at a quarter of the resolution. 0 without a head."""
    head = renderer.model.config.detail_head
    if head is None or not renderer.detail:
        return 0
    height, width = renderer.plan_encode(image_hw).render_hw
    return views * (3 * height * width + 2 * (head.features + 2) * (height // 4) * (width // 4))


def _views_at_once(renderer: Renderer, plan: RenderPlan, views: int) -> int:
    return min(views, plan.views_at_once(CUDA_TOKENS if renderer.device.type == "cuda" else None))


def _head_bytes(renderer: Renderer, views: int, plan: RenderPlan) -> int:
    head = renderer.model.config.detail_head
    assert head is not None
    others = min(renderer.views or head.views, max(1, views - 1))
    looked_up = others * head.planes * (head.features + 2) / 64  # values a pixel: an eighth of the resolution
    pixels = plan.render_hw[0] * plan.render_hw[1]
    at_once = _views_at_once(renderer, plan, views)
    # The photos themselves and their features, float32, stay for all views.
    staying = views * pixels * (12 + (head.features + 2) / 4)
    return int(staying + at_once * pixels * (FEATURES + SWEEP.get(renderer.device.type, SWEEP["cuda"]) * looked_up))
