"""The method `lact` of nerfstudio: `ns-train lact --data SCENE` writes a scene into fast weights, once.

`method` holds what nerfstudio's entry point loads. `python -m nvs_app.integrations.nerfstudio` runs nerfstudio's
commands with a user's mistakes told in one line. `nvs_app.rendering.renderer.Renderer` renders every image, as
everywhere.
"""
