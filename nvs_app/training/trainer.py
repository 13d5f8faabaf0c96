"""The trainer: procedural scenes (or scene folders) in, a checkpoint out.

    python -m nvs_app train --out runs/first --minutes 10 --evaluation.scenes path/to/scene
    torchrun --nproc-per-node 2 -m nvs_app train --out runs/first --minutes 10

A step: every process draws its own scenes (`sources`), one forward and backward pass in bfloat16 (`LaCT.forward`,
compiled blocks), one all-reduce of the flat gradient (`parallel`), Muon and AdamW (`optim`), the weight average.
Process 0 decides when to stop, evaluate and save, and tells the others. Nothing in a step waits for the device but
a bound of two steps that the host may run ahead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any

import torch
from torch import Tensor

from nvs_app.distributed import StopSignals, World
from nvs_app.errors import NVSError
from nvs_app.evaluation.evaluate import SMALLEST
from nvs_app.evaluation.metrics import LPIPS
from nvs_app.model.checkpoint import load_checkpoint
from nvs_app.model.config import LaCTConfig
from nvs_app.model.config_override import with_changes
from nvs_app.model.flops import lact_flops
from nvs_app.model.lact import LaCT
from nvs_app.rendering.device import device_name
from nvs_app.training.config import TrainConfig
from nvs_app.training.config_file import write_options
from nvs_app.training.held_out import HeldOut
from nvs_app.training.log import StepProfiler, TrainLog
from nvs_app.training.optim import FlatParameters, MuonAdamW, update_average
from nvs_app.training.output import Counters, RunOutput
from nvs_app.training.sampling import Examples, step_generator
from nvs_app.training.schedule import (
    TrainingClock,
    draw_view_count,
    ema_decay,
    learning_rate_factor,
    process_age,
    resolution_at,
    resolutions_at,
)
from nvs_app.training.sources import TrainSource, make_procedural
from nvs_app.training.state import OTHER_NETWORK, apply_state, find_state, read_state, run_tensors
from nvs_app.training.step_losses import step_losses

HELD_OUT_SEED = 10_000_019
RUN_AHEAD = 2  # steps that the host may be ahead of the device
RESYNC_STEPS = 500  # identical replicas stay identical; this heals rounding differences between devices


def run(config: TrainConfig) -> dict[str, Any]:
    """Train as configured, in every process of the run; returns the summary that process 0 prints.

    Raises NVSError for options that do not fit the data or the state found in `config.out`.
    """
    world = World(config.device)
    try:
        with StopSignals() as signals:
            trainer = Trainer(config, world, signals)
            if world.is_main:
                write_options(config)
            return trainer.train()
    finally:
        world.close()


class Trainer:
    """One process of a training run."""

    def __init__(self, config: TrainConfig, world: World, signals: StopSignals) -> None:
        self.config, self.world, self.signals, self.device = config, world, signals, world.device
        self.bf16 = config.model.precision == "bf16" or (
            config.model.precision == "auto" and self.device.type == "cuda"
        )
        # No TF32: products that matter run in bfloat16, and it would round cameras and procedural scenes.
        torch.manual_seed(config.seed)
        initial = load_checkpoint(config.model.init) if config.model.init else None
        if initial is not None and config.model.config_override:
            changes = ",".join(f"{name}={value}" for name, value in config.model.config_override.items())
            initial = with_changes(initial, changes)
        self.model_config: LaCTConfig = initial.config if initial else config.model_config
        self.model = (initial or LaCT(self.model_config)).to(self.device).train()
        self.average_model = LaCT(self.model_config).to(self.device).eval()
        self.average_model.load_state_dict(self.model.state_dict())
        lact_lr, rate = config.detail.lact_lr, None
        if lact_lr != 1 and self.model_config.detail_head is None:
            raise NVSError(f"--detail.lact-lr {lact_lr:g}: the network has no detail head, LaCT is all that is trained")
        if lact_lr not in (0, 1):
            rate = lambda name: 1.0 if name.startswith("detail_head.") else lact_lr  # noqa: E731
        trained = "" if lact_lr else "detail_head."
        self.flat = FlatParameters(self.model, prefix=trained)
        self.average = FlatParameters(self.average_model, gradients=False, prefix=trained).data
        own = config.optimizer
        self.optimizer = MuonAdamW(
            self.flat, own.muon_lr, own.adam_lr, own.weight_decay, own.clip, own.grad_skip_factor, rate
        )
        self.tensors = run_tensors(self.flat, self.average, self.optimizer)
        counters = self._resume()
        self.step, self.processes = counters["step"], counters["processes"] + 1
        self.tokens, self.step_at_start = counters["tokens"], counters["step"]
        self.clock = TrainingClock(
            config.minutes, config.process_minutes, counters["wall"], counters["trained"], config.output.reserve_seconds
        )
        plan = config.plan
        if self.model_config.detail_head is None:
            plan = dataclasses.replace(plan, depth=False)
        self.source = TrainSource(plan, config.seed, world.rank, world.size, self.device)
        lpips = LPIPS.find(config.loss.lpips_file) if config.loss.lpips_file else None
        self.lpips = lpips.to(self.device) if lpips else None
        self.stages = config.stages
        self.log = TrainLog(config.out, config.output.log_every, self.device, world.is_main, config.output.tensorboard)
        self.output = RunOutput(
            config,
            world,
            self.clock,
            self.log,
            self._held_out() if world.is_main else None,
            self.average_model,
            self.flat,
            self.tensors,
            "bf16" if self.bf16 else "fp32",
        )
        self.step_seconds, self.steady, self.furthest = 0.0, (0, 0.0), 0.0
        self.events: list[torch.cuda.Event] = []
        self.profiler = StepProfiler(config.out, config.output.profile if world.is_main else 0)
        self._compile()

    def _resume(self) -> dict[str, Any]:
        """Load the state of the run where there is one; everyone gets process 0's tensors and counters."""
        config, counters = self.config, {"step": 0, "wall": 0.0, "trained": 0.0, "tokens": 0, "processes": 0}
        if self.world.is_main:
            path = None if config.resume == "never" else find_state(config.out)
            if path is None and config.resume == "always":
                raise NVSError(f"--resume always: {config.out} holds no training state; use --resume auto")
            if path is not None:
                content = read_state(path)
                if LaCTConfig.from_dict(content["model"]) != self.model_config:
                    raise NVSError(f"{path}: {OTHER_NETWORK}")
                counters = apply_state(path, content, self.flat, self.tensors)
                self.say(f"resuming {path} at step {counters['step']}")
        self.world.broadcast_(*self.tensors.values())
        return self.world.broadcast_object("counters", counters)

    def _held_out(self) -> HeldOut:
        config, make = self.config, None
        if config.evaluation.procedural and "procedural" in config.plan.shares:
            make = make_procedural(config.plan, self.device, config.seed + HELD_OUT_SEED)
        if (config.evaluation.scenes or make) and min(
            side for stage in self.stages for side in stage.image_hw
        ) < SMALLEST:
            raise NVSError(f"--views.resolutions: held-out scenes need {SMALLEST} pixels or more a side")
        return HeldOut(
            list(config.evaluation.scenes),
            config.evaluation.context,
            make,
            config.evaluation.procedural,
            config.data.generate,
            config.data.pool_views,
        )

    def _compile(self) -> None:
        self.model.activation_checkpointing = self.config.model.checkpointing
        how = self.config.model.compile
        if how == "off" or (how == "auto" and self.device.type != "cuda"):
            return
        dynamo = torch._dynamo.config
        # The default of 8 shapes would silently fall back to eager mode in a curriculum with many view counts.
        for name in ("recompile_limit", "cache_size_limit"):
            if hasattr(dynamo, name):
                setattr(dynamo, name, 64)
        # One more resolution, or number of writing tokens (`CONTEXT_BUCKETS`), is better compiled for itself
        # than once for all sizes.
        if len({count.total for count in self.config.view_counts}) == 1:
            dynamo.automatic_dynamic_shapes = False
        self.model.compile_blocks()

    def say(self, text: str) -> None:
        """A line on stdout, from process 0."""
        if self.world.is_main:
            print(f"[{process_age():6.1f}s] {text}", flush=True)

    def autocast(self) -> contextlib.AbstractContextManager:
        """bfloat16 for matrix products where the run asks for it."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    # ------------------------------------------------------------------ the loop

    def train(self) -> dict[str, Any]:
        """Steps until something says stop, then the last evaluation and save; returns the summary."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.say(
            f"{parameters / 1e6:.1f}M parameters, {self.world.size} process(es) on {device_name(self.device)}, "
            f"{'bf16' if self.bf16 else 'fp32'}, scenes a step and process "
            + ", ".join(f"{s.image_hw[0]}px: {self.usual_scenes(s.image_hw)}" for s in self.stages)
        )
        decision = self.decide()
        began, sizes = time.perf_counter(), resolutions_at(self.stages, decision["progress"])
        for image_hw in sizes:
            self.source.prepare(self.step, image_hw, self.usual_scenes(image_hw), sizes)
        self.say(f"scenes ready in {time.perf_counter() - began:.1f} s; the first step compiles")
        while not decision["stop"]:
            began = time.perf_counter()
            self.profiler.before(self.step - self.step_at_start)
            self.train_step(decision["progress"])
            self._bound_run_ahead()
            if self.clock.ready is None:
                self._first_step_done(time.perf_counter() - began)
            else:
                # The slowest of the recent steps: the last step before the limit must not be a surprise.
                self.step_seconds = max(time.perf_counter() - began, 0.7 * self.step_seconds)
            decision = self.decide()
            if decision["evaluate"] and not decision["stop"]:
                self.output.evaluate(self.counters(), resolutions_at(self.stages, decision["progress"]))
            if decision["save"] and not decision["stop"]:
                self.output.save(self.counters())
        return self._finish(decision["stop"])

    def counters(self) -> Counters:
        """Where the run stands."""
        return Counters(self.step, self.tokens, self.processes, self.progress())

    def _finish(self, stop: str) -> dict[str, Any]:
        steps, seconds = self.step - self.steady[0], -self.steady[1]
        self.log.flush()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds += self.clock.age() - self.output.spent
        measured = {
            "ms_per_step": round(1e3 * seconds / steps, 2) if steps > 0 and self.clock.ready else None,
            "train_psnr": self.log.psnr,
            "skipped": int(self.optimizer.guard.skipped.item()),
        }
        return self.output.finish(self.counters(), stop, changed=self.step > self.step_at_start, measured=measured)

    def _first_step_done(self, seconds: float) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.clock.first_step_done()
        self.output.start()
        self.signals.something_to_save = True
        self.say(f"first step done in {seconds:.1f} s")
        self.log.exclude(time.perf_counter() - self.log.since)
        self.steady = (self.step, self.clock.age())

    def progress(self) -> float:
        """Share of the run that is done, by the clock or by steps, whichever is further."""
        by_steps = self.step / self.config.steps if self.config.steps else 0.0
        # Never back: a save that took longer than expected shortens the run, and must not undo a resolution.
        self.furthest = min(1.0, max(self.clock.progress(), by_steps, self.furthest))
        return self.furthest

    def decide(self) -> dict[str, Any]:
        """Process 0's decision for the next step, the same in every process."""
        decision: dict[str, Any] = {}
        if self.signals.received and not self.world.is_main:
            self.world.raise_flag("stop")
        if self.world.is_main:
            config, stop = self.config, ""
            if config.steps and self.step >= config.steps:
                stop = "steps"
            elif self.clock.over(2 * self.step_seconds) or (config.minutes and self.progress() >= 1):
                stop = "minutes"
            if self.signals.received or self.world.flag("stop"):
                stop = self.signals.received or "signal"
            evaluate, save = self.output.due()
            decision = {"progress": self.progress(), "stop": stop, "evaluate": evaluate, "save": save}
        return self.world.broadcast_object(f"step {self.processes} {self.step}", decision)

    def train_step(self, progress: float) -> None:
        """One step of training."""
        config, timer = self.config, self.log.timer
        timed = self.log.active
        sizes = resolutions_at(self.stages, progress)
        image_hw = resolution_at(self.stages, progress, self.step)
        uniform = torch.rand((), generator=step_generator(config.seed, self.step, 3, "cpu")).item()
        count = draw_view_count(config.view_counts, uniform)
        scenes = config.scenes_for(image_hw, count, self.model_config.patch)
        if timed:
            timer.mark("data")
        examples = self.source.examples(self.step, image_hw, count, scenes, self.usual_scenes(image_hw), sizes)
        if timed:
            timer.mark("model")
        scalars = self.backward(examples)
        if timed:
            timer.mark("reduce")
        self.world.average_(self.flat.grad)
        if timed:
            timer.mark("optimizer")
        factor = learning_rate_factor(progress, self.step, **dataclasses.asdict(config.schedule))
        scalars |= self.optimizer.step(factor)
        update_average(self.average, self.flat.data, ema_decay(self.step, config.optimizer.ema), scalars.pop("ok"))
        self.flat.zero_grad()
        if timed:
            timer.mark("end")
        self._account(scalars, image_hw, count.context, count.target, scenes, progress, factor)
        self.step += 1
        if self.world.size > 1 and self.step % RESYNC_STEPS == 0:
            self.world.broadcast_(self.flat.data)

    def backward(self, examples: Examples) -> dict[str, Tensor]:
        """Loss and gradients of a batch (added to `flat.grad`); device scalars for the log."""
        loss, scalars = step_losses(self.model, examples, self.config, self.step, self.autocast, self.lpips)
        loss.backward()
        return scalars

    def _account(
        self,
        scalars: dict[str, Tensor],
        image_hw: tuple[int, int],
        context: int,
        target: int,
        scenes: int,
        progress: float,
        factor: float,
    ) -> None:
        patch = self.model_config.patch
        per_view = (image_hw[0] // patch) * (image_hw[1] // patch)
        tokens = scenes * (context + target) * per_view * self.world.size
        self.tokens += tokens
        flops = 3 * scenes * lact_flops(self.model_config, context * per_view, target * per_view, per_view)
        known = {
            "progress": progress,
            "lr": factor * self.config.optimizer.muon_lr,
            "lr_factor": factor,
            "image_hw": list(image_hw),
            "elapsed": self.clock.wall(),
            "eta": self._remaining(progress),
            "tokens": self.tokens,
        }
        self.log.step(self.step, scalars | {"skipped": self.optimizer.guard.skipped.clone()}, tokens, flops, known)

    def _remaining(self, progress: float) -> float | None:
        trained = self.clock.trained()
        return trained * (1 - progress) / progress if progress > 0 and trained > 0 else None

    def _bound_run_ahead(self) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
            self.events.append(event)
            if len(self.events) > RUN_AHEAD:
                self.events.pop(0).synchronize()

    def usual_scenes(self, image_hw: tuple[int, int]) -> int:
        return self.config.usual_scenes(image_hw, self.model_config.patch)
