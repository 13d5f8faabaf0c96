"""Lenses that are no pinhole, and the pinhole image that their distortion leaves when it is removed.

    lens = Lens((500.0, 500.0, 320.0, 240.0), (-0.05, 0.01, 0.0, 0.0), "OPENCV_FISHEYE")
    fxfycxcy = lens.pinhole((480, 640))       # of the undistorted image, which has the same size
    pixels = lens.undistort(pixels)           # float32 [480, 640, 3]

Models: "OPENCV" (OpenCV's radial and tangential one, 5 or 8 coefficients), "OPENCV_FISHEYE" (4), "BROWN4"
(nerfstudio's polynomial: k1, k2, p1, p2, k3, k4), and by their COLMAP names, through pycolmap: FOV,
THIN_PRISM_FISHEYE, RAD_TAN_THIN_PRISM_FISHEYE, DIVISION and EUCM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from nvs_app.errors import NVSError

COLMAP_ONLY = {
    "FOV": 1,
    "THIN_PRISM_FISHEYE": 8,
    "RAD_TAN_THIN_PRISM_FISHEYE": 12,
    "DIVISION": 1,
    "EUCM": 2,
}
"""COLMAP's models that OpenCV lacks: how many coefficients follow fx, fy, cx, cy."""

# A pinhole image stretches towards its border; beyond this half angle little but stretched pixels is left.
WIDEST_HALF_ANGLE = math.radians(60.0)


