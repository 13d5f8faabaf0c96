"""Azimuth, elevation, distance and field of view as a camera: what the sliders of the page mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.engine.framing import vertical_fov, with_vertical_fov
from nvs_app.geometry.cameras import Cameras, look_at
from nvs_app.geometry.paths import focus_point

FOV_RANGE = (15.0, 100.0)
DISTANCE_RANGE = (0.3, 3.0)
ELEVATION_RANGE = (-85.0, 85.0)


@dataclass(frozen=True)
class Orbit:
    """A frame to orbit in, taken from the cameras of a capture; world units are the scene's own.

    Attributes:
        focus: the point that the cameras look at.
        axes: rows x, y, z of the orbit's frame: z is up, azimuth runs from x towards y.
        radius: median distance of the cameras from the focus; distance 1 of the slider.
        azimuth, elevation, distance, fov: where the page starts, in degrees and radii: the capture's middle camera.
    """

    focus: Float[Tensor, "3"]
    axes: Float[Tensor, "3 3"]
    radius: float
    azimuth: float
    elevation: float
    distance: float
    fov: float

    @staticmethod
    def around(cameras: Cameras) -> Orbit:
        """The orbit of cameras [v]; azimuth 0 is where the page starts."""
        c2w = cameras.c2w.float().cpu()
        focus = focus_point(c2w)
        up = -c2w[:, :3, 1].mean(0)
        if float(up.norm()) < 1e-3:  # as many cameras upside down as upright
            up = -c2w[0, :3, 1]
        up = up / up.norm()
        offsets = c2w[:, :3, 3] - focus
        distances = offsets.norm(dim=-1)
        radius = float(distances.median().clamp_min(1e-6))
        # Start where the capture usually stands: at its median elevation, and there as far to the front (the mean
        # position) as can be.
        elevation = torch.asin((offsets @ up / distances.clamp_min(1e-9)).clamp(-1, 1))
        mean = offsets.mean(0)
        front = torch.nn.functional.cosine_similarity(offsets, mean[None], dim=-1)
        start = int(((elevation - elevation.median()).abs() - 0.2 * front).argmin())
        ahead = offsets[start] - (offsets[start] @ up) * up
        if float(ahead.norm()) < 1e-4 * radius:  # straight above: any azimuth will do
            ahead = c2w[start, :3, 1] - (c2w[start, :3, 1] @ up) * up
        x = ahead / ahead.norm()
        axes = torch.stack((x, torch.linalg.cross(up, x), up))
        return Orbit(
            focus,
            axes,
            radius,
            azimuth=0.0,
            elevation=_within(float(torch.rad2deg(elevation[start])), ELEVATION_RANGE),
            distance=_within(float(distances[start]) / radius, DISTANCE_RANGE),
            fov=_within(float(vertical_fov(cameras)[start]), FOV_RANGE),
        )

    def camera(
        self,
        azimuth: float | int,
        elevation: float | int,
        distance: float | int,
        fov: float | int,
        image_hw: tuple[int, int],
    ) -> Cameras:
        """One camera [1] that looks at the focus. Angles in degrees, distance in radii, fov vertical."""
        angles = torch.deg2rad(torch.tensor([float(azimuth), float(elevation)]))
        (cos_a, cos_e), (sin_a, sin_e) = angles.cos().tolist(), angles.sin().tolist()
        local = torch.tensor([cos_e * cos_a, cos_e * sin_a, sin_e])
        eye = self.focus + float(distance) * self.radius * (local @ self.axes)
        c2w = look_at(eye[None], self.focus[None], self.axes[2][None])
        height, width = image_hw
        blank = Cameras(c2w, torch.tensor([[1.0, 1.0, width / 2, height / 2]]), image_hw)
        return with_vertical_fov(blank, float(fov))


def _within(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])
