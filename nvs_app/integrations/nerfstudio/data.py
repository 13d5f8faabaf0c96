"""Photos for the method `lact`: any dataparser's scene, undistorted and at the size that the network sees.

The base is nerfstudio's manager of ray methods, because `ns-render spiral` and `dataset` insist on it; rays are never
rendered. Photos are read by `nvs_app.scenes`, so that figures measured here and by `python -m nvs_app eval` are of
the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras as NerfstudioCameras
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.integrations.nerfstudio.cameras import scene_of, to_nerfstudio
from nvs_app.rendering.plan import HEAD_MULTIPLE
from nvs_app.scenes.nerfstudio_frame import frame_of
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import choose_views

SMALLEST = 16


@dataclass
class LaCTDataManagerConfig(VanillaDataManagerConfig):
    """Which photos the network reads, and at which size."""

    _target: type = field(default_factory=lambda: LaCTDataManager)
    num_context: int = 8
    """Number of context (input) views, taken from the train split; all of them where there are no more."""
    context_views: tuple[int, ...] | None = None
    """These context views instead: their places in the train split, from 0."""
    context_mode: Literal["spread", "random"] = "spread"
    """How context views are chosen: evenly spread over the cameras, or drawn with the seed."""
    context_seed: int = 0
    """Seed of the choice of context views."""
    image_size: int | None = None
    """Long side in pixels of all photos, context and eval; None takes the size the checkpoint was trained at.
    Photos are never enlarged, and the sides become multiples of 8."""


class PinholeDataset(InputDataset):
    """One split: photos at `image_size`, without lens distortion or transparency, and their cameras.

    Args:
        outputs: of the dataparser.
        image_size: the long side.
        frame: from the scene's own frame to that of `outputs`.
        look: whether photo files may be looked at now (see `scene_of`).
    """

    def __init__(
        self, outputs: DataparserOutputs, image_size: int, frame: SimilarityTransform, look: bool = True
    ) -> None:
        super().__init__(outputs)
        if outputs.mask_filenames is not None:
            CONSOLE.print("[yellow]lact: the scene's masks are not used.")
        self.scene: Scene = scene_of(outputs, frame, "nerfstudio scene", look)
        self.image_hws = [fit_image_hw((h, w), image_size) for h, w in self.scene.image_hws.tolist()]
        self.background = [1.0, 1.0, 1.0]  # white, as everywhere here, unless the dataparser says otherwise
        if outputs.alpha_color is not None:
            self.background = torch.as_tensor(outputs.alpha_color).tolist()
        times = outputs.cameras.times
        single = [
            to_nerfstudio(self.scene.cameras([i], hw), None if times is None else times[i : i + 1])
            for i, hw in enumerate(self.image_hws)
        ]
        names = ("fx", "fy", "cx", "cy", "width", "height", "camera_type")
        self.cameras = NerfstudioCameras(
            # As the dataparser has them: the way to the scene's frame and back would round.
            camera_to_worlds=outputs.cameras.camera_to_worlds,
            **{name: torch.cat([getattr(camera, name) for camera in single]) for name in names},
            times=times,
        )

    def get_image_float32(self, image_idx: int) -> Float[Tensor, "h w 3"]:
        """RGB in [0, 1]."""
        posed = self.scene.load([image_idx], self.image_hws[image_idx], self.background)
        return posed.images[0].permute(1, 2, 0).contiguous()

    def get_image_uint8(self, image_idx: int) -> UInt8[Tensor, "h w 3"]:
        """RGB, rounded."""
        return (self.get_image_float32(image_idx) * 255.0).round().to(torch.uint8)

    def get_numpy_image(self, image_idx: int) -> Any:
        """RGB uint8 [h, w, 3]."""
        return self.get_image_uint8(image_idx).numpy()

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict:
        """One photo and its index; without a mask, which would be of another size."""
        image = self.get_image_uint8(image_idx) if image_type == "uint8" else self.get_image_float32(image_idx)
        return {"image_idx": image_idx, "image": image}


class LaCTDataManager(VanillaDataManager):
    """Datasets of the two splits, and the context views among the first."""

    config: LaCTDataManagerConfig

    def __init__(self, config: LaCTDataManagerConfig, *args: Any, **kwargs: Any) -> None:
        if config.image_size is None:
            raise ValueError("LaCTDataManagerConfig.image_size: None, the pipeline puts the checkpoint's size there")
        data = Path(config.data or config.dataparser.data)
        check_data(data, isinstance(config.dataparser, NerfstudioDataParserConfig))
        super().__init__(config, *args, **kwargs)

    @cached_property
    def frame(self) -> SimilarityTransform:
        """From the scene's own frame to nerfstudio's, float64, batch shape ()."""
        outputs = self.train_dataparser_outputs
        # The other dataparsers know no applied_transform.
        own = isinstance(self.config.dataparser, NerfstudioDataParserConfig)
        data = Path(self.config.dataparser.data) if own else None
        return frame_of(outputs.dataparser_transform, outputs.dataparser_scale, data)

    def create_train_dataset(self) -> PinholeDataset:
        """The split that context views are taken from."""
        return self._dataset(self.train_dataparser_outputs)

    def create_eval_dataset(self) -> PinholeDataset:
        """The held-out split: "test" for ns-eval and ns-render, "val" while training."""
        return self._dataset(self.dataparser.get_dataparser_outputs(split=self.test_split))

    def _dataset(self, outputs: DataparserOutputs) -> PinholeDataset:
        if not len(outputs.image_filenames):
            raise NVSError(f"{self.config.dataparser.data}: the dataparser gives a split without photos")
        assert self.config.image_size is not None
        return PinholeDataset(outputs, self.config.image_size, self.frame, self.test_mode != "inference")

    def setup_train(self) -> None:
        """Nothing: there are no rays to sample."""

    def setup_eval(self) -> None:
        """The loaders of whole photos that ns-eval and ns-render use."""
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(self.eval_dataset, device=self.device)
        self.eval_dataloader = RandIndicesEvalDataloader(self.eval_dataset, device=self.device)

    def get_train_rays_per_batch(self) -> int:
        """Pixels of one photo: the viewer's measure of work."""
        return self.train_dataset.image_hws[0][0] * self.train_dataset.image_hws[0][1]

    def context(self) -> tuple[PosedImages, list[str]]:
        """The context views in the scene's own frame, at one size, and their files' names.

        Raises:
            NVSError: a view that does not exist.
        """
        config, dataset = self.config, self.train_dataset
        count = len(dataset.scene)
        if config.context_views is not None:
            # A target of its own, so that all train views may be listed: real targets come from the other split.
            chosen = choose_views(dataset.scene, 0, "listed", context=config.context_views, target=[0]).context
        elif config.num_context >= count:
            chosen = list(range(count))
        else:
            chosen = choose_views(dataset.scene, config.num_context, config.context_mode, config.context_seed).context
        sizes = [dataset.image_hws[index] for index in chosen]
        image_hw = max(sizes, key=sizes.count)  # the commonest
        posed = dataset.scene.load(chosen, image_hw, dataset.background)
        return posed, [str(dataset.scene.image_paths[index]) for index in chosen]


