"""What a scene becomes once it is written: the fast weights of every block, and the frame they live in.

state = renderer.encode(posed)      # some views -> SceneState
state.save(Path("chair.safetensors"))
state = SceneState.load(Path("chair.safetensors"))
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nvs_app.atomic_io import atomic_write
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.model.adapted import AdaptedWeights
from nvs_app.model.detail import ContextViews
from nvs_app.model.state_schema import ADAPTED, check_cameras, check_state

FORMAT = "nvs_app scene state 1"
ADAPTED_FORMAT = "nvs_app scene state 2"  # with adapted weights, which a reader of the first would leave out


class FastWeights(NamedTuple):
    """Fast weights of one block: f(x) = (silu(x w0) * (x w2)) w1.

    w0, w2: [b, heads, head_dim, hidden]; w1: [b, heads, hidden, head_dim]; float32.
    """

    w0: Tensor
    w1: Tensor
    w2: Tensor


@dataclass(frozen=True)
class SceneState:
    """Fast weights after the context views, one set a block.

    Attributes:
        fast_weights: one `FastWeights` a block.
        transform: world frame -> normalised frame, batch shape [b]; None where the caller did that.
        meta: strings that travel with the state (model hash, names of the context images, …).
        context: photos and features that a detail head looks at; None without one.
        adapted: weights of the network that are this scene's own; None where it has none.
    """

    fast_weights: list[FastWeights]
    transform: SimilarityTransform | None = None
    meta: dict[str, str] = field(default_factory=dict)
    context: ContextViews | None = None
    adapted: AdaptedWeights | None = None

    def to(self, device: torch.device | str) -> SceneState:
        """A copy on `device`; adapted weights stay where they are, see `Renderer.network`."""
        weights = [FastWeights(*(w.to(device) for w in layer)) for layer in self.fast_weights]
        transform = None if self.transform is None else self.transform.to(device)
        context = None if self.context is None else self.context.to(device)
        return replace(self, fast_weights=weights, transform=transform, context=context)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by the names that `save` gives them, copies on the CPU: float32, but the transform as float64,
        photos as uint8 and their features as float16."""
        tensors = {
            f"fast_weights.{i}.{name}": getattr(layer, name).float().cpu().contiguous()
            for i, layer in enumerate(self.fast_weights)
            for name in FastWeights._fields
        }
        if self.transform is not None:
            for name in ("scale", "rotation", "translation"):
                tensors[f"transform.{name}"] = getattr(self.transform, name).double().cpu().contiguous()
        if self.context is not None:
            views = self.context.stored()
            tensors |= {
                "context.images": views.images.cpu().contiguous(),
                "context.features": views.features.cpu().contiguous(),
                "context.c2w": views.cameras.c2w.float().cpu().contiguous(),
                "context.fxfycxcy": views.cameras.fxfycxcy.float().cpu().contiguous(),
            }
        if self.adapted is not None:
            tensors |= {f"{ADAPTED}{name}": value.cpu().contiguous() for name, value in self.adapted.tensors().items()}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], meta: dict[str, str]) -> SceneState:
        """What `tensors` gave. Raises KeyError or ValueError where something is missing."""
        count = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("fast_weights."))
        layers = [
            FastWeights(*(tensors[f"fast_weights.{i}.{name}"] for name in FastWeights._fields)) for i in range(count)
        ]
        transform = None
        if "transform.scale" in tensors:
            transform = SimilarityTransform(
                scale=tensors["transform.scale"],
                rotation=tensors["transform.rotation"],
                translation=tensors["transform.translation"],
            ).to(torch.float64)
        context = None
        if "context.images" in tensors:
            images = tensors["context.images"]
            hw = (images.shape[-2], images.shape[-1])
            cameras = Cameras(tensors["context.c2w"], tensors["context.fxfycxcy"], hw)
            context = ContextViews(images, cameras, tensors["context.features"])
        own = {name.removeprefix(ADAPTED): value.cpu() for name, value in tensors.items() if name.startswith(ADAPTED)}
        return cls(layers, transform, dict(meta), context, AdaptedWeights.from_tensors(own))

    def save(self, path: Path | str) -> Path:
        """Write to a `.safetensors` file, to a temporary name first."""
        path = Path(path)
        with atomic_write(path) as temporary:
            # `save_file` would write a file that only its owner may read.
            format = FORMAT if self.adapted is None else ADAPTED_FORMAT
            temporary.write_bytes(save(self.tensors(), {"format": format, "meta": json.dumps(self.meta)}))
        return path

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> SceneState:
        """Read what `save` wrote. Raises `NVSError` for a file of another kind."""
        path = Path(path)
        if not path.is_file():
            raise NVSError(f"{path}: no such scene state, expected a .safetensors file written by --state")
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if metadata.get("format") not in (FORMAT, ADAPTED_FORMAT):
                raise NVSError(f"{path}: not a scene state (format {metadata.get('format')!r}), expected {FORMAT!r}")
            meta = json.loads(metadata.get("meta", "{}"))
            check_state(tensors, meta)
            return cls.from_tensors(tensors, meta)
        except (SafetensorError, ValueError, RecursionError, OSError) as error:
            raise NVSError(f"{path}: not a readable scene state ({error}); encode the scene again") from error


def context_cameras(state: SceneState) -> Cameras | None:
    """The context cameras [v] that a state was encoded from, in the scene's own frame, poses float64; None when it has
    none."""
    text = state.meta.get("context_cameras")
    if not text:
        return None
    values = check_cameras(text)
    height, width = values["image_hw"]
    return Cameras(
        torch.tensor(values["c2w"], dtype=torch.float64),
        torch.tensor(values["fxfycxcy"], dtype=torch.float32),
        (int(height), int(width)),
    )
