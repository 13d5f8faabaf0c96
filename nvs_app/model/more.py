"""More views written into a scene that is written already, by a further step on the new ones alone: fast, approximate.

    state = write_more(network, state, images, cameras, share=8 / 24, photos=photos, photo_cameras=photo_cameras)

A step is orthogonalised, so that its size says nothing of how many tokens asked for it: at full size a few new views
would write over what many had written. `share` gives them their part. Writing all views again together is exact, and
takes as long as if none had been there.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.geometry.cameras import Cameras
from nvs_app.model.fast_weights import step_fast_weights
from nvs_app.model.lact import LaCT
from nvs_app.model.state import FastWeights, SceneState


def write_more(
    network: LaCT,
    state: SceneState,
    images: Float[Tensor, "1 v 3 h w"],
    cameras: Cameras,
    share: float,
    photos: Float[Tensor, "1 v 3 h2 w2"] | None = None,
    photo_cameras: Cameras | None = None,
) -> SceneState:
    """One further step of the fast weights on what they miss of these views.

    images, cameras, photos, photo_cameras: as `LaCT.encode` takes them, in the frame of `state`. share: of the new
    views among all, 0 to 1; the size of the step. Where `state` holds photos, the new ones join them.
    """
    tokens, phases = network.embed(images, cameras), network.phases(cameras)
    patches = tokens.flatten(1, 2) if network.config.value_patch_skip else None
    layers = []
    for block, before in zip(network.plain_blocks(), state.fast_weights, strict=True):
        tokens = block.attend(tokens, phases)
        gradient = block.gradient(block.key_value_lr(tokens, phases, patches), phases, before)
        fast = block.fast

        def part(directions: Tensor, steps: int, orthogonalise=fast.orthogonalise) -> Tensor:
            return share * orthogonalise(directions, steps)

        moved = step_fast_weights(before, gradient, fast.muon_steps, part)
        layers.append(FastWeights(*(weight.float() for weight in moved)))
        tokens = block.read(tokens, layers[-1], phases)
    context = state.context
    if context is not None and network.detail_head is not None and photos is not None:
        assert photo_cameras is not None
        normed, grid = network.output_norm(tokens), network.token_hw(cameras.image_hw)
        context = network.detail_head.more_views(context, normed, grid, photos, photo_cameras)
    return replace(state, fast_weights=layers, context=context)


def spread_out(c2w: Float[Tensor, "v 4 4"], keep: int) -> list[int]:
    """Numbers of `keep` views that are spread most evenly: again and again the nearer to the others of the two nearest
    ones goes. Nearness is of position, in units of the spread of all, and half as much of direction."""
    centres = c2w[:, :3, 3] - c2w[:, :3, 3].mean(0)
    features = torch.cat([centres / centres.norm(dim=-1).mean().clamp_min(1e-6), 0.5 * c2w[:, :3, 2]], -1).cpu()
    left = list(range(len(features)))
    distances = torch.cdist(features, features).fill_diagonal_(torch.inf)
    while len(left) > keep:
        own = distances[left][:, left]
        two = own.sort(-1).values[:, :2]
        nearest = two[:, 0] == two[:, 0].min()
        second = torch.where(nearest, two[:, -1], torch.inf)
        left.pop(int(second.argmin()))
    return left
