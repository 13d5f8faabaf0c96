"""Adapting the network to one scene: sharper on request.

    found = adapt(renderer, posed, state, AdaptConfig(seconds=30))
    images = renderer.render(found.state, cameras)

A scene is written once and stays as it is; what is optimised is how it is read: the detail head, and a low-rank part of
LaCT (`TrainedWeights`). Each context view is rendered from the others: they are dealt into a few groups, the scene is
written without each group once, and every step renders some views of a group and descends the error against their
photos. Some views train nothing and are in no group: they say after every few steps how good the weights are. The best
ones are kept; where none are better than those of the checkpoint (of few views, clearly), the scene keeps these.
Neither the checkpoint nor the network in memory changes: a state holds the differences, and `Renderer` reads it with
them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from nvs_app.adaptation.weights import Decoder, TrainedWeights
from nvs_app.errors import NVSError
from nvs_app.evaluation.metrics import psnr
from nvs_app.model.adapted import AdaptedWeights
from nvs_app.model.detail import ContextViews, Sampling
from nvs_app.model.state import FastWeights, SceneState
from nvs_app.rendering.cost import SPARE, adapting_bytes
from nvs_app.rendering.device import bytes_words, free_memory, within_memory
from nvs_app.rendering.inputs import floats
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.posed import PosedImages
from nvs_app.training.losses import image_loss

FEWEST = 4  # views: one that stops, and three of which each is rendered from two others
LEAST_GAIN = 0.01  # dB; less is no reason to keep weights of its own
# Of few views the stopping ones are far from all others and say little: of eight, gains of 0.2 to 0.95 dB on them were
# losses of 0.04 to 0.22 dB on views held out of everything (docs/adapt.md).
FEW, CLEAR_GAIN = 16, 1.5


def least_gain(views: int) -> float:
    """Gain in dB that the stopping views of `views` must show for a scene to keep weights of its own."""
    return LEAST_GAIN if views >= FEW else CLEAR_GAIN


NOTES = "adapted"  # in a state's notes: `Adapted.facts` as JSON, and the seconds that were asked for


@dataclass(frozen=True)
class AdaptConfig:
    """How a scene is adapted. Raises NVSError for impossible values."""

    seconds: float = 60.0
    """Time that it may take, with all that belongs to it."""
    steps: int = 0
    """Steps at most; 0: as many as the time allows."""
    rank: int = 8
    """Of the differences of LaCT's matrices; 0 leaves LaCT as it is."""
    groups: int = 8
    """Groups of views that are left out together."""
    targets: int = 0
    """Views that a step renders; 0: four on a GPU, one elsewhere."""
    head_lr: float = 1e-4
    """Learning rate of the detail head (AdamW)."""
    lact_lr: float = 3e-4
    """Learning rate of LaCT's part (AdamW)."""
    warmup: int = 10
    """Steps over which the learning rates rise."""
    average: float = 0.95
    """Decay of the running average of the weights, which is what is measured and kept."""
    measure_share: float = 0.1
    """Share of the time that goes into measuring, at most."""
    patience: int = 8
    """Measurements without a better one after which it stops, if `steps_patience` steps were taken since, too."""
    steps_patience: int = 80
    """Steps since the best measurement before which it does not stop: measurements may come every few steps."""
    seed: int = 0

    def rendered(self, device: torch.device) -> int:
        """Views that a step renders."""
        return self.targets or (4 if device.type == "cuda" else 1)

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise NVSError(f"adapt: {self.seconds} seconds, expected more than 0")
        for name in ("groups", "patience"):
            if getattr(self, name) < 1:
                raise NVSError(f"adapt: {name} is {getattr(self, name)}, expected 1 or more")


@dataclass(frozen=True)
class Progress:
    """Where adapting stands. seconds: since it began; share: of the time allowed. before, best: PSNR in dB of the
    stopping views, with the checkpoint's weights and with the best so far."""

    seconds: float
    share: float
    step: int
    before: float
    best: float


