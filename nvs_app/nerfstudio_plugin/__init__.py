"""The former name of `nvs_app.integrations.nerfstudio`.

A `config.yml` of nerfstudio names classes by their modules, and those of older runs name them here.
"""

import sys

from nvs_app.integrations.nerfstudio import data, method, model, pipeline

for module in (data, method, model, pipeline):
    sys.modules[f"{__name__}.{module.__name__.rpartition('.')[2]}"] = module
