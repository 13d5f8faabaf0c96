"""What nerfstudio's entry point `nerfstudio.method_configs` loads: `ns-train lact`."""

from __future__ import annotations

import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.plugins.types import MethodSpecification

from nvs_app.integrations.nerfstudio.data import LaCTDataManagerConfig
from nvs_app.integrations.nerfstudio.model import LaCTModelConfig
from nvs_app.integrations.nerfstudio.pipeline import LaCTPipelineConfig, LaCTTrainerConfig

lact = MethodSpecification(
    config=LaCTTrainerConfig(
        method_name="lact",
        max_num_iterations=1,
        steps_per_eval_batch=0,
        steps_per_eval_image=0,
        steps_per_eval_all_images=0,
        mixed_precision=False,
        pipeline=LaCTPipelineConfig(
            datamanager=LaCTDataManagerConfig(dataparser=NerfstudioDataParserConfig()),
            model=LaCTModelConfig(),
        ),
        optimizers={},
        machine=MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu"),
        viewer=ViewerConfig(),
        vis="viewer",
    ),
    description="Novel views from fast weights: one pass over some views instead of optimisation.",
)
