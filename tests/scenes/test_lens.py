"""The pinhole that a lens leaves: as wide as can be, valid pixels only, and told in degrees."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nvs_app.errors import NVSError
from nvs_app.scenes.lens import Lens

HW = (240, 320)


@pytest.mark.parametrize(
    ("focal", "coefficients"),
    [(260.0, (-0.1, 0.0)), (190.0, (-0.3, 0.0)), (150.0, (-0.27, 0.05)), (210.0, (-0.35, 0.02)), (260.0, (0.2, 0.1))],
)
def test_the_widest_valid_pinhole(focal: float, coefficients: tuple[float, float]) -> None:
    fxfycxcy = (focal, focal, 160.0, 120.0)
    lens = Lens(fxfycxcy, (*coefficients, 0.0, 0.0, 0.0))
    widest = Lens(fxfycxcy, (*coefficients, 0.0, 0.0, 0.0, 0.0), "BROWN4").pinhole(HW)[0]  # by search
    fx, fy, cx, cy = lens.pinhole(HW)
    assert fx <= 1.12 * widest
    # Every pixel of it lies in the distorted image, and further out than those nearer to the middle.
    grid = np.stack(np.meshgrid(np.linspace(0, 320, 33), np.linspace(0, 240, 25)), axis=-1).reshape(-1, 2)
    rays = (grid - [cx, cy]) / [fx, fy]
    pixels = lens.project(rays)
    assert (pixels > -1.5).all() and (pixels < np.array([321.5, 241.5])).all()
    nearer = lens.project(0.97 * rays)
    middle = np.array([160.0, 120.0])
    assert (np.linalg.norm(pixels - middle, axis=1) >= np.linalg.norm(nearer - middle, axis=1) - 1e-9).all()


def test_a_polynomial_that_leads_opencv_astray() -> None:
    """A published calibration with k1 = -44.9 and k2 = 1017: OpenCV's choice is cropped three times too narrow."""
    fxfycxcy, hw = (2605.7377, 3134.5437, 199.47656, 162.3016), (480, 640)
    fx = Lens(fxfycxcy, (-44.85329, 1017.4035, 0.0, 0.0)).pinhole(hw)[0]
    assert fx == pytest.approx(Lens(fxfycxcy, (-44.85329, 1017.4035, 0.0, 0.0, 0.0, 0.0), "BROWN4").pinhole(hw)[0])
    with pytest.raises(NVSError, match="cannot be removed"):
        Lens((260.0, 260.0, 900.0, 120.0), (-3.0, 0.0, 0.0, 0.0)).pinhole(HW)


def test_fields_of_view_in_degrees() -> None:
    """Without distortion those of the pinhole; of an equidistant fisheye the angle of its pixels."""
    plain = Lens((160.0, 160.0, 160.0, 120.0), (0.0, 0.0, 0.0, 0.0))
    assert plain.degrees(HW) == pytest.approx((90.0, 2 * math.degrees(math.atan(0.75))), abs=0.6)
    fisheye = Lens((160.0, 160.0, 160.0, 120.0), (0.0, 0.0, 0.0, 0.0), "OPENCV_FISHEYE")
    assert fisheye.degrees(HW) == pytest.approx((math.degrees(2.0), math.degrees(1.5)), abs=0.6)
    words = fisheye.removal_words(HW)
    assert words.startswith(
        "lens distortion (OPENCV_FISHEYE) removed: views of 114x86 degrees become pinhole views of "
    )
