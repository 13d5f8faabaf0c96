"""Cameras of the published protocol: anywhere around the object, 1.7 to 3.0 away, looking at its centre.

The numbers of view j follow from (seed, asset, j) alone: more views add views and change none, and neither the number
of workers nor the other assets matter.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from jaxtyping import Float64

NEAREST = 1.0
"""Least distance from the centre: the unit cube's corners are 0.87 away."""


def generator(seed: int, key: str, number: int) -> np.random.Generator:
    """Random numbers of one view of one asset."""
    digest = hashlib.sha256(f"{seed}\0{number}\0{key}".encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def asset_cameras(
    seed: int,
    key: str,
    views: int,
    distance: tuple[float, float],
    fov: tuple[float, float],
    image_hw: tuple[int, int],
) -> tuple[Float64[np.ndarray, "v 4 4"], Float64[np.ndarray, "4"]]:
    """Directions even over the sphere, distances even in their range; one lens an asset.

    Args:
        key: the asset's name.
        distance: from the origin, in sides of the unit cube.
        fov: degrees along the shorter side, drawn once an asset; equal numbers fix it.

    Returns:
        c2w in OpenCV axes, world +z up, and fxfycxcy in pixels.
    """
    angle = math.radians(generator(seed, key, -1).uniform(*fov))
    height, width = image_hw
    focal = 0.5 * min(height, width) / math.tan(0.5 * angle)
    c2w = np.zeros((views, 4, 4))
    for view in range(views):
        random = generator(seed, key, view)
        z, azimuth = random.uniform(-1.0, 1.0), random.uniform(0.0, 2.0 * math.pi)
        flat = math.sqrt(1.0 - z * z)
        direction = np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), z])
        c2w[view] = look_at_centre(direction * random.uniform(*distance))
    return c2w, np.array([focal, focal, 0.5 * width, 0.5 * height])


def look_at_centre(eye: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "4 4"]:
    """c2w of an upright camera at ``eye`` that looks at the origin."""
    forward = -eye / np.linalg.norm(eye)
    # Straight up or down has no upright: +y is as good as any.
    up = np.array([0.0, 0.0, 1.0]) if abs(forward[2]) < 1.0 - 1e-9 else np.array([0.0, 1.0, 0.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    c2w[:3, 3] = eye
    return c2w
