"""The former name of `data_tools.readers.archives`, kept for one release."""

from data_tools.readers.archives import extract

__all__ = ["extract"]
