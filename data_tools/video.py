"""The former name of `data_tools.structure_from_motion.video`, kept for one release."""

from data_tools.structure_from_motion.video import choose_frames, write_frames

__all__ = ["choose_frames", "write_frames"]
