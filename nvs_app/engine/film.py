"""The former name of `nvs_app.rendering.video`, kept for one release."""

from nvs_app.rendering.video import VideoWriter as FilmWriter

__all__ = ["FilmWriter"]
