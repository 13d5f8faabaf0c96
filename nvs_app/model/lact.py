"""LaCT: posed images are written once into fast weights; any camera is rendered from those weights.

    model = LaCT(LaCTConfig(dim=384, blocks=10))
    state = model.encode(images, context_cameras)       # [b, v, 3, h, w] and [b, v] cameras
    images = model.decode(state, target_cameras)      # [b, t, 3, h, w]

`forward` composes the two in one pass for training. Cameras given here are already in the normalised frame
(`nvs_app.geometry.normalize`); `nvs_app.rendering.renderer.Renderer` does that for a scene.

A network with a detail head (`nvs_app.model.detail`) is given the photos at their own resolution too, and renders with
`decode_detail` at any resolution; LaCT itself reads and renders smaller images then.
Source: arXiv 2505.23884, section 5 (novel view synthesis).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nvs_app.distributed import World
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.rays import ray_features
from nvs_app.model.blocks import Block, RayRotary, scaled_init
from nvs_app.model.compilation import compiled, plainly
from nvs_app.model.config import LaCTConfig
from nvs_app.model.detail import ContextViews, DetailHead, DetailOutput, Sampling
from nvs_app.model.fast_weights import KeyValueLR
from nvs_app.model.fused import FastMatrices, FusedBlock
from nvs_app.model.rotary import patch_rays, ray_coordinates, rotary_cos_sin
from nvs_app.model.state import FastWeights, SceneState

RAY_CHANNELS = 9
INPUT_CHANNELS = RAY_CHANNELS + 3
Prepared = list[FastWeights | FastMatrices]
CONTEXT_BUCKETS = (8, 12)
# Keys and values of so many tokens are kept from one write step to the next; of more they are made anew.
KV_CACHE_MAX_TOKENS = 2**16


def patchify(x: Float[Tensor, "b v c h w"], patch: int) -> Float[Tensor, "b v n f"]:
    """Cut images into patches, row by row; features of a patch run over (row, column, channel)."""
    b, v, c, h, w = x.shape
    x = x.view(b, v, c, h // patch, patch, w // patch, patch).permute(0, 1, 3, 5, 4, 6, 2)
    return x.reshape(b, v, (h // patch) * (w // patch), patch * patch * c)


def unpatchify(x: Float[Tensor, "b v n f"], patch: int, image_hw: tuple[int, int]) -> Float[Tensor, "b v c h w"]:
    """The reverse of `patchify`."""
    b, v = x.shape[:2]
    rows, columns = image_hw[0] // patch, image_hw[1] // patch
    x = x.view(b, v, rows, columns, patch, patch, -1).permute(0, 1, 6, 2, 4, 3, 5)
    return x.reshape(b, v, -1, *image_hw)


def copied_beside(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`; from the CPU to a GPU it is copied beside the work that waits there, not behind it."""
    if x.device.type != "cpu" or device.type != "cuda":
        return x.to(device)
    beside, own = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(beside):
        there = x.to(device, non_blocking=True)
    own.wait_stream(beside)
    there.record_stream(own)
    return there


