"""The network as a nerfstudio model: holds a `SceneState`, and renders whole images with `Renderer`.

The network's own weights stay in the checkpoint; a run's `.ckpt` file holds the fast weights of the scene alone, in
the scene's own world frame, and the way from that frame to nerfstudio's.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras as NerfstudioCameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.evaluation.evaluator import measure
from nvs_app.evaluation.metrics import LPIPS
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.integrations.nerfstudio.cameras import from_nerfstudio, ray_lengths
from nvs_app.model.checkpoint import default_checkpoint, find_checkpoint, read_description
from nvs_app.model.state import SceneState
from nvs_app.rendering.plan import LaCTResolution
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.nerfstudio_frame import to_scene
from nvs_app.scenes.posed import PosedImages

FAR = 50.0  # in nerfstudio's units, where scenes reach to about 1: behind everything that its viewer shows


@dataclass
class LaCTModelConfig(ModelConfig):
    """Which network."""

    _target: type = field(default_factory=lambda: LaCTModel)
    enable_collider: bool = False
    checkpoint: str | None = None
    """Name in checkpoints/, or a folder; None takes the default one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto is bf16 on a GPU and on a CPU that is fast at it, else fp32."""
    detail: bool = True
    """Whether the checkpoint's detail head renders, where it has one; without it LaCT does, which knows no depth."""
    look_at: int | None = None
    """Context views that the detail head looks at for each view; None: as the checkpoint says."""
    lact_scale: float | None = None
    """LaCT's resolution under the detail head, in parts of the photos'; None: as the checkpoint says."""
    lact_least: int | None = None
    """Pixels that its shorter side has at least; None: as the checkpoint says."""
    lact_most: int | None = None
    """Pixels that its shorter side has at most; None: as the checkpoint says."""
    compile: bool = False
    """Compile the network's blocks: pays on a GPU after some tens of images, gains nothing on a CPU."""

    def lact(self, card: dict[str, Any]) -> LaCTResolution:
        """LaCT's resolution: what was chosen, the rest from the checkpoint's card. Raises NVSError."""
        chosen: dict[str, Any] = {"scale": self.lact_scale, "least": self.lact_least, "most": self.lact_most}
        return replace(LaCTResolution.of_card(card), **{k: v for k, v in chosen.items() if v is not None})


class Outputs(dict):
    """An image's outputs. LaCT alone knows no depth; where nerfstudio asks for one regardless (its viewer, to put the
    cameras that it shows in front of or behind the image), everything is far away and covered."""

    def __missing__(self, key: str) -> Tensor:
        if key not in ("depth", "accumulation"):
            raise KeyError(key)
        like = self["rgb"][..., :1]
        return torch.full_like(like, FAR if key == "depth" else 1.0)


