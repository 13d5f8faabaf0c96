"""The one way from pictures to pictures: the command line, the benchmark and the web page all call `Renderer`.

    renderer = Renderer.from_checkpoint("NAME")
    state = renderer.encode(scene.load(split.context, (256, 256)))     # once a scene
    images = renderer.render(state, orbit(cameras, 60))                # any camera, as often as you like

It owns what a caller should not have to think about: the device, the precision, the normalisation of the cameras,
sizes that are no multiple of the patch or too small to be drawn well (see `working_size`), and how many views fit in
memory at once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nvs_app.engine.borders import mended
from nvs_app.engine.grids import blended, checked_grids, inside, shifted
from nvs_app.engine.working_size import (
    checked_working_side,
    enlarge,
    enlarged_hw,
    finer_than,
    reduce,
    working_side_of,
)
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import SimilarityTransform, normalize_context
from nvs_app.model.checkpoint import (
    checkpoints_dir,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    read_description,
)
from nvs_app.model.lact import LaCT
from nvs_app.model.state import SceneState
from nvs_app.scenes.posed import PosedImages

PRECISIONS = ("auto", "fp32", "bf16")

# Tokens drawn at once. On two CPU cores larger batches gain nothing (they leave the cache: encoding 8 views of
# 256x256 was a tenth slower) and delay the first picture; a large GPU is busy with this many.
_CPU_CHUNK_TOKENS = 2048
_CUDA_CHUNK_TOKENS = 65536


class Renderer:
    """Encodes posed pictures into a `SceneState` and renders cameras from it, without gradients.

    Args:
        model: the network; it is moved to `device` and set to eval mode.
        device: None takes the first GPU, or the CPU where there is none.
        precision: "fp32", "bf16" (autocast), or "auto": bf16 where the device multiplies it fast, see
            `fast_bfloat16`, else fp32.
        compile: compile the blocks of the model; pays on a GPU after some tens of frames, gains nothing on a CPU.
        working_side: pixels; pictures whose shorter side is below it are written and drawn enlarged, see
            `working_size`. 0 takes pictures as they are given; None takes what the checkpoint's card says, else 0.
        grids: 2 draws every picture that need not be quick on two grids of patches, see `grids`; twice the time.
            None: two for pictures drawn at their own size, one for those drawn enlarged, in smaller patches.
        mend: whether the borders of patches are mended where pictures are drawn once, see `borders`.

    Attributes:
        working_side: the one in use. asked_working_side: the argument, None where the card was asked.
    """

    def __init__(
        self,
        model: LaCT,
        device: torch.device | str | None = None,
        precision: str = "auto",
        compile: bool = False,
        working_side: int | None = None,
        grids: int | None = None,
        mend: bool = True,
    ):
        self.device = pick_device(device)
        if precision not in PRECISIONS:
            raise NVSError(f"precision: {precision!r}, expected one of {', '.join(PRECISIONS)}")
        if precision == "auto":
            precision = "bf16" if fast_bfloat16(self.device) else "fp32"
        self.precision = precision
        self.model = model.to(self.device).eval().requires_grad_(False)
        if compile:
            self.model.compile_blocks()
        self.card: dict = dict(getattr(model, "card", None) or {})
        self.patch: int = model.config.patch
        self.grids, self.mend = None if grids is None else checked_grids(grids), mend
        self.asked_working_side = None if working_side is None else checked_working_side(working_side)
        self.working_side: int = (
            working_side_of(self.card) if self.asked_working_side is None else self.asked_working_side
        )

    @classmethod
    def from_checkpoint(
        cls,
        name: str | Path | None = None,
        device: torch.device | str | None = None,
        precision: str = "auto",
        compile: bool = False,
        working_side: int | None = None,
        grids: int | None = None,
        mend: bool = True,
    ) -> Renderer:
        """Loads a checkpoint by its name in checkpoints/ or by its folder; None takes `default_checkpoint()`.
        Raises NVSError when it is not there."""
        device = pick_device(device)
        model = load_checkpoint(name or default_checkpoint(), device=device)
        renderer = cls(model, device, precision, compile, working_side, grids, mend)
        if renderer.precision == "bf16":
            # Autocast would round the same matrices for every picture; nobody else holds this network. The norms of
            # q and k get bfloat16 too, and one fused operation takes only both of one type.
            for name, module in renderer.model.named_modules():
                if isinstance(module, torch.nn.Linear) or name.endswith((".q_norm", ".k_norm")):
                    module.weight.data = module.weight.data.bfloat16()
        return renderer

    def written_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """The size at which `encode` writes pictures of a size: enlarged to the working size, else cut to patches."""
        enlarged = enlarged_hw(image_hw, self.working_side, self.patch)
        if enlarged != tuple(image_hw):
            return enlarged
        return (image_hw[0] // self.patch * self.patch, image_hw[1] // self.patch * self.patch)

    def drawn_hw(self, image_hw: tuple[int, int], quick: bool = False, finer: float = 1.0) -> tuple[int, int]:
        """The size at which `render` draws pictures of a size: enlarged to the working size, or to be as fine as what
        was written (not if quick; finer: see `finer_than`), else grown at the right and bottom to whole patches."""
        enlarged = tuple(image_hw) if quick else enlarged_hw(image_hw, self.working_side, self.patch, finer)
        return (-(-enlarged[0] // self.patch) * self.patch, -(-enlarged[1] // self.patch) * self.patch)

    def grids_of(self, image_hw: tuple[int, int], quick: bool = False, finer: float = 1.0) -> int:
        """On how many grids of patches `render` draws pictures of a size; arguments as of `drawn_hw`."""
        enlarged = enlarged_hw(image_hw, self.working_side, self.patch, finer) != tuple(image_hw)
        return 1 if quick else self.grids or (1 if enlarged else 2)

    def drawing(self, image_hw: tuple[int, int] | None = None) -> dict[str, int | str | bool]:
        """How it draws, as reports say it; "grids" is "auto" where a size would decide and none is given."""
        grids = self.grids_of(image_hw) if image_hw else self.grids or "auto"
        return {"working_side": self.working_side, "grids": grids, "mended": self.mend}

    def encode(
        self,
        posed: PosedImages,
        transform: SimilarityTransform | None = None,
        progress: Callable[[float], None] | None = None,
        chunk: int | None = None,
    ) -> SceneState:
        """Writes the context views into fast weights.

        posed: images [v, 3, H, W], float in [0, 1] or uint8; cameras [v] in the scene's own frame (OpenCV axes).
            Pictures below the working size are enlarged, whole. Of others, sides that are no multiple of the patch
            are cut evenly at both ends, at most patch - 1 pixels in all, and the principal point moves along: no
            pixel is resampled.
        transform: the scene's frame to that of the fast weights, batch shape [1], where it should not come from
            these cameras (benchmarks that normalise with the target cameras included).
        progress: called with the fraction done, several times a block; what it raises stops the work.
        chunk: views pushed through a block at once; None chooses by memory. Another number rounds otherwise.

        Returns a state whose `transform` maps the scene's frame to the frame of the fast weights (batch shape
        [1]), computed from these cameras alone with the preset of the model's card, and whose `meta` names the
        checkpoint and the working side and holds the context cameras (see `context_cameras`): as they were given,
        or cut, but never enlarged.

        Raises NVSError when there is no view, when a side is shorter than a patch, or when memory does not suffice.
        """
        images, cameras = posed.images, posed.cameras
        if images.ndim != 4 or len(images) == 0:
            raise NVSError(f"encode: images are {tuple(images.shape)}, expected [views, 3, H, W] with a view or more")
        given_hw = (images.shape[-2], images.shape[-1])
        height, width = self.written_hw(given_hw)
        if enlarged_hw(given_hw, self.working_side, self.patch) == given_hw:
            images, cameras = _cut_to_patches(images, cameras, self.patch)
        given = cameras
        views, what = len(images), f"encode: {len(images)} context views of {height}x{width}"
        with self._inference(what, "give fewer or smaller views"):
            images = images.to(self.device)
            images = images.float() / 255.0 if images.dtype == torch.uint8 else images.float()
            images, cameras = enlarge(images, cameras, (height, width))

        preset = str(self.card.get("normalization", "auto"))
        if transform is None:
            # On the CPU, where cameras come from: 600 tiny operations, a third of what a GPU would have to launch.
            transform = normalize_context(cameras.c2w.cpu().float()[None], preset)
        transform = transform.to(self.device)
        normalised = transform.apply_cameras(_batched(cameras.to(self.device)))
        group = min(views, chunk or self._chunk_of(height * width // self.patch**2))
        while True:
            try:
                with self._inference(what, "give fewer or smaller views"):
                    state = self.model.encode(
                        images[None], normalised, views_per_chunk=group, progress=progress
                    )
                break
            except _OutOfMemory:
                if group == 1:
                    raise
                group = (group + 1) // 2
        meta = {
            **state.meta,
            "checkpoint": str(self.card.get("name", "")),
            "checkpoint_hash": str(self.card.get("hash", "")),
            "normalization": preset,
            "working_side": str(self.working_side),
            "written_focal": str(float(cameras.fxfycxcy[:, 1].median())),
            "context_cameras": json.dumps(
                {
                    "image_hw": list(given.image_hw),
                    "c2w": given.c2w.tolist(),
                    "fxfycxcy": given.fxfycxcy.tolist(),
                }
            ),
        }
        return replace(state, transform=transform, meta=meta)

    def render(
        self,
        state: SceneState,
        cameras: Cameras,
        chunk: int | None = None,
        progress: Callable[[int], None] | None = None,
        quick: bool = False,
    ) -> Float[Tensor, "v 3 h w"]:
        """The pictures that `cameras` see: float32 in [0, 1], on the CPU, [v, 3, *cameras.image_hw].

        state: from `encode`, or loaded from a file.
        cameras: [v], in the scene's own frame, OpenCV axes. Any image_hw: below the working size, or coarser than
            what was written, the network draws the picture larger, twice at most, and it is reduced; else it draws
            the frame grown at the right and bottom to whole patches (the principal point stays), and the excess is
            cut off.
        chunk: views drawn at once; None chooses by memory, and halves when the GPU's memory runs out.
        progress: called with the number of new pictures after each chunk.
        quick: draw at the size asked for, whatever the working size, and on one grid: for a picture that must come
            soon. Any state can be drawn either way.
        """
        height, width = cameras.image_hw
        out = torch.empty(len(cameras), 3, height, width)
        done = 0
        for images in self.stream(state, cameras, chunk, quick=quick):
            out[done : done + len(images)] = images
            done += len(images)
            if progress is not None:
                progress(len(images))
        return out

    def stream(
        self,
        state: SceneState,
        cameras: Cameras,
        chunk: int | None = None,
        on_device: bool = False,
        quick: bool = False,
    ) -> Iterator[Tensor]:
        """As `render`, but yields [n, 3, H, W] as soon as a chunk is drawn, so that a long path needs no memory.
        on_device: leave the pictures on the device, where a benchmark compares them. quick: as in `render`."""
        self._check_state(state)
        height, width = cameras.image_hw
        finer = finer_than(state, cameras)
        hw = self.drawn_hw((height, width), quick, finer)
        larger = not quick and enlarged_hw((height, width), self.working_side, self.patch, finer) != (height, width)
        twice = self.grids_of((height, width), quick, finer) == 2
        state = state.to(self.device)
        cameras = Cameras(cameras.c2w.float(), cameras.fxfycxcy.float(), (height, width)).to(self.device)
        cameras = cameras.scaled_to(hw) if larger else Cameras(cameras.c2w, cameras.fxfycxcy, hw)
        chunk = max(1, chunk or self._chunk_of((hw[0] // self.patch) * (hw[1] // self.patch)))
        done = 0
        while done < len(cameras):
            part = _batched(cameras[done : done + chunk])
            if state.transform is not None:
                part = state.transform.apply_cameras(part)
            try:
                with self._inference(f"render: a view of {height}x{width}", "ask for a smaller size"):
                    images = self.model.decode(state, part)[0].float()
                    if twice:
                        other = self.model.decode(state, shifted(part, self.patch))[0].float()
                        images = blended(images, inside(other, hw, self.patch), self.patch)
                    elif self.mend:
                        images = mended(images, self.patch)
                    images = reduce(images, (height, width)) if larger else images[:, :, :height, :width]
                    images = images if on_device else images.cpu()
            except _OutOfMemory:
                if chunk == 1:
                    raise
                chunk = chunk // 2
                continue
            yield images
            done += len(images)

    def _chunk_of(self, tokens_per_view: int) -> int:
        """Views to decode at once."""
        if self.device.type != "cuda":
            return max(1, _CPU_CHUNK_TOKENS // tokens_per_view)
        free, _ = torch.cuda.mem_get_info(self.device)
        # Some 40 values of 4 bytes live at once for a channel of a token (the MLP's hidden layer is 4 of them).
        fitting = int(free * 0.5) // (self.model.config.dim * 160)
        return max(1, min(_CUDA_CHUNK_TOKENS, fitting) // tokens_per_view)

    def _check_state(self, state: SceneState) -> None:
        """A state of another network renders noise, or fails deep inside; say it here."""
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
    def _inference(self, what: str, remedy: str) -> Iterator[None]:
        """No gradients, our precision, and one clear sentence when memory runs out."""
        enabled = self.precision == "bf16"
        try:
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
                yield
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_memory_error(error):
                raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            raise _OutOfMemory(f"{what} does not fit in the memory of {self.device}; {remedy}") from error


class _OutOfMemory(NVSError):
    """Memory ran out: fewer views at once may still fit."""


def fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 beat float32: on GPUs, and on CPUs with AVX512-BF16 or AMX (2.4 times as
    fast on an EPYC with the former). CPUs without them were 5 to 7 times slower than in float32."""
    if device.type == "cpu":
        known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return device.type == "cuda"


