"""Options of a training run, in groups. The docstring under each field is its help text in
`python -m nvs_app train --help-verbose`; a field is spelled --GROUP.FIELD there, and GROUP: {FIELD: ...} in a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Literal

from nvs_app.errors import NVSError
from nvs_app.model.config import PRESETS, LaCTConfig, read_option
from nvs_app.training.capture import FLAWS
from nvs_app.training.sampling import Augmentation
from nvs_app.training.schedule import Stage, ViewCount
from nvs_app.training.sources import SourcePlan


@dataclass(frozen=True)
class ModelOptions:
    """The network and how it is computed."""

    preset: str = "small"
    """Sizes of a new network: small, tiny or one of the published lact_*."""
    config_override: dict[str, str] = field(default_factory=dict)
    """Fields of LaCTConfig that differ from the preset, NAME VALUE ..., e.g. dim 512 blocks 6. With init, what differs
    from its network: write_steps, qk_scale, rotary_max_frequency, value_patch_skip, detail_head (true, or sizes such as
    views:6+planes:24)."""
    init: str = ""
    """Checkpoint (name or folder) whose weights to start from, with a fresh optimizer; its configuration wins."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third slower."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 (autocast, float32 master weights), fp32, or auto: bf16 on CUDA."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the blocks; auto: on CUDA only."""


@dataclass(frozen=True)
class DataOptions:
    """Where training scenes come from."""

    sources: dict[str, float] = field(default_factory=dict)
    """NAME WEIGHT ...: "procedural", a scene, a folder of scenes, or shards:PATTERN (.tar files or their index.json: a
    path, a glob, an http(s) address, {000..127} in either); none: procedural scenes alone."""
    kinds: dict[str, float] = field(default_factory=dict)
    """Kinds of procedural scenes, KIND WEIGHT ..., e.g. object 0.5 room 0.5; none: the generator's own mix."""
    assets: Path | None = None
    """Folder of textures and scanned meshes for the procedural scenes."""
    pool: int = 1024
    """Procedural scenes kept on each device, scenes of shards kept in memory (at 128x128; fewer at higher
    resolutions)."""
    pool_views: int = 24
    """Views rendered of each procedural scene, or kept of each scene of a shard."""
    generate: int = 16
    """Procedural scenes made in one call of the generator."""
    reuse: float = 8.0
    """How often a scene, procedural or of a shard, is drawn on average before it is replaced."""
    prefetch: bool = False
    """Make the next procedural scenes in a thread and CUDA stream of their own while the network trains."""


@dataclass(frozen=True)
class ViewOptions:
    """What a step sees."""

    resolutions: tuple[tuple[int, int, float], ...] = ((128, 128, 0.0),)
    """Curriculum, HEIGHT WIDTH FROM ...: train at that size from that share of the run on, e.g. 128 128 0 256 256 0.8.
    Sizes that begin together alternate; one that is named more often comes more often."""
    counts: tuple[tuple[int, int, float], ...] = (
        (1, 15, 0.5), (2, 14, 1.0), (3, 13, 1.0), (4, 12, 2.0), (6, 10, 2.0), (8, 8, 4.0), (10, 6, 1.0), (12, 4, 1.0)
    )  # fmt: skip
    """Numbers of context and target views of a step and how often they are drawn, CONTEXT TARGET WEIGHT .... Equal sums
    need one compilation only."""
    tokens: int = 131072
    """Tokens of a step on one device; sets the number of scenes for each resolution and view count."""
    scenes: dict[str, int] = field(default_factory=dict)
    """Scenes of a step on one device, SIZE NUMBER ... (e.g. 128 32 288x512 4), in place of tokens."""
    even_view_prob: float = 0.5
    """Chance that a scene's context views are evenly spread rather than random."""


@dataclass(frozen=True)
class DetailOptions:
    """Networks with a detail head."""

    lact_scales: tuple[float, ...] = (1.0,)
    """The resolution at which LaCT reads and renders, as a share of that of the photos; several: by turns."""
    head_views: tuple[int, ...] = ()
    """Numbers of context views that the head looks at, by turns; none: its own."""
    depth_weight: float = 1.0
    """Weight of the losses of depth, where the source knows it."""
    lact_weight: float = 0.5
    """Weight of the loss of LaCT's own image; the head's has 1."""
    lact_lr: float = 1.0
    """Learning rates of LaCT in parts of the head's; 0: the head is trained alone."""


@dataclass(frozen=True)
class LossOptions:
    """What a rendered image is compared by, beside its squared error."""

    perceptual: float = 0.01
    """Weight of the perceptual term (edges and SSIM at three scales)."""
    inverse_mse_power: float = 0.0
    """0: every pixel's squared error counts alike; 1: every image's PSNR does; or in between."""
    lpips_file: Path | None = None
    """LPIPS weights, a file or folder as `eval --lpips` takes, when there are some."""
    lpips_weight: float = 0.0
    """Weight of LPIPS."""