def check_data(data: Path, is_nerfstudio: bool) -> None:
    """Says what is wrong with `--data` before a dataparser fails on it.

    Raises:
        NVSError: nothing there, or (where nerfstudio's own format is to be read) no transforms.json.
    """
    if not data.exists():
        raise NVSError(f"--data {data}: does not exist, expected a scene")
    if is_nerfstudio and data.suffix != ".json" and not (data / "transforms.json").is_file():
        raise NVSError(
            f"--data {data}: holds no transforms.json; name the dataparser of its format after the options (colmap, "
            "blender-data, ...), or convert it first: python -m data_tools convert SCENE OUT"
        )


def fit_image_hw(image_hw: tuple[int, int], image_size: int) -> tuple[int, int]:
    """(height, width) of a photo whose long side is to be `image_size`: its shape, in multiples of 8, not enlarged.

    Raises:
        NVSError: a side would be shorter than 16 pixels.
    """
    factor = image_size / max(image_hw)
    if factor >= 1.0:
        fitted = image_hw
    else:
        height, width = (max(HEAD_MULTIPLE, round(side * factor / HEAD_MULTIPLE) * HEAD_MULTIPLE) for side in image_hw)
        fitted = (height, width)
    if min(fitted) < SMALLEST:
        raise NVSError(
            f"image_size {image_size}: photos of {image_hw[1]}x{image_hw[0]} would become {fitted[1]}x{fitted[0]}, "
            f"expected sides of {SMALLEST} or more"
        )
    return fitted
