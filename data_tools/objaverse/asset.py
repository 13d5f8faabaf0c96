"""The former name of `data_tools.assets.asset`, kept for one release."""

from data_tools.assets.asset import BASE

__all__ = ["BASE"]