@dataclass(frozen=True)
class Adapted:
    """What came of it.

    state: reads with the best weights, or as before where none were better. before, after: PSNR in dB of the stopping
    views, each rendered from the training views, by the renderer. stopping: their numbers among the context views.
    stopped: "time", "steps", "no gain" or "asked". curve: (seconds, steps, PSNR) of every measurement.
    """

    state: SceneState
    before: float
    after: float
    seconds: float
    steps: int
    stopping: list[int]
    stopped: str
    curve: list[tuple[float, int, float]] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        """As plain values, for reports and for the notes of a scene file."""
        return {
            "psnr_before": round(self.before, 3),
            "psnr_after": round(self.after, 3),
            "seconds": round(self.seconds, 2),
            "gain_per_second": round((self.after - self.before) / max(self.seconds, 1e-9), 5),
            "steps": self.steps,
            "stopped": self.stopped,
            "stopping_views": self.stopping,
            "changed": self.state.adapted is not None,
        }

    @property
    def words(self) -> str:
        """For people, one line."""
        views = f"{len(self.stopping)} view{'s' if len(self.stopping) > 1 else ''} that trained nothing"
        if self.state.adapted is None:
            return f"not adapted: no clear gain over {self.before:.2f} dB on {views} in {self.seconds:.0f} s"
        rate = (self.after - self.before) / max(self.seconds, 1e-9)
        return (
            f"adapted in {self.seconds:.0f} s: {self.before:.2f} to {self.after:.2f} dB on {views},"
            f" {rate:.3f} dB a second"
        )


def asked_before(state: SceneState) -> float:
    """For how many seconds at most a state was adapted; 0 where it was not."""
    try:
        return float(json.loads(state.meta.get(NOTES, "{}")).get("asked", 0))
    except (ValueError, TypeError, AttributeError):  # a file may say anything
        return 0.0


