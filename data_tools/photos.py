"""The former name of `data_tools.structure_from_motion.photos`, kept for one release."""

from data_tools.readers import holds_scene as has_cameras
from data_tools.structure_from_motion.photos import scene_root

__all__ = ["has_cameras", "scene_root"]
