"""Optimizer of the trainer: Muon for the matrices inside blocks, AdamW for the rest, on flat buffers.

All parameters live in one flat float32 buffer (so do gradients, momenta and the weight average), ordered so that
matrices of one shape lie next to each other: zeroing, all-reduce, norm, clip, momentum, decay and averaging are
one kernel each, and Newton-Schulz runs once a shape on a [k, m, n] view of the buffer, without copies.

No step waits for the host: whether a step is skipped (a spike of the gradient norm, or a value that is not
finite) is decided on the device and multiplies the step.

    flat = FlatParameters(model)
    optimizer = MuonAdamW(flat)
    loss.backward(); optimizer.step(factor=1.0); flat.zero_grad()

Sources: Muon, Keller Jordan 2024 (kellerjordan.github.io/posts/muon); the update scale 0.2 * sqrt(max(m, n)), which
gives a matrix the root-mean-square update of AdamW, arXiv 2502.16982 ("Muon is scalable for LLM training").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nvs_app.model.newton_schulz import newton_schulz

ALIGNMENT = 64  # elements; a group starts on a boundary that vectorised kernels like
MOMENTUM = 0.95  # of Muon (Nesterov)
BETAS = (0.9, 0.95)  # of AdamW
MUON, ADAM_DECAY, ADAM = "muon", "adam_decay", "adam"


def parameter_kind(name: str, parameter: Tensor) -> str:
    """Which optimizer a parameter of a LaCT model gets.

    Muon: matrices inside blocks ([m, n], or [heads, m, n] fast weights) and the detail head's convolutions, but
    those of a few outputs (weights, colours, logits). AdamW without decay: norms, biases and the learning-rate
    heads. AdamW with decay: the other matrices (patch embedding, output).
    """
    if name.startswith("detail_head.") and parameter.dim() == 4 and len(parameter) >= 8:
        return MUON
    if parameter.dim() < 2 or "to_lr" in name:
        return ADAM
    if name.startswith("blocks.") or ".blocks." in name:
        return MUON
    return ADAM_DECAY


def matrix_shape(name: str, parameter: Tensor) -> tuple[int, int, int]:
    """[k, m, n] that Muon sees: a fused q-k-v projection counts as three matrices, heads count one by one.

    A convolution [out, in, height, width] is the matrix [out, in height width].
    """
    if name.startswith("detail_head."):
        return 1, parameter.shape[0], math.prod(parameter.shape[1:])
    *heads, rows, columns = parameter.shape
    if "qkv" in name and rows % 3 == 0:
        return 3, rows // 3, columns
    return math.prod(heads), rows, columns


@dataclass(frozen=True)
class Slot:
    """Where a parameter lies in the flat buffer."""

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape)


class FlatParameters:
    """Moves the parameters of a module into one flat float32 buffer and gives them flat gradients.

    data, grad: [n]; slots: one a parameter, in the buffer's order; groups: (m, n, start, end) of the Muon matrices
    of one shape; bounds: start and end of each kind. Call it once the module is on its device, before compilation.
    `gradients` False leaves the gradients out (the weight average). `prefix`: of the names of the parameters that are
    trained; the others stay where they are and get no gradients.
    """

    def __init__(self, module: nn.Module, gradients: bool = True, prefix: str = "") -> None:
        order = {MUON: 0, ADAM_DECAY: 1, ADAM: 2}
        entries = []
        for name, parameter in module.named_parameters():
            if not name.startswith(prefix):
                parameter.requires_grad_(False)
                continue
            kind = parameter_kind(name, parameter)
            shape = matrix_shape(name, parameter)[1:] if kind == MUON else (0, 0)
            entries.append((order[kind], shape, name, kind, parameter))
        entries.sort(key=lambda entry: entry[:3])
        self.slots: list[Slot] = []
        self.groups: list[tuple[int, int, int, int]] = []
        self.bounds: dict[str, tuple[int, int]] = {}
        end, previous = 0, None
        for _, shape, name, kind, parameter in entries:
            # Matrices of one shape must touch; everything else starts aligned, as compiled kernels expect.
            if (kind, shape) != previous or kind != MUON:
                end = -(-end // ALIGNMENT) * ALIGNMENT
                if kind == MUON:
                    self.groups.append((*shape, end, end))
                previous = (kind, shape)
            slot = Slot(name, tuple(parameter.shape), kind, end)
            self.slots.append(slot)
            end = slot.end
            if kind == MUON:
                self.groups[-1] = (*self.groups[-1][:3], end)
            self.bounds[kind] = (self.bounds.get(kind, (slot.offset,))[0], end)
        device = entries[0][4].device
        self.data = torch.zeros(end, device=device)
        self.grad = torch.zeros(end, device=device) if gradients else torch.empty(0)
        for slot, entry in zip(self.slots, entries, strict=True):
            parameter = entry[4]
            view = self.data[slot.offset : slot.end].view(slot.shape)
            view.copy_(parameter.detach())
            parameter.data = view
            if gradients:
                parameter.grad = self.grad[slot.offset : slot.end].view(slot.shape)
            else:
                parameter.requires_grad_(False)

    def layout(self) -> list[list[object]]:
        """Names, shapes and offsets, as plain values: a state file fits only the layout it was written with."""
        return [[slot.name, list(slot.shape), slot.offset] for slot in self.slots]

    def zero_grad(self) -> None:
        self.grad.zero_()

    def span(self, kind: str) -> slice:
        """Part of the flat buffers that a kind of parameter takes (empty when there is none)."""
        return slice(*self.bounds.get(kind, (0, 0)))


class SpikeGuard:
    """Decides on the device how much of a gradient is used: clipped to `clip`, or nothing on a spike.

    A step is skipped when its norm is not finite or above `grad_skip_factor` times the median of the last `window`
    norms (from the 16th step on). Skipped finite norms enter the window too, so that a lasting change is soon normal.
    """

    def __init__(self, device: torch.device, clip: float, grad_skip_factor: float, window: int = 128) -> None:
        self.clip, self.grad_skip_factor = clip, grad_skip_factor
        self.norms = torch.full((window,), math.inf, device=device)
        self.count = torch.zeros((), device=device)
        self.skipped = torch.zeros((), device=device)

    def tensors(self) -> dict[str, Tensor]:
        return {"guard_norms": self.norms, "guard_count": self.count, "guard_skipped": self.skipped}

    def __call__(self, norm: Float[Tensor, ""]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """norm -> (factor of the gradient, 1 or 0 for a step that counts or is skipped)."""
        window = self.norms.numel()
        middle = ((self.count.clamp(max=window) - 1) / 2).floor().clamp(min=0).long()
        median = self.norms.sort().values.gather(0, middle[None])[0]
        limit = torch.where(self.count >= 16, self.grad_skip_factor * median, math.inf)
        finite = norm.isfinite()
        ok = (finite & (norm <= limit)).float()
        here = torch.arange(window, device=norm.device) == (self.count % window)
        self.norms.copy_(torch.where(here & finite, norm, self.norms))
        self.count += finite
        self.skipped += 1 - ok
        factor = (self.clip / (norm + 1e-6)).clamp(max=1.0)
        return torch.where(finite, factor, 0.0), ok


class MuonAdamW:
    """One step of Muon and AdamW over `FlatParameters`, with clipping and skipping.

    muon_lr, adam_lr: base learning rates; weight_decay: decoupled, on matrices; clip, grad_skip_factor: see
    `SpikeGuard`; rate: of a parameter's name, what multiplies its learning rates.
    """

    def __init__(
        self,
        flat: FlatParameters,
        muon_lr: float = 2e-3,
        adam_lr: float = 1e-3,
        weight_decay: float = 0.05,
        clip: float = 1.0,
        grad_skip_factor: float = 6.0,
        rate: Callable[[str], float] | None = None,
    ) -> None:
        self.flat, self.muon_lr, self.adam_lr = flat, muon_lr, adam_lr
        self.weight_decay = weight_decay
        device = flat.data.device
        muon, adam = flat.span(MUON), self._adam_span()
        self.velocity = torch.zeros(muon.stop - muon.start, device=device)
        self.mean = torch.zeros(adam.stop - adam.start, device=device)
        self.square = torch.zeros_like(self.mean)
        self.count = torch.zeros((), device=device)
        self.guard = SpikeGuard(device, clip, grad_skip_factor)
        self.rates = torch.ones_like(flat.data) if rate is not None else torch.ones((), device=device)
        if rate is not None:
            for slot in flat.slots:
                self.rates[slot.offset : slot.end] = rate(slot.name)

    def _rates(self, span: slice) -> Tensor:
        return self.rates[span] if self.rates.dim() else self.rates

    def _adam_span(self) -> slice:
        decay, plain = self.flat.span(ADAM_DECAY), self.flat.span(ADAM)
        spans = [span for span in (decay, plain) if span.stop > span.start]
        return slice(spans[0].start, spans[-1].stop) if spans else slice(0, 0)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs."""
        own = {"velocity": self.velocity, "mean": self.mean, "square": self.square, "count": self.count}
        return own | self.guard.tensors()

    @torch.no_grad()
    def step(self, factor: float) -> dict[str, Tensor]:
        """Use the gradients in `flat.grad` (they are overwritten); `factor` multiplies both learning rates.

        Returns {"grad_norm", "ok"} as scalars on the device: the norm before clipping, and 1 or, when the step was
        skipped, 0; then no parameter and no momentum changed.
        """
        flat = self.flat
        norm = flat.grad.norm()
        scale, ok = self.guard(norm)
        gradient = torch.where(ok > 0, flat.grad.mul_(scale), 0.0)  # a product would keep NaN
        self.count += ok
        self._muon(gradient, factor * self.muon_lr, ok)
        self._adam(gradient, factor * self.adam_lr, ok)
        return {"grad_norm": norm, "ok": ok}

    def _muon(self, gradient: Tensor, lr: float, ok: Tensor) -> None:
        span = self.flat.span(MUON)
        if span.start == span.stop:
            return
        data, gradient = self.flat.data[span], gradient[span]
        self.velocity.lerp_(gradient, (1 - MOMENTUM) * ok)
        direction = gradient.lerp(self.velocity, MOMENTUM)
        rates = self._rates(span) * ok
        data.mul_(1 - lr * self.weight_decay * rates)
        for rows, columns, start, end in self.flat.groups:
            part = slice(start - span.start, end - span.start)
            update = newton_schulz(direction[part].view(-1, rows, columns))
            size = lr * 0.2 * math.sqrt(max(rows, columns))
            rate = rates[part].view(-1, rows, columns) if rates.dim() else rates
            data[part].view(-1, rows, columns).sub_(update * (size * rate))

    def _adam(self, gradient: Tensor, lr: float, ok: Tensor) -> None:
        span = self._adam_span()
        if span.start == span.stop:
            return
        gradient = gradient[span]
        first, second = BETAS
        self.mean.lerp_(gradient, (1 - first) * ok)
        self.square.lerp_(gradient.square(), (1 - second) * ok)
        decay = self.flat.span(ADAM_DECAY)
        if decay.start != decay.stop:
            self.flat.data[decay].mul_(1 - lr * self.weight_decay * ok * self._rates(decay))
        count = self.count.clamp(min=1)
        deviation = (self.square / (1 - second**count)).sqrt_().add_(1e-8)
        self.flat.data[span].sub_(self.mean / deviation * (lr * ok * self._rates(span) / (1 - first**count)))


@torch.no_grad()
def update_average(average: Float[Tensor, " n"], data: Float[Tensor, " n"], decay: float, ok: Tensor) -> None:
    """average <- decay * average + (1 - decay) * data, in place; nothing on a skipped step (`ok` 0)."""
    average.lerp_(data, (1 - decay) * ok)