class LaCTModel(Model):
    """See the module. `source` gives the context views the first time that something is to be rendered, unless a state
    was loaded before."""

    config: LaCTModelConfig

    def populate_modules(self) -> None:
        """Nothing to optimise."""
        self.state: SceneState | None = None
        self.frame = SimilarityTransform.identity().to(torch.float64)
        self.source: Callable[[], tuple[PosedImages, list[str], SimilarityTransform]] | None = None
        self.encode_seconds: float | None = None
        # In a list, so that neither the network nor LPIPS becomes a part of this module and of its state_dict.
        self._renderers: list[Renderer] = []
        self._lpips: list[LPIPS | None] = []
        self._lock = threading.Lock()
        self._told_crop = False

    @property
    def renderer(self) -> Renderer:
        """The network, loaded when it is first needed, on this model's device."""
        if not self._renderers or self._renderers[0].device.type != self.device.type:
            name = self.config.checkpoint or (self.state.meta.get("checkpoint") if self.state else None)
            config = self.config
            renderer = Renderer.from_checkpoint(
                name or default_checkpoint(),
                self.device,
                config.precision,
                config.compile,
                config.detail,
                config.look_at,
                config.lact(read_description(find_checkpoint(name or default_checkpoint()))["card"]),
            )
            self._renderers = [renderer]
        return self._renderers[0]

    def encoded(self) -> SceneState:
        """The fast weights of the scene; written now if they were not yet.

        Raises:
            NVSError: nothing was loaded and there are no photos to read.
        """
        with self._lock:  # the viewer renders in a thread of its own
            if self.state is None:
                if self.source is None:
                    raise NVSError("lact: no scene was encoded; run ns-train lact, and give its config.yml")
                posed, names, self.frame = self.source()
                renderer = self.renderer
                start = time.perf_counter()
                state = renderer.encode(posed)
                self.encode_seconds = time.perf_counter() - start
                self.state = replace(state, meta={**state.meta, "context_images": "\n".join(names)})
            if self.state.fast_weights[0].w0.device.type != self.device.type:
                self.state = self.state.to(self.device)  # once, and not for every image
            return self.state

    def get_outputs_for_camera(
        self, camera: NerfstudioCameras, obb_box: OrientedBox | None = None
    ) -> dict[str, Tensor]:
        """The image of one camera, on the camera's device.

        rgb: [h, w, 3] in [0, 1]. Where a detail head renders, also depth: [h, w, 1], distance along the ray in units
        of nerfstudio's frame, as its own methods give it; where there is no surface, the farthest of the image. And
        accumulation: [h, w, 1] in [0, 1], low where there is no surface, or none that a photo shows.
        """
        if obb_box is not None and not self._told_crop:
            self._told_crop = True
            CONSOLE.print("[yellow]lact renders whole images: the crop box is not used.")
        state, renderer = self.encoded(), self.renderer
        cameras = to_scene(self.frame, from_nerfstudio(camera.to("cpu")))
        if not renderer.detail or state.context is None:
            images = renderer.render(state, cameras)
            return Outputs(rgb=images[0].permute(1, 2, 0).contiguous().to(camera.device))
        views = renderer.render(state, cameras, depth=True)
        depth = views.depth * float(self.frame.scale) * ray_lengths(cameras)
        surface = views.surface > 0.5
        farthest = depth[surface].max() if surface.any() else depth.new_tensor(FAR)
        maps = {
            "rgb": views.images[0].permute(1, 2, 0).contiguous(),
            "depth": torch.where(surface, depth, farthest)[0, ..., None],
            "accumulation": (views.surface * views.seen)[0, ..., None],
        }
        return Outputs({name: value.to(camera.device) for name, value in maps.items()})

    def get_outputs(self, ray_bundle: RayBundle | NerfstudioCameras) -> dict[str, Tensor]:
        """Of a camera as above. Rays have no colour of their own here, only nothing in their way."""
        if isinstance(ray_bundle, RayBundle):
            return Outputs(rgb=torch.zeros_like(ray_bundle.origins))
        return self.get_outputs_for_camera(ray_bundle)

    def get_param_groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """None."""
        return {}

    def get_loss_dict(self, outputs: Any, batch: Any, metrics_dict: Any = None) -> dict[str, Tensor]:
        """A zero that nerfstudio's trainer can differentiate: nothing is optimised."""
        return {"none": self.device_indicator_param.sum()}

    def get_metrics_dict(self, outputs: Any, batch: Any) -> dict[str, Tensor]:
        """What encoding took."""
        return {"encode_seconds": torch.tensor(self.encode_seconds or math.nan)}

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR, SSIM and sharpness (LPIPS where $NVS_LPIPS_WEIGHTS is set), as `python -m nvs_app eval` measures them,
        and the photo beside the image."""
        truth = batch["image"].to(outputs["rgb"].device)
        rendered, photo = (image.permute(2, 0, 1).cpu() for image in (outputs["rgb"], truth))
        if not self._lpips:
            self._lpips = [LPIPS.find()]
        figures = measure(rendered[None], photo[None], lpips=self._lpips[0])
        return {name: float(value) for name, value in figures.items()}, {
            "img": torch.cat([truth, outputs["rgb"]], dim=1)
        }

    def get_extra_state(self) -> dict[str, Any]:
        """For the run's checkpoint: tensors and text only, which torch.load reads without unpickling objects."""
        if self.state is None:
            return {}
        frame = {"scale": self.frame.scale, "rotation": self.frame.rotation, "translation": self.frame.translation}
        return {"tensors": self.state.tensors(), "meta": dict(self.state.meta), "frame": frame}

    def set_extra_state(self, state: Any) -> None:
        """Takes over what `get_extra_state` gave. Raises NVSError for anything else."""
        if not state:
            return
        try:
            self.frame = SimilarityTransform(**state["frame"])
            self.state = SceneState.from_tensors(state["tensors"], state["meta"])
        except (KeyError, TypeError, ValueError) as error:
            raise NVSError(f"the run's checkpoint holds no scene of lact ({error}); train it again") from error