@dataclass(frozen=True)
class OptimizerOptions:
    """Muon, AdamW and the weight average."""

    muon_lr: float = 2e-3
    """Learning rate of Muon (matrices inside blocks), updates scaled like AdamW's."""
    adam_lr: float = 1e-3
    """Learning rate of AdamW (input and output layers, norms, biases, learning-rate heads)."""
    weight_decay: float = 0.05
    """Decoupled weight decay of matrices."""
    clip: float = 1.0
    """Gradients are clipped to this norm."""
    grad_skip_factor: float = 6.0
    """A step whose gradient norm is this many times the median of the last 128 is skipped."""
    ema: float = 0.999
    """Decay of the weight average that is evaluated and exported."""


@dataclass(frozen=True)
class ScheduleOptions:
    """Learning rates over the run."""

    kind: Literal["wsd", "cosine", "constant"] = "wsd"
    """wsd: constant, then linear decay."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    decay_share: float = 0.4
    """Share of the run over which wsd decays."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Held-out figures while training."""

    scenes: tuple[Path, ...] = ()
    """Held-out scenes: evaluated, never trained on."""
    context: int = 8
    """Context views, evenly spread; the other views are targets."""
    procedural: int = 8
    """Held-out procedural scenes evaluated beside them (another seed)."""
    minutes: float = 2.0
    """Minutes between evaluations; there is always one at the end. 0: only that one."""


