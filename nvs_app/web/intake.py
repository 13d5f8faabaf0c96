"""The former name of `nvs_app.web.services.uploads`, kept for one release."""

from nvs_app.web.services.uploads import inspect

__all__ = ["inspect"]
