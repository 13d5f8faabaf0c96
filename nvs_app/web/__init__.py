"""The web page: pick a scene, it is encoded, orbit around it. `app.py` starts it."""
