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
MOST_NARROWED = 1.12  # of OpenCV's choice, against ours


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
        return distorted, _matrix(_opencv_pinhole(self, image_hw))

    def degrees(self, image_hw: tuple[int, int]) -> tuple[float, float]:
        """Horizontal and vertical field of view of the distorted image, up to 85 degrees to each side."""
        steps = np.tan(np.radians(np.linspace(0.0, 85.0, 341)[1:]))
        found = []
        for axis, size in ((0, image_hw[1]), (1, image_hw[0])):
            total = 0.0
            for sign in (-1.0, 1.0):
                points = np.zeros((len(steps), 2))
                points[:, axis] = sign * steps
                with np.errstate(all="ignore"):
                    pixels = self.project(points)[:, axis]
                    outward = np.diff(sign * pixels, prepend=sign * self.fxfycxcy[2 + axis]) > 0
                seen = outward & (pixels >= 0) & (pixels <= size)
                last = len(steps) if seen.all() else int(np.argmin(seen))
                total += 0.25 * last
            found.append(total)
        return found[0], found[1]

    def pinhole(self, image_hw: tuple[int, int]) -> tuple[float, float, float, float]:
        """``fxfycxcy`` of the undistorted image, which has the same size.

        Raises:
            NVSError: this distortion leaves no valid image, or pycolmap is needed and missing.
        """
        _, matrix = self.matrices(image_hw)
        return float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2] + 0.5), float(matrix[1, 2] + 0.5)

    def removal_words(self, image_hw: tuple[int, int]) -> str:
        """What removing the distortion does to the fields of view, in degrees, for people."""
        (height, width), (fx, fy, cx, cy) = image_hw, self.pinhole(image_hw)
        before = "x".join(f"{angle:.0f}" for angle in self.degrees(image_hw))
        after = "x".join(
            f"{math.degrees(math.atan(at / focal) + math.atan((size - at) / focal)):.0f}"
            for at, size, focal in ((cx, width, fx), (cy, height, fy))
        )
        return f"lens distortion ({self.model}) removed: views of {before} degrees become pinhole views of {after}"

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
def _opencv_pinhole(lens: Lens, image_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    """OpenCV's choice where it sees valid pixels only and about as many as can be; else ours. OpenCV's moves the
    principal point and fx / fy to see more, but goes astray where the polynomial folds back near the border."""
    size = (image_hw[1], image_hw[0])
    matrix, _ = cv2.getOptimalNewCameraMatrix(_matrix(lens.fxfycxcy), np.array(lens.coefficients), size, 0.0)
    usual = (float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2] + 0.5), float(matrix[1, 2] + 0.5))
    good = min(usual[:2]) > 0 and all(map(math.isfinite, usual)) and _is_valid(lens, image_hw, usual, 1.5)
    try:
        widest = _widest_pinhole(lens, image_hw)
    except NVSError:
        if good:
            return usual
        raise
    return usual if good and usual[0] <= MOST_NARROWED * widest[0] else widest


def _is_valid(lens: Lens, image_hw: tuple[int, int], pinhole: tuple[float, ...], slack: float) -> bool:
    """Whether all pixels of a pinhole image see pixels of the distorted one, to ``slack`` pixels at its border."""
    (height, width), (fx, fy, cx, cy) = image_hw, lens.fxfycxcy
    along = np.linspace(0.0, 1.0, 17)
    zeros, ones = np.zeros_like(along), np.ones_like(along)
    border = np.concatenate(
        [np.stack(side, axis=1) for side in ((along, zeros), (along, ones), (zeros, along), (ones, along))]
    )
    border = (border * [width, height] - np.array(pinhole[2:])) / np.array(pinhole[:2])
    steps = np.linspace(0.0, 1.0, 33)[1:]
    # From the centre outwards, so that a polynomial that folds back is seen.
    points = (border[:, None] * steps[:, None]).reshape(-1, 2)
    with np.errstate(all="ignore"):
        pixels = lens.project(points).reshape(len(border), len(steps), 2)
    last, radius = pixels[:, -1], np.linalg.norm((pixels - [cx, cy]) / [fx, fy], axis=2)
    inside = (last >= -slack).all() and (last <= np.array([width, height]) + slack).all()
    # NaN compares false, so directions without a pixel are refused too.
    return bool(inside and (np.diff(radius, axis=1) >= 0).all())


@lru_cache(maxsize=256)
def _widest_pinhole(lens: Lens, image_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    """The pinhole of the same size, principal point and fx / fy that sees most and only valid pixels."""
    (height, width), (fx, fy, cx, cy) = image_hw, lens.fxfycxcy
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=np.float64)
    border = (corners - [cx, cy]) / [fx, fy]

    def valid(scale: float) -> bool:
        return _is_valid(lens, image_hw, (fx * scale, fy * scale, cx, cy), 1e-6)

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
