"""The one way from photos to views: the command line, the benchmark and the web page all call `Renderer`.

    renderer = Renderer.from_checkpoint("NAME")
    state = renderer.encode(scene.load(split.context, (256, 256)))     # once a scene
    images = renderer.render(state, orbit(cameras, 60))                # any camera, as often as you like
    views = renderer.render(state, cameras, depth=True)                # `RenderedViews`: depth too

It owns what a caller should not have to think about: the device, the precision, the normalisation of the cameras, the
sizes (`nvs_app.rendering.plan`), and how many views fit in memory at once.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.distributed import World
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.model.adapted import AdaptedWeights
from nvs_app.model.checkpoint import default_checkpoint, find_checkpoint, load_checkpoint
from nvs_app.model.detail import Sampling
from nvs_app.model.lact import LaCT, Prepared
from nvs_app.model.state import SceneState
from nvs_app.rendering.adapted_networks import AdaptedNetworks
from nvs_app.rendering.cuda_graphs import CudaGraphs
from nvs_app.rendering.device import PRECISIONS, OutOfMemory, fast_bfloat16, pick_device, within_memory
from nvs_app.rendering.inputs import ContextInputs, batched, cameras_text, context_inputs
from nvs_app.rendering.photos import photo_level
from nvs_app.rendering.plan import LaCTResolution, RenderPlan, plan_encode, plan_render
from nvs_app.rendering.ready import ReadyStates
from nvs_app.rendering.views import RenderedViews, views_of
from nvs_app.scenes.posed import PosedImages

CUDA_TOKENS = 65536  # rendered at once where memory suffices: a large GPU is busy with this many
_FIXED_CUDA_TOKENS = 32768
DEFAULT_IMAGE_HW = (256, 256)  # where a checkpoint's card names no size
_GRAPH_VIEWS = 2  # more views at once keep a GPU busy without a recording


class Renderer:
    """Encodes posed photos into a `SceneState` and renders cameras from it, without gradients.

    Args:
        model: the network; it is moved to `device` and set to eval mode.
        device: None takes the first GPU, or the CPU where there is none.
        precision: "fp32", "bf16" (autocast), or "auto": bf16 where the device multiplies it fast, see
            `fast_bfloat16`, else fp32.
        compile: compile what encoding and rendering call; takes some seconds once a process and pays on a GPU. The
            weights are then those of this moment.
        detail: whether a detail head, where the checkpoint has one, renders the views; without it LaCT does, alone.
        views: context views that the detail head looks at for each view; None: as the checkpoint is configured.
        lact: LaCT's resolution under the detail head; None: as the checkpoint's card says.

    Attributes:
        detail: whether a detail head renders the views.
    """

    def __init__(
        self,
        model: LaCT,
        device: torch.device | str | None = None,
        precision: str = "auto",
        compile: bool = False,
        detail: bool = True,
        views: int | None = None,
        lact: LaCTResolution | None = None,
    ):
        self.device = pick_device(device)
        if precision not in PRECISIONS:
            raise NVSError(f"precision: {precision!r}, expected one of {', '.join(PRECISIONS)}")
        if precision == "auto":
            precision = "bf16" if fast_bfloat16(self.device) else "fp32"
        self.precision = precision
        self.model = model.to(self.device).eval().requires_grad_(False)
        if compile:
            self.model.fuse(self.dtype, compile=True)
        self.card: dict = dict(getattr(model, "card", None) or {})
        self.patch: int = model.config.patch
        self.detail = detail and model.detail_head is not None
        self.lact = lact or LaCTResolution.of_card(self.card)
        if views is not None and views < 1:
            raise NVSError(f"views that the detail head looks at: {views}, expected 1 or more")
        self.views = views
        self._graphs = CudaGraphs()
        self._adapted = AdaptedNetworks(self.model, self._graphs.forget, self.dtype if compile else None)
        self._ready = ReadyStates(self.device)

    @classmethod
    def from_checkpoint(
        cls,
        name: str | Path | None = None,
        device: torch.device | str | None = None,
        precision: str = "auto",
        compile: bool = False,
        detail: bool = True,
        views: int | None = None,
        lact: LaCTResolution | None = None,
    ) -> Renderer:
        """Loads a checkpoint by its name in checkpoints/ or by its folder; None takes `default_checkpoint()`.
        Raises NVSError when it is not there."""
        device = pick_device(device)
        model = load_checkpoint(name or default_checkpoint(), device=device)
        renderer = cls(model, device, precision, False, detail, views, lact)
        if renderer.precision == "bf16":
            # Autocast would round the same matrices for every image; nobody else holds this network. The norms of
            # q and k get bfloat16 too, and one fused operation takes only both of one type.
            renderer._adapted.exact = functools.partial(load_checkpoint, find_checkpoint(name or default_checkpoint()))
            for name, module in renderer.model.named_modules():
                if isinstance(module, torch.nn.Conv2d):
                    module.to(torch.bfloat16)
                elif isinstance(module, torch.nn.Linear) or name.endswith((".q_norm", ".k_norm")):
                    module.weight.data = module.weight.data.bfloat16()
        if compile:
            renderer.model.fuse(renderer.dtype, compile=True)
        return renderer

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def train_image_hw(self) -> tuple[int, int]:
        """The image size that the checkpoint was trained at, from its card; 256x256 where it does not say."""
        value = self.card.get("train_image_hw")
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(side) is int for side in value):
            return (value[0], value[1])
        return DEFAULT_IMAGE_HW

    def plan_encode(self, image_hw: tuple[int, int], detail: bool | None = None) -> RenderPlan:
        """How `encode` reads photos of `image_hw`; detail: whether for a detail head, if not as this renderer does."""
        detail = self.detail if detail is None else detail
        return plan_encode(image_hw, self.patch, self.lact if detail else None)

    def plan_render(self, image_hw: tuple[int, int], state: SceneState | None = None) -> RenderPlan:
        """How `render` renders views of `image_hw`; state: LaCT alone renders one that holds no photos."""
        detail = self.detail and (state is None or state.context is not None)
        return plan_render(image_hw, self.patch, self.lact if detail else None)

    def fixed_chunk(self, image_hw: tuple[int, int]) -> int | None:
        """`chunk` for figures that must not depend on how much memory is free; None on a CPU, where it never does."""
        return self.plan_render(image_hw).views_at_once(_FIXED_CUDA_TOKENS) if self.device.type == "cuda" else None

    def settings(self, image_hw: tuple[int, int] | None = None) -> dict[str, int | bool | str]:
        """How it renders, as reports say it: "detail", the context "views" that the head looks at for a view, and, for
        views of `image_hw`, the words of their "plan"."""
        head = self.model.config.detail_head
        values: dict[str, int | bool | str] = {"detail": self.detail}
        if self.detail and head:
            values["views"] = self.views or head.views
        if image_hw is not None:
            values["plan"] = self.plan_render(image_hw).words
        return values

    def encode(
        self,
        posed: PosedImages,
        transform: SimilarityTransform | None = None,
        progress: Callable[[float], None] | None = None,
        chunk: int | None = None,
        world: World | None = None,
    ) -> SceneState:
        """Writes the context views into fast weights, and keeps what a detail head looks at.

        posed: images [v, 3, H, W], float in [0, 1] or uint8; cameras [v] in the scene's own frame (OpenCV axes). Sides
            that are no multiple of the patch are cut evenly at both ends, at most patch - 1 pixels in all, and the
            principal point moves along: no pixel is resampled. LaCT reads them at `plan_encode(...).lact_hw`.
        transform: the scene's frame to that of the fast weights, batch shape [1], where it should not come from
            these cameras (benchmarks that normalise with the target cameras included).
        progress: called with the fraction done, several times a block; what it raises stops the work.
        chunk: views pushed through a block at once; None chooses by memory. Another number rounds otherwise.
        world: processes of torchrun that encode this scene together, one a GPU, all with the same arguments; each works
            at its share of the views (of a scene with fewer views than processes, at all), and all return the state.

        Returns a state whose `transform` maps the scene's frame to the frame of the fast weights (batch shape
        [1]), computed from these cameras alone with the preset of the model's card, and whose `meta` names the
        checkpoint and holds the context cameras (see `context_cameras`) as they were given, or cut.

        Raises NVSError when there is no view, when a side is shorter than a patch, or when memory does not suffice.
        """
        inputs = self.inputs(posed, transform)
        plan, cameras, views = inputs.plan, inputs.cameras, len(inputs.photos)
        what = f"encode: {views} context views of {plan.render_hw[0]}x{plan.render_hw[1]}"
        normalised = inputs.normalised
        photos, photo_cameras = (inputs.photos[None], normalised) if plan.detail else (None, None)
        group = min(views, chunk or self._views_at_once(plan))
        while True:
            try:
                with self.inference(what, "give fewer or smaller views"):
                    state = self.model.encode(
                        inputs.small[None], normalised.scaled_to(plan.lact_hw), views_per_chunk=group,
                        progress=progress, photos=photos, photo_cameras=photo_cameras, world=world,
                    )  # fmt: skip
                break
            except OutOfMemory:
                if group == 1 or world is not None:  # others would wait for this process
                    raise
                group = (group + 1) // 2
        meta = {
            **state.meta,
            "checkpoint": str(self.card.get("name", "")),
            "checkpoint_hash": str(self.card.get("hash", "")),
            "normalization": self.preset,
            "context_cameras": cameras_text(cameras),
        }
        context = None if state.context is None else state.context.stored()
        return replace(state, transform=inputs.transform, meta=meta, context=context)

    @property
    def preset(self) -> str:
        """How cameras are normalised."""
        return str(self.card.get("normalization", "auto"))

    def original(self) -> LaCT:
        """The network with the checkpoint's weights as they are on disk, not rounded to bfloat16; not to be changed.
        Raises NVSError where the checkpoint was replaced meanwhile."""
        return self._adapted.original().to(self.device)

    def apart(self) -> Renderer:
        """This renderer, but with caches of its own, and `original` at hand."""
        own, original = copy.copy(self), self.original()
        own._graphs = CudaGraphs()
        own._ready = ReadyStates(self.device)
        own._adapted = self._adapted.apart(own._graphs.forget, original)
        return own

    def network(self, adapted: AdaptedWeights | None) -> LaCT:
        """The network with a scene's own weights; the renderer's, as it is, without. Raises NVSError where they do not
        fit."""
        return self.model if adapted is None else self._adapted.network(adapted)

    def inputs(self, posed: PosedImages, transform: SimilarityTransform | None = None) -> ContextInputs:
        """Context views as the network reads them, see `encode`. Raises NVSError."""
        return context_inputs(posed, self.plan_encode, self.device, self.preset, transform)

    @overload
    def render(
        self, state: SceneState, cameras: Cameras, chunk: int | None = None,
        progress: Callable[[int], None] | None = None, depth: Literal[False] = False,
    ) -> Tensor: ...  # fmt: skip
    @overload
    def render(
        self, state: SceneState, cameras: Cameras, chunk: int | None = None,
        progress: Callable[[int], None] | None = None, *, depth: Literal[True],
    ) -> RenderedViews: ...  # fmt: skip
    def render(
        self,
        state: SceneState,
        cameras: Cameras,
        chunk: int | None = None,
        progress: Callable[[int], None] | None = None,
        depth: bool = False,
    ) -> Float[Tensor, "v 3 h w"] | RenderedViews:
        """What `cameras` see: images, float32 in [0, 1], on the CPU, [v, 3, *cameras.image_hw].

        state: from `encode`, or loaded from a file.
        cameras: [v], in the scene's own frame, OpenCV axes, any image_hw: the frame is grown at the right and bottom
            to what `plan_render` says (the principal point stays), and the excess is cut off.
        chunk: views rendered at once; None chooses by memory, and halves when the GPU's memory runs out.
        progress: called with the number of new views after each chunk.
        depth: return `RenderedViews`: depth, its uncertainty, surfaces and what photos show, beside the images.

        Raises NVSError for a state of another checkpoint, and for `depth` where there is no detail head.
        """
        if not len(cameras):
            raise NVSError("render: no camera was given")
        parts = []
        for part in self.stream(state, cameras, chunk, depth=depth):
            parts.append(part)
            if progress is not None:
                progress(len(part))
        return RenderedViews.cat(parts) if depth else torch.cat(parts)

    def stream(
        self,
        state: SceneState,
        cameras: Cameras,
        chunk: int | None = None,
        on_device: bool = False,
        depth: bool = False,
        quick: bool = False,
    ) -> Iterator:
        """As `render`, but yields [n, 3, H, W] (or `RenderedViews`) as soon as a chunk is rendered, so that a long path
        needs no memory.

        on_device: leave them on the device, where a benchmark compares them. quick: the detail head looks less closely
            (fewer context views and depths), for a frame that must come soon.
        """
        self._check_state(state, depth)
        height, width = cameras.image_hw
        plan = self.plan_render((height, width), state)
        with self.inference("render: the scene's fast weights", "render on another device"):
            network = self.network(state.adapted)
            state, prepared = self._ready(state, network)
        cameras = Cameras(cameras.c2w.double(), cameras.fxfycxcy.float(), plan.render_hw).to(self.device)
        chunk = max(1, chunk or self._views_at_once(plan))
        done = 0
        while done < len(cameras):
            part = batched(cameras[done : done + chunk])
            try:
                with self.inference(f"render: a view of {height}x{width}", "ask for a smaller size"):
                    views = self._rendered(network, state, prepared, part, plan, quick, depth)
                    if self.device.type == "cuda":  # a replay would overwrite them
                        views = views.clone() if on_device else views.to("cpu")
            except OutOfMemory:
                if chunk == 1:
                    raise
                chunk = chunk // 2
                continue
            yield views
            done += len(views)

    def _sampling(self, level: int, quick: bool) -> Sampling:
        head = self.model.config.detail_head
        if quick and head is not None:
            return head.quick(self.views, level)
        return Sampling(views=self.views, photo_level=level)

    def _rendered(
        self,
        network: LaCT,
        state: SceneState,
        prepared: Prepared,
        cameras: Cameras,
        plan: RenderPlan,
        quick: bool,
        depth: bool,
    ) -> Tensor | RenderedViews:
        """The views of a chunk of cameras, on the device; valid until the next call."""
        sampling = self._sampling(photo_level(state, cameras) if plan.detail else 0, quick)

        def work(c2w: Tensor, fxfycxcy: Tensor) -> Tensor | RenderedViews:
            own = Cameras(c2w, fxfycxcy, cameras.image_hw)
            own = replace(own, c2w=c2w.float()) if state.transform is None else state.transform.normalise(own)
            if not plan.detail:
                height, width = plan.image_hw
                return network.decode(state, own, prepared)[0].float()[..., :height, :width]
            output = network.decode_detail(state, own, plan.lact_hw, sampling, prepared)
            if not depth:
                height, width = plan.image_hw
                return output.images[0].float().clamp(0, 1)[..., :height, :width]
            return views_of(output, state.transform, plan.image_hw)

        if self.device.type != "cuda" or cameras.shape[1] > _GRAPH_VIEWS:
            return work(cameras.c2w, cameras.fxfycxcy)
        reads = [state.fast_weights[0].w0.data_ptr(), 0 if state.context is None else state.context.images.data_ptr()]
        key = (id(network), *reads, plan, sampling, cameras.shape[1], depth)
        return self._graphs.run(key, work, cameras.c2w, cameras.fxfycxcy, holds=(network, state, prepared))

    def _views_at_once(self, plan: RenderPlan) -> int:
        if self.device.type != "cuda":
            return plan.views_at_once(None)
        free, _ = torch.cuda.mem_get_info(self.device)
        # Some 40 values of 4 bytes live at once for a channel of a token (the MLP's hidden layer is 4 of them).
        fitting = int(free * 0.5) // (self.model.config.dim * 160)
        return plan.views_at_once(max(1, min(CUDA_TOKENS, fitting)))

    def _check_state(self, state: SceneState, depth: bool) -> None:
        """A state of another network renders noise, or fails deep inside; say it here."""
        if depth and not self.detail:
            raise NVSError(
                f"depth: checkpoint {self.card.get('name') or '?'} has no detail head in use, which is what knows depth"
            )
        if depth and state.context is None:
            raise NVSError("depth: the state holds no photos (it was encoded without them); encode the scene again")
        theirs, ours = state.meta.get("checkpoint_hash"), str(self.card.get("hash", ""))
        if theirs and ours and theirs != ours:
            raise NVSError(
                f"state: it was encoded by checkpoint {state.meta.get('checkpoint') or '?'} ({theirs[:12]}), this is "
                f"{self.card.get('name') or '?'} ({ours[:12]}); use that checkpoint or encode the scene again"
            )
        if len(state.fast_weights) != self.model.config.blocks:
            raise NVSError(
                f"state: {len(state.fast_weights)} blocks of fast weights, the checkpoint has "
                f"{self.model.config.blocks}; use the checkpoint that encoded it"
            )

    @contextlib.contextmanager
    def inference(self, what: str, remedy: str) -> Iterator[None]:
        """No gradients, our precision, and one clear sentence when memory runs out."""
        enabled = self.precision == "bf16"
        with (
            within_memory(self.device, what, remedy),
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False),
        ):
            yield
