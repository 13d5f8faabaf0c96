"""Novel views from posed images: fast weights are written once, then any camera is rendered (LaCT).

    from nvs_app import Renderer, open_scene

What stands here is imported when it is asked for: `import nvs_app` alone imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_tools.readers import open_scene
    from nvs_app.geometry.cameras import Cameras
    from nvs_app.model.lact import LaCT
    from nvs_app.model.state import SceneState
    from nvs_app.rendering.renderer import Renderer
    from nvs_app.scenes.scene import Scene

__all__ = ["Cameras", "LaCT", "Renderer", "Scene", "SceneState", "__version__", "open_scene"]
__version__ = "0.1.0"

_HOMES = {
    "Cameras": "nvs_app.geometry.cameras",
    "LaCT": "nvs_app.model.lact",
    "Renderer": "nvs_app.rendering.renderer",
    "Scene": "nvs_app.scenes.scene",
    "SceneState": "nvs_app.model.state",
    "open_scene": "data_tools.readers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
