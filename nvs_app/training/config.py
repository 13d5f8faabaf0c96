"""Options of a training run. The docstring under each field is its help text in `python -m nvs_app train --help`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nvs_app.errors import NVSError
from nvs_app.model.config import PRESETS, LaCTConfig, read_option
from nvs_app.training.sampling import Augmentation
from nvs_app.training.schedule import Stage, ViewCount, learning_rate_factor, parse_resolutions, parse_views
from nvs_app.training.sources import SourcePlan, parse_shares

DTYPES = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run. Raises `NVSError` for impossible values."""

    out: Path
    """Folder of the run: state, log, TensorBoard, and the exported checkpoint in OUT/NAME."""
    name: str = "checkpoint"
    """Name of the exported checkpoint (a folder inside OUT)."""
    minutes: float = 0.0
    """Length of the run in wall-clock minutes, imports and compilation included; a resumed run counts all its
    processes. Training ends early enough to evaluate and save. 0: no limit (then --steps)."""
    process_minutes: float = 0.0
    """Save and exit when this process is that many minutes old, to be resumed later; the schedule goes on."""
    steps: int = 0
    """Length of the run in steps; with --minutes too, whichever ends first. 0: no limit."""
    resume: str = "auto"
    """auto: go on from OUT when it has a state; always: refuse to start anew; never: ignore the state."""
    seed: int = 0
    """Of weights, scenes, views and augmentations."""

    model: str = "small"
    """Network: a preset's name, key=value,... over the preset "small" or over the preset named first
    (small,blocks=12), or a JSON object of LaCTConfig fields."""
    init: str = ""
    """Checkpoint (name or folder) whose weights to start from, with a fresh optimizer; its configuration wins."""
    config_override: str = ""
    """What differs from the network of --init, with commas between: write_steps=N, qk_scale=L,
    rotary_max_frequency=F, value_patch_skip=true, detail_head=true (new, or sizes such as views:6+planes:24)."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third slower."""
    precision: str = "auto"
    """bf16 (autocast, float32 master weights), fp32, or auto: bf16 on CUDA."""
    compile: str = "auto"
    """Compile the blocks: on, off, or auto (on CUDA only)."""

    data: str = "procedural"
    """Training scenes: NAME=WEIGHT,... where NAME is "procedural", a scene, a folder of scenes, or shards:PATTERN
    (.tar files or their index.json: a path, a glob, an http(s) address, {000..127} in either)."""
    kinds: str = ""
    """Kinds of procedural scenes, e.g. object=0.5,asset=0.2,room=0.3; empty: the generator's own mix."""
    assets: str = ""
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

    resolutions: str = "128:0"
    """Curriculum SIZE:PROGRESS,...: train at SIZE (or HxW) from that share of the run on, e.g. 128:0,256:0.8. Sizes
    that begin together alternate: 128:0,128:0.8,256:0.8."""
    views: str = "1:15:0.5,2:14:1,3:13:1,4:12:2,6:10:2,8:8:4,10:6:1,12:4:1"
    """Context and target views of a step, CONTEXT:TARGET:WEIGHT,... Equal sums need one compilation only."""
    tokens: int = 131072
    """Tokens of a step on one device; sets the number of scenes for each resolution and view count."""
    scenes: str = ""
    """Scenes of a step on one device, SIZE=NUMBER,... (e.g. 128=32,256=8), in place of --tokens."""
    lact_scale: str = "1"
    """Networks with a detail head: the resolution at which LaCT reads and draws, as a share of that of the photos; with
    commas between, steps take them by turns (e.g. 0.5,1)."""
    head_views: str = ""
    """Networks with a detail head: numbers of context views that it looks at, by turns (e.g. 4,6); empty: its own."""
    even_view_prob: float = 0.5
    """Chance that a scene's context views are evenly spread rather than random."""
    mirror: float = 0.5
    """Chance that a scene is mirrored."""
    colour: float = 0.3
    """Chance that a scene's colour channels are permuted and bent."""
    capture: float = 0.0
    """Chance that a scene's context looks like a real capture: exposure and white balance, blur, noise, JPEG, cameras a
    little wrong."""
    repeat: float = 0.0
    """Chance that one target of a scene is one of its context views."""
    scale_jitter: float = 0.15
    """The normalised world is scaled by 1 - this to 1 + this."""

    muon_lr: float = 2e-3
    """Learning rate of Muon (matrices inside blocks), updates scaled like AdamW's."""
    adam_lr: float = 1e-3
    """Learning rate of AdamW (input and output layers, norms, biases, learning-rate heads)."""
    weight_decay: float = 0.05
    """Decoupled weight decay of matrices."""
    schedule: str = "wsd"
    """Learning rate over the run: wsd (constant, then linear decay), cosine or constant."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    decay_share: float = 0.4
    """Share of the run over which wsd decays."""
    clip: float = 1.0
    """Gradients are clipped to this norm."""
    grad_skip_factor: float = 6.0
    """A step whose gradient norm is this many times the median of the last 128 is skipped."""
    ema: float = 0.999
    """Decay of the weight average that is evaluated and exported."""
    perceptual: float = 0.01
    """Weight of the perceptual term (edges and SSIM at three scales)."""
    inverse_mse_power: float = 0.0
    """0: every pixel's squared error counts alike; 1: every image's PSNR does; or in between."""
    lpips_file: str = ""
    """LPIPS weights, a file or folder as `eval --lpips` takes, when there are some."""
    lpips_weight: float = 0.0
    """Weight of LPIPS."""
    depth_weight: float = 1.0
    """Networks with a detail head: weight of the losses of depth, where the source knows it."""
    lact_lr: float = 1.0
    """Networks with a detail head: learning rates of LaCT in parts of the head's; 0: the head is trained alone."""
    lact_weight: float = 0.5
    """Networks with a detail head: weight of the loss of LaCT's own image; the head's has 1."""

    eval_scenes: str = ""
    """Held-out scenes, PATH,...: evaluated, never trained on."""
    eval_context: int = 8
    """Context views of an evaluation, evenly spread; the other views are targets."""
    eval_minutes: float = 2.0
    """Minutes between evaluations; there is always one at the end. 0: only that one."""
    eval_procedural: int = 8
    """Held-out procedural scenes evaluated beside them (another seed)."""
    save_minutes: float = 3.0
    """Minutes between saves of state and checkpoint; there is always one at the end. 0: only that one."""
    state: bool = True
    """Save what --resume needs (16 bytes a parameter); --no-state for short trials."""
    export: str = "bfloat16"
    """Type of the exported matrices: float32, bfloat16 or int8."""
    log_every: int = 20
    """Steps between progress lines and log records."""
    profile: int = 0
    """Profile that many steps, from the 20th on, and write the slowest kernels to OUT/profile.txt."""
    tensorboard: bool = True
    """Write TensorBoard events to OUT/tensorboard where the package is installed."""
    reserve_seconds: float = 15.0
    """Time kept for the last evaluation and save until the first ones have been measured."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    gpus: int = 0
    """Devices of this machine to use when not started by torchrun; 0: all of them."""

    def __post_init__(self) -> None:
        def need(condition: bool, option: str, expected: str) -> None:
            if not condition:
                value = getattr(self, option)
                raise NVSError(f"--{option.replace('_', '-')}: {value!r} is impossible, expected {expected}")

        if not (self.steps > 0 or self.minutes > 0):
            raise NVSError("train: no length given, add --minutes N or --steps N")
        at_least_zero = (
            "minutes process_minutes steps perceptual lpips_weight weight_decay eval_minutes save_minutes "
            "eval_procedural warmup_steps reserve_seconds gpus seed profile depth_weight lact_weight lact_lr"
        )
        for option in at_least_zero.split():
            need(getattr(self, option) >= 0, option, "zero or more")
        for option in "pool pool_views generate reuse tokens muon_lr adam_lr clip log_every eval_context".split():
            need(getattr(self, option) > 0, option, "a positive number")
        for option in ("even_view_prob", "mirror", "colour", "capture", "repeat", "inverse_mse_power"):
            need(0 <= getattr(self, option) <= 1, option, "a chance in [0, 1]")
        need(0 <= self.scale_jitter < 1, "scale_jitter", "a number in [0, 1)")
        need(0 < self.decay_share <= 1, "decay_share", "a share in (0, 1]")
        need(0 <= self.ema < 1, "ema", "a decay in [0, 1)")
        need(self.grad_skip_factor > 1, "grad_skip_factor", "a number above 1")
        need(self.resume in ("auto", "always", "never"), "resume", "auto, always or never")
        need(self.precision in ("auto", "bf16", "fp32"), "precision", "auto, bf16 or fp32")
        need(self.compile in ("auto", "on", "off"), "compile", "on, off or auto")
        need(self.export in DTYPES, "export", "one of " + ", ".join(DTYPES))
        need(self.device.split(":")[0] in ("auto", "cpu", "cuda"), "device", "cuda, cpu or auto")
        need(Path(self.name).name == self.name, "name", "a plain folder name")
        need(not self.config_override or bool(self.init), "config_override", "--init beside it")
        learning_rate_factor(0.0, 0, 1, self.schedule)
        need(all(0 < scale <= 1 for scale in self.lact_scales), "lact_scale", "shares in (0, 1]")
        need(all(views > 0 for views in self.head_view_counts), "head_views", "positive numbers")
        longest = max(count.total for count in self.view_counts)
        if "procedural" in self.plan.shares and self.pool_views < longest:
            raise NVSError(
                f"--pool-views: {self.pool_views} is fewer than the {longest} views of a step in --views {self.views}"
            )
        side = self.model_config.patch
        for stage in self.stages:
            if stage.image_hw[0] % side or stage.image_hw[1] % side:
                raise NVSError(f"--resolutions: {self.resolutions!r} must be multiples of the patch, {side} pixels")
        for stage in self.stages:
            self.usual_scenes(stage.image_hw)

    @cached_property
    def stages(self) -> list[Stage]:
        """The resolution curriculum."""
        return parse_resolutions(self.resolutions)

    @cached_property
    def lact_scales(self) -> list[float]:
        """LaCT's resolution over that of the photos, by turns."""
        return [_number(part, "--lact-scale") for part in self.lact_scale.split(",")]

    @cached_property
    def head_view_counts(self) -> list[int]:
        """Context views that a detail head looks at, by turns; none: as it is configured."""
        return [int(_number(part, "--head-views")) for part in self.head_views.split(",") if part.strip()]

    @cached_property
    def view_counts(self) -> list[ViewCount]:
        """The numbers of views that steps draw from."""
        return parse_views(self.views)

    @cached_property
    def plan(self) -> SourcePlan:
        """What the sources need."""
        return SourcePlan(
            shares=parse_shares(self.data, "--data"),
            kinds=parse_shares(self.kinds, "--kinds") if self.kinds else None,
            assets=Path(self.assets) if self.assets else None,
            pool=self.pool,
            pool_views=self.pool_views,
            generate=self.generate,
            reuse=self.reuse,
            even_view_prob=self.even_view_prob,
            prefetch=self.prefetch,
            depth=self.depth_weight > 0,
            augmentation=Augmentation(self.mirror, self.colour, self.scale_jitter, self.repeat, self.capture),
        )

    @cached_property
    def model_config(self) -> LaCTConfig:
        """The network that --model asks for (--init replaces it)."""
        return parse_model(self.model)

    @property
    def eval_paths(self) -> list[Path]:
        """Held-out scenes."""
        return [Path(part.strip()) for part in self.eval_scenes.split(",") if part.strip()]

    def scenes_for(self, image_hw: tuple[int, int], count: ViewCount, patch: int) -> int:
        """Scenes of a step on one device."""
        listed = parse_shares(self.scenes, "--scenes") if self.scenes else {}
        height, width = image_hw
        for key in (f"{height}x{width}", str(height) if height == width else ""):
            if key in listed:
                return max(1, int(listed[key]))
        tokens_per_view = (height // patch) * (width // patch)
        return max(1, round(self.tokens / (count.total * tokens_per_view)))

    def usual_scenes(self, image_hw: tuple[int, int], patch: int | None = None) -> int:
        """Scenes of an average step at a resolution."""
        counts = self.view_counts
        number = sum(c.weight * self.scenes_for(image_hw, c, patch or self.model_config.patch) for c in counts)
        return max(1, round(number / sum(c.weight for c in counts)))


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise NVSError(f"{option}: {text!r} is not a number; give numbers with commas between") from None


def parse_model(text: str) -> LaCTConfig:
    """A preset's name, `key=value,...` (after an optional preset), or a JSON object. Raises NVSError."""
    text = text.strip()
    if text.startswith("{"):
        try:
            return LaCTConfig.from_dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise NVSError(f"--model: not a JSON object of LaCTConfig fields ({error})") from error
    base, changes = PRESETS["small"], {}
    known = {field.name for field in dataclasses.fields(LaCTConfig)}
    for index, part in enumerate(part.strip() for part in text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            if index or part not in PRESETS:
                raise NVSError(f"--model: {part!r} is not a preset, expected key=value or one of {sorted(PRESETS)}")
            base = PRESETS[part]
            continue
        if key not in known:
            raise NVSError(f"--model: unknown option {key!r}, expected some of {sorted(known)}")
        try:
            changes[key] = read_option(key, value)
        except NVSError as error:
            raise NVSError(f"--model: {error}") from None
    values = base.to_dict()
    if "dim" in changes and "fast_head_dim" not in changes and values["fast_head_dim"] == values["dim"]:
        values["fast_head_dim"] = 0  # one head over all channels, as in the preset
    return LaCTConfig.from_dict({**values, **changes})


def field_help(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    found = {}
    for statement, following in zip(body, body[1:]):
        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and is_text:
            found[statement.target.id] = " ".join(str(following.value.value).split())
    return found
