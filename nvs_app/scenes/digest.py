"""What tells that a scene is as it was, without reading its pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from nvs_app.scenes.scene import Scene


def files_digest(scene: Scene, views: Sequence[int]) -> str:
    """A digest of the files of some views: names, sizes and times."""
    facts = [scene.image_paths[view] for view in views]
    known = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else path for path in facts]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def scene_digest(scene: Scene) -> str:
    """A digest of the files, and of the cameras, of all views."""
    cameras = [scene.c2w.tolist(), scene.fxfycxcy.tolist(), scene.image_hws.tolist(), scene.lenses]
    others = [scene.orientations, [hashlib.sha256(image).hexdigest() for image in scene.encoded]]
    text = repr([files_digest(scene, range(len(scene))), cameras, others])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