@dataclass(frozen=True)
class Lens:
    """A camera with lens distortion, as calibrated.

    Attributes:
        fxfycxcy: in pixels of the stored image, first pixel's centre at (0.5, 0.5).
        coefficients: of the model; OpenCV's order k1, k2, p1, p2, k3[, k4, k5, k6] for "OPENCV".
        model: see the module.
    """

    fxfycxcy: tuple[float, float, float, float]
    coefficients: tuple[float, ...]
    model: str = "OPENCV"

    def matrices(self, image_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """OpenCV's matrices of the distorted image and of the undistorted one (valid pixels only)."""
        distorted = _matrix(self.fxfycxcy)
        if self.model != "OPENCV":
            return distorted, _matrix(_widest_pinhole(self, image_hw))
        size = (image_hw[1], image_hw[0])
        undistorted, _ = cv2.getOptimalNewCameraMatrix(distorted, np.array(self.coefficients), size, 0.0)
        return distorted, undistorted

    def pinhole(self, image_hw: tuple[int, int]) -> tuple[float, float, float, float]:
        """``fxfycxcy`` of the undistorted image, which has the same size.

        Raises:
            NVSError: this distortion leaves no valid image, or pycolmap is needed and missing.
        """
        _, matrix = self.matrices(image_hw)
        return float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2] + 0.5), float(matrix[1, 2] + 0.5)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels of the distorted image, [n, 2], of the directions (x, y, 1), ``points`` [n, 2] float64.

        Pixels are continuous (first pixel's centre at 0.5); NaN where the model has no pixel for a direction.
        """
        fx, fy, cx, cy = self.fxfycxcy
        if self.model in COLMAP_ONLY:
            camera = _colmap_camera(self)
            return camera.img_from_cam(np.concatenate([points, np.ones((len(points), 1))], axis=1))
        if self.model == "OPENCV_FISHEYE":
            matrix, coefficients = _matrix(self.fxfycxcy), np.array(self.coefficients)
            pixels = cv2.fisheye.distortPoints(points[:, None].astype(np.float64), matrix, coefficients)
            return pixels.reshape(-1, 2) + 0.5
        if self.model == "OPENCV":
            rays = np.concatenate([points, np.ones((len(points), 1))], axis=1)
            pixels, _ = cv2.projectPoints(
                rays, np.zeros(3), np.zeros(3), _matrix(self.fxfycxcy), np.array(self.coefficients)
            )
            return pixels.reshape(-1, 2) + 0.5
        k1, k2, p1, p2, k3, k4 = self.coefficients
        x, y = points[:, 0], points[:, 1]
        square = x * x + y * y
        radial = 1.0 + square * (k1 + square * (k2 + square * (k3 + square * k4)))
        bent_x = x * radial + 2.0 * p1 * x * y + p2 * (square + 2.0 * x * x)
        bent_y = y * radial + 2.0 * p2 * x * y + p1 * (square + 2.0 * y * y)
        return np.stack([fx * bent_x + cx, fy * bent_y + cy], axis=1)

    def undistort(self, pixels: np.ndarray) -> np.ndarray:
        """The image of :meth:`pinhole`: float32 [h, w, c] -> the same shape."""
        image_hw = (pixels.shape[0], pixels.shape[1])
        if self.model == "OPENCV":
            distorted, undistorted = self.matrices(image_hw)
            return cv2.undistort(pixels, distorted, np.array(self.coefficients), None, undistorted)
        map_x, map_y = _maps(self, image_hw)
        return cv2.remap(pixels, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _matrix(fxfycxcy: tuple[float, ...]) -> np.ndarray:
    """OpenCV's camera matrix, which puts the first pixel's centre at (0, 0)."""
    fx, fy, cx, cy = fxfycxcy
    return np.array([[fx, 0.0, cx - 0.5], [0.0, fy, cy - 0.5], [0.0, 0.0, 1.0]])


def _colmap_camera(lens: Lens):
    try:
        import pycolmap
    except ImportError as error:
        raise NVSError(
            f"camera model {lens.model} needs the package pycolmap: pip install pycolmap, or undistort first"
        ) from error
    # Its size plays no part in projecting.
    camera = pycolmap.Camera.create_from_model_name(1, lens.model, 1.0, 1, 1)
    camera.params = [*lens.fxfycxcy, *lens.coefficients]
    return camera


@lru_cache(maxsize=256)
def _widest_pinhole(lens: Lens, image_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    """The pinhole of the same size, principal point and fx / fy that sees most and only valid pixels."""
    (height, width), (fx, fy, cx, cy) = image_hw, lens.fxfycxcy
    along = np.linspace(0.0, 1.0, 17)
    zeros, ones = np.zeros_like(along), np.ones_like(along)
    border = np.concatenate(
        [np.stack(side, axis=1) for side in ((along, zeros), (along, ones), (zeros, along), (ones, along))]
    )
    border = (border * [width, height] - [cx, cy]) / [fx, fy]
    steps = np.linspace(0.0, 1.0, 33)[1:]

    def valid(scale: float) -> bool:
        # From the centre outwards, so that a polynomial that folds back is seen.
        points = (border[:, None] / scale * steps[:, None]).reshape(-1, 2)
        with np.errstate(all="ignore"):
            pixels = lens.project(points).reshape(len(border), len(steps), 2)
        last, radius = pixels[:, -1], np.linalg.norm((pixels - [cx, cy]) / [fx, fy], axis=2)
        inside = (last >= -1e-6).all() and (last <= np.array([width, height]) + 1e-6).all()
        # NaN compares false, so directions without a pixel are refused too.
        return bool(inside and (np.diff(radius, axis=1) >= 0).all())

    low = max(0.2, np.abs(border).max() / math.tan(WIDEST_HALF_ANGLE))
    high = max(16.0, 4.0 * low)
    if not (0 <= cx <= width and 0 <= cy <= height) or not valid(high):
        raise NVSError(f"distortion {lens.model} {list(lens.coefficients)} cannot be removed, check it")
    if valid(low):
        high = low
    for _ in range(24):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if valid(middle) else (middle, high)
    return fx * high, fy * high, cx, cy


@lru_cache(maxsize=2)
def _maps(lens: Lens, image_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the pinhole image lies in the distorted one, as cv2.remap wants it."""
    height, width = image_hw
    fx, fy, cx, cy = lens.pinhole(image_hw)
    found = np.empty((height, width, 2), dtype=np.float32)
    x = (np.arange(width) + 0.5 - cx) / fx
    rows = max(1, 1_000_000 // width)  # a million double-precision points at a time
    for top in range(0, height, rows):
        y = (np.arange(top, min(top + rows, height)) + 0.5 - cy) / fy
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        found[top : top + len(y)] = lens.project(grid).reshape(len(y), width, 2) - 0.5
    return np.ascontiguousarray(found[:, :, 0]), np.ascontiguousarray(found[:, :, 1])
