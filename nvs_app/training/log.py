"""The log of a training run: OUT/train.jsonl, TensorBoard, and a progress line.

Scalars stay on the device until a record is due, and are then read one record late, so that logging never waits for
a step. Times of a step's parts come from CUDA events.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Dense bfloat16 peak in FLOP/s, without sparsity, by a part of the device's name (NVIDIA data sheets).
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "B200": 2250e12, "L40S": 362e12, "RTX 4090": 165e12}


def peak_flops(device: torch.device) -> float | None:
    """Peak of a device, or None where it is not known (then no utilisation is shown)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


class StepTimer:
    """Splits steps into parts: marks between them, CUDA events on a GPU, the host's clock elsewhere.

    Every step is marked, not a sample: new scenes are made in some steps only.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.marks: list[tuple[str, Any]] = []

    def mark(self, name: str) -> None:
        """The part called `name` starts here."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((name, event))
        else:
            self.marks.append((name, time.perf_counter()))

    def take(self) -> list[tuple[str, Any]]:
        marks, self.marks = self.marks, []
        return marks

    def milliseconds(self, marks: list[tuple[str, Any]]) -> dict[str, float]:
        """Mean length of each part of a step, in ms; what lies between the mark "end" and the next step is left out."""
        if self.cuda and marks:
            marks[-1][1].synchronize()
        parts: dict[str, float] = {}
        for (name, start), (_, end) in zip(marks, marks[1:]):
            if name != "end":
                length = start.elapsed_time(end) if self.cuda else 1e3 * (end - start)
                parts[name] = parts.get(name, 0.0) + length
        steps = max(1, sum(name == "end" for name, _ in marks))
        return {name: total / steps for name, total in parts.items()}


class StepProfiler:
    """Profiles `steps` steps from the 20th on and writes the operations that took longest to OUT/profile.txt."""

    FIRST = 20

    def __init__(self, out: Path, steps: int) -> None:
        self.path, self.steps = out / "profile.txt", steps
        self.profile: torch.profiler.profile | None = None

    def before(self, step: int) -> None:
        """Call before the step of this number (since the start of the process)."""
        if self.steps and step == self.FIRST:
            self.profile = torch.profiler.profile()  # every kind of activity that this machine has
            self.profile.__enter__()
        elif self.profile is not None and step == self.FIRST + self.steps:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.profile.__exit__(None, None, None)
            key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
            table = self.profile.key_averages().table(sort_by=key, row_limit=60, max_name_column_width=90)
            self.path.write_text(f"{self.steps} steps\n{table}\n")
            self.profile = None


