"""Parity with recorded outputs of the published model: same pictures, same fast weights, on this hardware.

A recording is a safetensors file: metadata "config" (the published configuration as JSON), tensors
`state_dict.*` (published names), `input.{image,c2w,fxfycxcy}`, `target.{c2w,fxfycxcy}`, `output.rendering`
[b, t, 3, h, w] and `output.fast_weights.LAYER.{w0,w1,w2}` [b * heads, …].
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.model.config import LaCTConfig
from nvs_app.model.lact import LaCT
from nvs_app.model.pretrained import convert_state_dict
from nvs_app.model.state import FastWeights

RENDERING_LIMIT = 2e-3
FAST_WEIGHT_LIMIT = 1e-2
SELF_LIMIT = 1e-3


@dataclass(frozen=True)
class Recording:
    """A recorded run of the published model, its weights under this project's names."""

    config: LaCTConfig
    state_dict: dict[str, Tensor]
    images: Tensor
    context: Cameras
    target: Cameras
    rendering: Tensor
    fast_weights: list[FastWeights]

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a recording; raises `NVSError` for a file of another kind."""
        if not path.is_file():
            raise NVSError(f"{path}: no such file, expected a recording (.safetensors)")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            attention, fast, mlp = (part["params"] for part in json.loads(metadata["config"])["block_config"])
            sizes = json.loads(metadata["config"])
            config = LaCTConfig(
                dim=sizes["dim"],
                blocks=sizes["layers"],
                patch=sizes["patch_size"],
                attention_head_dim=attention["head_dim"],
                fast_head_dim=fast["head_dim"],
                fast_multiplier=fast["inter_multi"],
                mlp_multiplier=mlp["inter_multi"],
                base_lr=fast["base_lr"],
                muon_steps=fast["muon_update_steps"],
            )
            weights = {
                n.removeprefix("state_dict."): t for n, t in tensors.items() if n.startswith("state_dict.")
            }
            images = tensors["input.image"]
            image_hw = (images.shape[-2], images.shape[-1])
            batch = images.shape[0]
            return cls(
                config=config,
                state_dict=convert_state_dict(weights, str(path)),
                images=images,
                context=Cameras(tensors["input.c2w"], tensors["input.fxfycxcy"], image_hw),
                target=Cameras(tensors["target.c2w"], tensors["target.fxfycxcy"], image_hw),
                rendering=tensors["output.rendering"],
                fast_weights=[
                    FastWeights(
                        *(
                            tensors[f"output.fast_weights.{i}.{name}"].unflatten(
                                0, (batch, config.num_fast_heads)
                            )
                            for name in FastWeights._fields
                        )
                    )
                    for i in range(config.blocks)
                ],
            )
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise NVSError(f"{path}: not a recording of the published model ({error!r})") from error


def verify(path: Path, device: str = "cpu") -> list[tuple[str, float, float]]:
    """Compare this build with a recording.

    Returns:
        (what, error, limit) a line: the largest absolute pixel error, the largest relative Frobenius error of a
        fast-weight matrix, forward against encode + decode, and the effect of permuting the context views.
    """
    recording = Recording.load(path)
    model = LaCT(recording.config)
    model.load_state_dict(recording.state_dict, strict=True)
    model = model.to(device)
    images, context, target = (
        recording.images.to(device),
        recording.context.to(device),
        recording.target.to(device),
    )
    with model.evaluating():
        state = model.encode(images, context)
        rendering = model.decode(state, target)
        at_once = model(images, context, target)
        order = torch.arange(images.shape[1] - 1, -1, -1, device=device)
        permuted = model.decode(model.encode(images[:, order], context[:, order]), target)
    matrix_error = max(
        float((ours.cpu() - theirs).norm() / theirs.norm())
        for layer, recorded in zip(state.fast_weights, recording.fast_weights, strict=True)
        for ours, theirs in zip(layer, recorded, strict=True)
    )
    return [
        (
            "rendering, max absolute",
            float((rendering.cpu() - recording.rendering).abs().max()),
            RENDERING_LIMIT,
        ),
        ("fast weights, relative Frobenius", matrix_error, FAST_WEIGHT_LIMIT),
        (
            "forward against encode + decode, max absolute",
            float((at_once - rendering).abs().max()),
            SELF_LIMIT,
        ),
        ("context views permuted, max absolute", float((permuted - rendering).abs().max()), SELF_LIMIT),
    ]
