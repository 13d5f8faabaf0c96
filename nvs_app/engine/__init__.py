"""The former name of `nvs_app.rendering`, kept for one release."""
