"""Colours of decoded video frames as sRGB: the one place that knows what a video's colour tags mean.

Code points are those of ITU-T H.273, which every container and codec uses. What they change:

- matrix: how Y'CbCr becomes R'G'B'. Untagged video is BT.709 from 720 lines or 1280 columns on, else BT.601, as
  players have it.
- range: whether black is 16 or 0; untagged is 16 (limited), but in formats that exist at full range only.
- primaries: BT.2020 and P3 are converted to sRGB's; the small differences of BT.601's are left, as browsers do.
- transfer: SDR's codes are kept as they are. HLG and PQ (HDR) are shown on a display of 1,000 cd/m2 (ITU-R BT.2100), of
  which 203 are the white of SDR (BT.2408), and what is brighter is rolled off by BT.2390's curve.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

BT709, UNSPECIFIED, BT2020_CL = 1, 2, 10
PQ, HLG = 16, 18
# Matrix -> what swscale calls it; constant luminance (10) is read as the usual one.
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, BT2020_CL: 9}
# Linear RGB of these primaries -> of BT.709's and sRGB's. BT.2087 for BT.2020; the P3s from their chromaticities, DCI's
# white brought to D65's by Bradford's matrix.
PRIMARIES: dict[int, tuple[str, list[list[float]]]] = {
    9: ("BT.2020", [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]),
    11: ("DCI-P3", [[1.1575, -0.1550, -0.0026], [-0.0415, 1.0456, -0.0041], [-0.0181, -0.0786, 1.0966]]),
    12: ("Display P3", [[1.2249, -0.2249, 0.0], [-0.0421, 1.0421, 0.0], [-0.0196, -0.0786, 1.0983]]),
}
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)
PEAK, WHITE = 1000.0, 203.0  # cd/m2: of the display that HDR is shown on, of SDR's white on it
GAMMA = 1.2  # HLG's system gamma at that peak
LEVELS = 65536  # of a table
BAND = 1 << 20  # pixels that are converted at a time
FULL_CHROMA = 0x4 | 0x2000 | 0x40000  # swscale: bicubic, chroma at every pixel, exact rounding


def to_srgb(frame: Any, image_hw: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """The pixels of a decoded frame, and what was assumed or changed, a note each.

    Args:
        frame: av.VideoFrame, as decoded.
        image_hw: (height, width) wanted.

    Returns:
        uint8 [h, w, 3], sRGB.
    """
    options, notes = _reading(frame)
    height, width = image_hw
    hdr = {PQ: "PQ", HLG: "HLG"}.get(frame.color_trc)
    primaries = PRIMARIES.get(frame.color_primaries)
    depth = "rgb48le" if hdr or primaries else "rgb24"
    pixels = frame.reformat(
        width, height, depth, interpolation=FULL_CHROMA, dst_color_range=2, threads=1, **options
    ).to_ndarray()
    if hdr:
        notes.append(f"HDR video ({hdr}): brought to SDR by the curve of ITU-R BT.2390, white at 203 cd/m2")
    elif primaries:
        notes.append(f"colours of {primaries[0]} converted to sRGB, what is outside of it is cut off")
    if depth == "rgb24":
        return pixels, notes
    # HDR without word of its primaries is BT.2020, as BT.2100 has it.
    same = frame.color_primaries == BT709
    matrix = np.array(np.eye(3) if same else (primaries or PRIMARIES[9])[1], np.float32)
    found = np.empty((height, width, 3), np.uint8)
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        found[top : top + rows] = _encoded(_linear(pixels[top : top + rows], frame.color_trc) @ matrix.T)
    return found, notes


def to_grey(frame: Any, image_hw: tuple[int, int]) -> np.ndarray:
    """Brightness alone, uint8 [h, w], for measuring sharpness and motion: codes, at whatever range they are."""
    height, width = image_hw
    return frame.reformat(width, height, "gray", interpolation=2, threads=1).to_ndarray()


def _reading(frame: Any) -> tuple[dict[str, int], list[str]]:
    """swscale's words for the frame's matrix and range, and a note where they are assumed."""
    name = frame.format.name
    if frame.format.is_rgb or name.startswith(("gray", "mono", "pal8")):
        return {}, []
    full = frame.color_range == 2 or (frame.color_range == 0 and name.startswith("yuvj"))
    reading = {"src_color_range": 2 if full else 1}
    if frame.colorspace in MATRICES:
        return {**reading, "src_colorspace": MATRICES[frame.colorspace]}, []
    if frame.color_trc in (PQ, HLG) or frame.color_primaries == 9:
        told, what = 9, "BT.2020, as HDR is"
    elif frame.height >= 720 or frame.width >= 1280:
        told, what = 1, "BT.709, as is usual from 720 lines on"
    else:
        told, what = 5, "BT.601, as is usual below 720 lines"
    why = "colours without a tag" if frame.colorspace == UNSPECIFIED else f"colour matrix {frame.colorspace} unknown"
    return {**reading, "src_colorspace": told}, [f"{why}: taken for {what}"]


def _linear(pixels: np.ndarray, transfer: int) -> np.ndarray:
    """uint16 codes -> linear light, float32, 1 is the white of SDR; of HDR already rolled off below 1."""
    if transfer == PQ:
        light = _pq_table()[pixels]
    elif transfer == HLG:
        light = _hlg_table()[pixels]
        # The display's share (OOTF): by the scene's luminance, for all three channels alike.
        light *= _ootf_table()[_index(light @ LUMA_2020)][..., None]
    else:
        return _srgb_table()[pixels]
    # By the strongest channel, so that hues stay and none is cut off.
    return light * _rolled_off_table()[_index(light.max(-1))][..., None] * np.float32(PEAK / WHITE)


def _encoded(light: np.ndarray) -> np.ndarray:
    return _srgb_codes()[_index(light)]


def _index(light: np.ndarray) -> np.ndarray:
    return (light.clip(0.0, 1.0) * (LEVELS - 1) + 0.5).astype(np.uint16)


@cache
def _levels() -> np.ndarray:
    return np.linspace(0.0, 1.0, LEVELS)


def pq_to_light(code: np.ndarray) -> np.ndarray:
    """ST 2084: codes in [0, 1] -> cd/m2."""
    power = np.maximum(code, 0.0) ** (32 / 2523)
    return 10000.0 * (np.maximum(power - 3424 / 4096, 0.0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)


def light_to_pq(light: np.ndarray) -> np.ndarray:
    """The inverse of :func:`pq_to_light`."""
    power = (np.maximum(light, 0.0) / 10000.0) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1.0 + 2392 / 128 * power)) ** (2523 / 32)


def rolled_off(light: np.ndarray) -> np.ndarray:
    """BT.2390's curve from 0 to PEAK to 0 to WHITE, cd/m2: what is dark stays, the rest bends smoothly below white."""
    top, white = light_to_pq(np.array([PEAK, WHITE]))
    most = white / top
    knee = 1.5 * most - 0.5
    own = light_to_pq(light) / top
    t = ((own - knee) / (1.0 - knee)).clip(0.0, 1.0)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return pq_to_light(np.where(own < knee, own, bent) * top)


@cache
def _pq_table() -> np.ndarray:
    return (pq_to_light(_levels()) / PEAK).clip(0.0, 1.0).astype(np.float32)


@cache
def _hlg_table() -> np.ndarray:
    """BT.2100's inverse OETF: codes -> the scene's light in [0, 1]."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    code = _levels()
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).clip(0.0, 1.0).astype(np.float32)


@cache
def _ootf_table() -> np.ndarray:
    return (_levels() ** (GAMMA - 1.0)).astype(np.float32)


@cache
def _rolled_off_table() -> np.ndarray:
    """What light in units of PEAK is to be multiplied with."""
    light = _levels() * PEAK
    return np.divide(rolled_off(light), light, out=np.ones_like(light), where=light > 0).astype(np.float32)


@cache
def _srgb_table() -> np.ndarray:
    code = _levels()
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)


@cache
def _srgb_codes() -> np.ndarray:
    light = _levels()
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (code * 255.0 + 0.5).astype(np.uint8)
