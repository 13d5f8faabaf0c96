"""The former name of `data_tools.assets.gltf`, kept for one release."""

from data_tools.assets.gltf import read_gltf

__all__ = ["read_gltf"]