def stopping_views(count: int) -> list[int]:
    """Which of `count` context views say when to stop: an eighth of them, but two of eight and one of fewer."""
    wanted = max(2 if count >= 8 else 1, count // 8)
    return [int((i + 0.5) * count / wanted) for i in range(wanted)]


def check_possible(
    renderer: Renderer, views: int, image_hw: tuple[int, int], config: AdaptConfig | None = None
) -> None:
    """Raises NVSError, before any work, for fewer than four views and for more than the free memory holds."""
    if views < FEWEST:
        raise NVSError(f"adapt: {views} input views, expected {FEWEST} or more; encode the scene with more photos")
    config = config or AdaptConfig()
    groups, targets = min(config.groups, views), config.rendered(renderer.device)
    needed, free = adapting_bytes(renderer, views, image_hw, groups, targets), free_memory(renderer.device)
    if needed > SPARE * free:
        raise NVSError(
            f"adapt: {views} input views of {image_hw[0]}x{image_hw[1]} need about {bytes_words(needed)} of memory and"
            f" {bytes_words(free)} are free; give fewer or smaller views"
        )


def adapt(
    renderer: Renderer,
    posed: PosedImages,
    state: SceneState,
    config: AdaptConfig | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Adapted:
    """Optimises how `state` is read.

    posed: the context views that `state` was encoded from, as `Renderer.encode` takes them.
    progress: called after every step, and while the groups are written; what it raises ends the work and nothing is
        kept.
    stop: asked after every step; True ends the work, and the best so far is kept.

    Raises NVSError as `check_possible` does, and when memory does not suffice all the same.
    """
    config, began = config or AdaptConfig(), time.perf_counter()
    check_possible(renderer, len(posed), posed.cameras.image_hw, config)
    what = f"adapt: {len(posed)} input views of {posed.images.shape[-2]}x{posed.images.shape[-1]}"
    with within_memory(renderer.device, what, "give fewer or smaller views"):
        return _Run(renderer.apart(), posed, state, config, began).run(progress, stop)


class _Run:
    """One scene being adapted. renderer: one that nobody else uses."""

    def __init__(
        self, renderer: Renderer, posed: PosedImages, state: SceneState, config: AdaptConfig, began: float
    ) -> None:
        self.renderer, self.posed, self.state, self.config, self.began = renderer, posed, state, config, began
        self.stopping = stopping_views(len(posed))
        train = [i for i in range(len(posed)) if i not in self.stopping]
        inputs = renderer.inputs(posed, state.transform)
        self.plan, self.cameras, self.transform = inputs.plan, inputs.normalised, inputs.transform
        self.photos = floats(inputs.photos, renderer.device)  # outside of inference mode: gradients need that
        self.compared = PosedImages(self.photos[self.stopping], inputs.cameras[self.stopping])
        self.from_training = renderer.encode(posed[train], self.transform)
        count = min(config.groups, len(train))
        self.train, self.dealt = train, [train[i::count] for i in range(count)]
        self.groups: list[tuple[SceneState, list[int]]] = []
        network = renderer.original()
        self.weights = TrainedWeights(network, config.rank, config.seed, state.adapted)
        self.decoder = Decoder(network)
        parts = [(self.weights.head, config.head_lr), (self.weights.lact, config.lact_lr)]
        self.rates = [rate for values, rate in parts if values]
        self.optimizer = torch.optim.AdamW(
            [{"params": values} for values, _ in parts if values], betas=(0.9, 0.95), weight_decay=0.0,
            fused=self.renderer.device.type == "cuda",
        )  # fmt: skip
        self.trained = [*self.weights.head, *self.weights.lact]
        self.mean = [value.detach().clone() for value in self.trained]
        self.random = torch.Generator().manual_seed(config.seed)
        self.queue: list[int] = []
        self.step = 0

    def _without(self, group: list[int], train: list[int]) -> SceneState:
        """The scene as the other training views tell it, of tensors that gradients may pass through."""
        state = self.renderer.encode(self.posed[[i for i in train if i not in group]], self.transform)
        layers = [FastWeights(*(weight.clone() for weight in layer)) for layer in state.fast_weights]
        context = state.context
        if context is not None:
            context = ContextViews(context.images.clone(), context.cameras, context.features.clone())
        return SceneState(layers, context=context)

    def run(self, progress: Callable[[Progress], None] | None, stop: Callable[[], bool] | None) -> Adapted:
        config, kept = self.config, None
        before, cost = self.measure(self.state.adapted)

        def tell(best: float) -> None:
            if progress is not None:
                by_steps = self.step / config.steps if config.steps else 0.0
                share = min(1.0, max(self.seconds() / config.seconds, by_steps))
                progress(Progress(self.seconds(), share, self.step, before, best))

        for group in self.dealt:
            self.groups.append((self._without(group, self.train), group))
            tell(before)
        best, curve, stale, stopped = before, [(self.seconds(), 0, before)], 0, ""
        enough, highest, highest_at = before + least_gain(len(self.posed)), before, 0
        due = self.seconds() + cost / config.measure_share
        while not stopped:
            self.train_step()
            asked = stop is not None and stop()
            over = self.seconds() + cost >= config.seconds
            stopped = "asked" if asked else "time" if over else "steps" if self.step == config.steps else ""
            if stopped or self.seconds() >= due:
                found = self.weights.adapted(self.mean)
                figure, cost = self.measure(found)
                curve.append((self.seconds(), self.step, figure))
                stale += 1
                if figure > highest:
                    highest, highest_at, stale = figure, self.step, 0
                    if figure > enough:
                        best, kept = figure, found
                if stale >= config.patience and self.step - highest_at >= config.steps_patience and not stopped:
                    stopped = "no gain"
                due = self.seconds() + cost / config.measure_share
            tell(best)
        state = replace(self.state, adapted=kept) if kept is not None else self.state
        found = Adapted(state, before, best, self.seconds(), self.step, self.stopping, stopped, curve)
        notes = json.dumps({"asked": config.seconds, **found.facts})
        return replace(found, state=replace(state, meta={**state.meta, NOTES: notes}))

    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def train_step(self) -> None:
        """Renders some views of a group that the scene does not hold, and descends their error."""
        if not self.queue:
            self.queue = torch.randperm(len(self.groups), generator=self.random).tolist()
        state, group = self.groups[self.queue.pop()]
        count = self.config.rendered(self.renderer.device)
        chosen = torch.randperm(len(group), generator=self.random)[:count].tolist()
        views = [group[i] for i in chosen]
        device, sampling = self.renderer.device, Sampling(views=self.renderer.views)
        rounded = device.type == "cuda" and self.renderer.precision == "bf16"  # on a CPU, bfloat16 has no fast way back
        with torch.autocast(device.type, torch.bfloat16, enabled=rounded):
            images = self.decoder.render(self.weights, state, self.cameras[:, views], self.plan.lact_hw, sampling)
        loss, _ = image_loss(images, self.photos[None, views])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([value for value in self.trained if value.grad is not None], 1.0)
        for group_of, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group_of["lr"] = rate * min(1.0, (self.step + 1) / self.config.warmup)
        self.optimizer.step()
        self.step += 1
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.mean, self.trained, 1 - decay)

    def measure(self, adapted: AdaptedWeights | None) -> tuple[float, float]:
        """PSNR of the stopping views, as the renderer renders them with these weights, and the seconds that it took."""
        start = time.perf_counter()
        rendered = self.renderer.render(replace(self.from_training, adapted=adapted), self.compared.cameras)
        figure: Tensor = psnr(rendered, self.compared.images.cpu())
        return float(figure.mean()), time.perf_counter() - start