class LaCT(nn.Module):
    """The network. `card` describes a loaded checkpoint (name, hash, normalization, …), else empty."""

    def __init__(self, config: LaCTConfig) -> None:
        super().__init__()
        self.config = config
        self.card: dict[str, Any] = {}
        self.activation_checkpointing = False
        self.patch_embed = nn.Linear(INPUT_CHANNELS * config.patch**2, config.dim, bias=False)
        self.input_norm = nn.LayerNorm(config.dim, bias=False)
        first = Block(config)
        start_of = first.fast if config.share_initial_weights else None
        self.blocks = nn.ModuleList([first, *(Block(config, start_of) for _ in range(config.blocks - 1))])
        self.output_norm = nn.LayerNorm(config.dim, bias=False)
        self.output_linear = nn.Linear(config.dim, 3 * config.patch**2, bias=False)
        scaled_init(self, num_residuals=3 * config.blocks)
        self.detail_head = None if config.detail_head is None else DetailHead(config.detail_head, config.dim)
        self._fused: list[FusedBlock] | None = None
        self._call: Callable = plainly  # or `compiled`: how what is not a block is called for rendering

    def fuse(self, dtype: torch.dtype | None, compile: bool = False) -> None:
        """From now on encode and decode scenes one at a time through `FusedBlock`s, which compute in `dtype` with the
        weights as they are now; None: through the plain blocks again. compile: compile what lies between products, once
        for all sizes; rays, output and detail head, which matter for one view, once for each size of views."""
        self._fused = None if dtype is None else [FusedBlock(block, dtype, compile) for block in self.plain_blocks()]
        self._call = compiled if compile else plainly

    def with_own_modules(self) -> LaCT:
        """The same modules anew around the very same parameters: setting one there leaves this network as it is. Its
        blocks are not fused."""
        shared = [*self.parameters(), *([] if self._fused is None else [self._fused])]
        network = copy.deepcopy(self, {id(value): value for value in shared})
        network._fused = None
        return network

    def compile_blocks(self) -> None:
        """Compile the block once, for training; all blocks share the code, so one compilation serves them all."""
        for block in self.blocks:
            block.compile()
        if self.detail_head is not None:
            self.detail_head.compile_parts()

    def embed(self, images: Shaped[Tensor, "b v 3 h w"] | None, cameras: Cameras) -> Float[Tensor, "b v n c"]:
        """Tokens of posed images, in [0, 1] or uint8; of cameras alone where `images` is None: zeros for colours."""
        height, width = cameras.image_hw
        if height % self.config.patch or width % self.config.patch:
            raise NVSError(f"image size {height}x{width}: expected multiples of the patch, {self.config.patch} pixels")
        with torch.autocast(device_type=cameras.c2w.device.type, enabled=False):
            rays = ray_features(cameras)
            if images is not None and images.dtype == torch.uint8:
                images = images.to(rays.dtype) / 255
            colours = torch.zeros_like(rays[:, :, :3]) if images is None else images.to(rays.dtype) * 2 - 1
            features = patchify(torch.cat([rays, colours], dim=2), self.config.patch)
        tokens = self.input_norm(self.patch_embed(features).float())
        # Under autocast the residual stream is bfloat16: half the traffic of every norm and every addition.
        device = tokens.device.type
        return tokens.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tokens

    def phases(self, cameras: Cameras) -> RayRotary:
        """Rotary phases of all tokens of the cameras [b, v]."""
        config = self.config
        if not config.rotary_parts:
            return RayRotary()
        coordinates = ray_coordinates(patch_rays(cameras, config.patch))
        flat, in_view = coordinates.flatten(1, 2), coordinates.flatten(0, 1)
        attention, fast = ("attention" in config.rotary_parts), ("fast" in config.rotary_parts)
        return RayRotary(
            rotary_cos_sin(in_view, config.attention_head_dim, config) if attention else None,
            rotary_cos_sin(flat, config.fast_head_dim, config) if fast else None,
            rotary_cos_sin(flat, config.fast_hidden, config) if fast else None,
        )

    def _images(self, normed: Float[Tensor, "b v n c"], image_hw: tuple[int, int]) -> Float[Tensor, "b v 3 h w"]:
        return unpatchify(self.output_linear(normed).float().sigmoid(), self.config.patch, image_hw)

    def token_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """The grid of tokens of an image."""
        return image_hw[0] // self.config.patch, image_hw[1] // self.config.patch

    def encode(
        self,
        images: Shaped[Tensor, "b v 3 h w"],
        cameras: Cameras,
        views_per_chunk: int | None = None,
        progress: Callable[[float], None] | None = None,
        photos: Float[Tensor, "b v 3 h2 w2"] | None = None,
        photo_cameras: Cameras | None = None,
        world: World | None = None,
    ) -> SceneState:
        """Write posed images into fast weights.

        Args:
            images: [b, v, 3, h, w] in [0, 1], or uint8, h and w multiples of the patch. They may lie on the CPU: each
                group of views is copied while the one before is worked at.
            cameras: [b, v], normalised frame.
            views_per_chunk: bounds memory: views are pushed through a block in groups; the result is the same
                up to rounding because the update is a sum over tokens.
            progress: called with the fraction done after each group in each block.
            photos, photo_cameras: the same views at the resolution that a detail head is to look at, [b, v, 3, H, W]
                in [0, 1] with sides that are multiples of 8; a network without a head ignores them.
            world: processes that encode this scene together, all called with the same arguments: each pushes its
                share of the views through, and what they ask the fast weights for is summed, a block at a time (of 28
                MB at most: about 0.1 ms over NVLink, so there is nothing to gain from hiding it). All return the same.
        Returns:
            SceneState with `transform` None; decode takes cameras of the same frame.
        """
        views = images.shape[1]
        world = world if world is not None and 1 < world.size <= views else None
        first, last = (0, views) if world is None else world.share(views)
        chunk = views_per_chunk or views
        groups = [slice(i, min(i + chunk, last)) for i in range(first, last, chunk)]
        tokens: list[Tensor] = []
        patches: list[Tensor | None] = []
        phases = [self.phases(cameras[:, group]) for group in groups]
        layers: list[FastWeights] = []
        rows, columns = self.token_hw(cameras.image_hw)
        keep = self.config.write_steps > 1 and len(images) * views * rows * columns <= KV_CACHE_MAX_TOKENS
        for block in self._inference_blocks(len(images)):
            weights: FastWeights | None = None
            written: FastWeights | FastMatrices | None = None
            kept: list[KeyValueLR] = []
            for step in range(self.config.write_steps):
                total: FastWeights | None = None
                for i, group in enumerate(groups):
                    if not layers and not step:
                        there = copied_beside(images[:, group], cameras.c2w.device)
                        tokens.append(self.embed(there, cameras[:, group]))
                        seen = self._patches(tokens[i])
                        patches.append(None if seen is None else seen.clone())  # fused blocks overwrite the tokens
                    if step == 0:
                        tokens[i] = block.attend(tokens[i], phases[i])
                    key_value_lr = kept[i] if keep and step else block.key_value_lr(tokens[i], phases[i], patches[i])
                    if keep and not step:
                        kept.append(key_value_lr)
                    part = block.gradient(key_value_lr, phases[i], written)  # type: ignore[arg-type]
                    total = part if total is None else FastWeights(*map(torch.add, total, part))
                    if progress is not None:
                        share = (step + (i + 1) / len(groups)) / self.config.write_steps
                        progress((len(layers) + share) / len(self.blocks))
                assert total is not None
                if world is not None:
                    total = FastWeights(*(part.float() for part in total))
                    world.sum_(*total)
                weights = block.step(total, weights)  # type: ignore[arg-type]
                written = block.prepare(weights)
            assert weights is not None and written is not None
            layers.append(weights)
            if len(layers) < len(self.blocks) or photos is not None:  # the last block's tokens are the head's only
                for i, turn in enumerate(phases):
                    tokens[i] = block.read(tokens[i], written, turn)  # type: ignore[arg-type]
        if self.detail_head is None or photos is None:
            return SceneState(layers)
        assert photo_cameras is not None
        normed = self.output_norm(torch.cat(tokens, 1))
        if world is not None:
            everyone = normed.new_zeros(len(normed), views, *normed.shape[2:])
            everyone[:, first:last] = normed
            world.sum_(everyone)
            normed = everyone
        views_at_once = views_per_chunk if views_per_chunk and views_per_chunk < views else None
        context = self.context_views(normed, cameras.image_hw, photos, photo_cameras, views_at_once)
        return SceneState(layers, context=context)

    def prepare(self, state: SceneState) -> Prepared:
        """A state's fast weights as the blocks read them; for whoever decodes from one state again and again."""
        blocks = self._inference_blocks(len(state.fast_weights[0].w0))
        return [block.prepare(w) for block, w in zip(blocks, state.fast_weights, strict=True)]

    def decode(
        self, state: SceneState, cameras: Cameras, prepared: Prepared | None = None
    ) -> Float[Tensor, "b v 3 h w"]:
        """Render cameras [b, v] of the normalised frame from fast weights; values in [0, 1], float32.

        prepared: what `prepare(state)` gave.
        """
        if len(state.fast_weights) != len(self.blocks):
            raise NVSError(
                f"scene state has {len(state.fast_weights)} layers, the checkpoint {len(self.blocks)}: "
                "encode the scene with this checkpoint"
            )
        tokens = self._target_tokens(state, cameras, prepared)
        return self._call(LaCT._images)(self, tokens, cameras.image_hw)

    def decode_detail(
        self,
        state: SceneState,
        cameras: Cameras,
        image_hw: tuple[int, int],
        sampling: Sampling | None = None,
        prepared: Prepared | None = None,
    ) -> DetailOutput:
        """Render cameras [b, v] through the detail head.

        image_hw: the size that LaCT renders at, multiples of the patch; the head renders at `cameras.image_hw`.
        sampling: how closely the head looks. prepared: what `prepare(state)` gave.
        """
        assert self.detail_head is not None and state.context is not None
        tokens = self._target_tokens(state, cameras.scaled_to(image_hw), prepared)
        lact_images = self._call(LaCT._images)(self, tokens, image_hw)
        return self.detail_head(
            tokens, self.token_hw(image_hw), lact_images, state.context, cameras, sampling or Sampling(), self._call
        )

    def context_views(
        self,
        tokens: Tensor,
        image_hw: tuple[int, int],
        photos: Tensor,
        photo_cameras: Cameras,
        views_per_chunk: int | None = None,
    ) -> ContextViews:
        """What the detail head keeps of the context; tokens: behind the output norm, of images of `image_hw`."""
        assert self.detail_head is not None
        grid = self.token_hw(image_hw)
        return self.detail_head.context_views(tokens, grid, photos, photo_cameras, views_per_chunk=views_per_chunk)

    def _start(self, cameras: Cameras) -> tuple[Float[Tensor, "b v n c"], tuple]:
        """Tokens of target cameras before the first block, and their `RayRotary` as a plain tuple: compiled code of
        some versions of torch cannot return objects of other classes."""
        return self.embed(None, cameras), tuple(self.phases(cameras))

    def _target_tokens(
        self, state: SceneState, cameras: Cameras, prepared: Prepared | None = None
    ) -> Float[Tensor, "b v n c"]:
        """Tokens of target cameras behind the output norm."""
        x, turns = self._call(LaCT._start)(self, cameras)
        phases = RayRotary(*turns)
        layers = self.prepare(state) if prepared is None else prepared
        for block, weights in zip(self._inference_blocks(len(x)), layers, strict=True):
            x = block.read(block.attend(x, phases), weights, phases)  # type: ignore[arg-type]
        return self.output_norm(x)

    def forward(
        self, images: Float[Tensor, "b v 3 h w"], context: Cameras, target: Cameras
    ) -> Float[Tensor, "b t 3 h w"]:
        """encode + decode in one pass, for training: images of the target cameras [b, t].

        Compiled blocks want few shapes: the views that may write are rounded up to one of `CONTEXT_BUCKETS` (to a
        multiple of the last), those beyond v with weight 0, so that one compilation serves up to eight context views
        of sixteen, and another up to twelve.
        """
        tokens = self.tokens(images, context, target)
        return self._images(tokens[:, images.shape[1] :], target.image_hw)

    def forward_detail(
        self,
        images: Float[Tensor, "b v 3 h w"],
        context: Cameras,
        target: Cameras,
        photos: Float[Tensor, "b v 3 h2 w2"],
        photo_cameras: Cameras,
        render_cameras: Cameras,
        sampling: Sampling | None = None,
    ) -> tuple[Float[Tensor, "b t 3 h w"], ContextViews, DetailOutput]:
        """`forward` and the detail head in one pass, for training: LaCT's own images, the context views, the output.

        images, context, target: at LaCT's resolution; photos, photo_cameras, render_cameras: the same at the head's.
        sampling: how closely the head looks.
        """
        assert self.detail_head is not None
        tokens, v = self.tokens(images, context, target), images.shape[1]
        lact_images = self._images(tokens[:, v:], target.image_hw)
        views = self.context_views(tokens[:, :v], context.image_hw, photos, photo_cameras)
        grid = self.token_hw(target.image_hw)
        sampling = sampling or Sampling()
        return lact_images, views, self.detail_head(tokens[:, v:], grid, lact_images, views, render_cameras, sampling)

    def tokens(
        self, images: Float[Tensor, "b v 3 h w"], context: Cameras, target: Cameras
    ) -> Float[Tensor, "b v2 n c"]:
        """Tokens behind the output norm, those of the context first, then those of the targets; see `forward`."""
        cameras = Cameras.cat([context, target], dim=1)
        v = images.shape[1]
        x = torch.cat([self.embed(images, context), self.embed(None, target)], dim=1)
        phases = self.phases(cameras)
        tokens_per_view = x.shape[2]
        most = CONTEXT_BUCKETS[-1]
        slots = next((slots for slots in CONTEXT_BUCKETS if v <= slots), -(-v // most) * most)
        slots = min(slots, cameras.shape[1])
        weight = torch.zeros(slots * tokens_per_view, 1, device=x.device)
        weight[: v * tokens_per_view] = 1
        patches = self._patches(x[:, :slots])
        for block in self.plain_blocks():
            start = block.fast.start()
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, weight, phases, start, patches, use_reentrant=False)
            else:
                x = block(x, weight, phases, start, patches)
        return self.output_norm(x)

    def _patches(self, tokens: Float[Tensor, "b v n c"]) -> Float[Tensor, "b m c"] | None:
        """Embedded tokens, for blocks to look at again; None where they do not, so that nobody keeps them."""
        return tokens.flatten(1, 2) if self.config.value_patch_skip else None

    def plain_blocks(self) -> Iterator[Block]:
        """The blocks, operation by operation."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def _inference_blocks(self, scenes: int) -> Iterator[Block | FusedBlock]:
        """The blocks that encode and decode `scenes` scenes at once."""
        if self._fused is None or scenes != 1 or torch.is_grad_enabled():
            return self.plain_blocks()
        return iter(self._fused)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[LaCT]:
        """Evaluation mode without gradients, then back as it was."""
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                yield self
        finally:
            self.train(training)
