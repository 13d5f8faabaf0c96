"""What lies over the view when it is switched on: where the photos were taken, the photos, small, and sparse points.

message = capture_message(session.revision, opened, thumbnails, points)     # for `session.tell`
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from data_tools.readers.points import Points
from nvs_app.geometry.cameras import vertical_fov
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.work_messages import CaptureMessage

MAX_POINTS = 2500


def capture_message(
    revision: int, opened: LoadedScene, thumbnails: Sequence[str], points: Points | None
) -> CaptureMessage:
    """Views as {"index", "name", "group", "c2w" (rows of 3x4, in the scene's frame), "fov", "aspect", "photo"}; group:
    "input", "held out" or "not used"; points [m][6]: place, and colour from 0 to 255.

    Args:
        revision: of the scene. thumbnails: data URIs by view, or none. points: in the scene's frame.
    """
    split, cameras = opened.split, opened.cameras
    inputs = set(split.context) if split is not None else set(range(len(cameras)))
    targets = set(split.target) if split is not None else set()
    names = [path.name for path in opened.scene.image_paths] if opened.scene is not None else []
    fovs = vertical_fov(cameras).tolist()
    height, width = cameras.image_hw
    # Of places: a millionth of the capture's extent, wherever in the world it lies.
    extent = float((cameras.c2w[:, :3, 3].amax(0) - cameras.c2w[:, :3, 3].amin(0)).max())
    decimals = max(6, 6 - math.floor(math.log10(max(extent, 1e-9))))
    views = [
        {
            "index": index,
            "name": names[index] if names else f"view {index}",
            "group": "input" if index in inputs else "held out" if index in targets else "not used",
            "c2w": [round(x, decimals) for x in pose[:12]],
            "fov": round(fovs[index], 3),
            "aspect": round(width / height, 4),
            "photo": thumbnails[index] if index < len(thumbnails) else "",
        }
        for index, pose in enumerate(cameras.c2w.flatten(1).tolist())
    ]
    shown = points.sample(MAX_POINTS) if points is not None else None
    rows = np.concatenate([shown.xyz, shown.rgb], axis=1).tolist() if shown is not None and len(shown) else []
    return CaptureMessage(
        revision, views, [[*(round(x, decimals - 1) for x in row[:3]), *map(int, row[3:])] for row in rows]
    )
