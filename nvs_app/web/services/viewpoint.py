"""Where the viewer starts to look at a scene, and cameras as the page sends them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at, vertical_fov, with_vertical_fov
from nvs_app.geometry.layout import CoveredViews, covered_views
from nvs_app.geometry.paths import focus_point
from nvs_app.geometry.sway import sway

FOV_RANGE = (5.0, 120.0)
TURN_VIEWS = 72


@dataclass(frozen=True)
class Viewpoint:
    """The first look at a scene, in its own frame and units.

    Attributes:
        c2w: the camera to start from, OpenCV axes: where one of the capture's own stands, level, at the focus.
        fov: its vertical field of view, degrees.
        focus: the point that the cameras look at; dragging turns around it.
        up: unit vector, from how the cameras were held, see `geometry.robust`.
        radius: median distance of the cameras from the focus.
        covered: from where photos show the scene.
        sway: cameras [TURN_VIEWS] that it turns through by itself, from the first look on, beside the photos'.
    """

    c2w: Float[Tensor, "4 4"]
    fov: float
    focus: Float[Tensor, "3"]
    up: Float[Tensor, "3"]
    radius: float
    covered: CoveredViews
    sway: Cameras

    @staticmethod
    def of(cameras: Cameras) -> Viewpoint:
        """The first look at a scene that was encoded from cameras [v]: from where one of them stands, at a usual height
        and there as far to the front (the mean position) as can be."""
        c2w = cameras.c2w.double().cpu()
        focus = focus_point(c2w)
        covered = covered_views(c2w)
        up = covered.up
        offsets = c2w[:, :3, 3] - focus
        distances = offsets.norm(dim=-1)
        elevation = torch.asin((offsets @ up / distances.clamp_min(1e-9)).clamp(-1, 1))
        front = torch.nn.functional.cosine_similarity(offsets, offsets.mean(0)[None], dim=-1)
        start = int(((elevation - elevation.median()).abs() - 0.2 * front).argmin())
        fov = min(max(float(vertical_fov(cameras)[start]), FOV_RANGE[0]), FOV_RANGE[1])
        eye = c2w[start, :3, 3]
        view = look_at(eye[None], focus[None], up[None])[0]
        straight = abs(float(torch.nn.functional.normalize(eye - focus, dim=0) @ up)) > 0.999
        away = float(distances[start]) < 1e-6 or float((focus - eye) @ c2w[start, :3, 2]) <= 0
        first = c2w[start] if straight or away else view
        radius = float(distances.median().clamp_min(1e-6))
        return Viewpoint(first, fov, focus, up, radius, covered, sway(cameras.to("cpu"), start, TURN_VIEWS))

    def for_page(self) -> dict[str, Any]:
        """Plain numbers for the viewer's script."""
        return {
            "c2w": self.c2w.flatten().tolist(),
            "fov": self.fov,
            "focus": self.focus.tolist(),
            "up": self.up.tolist(),
            "radius": self.radius,
            "turn": {
                "around": self.covered.around,
                "middle": self.covered.middle.tolist(),
                "half": self.covered.half,
                "elevation": list(self.covered.elevation),
                "outward": self.covered.outward,
                "path": [[float(f"{x:.12g}") for x in pose] for pose in self.sway.c2w.flatten(1).tolist()],
            },
        }


def camera_from_page(message: dict[str, Any], longest: int) -> Cameras:
    """The camera [1] of a message {"c2w": 16 numbers row by row, "fov": degrees, "hw": [height, width]}.

    longest: pixels allowed for the longer side. The rotation is made exactly orthonormal (numbers written by a script
    drift); everything else is taken as it is.

    Raises:
        NVSError: a number is missing, no number or out of range.
    """
    values, fov, size = message.get("c2w"), message.get("fov"), message.get("hw")
    if not isinstance(values, list) or len(values) != 16 or not all(_is_number(value) for value in values):
        raise NVSError("camera: c2w is not 16 finite numbers of a sensible size")
    if not _is_number(fov) or not FOV_RANGE[0] <= float(fov or 0) <= FOV_RANGE[1]:
        raise NVSError(f"camera: fov is {str(fov)[:20]}, expected degrees from {FOV_RANGE[0]:g} to {FOV_RANGE[1]:g}")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
        raise NVSError("camera: hw is not [height, width]")
    if not all(16 <= side <= longest for side in size):
        shown = "x".join(str(side)[:12] for side in size)
        raise NVSError(f"camera: a frame of {shown} pixels, expected sides from 16 to {longest}")
    c2w = torch.tensor(values, dtype=torch.float64).view(4, 4)
    left, stretch, right = torch.linalg.svd(c2w[:3, :3])
    if float((stretch - 1).abs().max()) > 0.05 or float(torch.linalg.det(c2w[:3, :3])) < 0:
        raise NVSError("camera: c2w does not hold a rotation")
    if float((stretch - 1).abs().max()) > 1e-6:
        c2w[:3, :3] = left @ right
    c2w[3] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    height, width = int(size[0]), int(size[1])
    blank = Cameras(c2w[None], torch.tensor([[1.0, 1.0, width / 2, height / 2]]), (height, width))
    return with_vertical_fov(blank, float(fov or 0))


def camera_for_page(camera: Cameras) -> dict[str, Any]:
    """One camera [1] as the viewer's script takes it."""
    fov = min(max(float(vertical_fov(camera)[0]), FOV_RANGE[0]), FOV_RANGE[1])
    return {"c2w": camera.c2w[0].flatten().tolist(), "fov": fov}


def _is_number(value: Any) -> bool:
    # NaN compares false; integers can be too large for a float, floats too large for float32.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12
