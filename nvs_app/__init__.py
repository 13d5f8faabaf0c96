"""Novel views from posed pictures: fast weights are written once, then any camera is rendered (LaCT)."""

__version__ = "0.1.0"