def pick_device(device: torch.device | str | None) -> torch.device:
    """None or "auto": the first GPU, else the CPU. Raises NVSError for a device that this machine has not."""
    if device is None or str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise NVSError(f"device: {device!r}, expected auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise NVSError(f"device: {device} is not there, {torch.cuda.device_count()} GPUs are visible; use cpu")
    return chosen


def _batched(cameras: Cameras) -> Cameras:
    """Cameras [v] -> [1, v]."""
    return Cameras(cameras.c2w[None], cameras.fxfycxcy[None], cameras.image_hw)


def _cut_to_patches(images: Tensor, cameras: Cameras, patch: int) -> tuple[Tensor, Cameras]:
    """Cuts [v, 3, H, W] and its cameras at all sides to whole patches."""
    height, width = images.shape[-2:]
    if tuple(cameras.image_hw) != (height, width):
        raise NVSError(f"encode: images are {height}x{width}, their cameras {cameras.image_hw}; resize both together")
    new_hw = (height // patch * patch, width // patch * patch)
    if 0 in new_hw:
        raise NVSError(f"encode: images are {height}x{width}, smaller than one patch of {patch}x{patch}")
    if new_hw == (height, width):
        return images, cameras
    top, left = (height - new_hw[0]) // 2, (width - new_hw[1]) // 2
    shift = cameras.fxfycxcy.new_tensor([0, 0, left, top])
    images = F.pad(images, (-left, left + new_hw[1] - width, -top, top + new_hw[0] - height))
    return images, Cameras(cameras.c2w, cameras.fxfycxcy - shift, new_hw)


def _is_memory_error(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text or "out of memory" in text


def default_checkpoint() -> str:
    """The checkpoint that is meant when none is named: the only one in checkpoints/, else the one whose card (in
    its config.json) says "default": true. Raises NVSError listing the names there are."""
    names = list_checkpoints()
    if len(names) == 1:
        return names[0]
    if not names:
        raise NVSError(f"--checkpoint: {checkpoints_dir()} holds none; train or fetch one, or give a folder")
    marked = [
        name for name in names if read_description(find_checkpoint(name))["card"].get("default") is True
    ]
    if len(marked) == 1:
        return marked[0]
    raise NVSError(f"--checkpoint: name one of {', '.join(names)} (from {checkpoints_dir()}), or a folder")
