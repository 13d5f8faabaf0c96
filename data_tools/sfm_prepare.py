"""The former name of `data_tools.structure_from_motion.prepare`, kept for one release."""

from data_tools.structure_from_motion.photo_files import find_images as find_pictures

__all__ = ["find_pictures"]
