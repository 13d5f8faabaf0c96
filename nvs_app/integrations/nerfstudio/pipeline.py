"""Data and model together, and what a run leaves behind beside nerfstudio's own files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE

from nvs_app.errors import NVSError
from nvs_app.integrations.nerfstudio.data import LaCTDataManager, LaCTDataManagerConfig
from nvs_app.integrations.nerfstudio.ffmpeg import provide_ffmpeg
from nvs_app.integrations.nerfstudio.model import LaCTModel, LaCTModelConfig
from nvs_app.model.checkpoint import default_checkpoint, find_checkpoint, read_description
from nvs_app.model.config import LaCTConfig
from nvs_app.scenes.nerfstudio_frame import FRAME_FILE, write_frame

STATE_FILE = "scene_state.safetensors"


@dataclass
class LaCTPipelineConfig(VanillaPipelineConfig):
    """Data and model."""

    _target: type = field(default_factory=lambda: LaCTPipeline)
    datamanager: LaCTDataManagerConfig = field(default_factory=LaCTDataManagerConfig)
    """which photos"""
    model: LaCTModelConfig = field(default_factory=LaCTModelConfig)
    """which network"""

    def resolve(self) -> None:
        """Puts the default checkpoint, its image size and what its detail head works with where nothing was chosen.
        Raises NVSError."""
        self.model.checkpoint = self.model.checkpoint or default_checkpoint()
        description = read_description(find_checkpoint(self.model.checkpoint))
        config, card = LaCTConfig.from_dict(description["model"]), description["card"]
        trained = card.get("train_image_hw")
        if self.datamanager.image_size is None:
            self.datamanager.image_size = int(max(trained)) if isinstance(trained, (list, tuple)) and trained else 256
        head = config.detail_head if self.model.detail else None
        for name in ("look_at", "lact_scale", "lact_least", "lact_most") if head is None else ():
            if getattr(self.model, name) is not None:
                raise NVSError(f"{name}: {getattr(self.model, name)}, but no detail head renders; leave it out")
        if head is not None:
            lact = self.model.lact(card)
            self.model.lact_scale, self.model.lact_least, self.model.lact_most = lact.scale, lact.least, lact.most
            self.model.look_at = head.views if self.model.look_at is None else self.model.look_at
        if self.datamanager.num_context < 1:
            raise NVSError(f"num_context: {self.datamanager.num_context}, expected a view or more")


@dataclass
class LaCTTrainerConfig(TrainerConfig):
    """A trainer whose config.yml names the checkpoint and the sizes that were used, whatever the defaults become."""

    def save_config(self) -> None:
        """Resolves the defaults first."""
        if isinstance(self.pipeline, LaCTPipelineConfig):
            self.pipeline.resolve()
        super().save_config()


class LaCTPipeline(VanillaPipeline):
    """nerfstudio's plain pipeline, whose one iteration writes the context views into fast weights."""

    config: LaCTPipelineConfig
    datamanager: LaCTDataManager

    def __init__(self, config: LaCTPipelineConfig, device: torch.device | str, *args: Any, **kwargs: Any) -> None:
        if int(kwargs.get("world_size", 1)) > 1:
            raise NVSError("lact: encoding takes one pass on one device; leave --machine.num-devices at 1")
        config.resolve()
        provide_ffmpeg()
        super().__init__(config, str(device), *args, **kwargs)
        # A scene is encoded when its first view is rendered, be it by the viewer. A loaded state comes before.
        self.model.source = lambda: (*self.datamanager.context(), self.datamanager.frame)

    @property
    def model(self) -> LaCTModel:
        """The model (never wrapped for several devices)."""
        model = self._model
        assert isinstance(model, LaCTModel)
        return model

    def get_train_loss_dict(self, step: int) -> tuple[dict, dict, dict]:
        """Encodes the scene, the first time."""
        with torch.no_grad():
            state = self.model.encoded()
        names = state.meta.get("context_images", "").splitlines()
        if self.model.encode_seconds is not None:
            CONSOLE.print(f"lact: {len(names)} context views encoded in {self.model.encode_seconds:.1f} s")
        return {}, self.model.get_loss_dict({}, {}), self.model.get_metrics_dict({}, {})

    def get_eval_loss_dict(self, step: int) -> tuple[dict, dict, dict]:
        """There is no loss."""
        return {}, self.model.get_loss_dict({}, {}), {}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """After training, the encoded scene and its frame are written beside config.yml, for this project's tools."""
        trainer = training_callback_attributes.trainer

        def keep(step: int) -> None:
            assert trainer is not None
            state = self.model.encoded().save(trainer.base_dir / STATE_FILE)
            write_frame(trainer.base_dir / FRAME_FILE, self.model.frame)
            CONSOLE.print(f"lact: encoded scene in {state}")

        return [TrainingCallback(where_to_run=[TrainingCallbackLocation.AFTER_TRAIN], func=keep)]