class TrainLog:
    """Collects scalars of steps and writes a record every `every` steps. Only process 0 writes."""

    def __init__(self, out: Path, every: int, device: torch.device, active: bool, tensorboard: bool) -> None:
        self.every, self.device, self.active = every, device, active
        self.timer = StepTimer(device)
        self.peak = peak_flops(device)
        self.pending: list[dict[str, Tensor]] = []
        self.tokens = self.flops = 0.0
        self.since = time.perf_counter()
        self.late: tuple[dict[str, Any], list[str], Tensor, list] | None = None
        self.psnr: float | None = None  # smoothed, of the progress line
        self.last: dict[str, Any] = {}
        self.file = self.board = None
        if active:
            out.mkdir(parents=True, exist_ok=True)
            self.file = open(out / "train.jsonl", "a", encoding="utf-8")
            self.board = self._open_board(out / "tensorboard") if tensorboard else None

    @staticmethod
    def _open_board(folder: Path) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return SummaryWriter(str(folder))

    def due(self, step: int) -> bool:
        """True when the record of this step is written."""
        return (step + 1) % self.every == 0

    def exclude(self, seconds: float) -> None:
        """Do not count the last `seconds`: a save or an evaluation is no training."""
        self.since += seconds

    def step(self, step: int, scalars: dict[str, Tensor], tokens: int, flops: float, known: dict[str, Any]) -> None:
        """Take a step's device scalars, its tokens (all processes) and FLOPs (this one); `known` host values."""
        if not self.active:
            return
        self.pending.append(scalars)
        self.tokens += tokens
        self.flops += flops
        if not self.due(step):
            return
        self.flush()
        now = time.perf_counter()
        seconds = max(now - self.since, 1e-9)
        names = sorted(set.intersection(*(set(scalars) for scalars in self.pending)))
        # [steps, names]; the mean of each column is what the record shows.
        values = torch.stack([torch.stack([s[name].detach().float() for name in names]) for s in self.pending])
        values = torch.cat([values.mean(0), values.max(0).values])
        if self.device.type == "cuda":  # only a copy to pinned memory lets the host go on
            values = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
        record = {
            "step": step + 1,
            **known,
            "ms_per_step": 1e3 * seconds / len(self.pending),
            "tokens_per_s": self.tokens / seconds,
        }
        if self.peak:
            record["mfu"] = self.flops / seconds / self.peak
        done = torch.cuda.Event() if self.device.type == "cuda" else None
        if done is not None:
            done.record()
        self.late = (record, names, values, [done, self.timer.take()])
        self.pending, self.since = [], now
        self.tokens = self.flops = 0.0
        if self.device.type != "cuda":
            self.flush()

    def flush(self) -> None:
        """Write the record that is still on its way."""
        if self.late is None:
            return
        record, names, values, (done, marks) = self.late
        self.late = None
        if done is not None:
            done.synchronize()
        numbers = values.tolist()
        means = dict(zip(names, numbers[: len(names)]))
        record |= means
        largest = dict(zip(names, numbers[len(names) :]))
        if "grad_norm" in largest:
            record["grad_norm_max"] = largest["grad_norm"]
        if "skipped" in largest:  # counts up
            record["skipped"] = int(largest["skipped"])
        parts = self.timer.milliseconds(marks)
        record["ms"] = {name: round(value, 2) for name, value in parts.items()}
        total = sum(parts.values())
        if total:
            record["data_share"] = parts.get("data", 0.0) / total
        if "psnr" in means:
            self.psnr = means["psnr"] if self.psnr is None else 0.5 * self.psnr + 0.5 * means["psnr"]
        self.write("train", record)
        self.last = record
        self._print(record)

    def _print(self, record: dict[str, Any]) -> None:
        parts = " ".join(f"{name} {value:.0f}" for name, value in record["ms"].items())
        line = (
            f"step {record['step']:6d} {100 * record['progress']:5.1f}%  loss {record.get('loss', 0):.4f}"
            f"  psnr {self.psnr or 0:.2f}  {record['image_hw'][0]}px  lr x{record['lr_factor']:.3f}"
            f"  norm {record.get('grad_norm', 0):.3f}  skipped {record.get('skipped', 0):.0f}"
            f"  {record['tokens_per_s'] / 1e3:.0f}k tok/s"
        )
        if "psnr_lact" in record:
            line += f"  LaCT {record['psnr_lact']:.2f}  photos {record['from_photos']:.2f}"
        if "depth" in record:
            line += "  depth " + " ".join(f"{record[key]:.3f}" for key in ("depth_prior", "depth_first", "depth"))
            line += f" context {record['depth_context']:.3f} 2% {record['depth_2pc']:.2f}"
        if "mfu" in record:
            line += f"  MFU {100 * record['mfu']:.1f}%"
        line += f"  {record['ms_per_step']:.0f} ms/step ({parts})"
        if record.get("eta") is not None:
            line += f"  ETA {record['eta'] / 60:.1f} min"
        print(line, flush=True)

    def write(self, kind: str, record: dict[str, Any]) -> None:
        """Append a record to the log as it is."""
        if self.file is None:
            return
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self.file.write(json.dumps({"kind": kind, **clean}) + "\n")
        self.file.flush()
        if self.board is not None:
            for name, value in record.items():
                if isinstance(value, int | float) and name != "step":
                    self.board.add_scalar(f"{kind}/{name}", value, record.get("step", 0))

    def close(self) -> None:
        self.flush()
        if self.file is not None:
            self.file.close()
            self.file = None
        if self.board is not None:
            self.board.close()
