"""Synthetic training scenes, rendered on the device that trains: see ``source.ProceduralSource``."""

from data_tools.procedural.source import DEFAULT_MIX, KINDS, ProceduralSource

__all__ = ["DEFAULT_MIX", "KINDS", "ProceduralSource"]