@dataclass(frozen=True)
class OutputOptions:
    """What the run writes."""

    export: Literal["float32", "bfloat16", "int8"] = "bfloat16"
    """Type of the exported matrices."""
    state: bool = True
    """Save what resume needs (16 bytes a parameter); not needed for short trials."""
    save_minutes: float = 3.0
    """Minutes between saves of state and checkpoint; there is always one at the end. 0: only that one."""
    reserve_seconds: float = 15.0
    """Time kept for the last evaluation and save until the first ones have been measured."""
    log_every: int = 20
    """Steps between progress lines and log records."""
    tensorboard: bool = True
    """Write TensorBoard events to OUT/tensorboard where the package is installed."""
    profile: int = 0
    """Profile that many steps, from the 20th on, and write the slowest kernels to OUT/profile.txt."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run. Raises `NVSError` for impossible values."""

    out: Path
    """Folder of the run: options, state, log, TensorBoard, and the exported checkpoint in OUT/NAME."""
    name: str = "checkpoint"
    """Name of the exported checkpoint (a folder inside OUT)."""
    minutes: float = 0.0
    """Length of the run in wall-clock minutes, imports and compilation included; a resumed run counts all its
    processes. Training ends early enough to evaluate and save. 0: no limit (then --steps)."""
    process_minutes: float = 0.0
    """Save and exit when this process is that many minutes old, to be resumed later; the schedule goes on."""
    steps: int = 0
    """Length of the run in steps; with --minutes too, whichever ends first. 0: no limit."""
    resume: Literal["auto", "always", "never"] = "auto"
    """auto: go on from OUT when it has a state; always: refuse to start anew; never: ignore the state."""
    seed: int = 0
    """Of weights, scenes, views and augmentations."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    gpus: int = 0
    """Devices of this machine to use when not started by torchrun; 0: all of them."""
    model: ModelOptions = ModelOptions()
    data: DataOptions = DataOptions()
    views: ViewOptions = ViewOptions()
    augmentation: Augmentation = Augmentation(mirror=0.5, colour=0.3, scale=0.15)
    detail: DetailOptions = DetailOptions()
    loss: LossOptions = LossOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    output: OutputOptions = OutputOptions()

    def __post_init__(self) -> None:
        if not (self.steps > 0 or self.minutes > 0):
            raise NVSError("train: no length given, add --minutes N or --steps N")
        for name in AT_LEAST_ZERO.split():
            self._need(name, lambda value: value >= 0, "zero or more")
        for name in POSITIVE.split():
            self._need(name, lambda value: value > 0, "a positive number")
        for name in CHANCES.split():
            self._need(name, lambda value: 0 <= value <= 1, "a chance in [0, 1]")
        for name in ("data.sources", "data.kinds", "views.scenes"):
            self._need(name, lambda value: all(weight > 0 for weight in value.values()), "positive numbers")
        known = lambda values: all(name in FLAWS and share >= 0 for name, share in values.items())  # noqa: E731
        self._need("augmentation.flaws", known, f"shares of 0 or more of {', '.join(FLAWS)}")
        self._need("augmentation.scale", lambda value: 0 <= value < 1, "a number in [0, 1)")
        self._need("schedule.decay_share", lambda value: 0 < value <= 1, "a share in (0, 1]")
        self._need("optimizer.ema", lambda value: 0 <= value < 1, "a decay in [0, 1)")
        self._need("optimizer.grad_skip_factor", lambda value: value > 1, "a number above 1")
        self._need("device", lambda value: value.split(":")[0] in ("auto", "cpu", "cuda"), "cuda, cpu or auto")
        self._need("name", lambda value: Path(value).name == value, "a plain folder name")
        self._need("model.preset", PRESETS.__contains__, "one of " + ", ".join(PRESETS))
        shares = lambda values: values and all(0 < value <= 1 for value in values)  # noqa: E731
        self._need("detail.lact_scales", shares, "shares in (0, 1]")
        self._need("detail.head_views", lambda values: all(value > 0 for value in values), "positive numbers")
        usable = lambda counts: counts and all(min(count) > 0 for count in counts)  # noqa: E731
        self._need("views.counts", usable, "CONTEXT TARGET WEIGHT, positive numbers")
        self._need("views.resolutions", _is_curriculum, "HEIGHT WIDTH FROM, where FROM begins at 0, rises, is below 1")
        side = self.model_config.patch
        whole = lambda rows: not any(h % side or w % side for h, w, _ in rows)  # noqa: E731
        self._need("views.resolutions", whole, f"multiples of the patch, {side} pixels")
        longest = max(count.total for count in self.view_counts)
        enough = lambda views: "procedural" not in self.plan.shares or views >= longest  # noqa: E731
        self._need("data.pool_views", enough, f"at least the {longest} views of a step in --views.counts")

    def _need(self, name: str, accept, expected: str) -> None:
        value = attrgetter(name)(self)
        if not accept(value):
            raise NVSError(f"--{name.replace('_', '-')}: {value!r} is impossible, expected {expected}")

    @cached_property
    def stages(self) -> list[Stage]:
        """The resolution curriculum."""
        return [Stage((height, width), begins) for height, width, begins in self.views.resolutions]

    @cached_property
    def view_counts(self) -> list[ViewCount]:
        """The numbers of views that steps draw from."""
        return [ViewCount(*count) for count in self.views.counts]

    @cached_property
    def plan(self) -> SourcePlan:
        """What the sources need."""
        data = self.data
        return SourcePlan(
            shares=data.sources or {"procedural": 1.0},
            kinds=data.kinds or None,
            assets=data.assets,
            pool=data.pool,
            pool_views=data.pool_views,
            generate=data.generate,
            reuse=data.reuse,
            even_view_prob=self.views.even_view_prob,
            prefetch=data.prefetch,
            depth=self.detail.depth_weight > 0,
            augmentation=self.augmentation,
        )

    @cached_property
    def model_config(self) -> LaCTConfig:
        """The network that a run without `model.init` begins with."""
        changes = {} if self.model.init else self.model.config_override
        values = PRESETS[self.model.preset].to_dict()
        if "dim" in changes and values["fast_head_dim"] == values["dim"]:
            values["fast_head_dim"] = 0  # one head over all channels, as in the preset
        known = {each.name for each in fields(LaCTConfig)}
        unknown = [name for name in changes if name not in known]
        if unknown:
            raise NVSError(f"--model.config-override: unknown {unknown[0]!r}, expected some of {sorted(known)}")
        try:
            return LaCTConfig.from_dict({**values, **{name: read_option(name, text) for name, text in changes.items()}})
        except NVSError as error:
            raise NVSError(f"--model.config-override: {error}") from None

    def scenes_for(self, image_hw: tuple[int, int], count: ViewCount, patch: int) -> int:
        """Scenes of a step on one device."""
        height, width = image_hw
        for key in (f"{height}x{width}", str(height) if height == width else ""):
            if key in self.views.scenes:
                return self.views.scenes[key]
        tokens_per_view = (height // patch) * (width // patch)
        return max(1, round(self.views.tokens / (count.total * tokens_per_view)))

    def usual_scenes(self, image_hw: tuple[int, int], patch: int | None = None) -> int:
        """Scenes of an average step at a resolution."""
        counts = self.view_counts
        number = sum(c.weight * self.scenes_for(image_hw, c, patch or self.model_config.patch) for c in counts)
        return max(1, round(number / sum(c.weight for c in counts)))


AT_LEAST_ZERO = """minutes process_minutes steps seed gpus loss.perceptual loss.lpips_weight optimizer.weight_decay
    schedule.warmup_steps evaluation.minutes evaluation.procedural output.save_minutes output.reserve_seconds
    output.profile detail.depth_weight detail.lact_weight detail.lact_lr"""
POSITIVE = """data.pool data.pool_views data.generate data.reuse views.tokens optimizer.muon_lr optimizer.adam_lr
    optimizer.clip output.log_every evaluation.context"""
CHANCES = """views.even_view_prob augmentation.mirror augmentation.colour augmentation.capture augmentation.repeat
    loss.inverse_mse_power"""


def _is_curriculum(rows: tuple[tuple[int, int, float], ...]) -> bool:
    starts = [begins for _, _, begins in rows]
    sizes_fit = all(min(height, width) >= 8 for height, width, _ in rows)
    return bool(rows) and sizes_fit and starts == sorted(starts) and starts[0] == 0 and starts[-1] < 1
