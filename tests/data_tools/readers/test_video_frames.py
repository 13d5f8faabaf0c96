"""Videos as people have them: colours by their tags, frames by when they are shown, upright, of square pixels."""

from __future__ import annotations

import io
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from video_files import PATCHES, codes, stripes, write_video

from data_tools.readers.video_colours import light_to_pq, pq_to_light, rolled_off
from data_tools.readers.video_frames import frames_at, open_video

ONE = 65536
UNTAGGED = (2, 2, 2, 0)


def first(path: Path) -> tuple[np.ndarray, list[str]]:
    """The first frame, and the notes on it."""
    with open_video(path) as video:
        pixels = next(iter(video)).rgb()
        assert pixels.shape[:2] == video.image_hw
        return pixels, video.notes


def check_patches(pixels: np.ndarray, most: int) -> None:
    height, width = pixels.shape[:2]
    seen = pixels[height // 2, width // 8 :: width // 4].astype(int)
    assert np.abs(seen - PATCHES).max() <= most, seen.tolist()


@pytest.mark.parametrize(
    ("matrix", "tags", "full", "height", "note"),
    [
        (1, (1, 1, 1, 1), False, 64, ""),
        (1, (1, 1, 1, 2), True, 64, ""),
        (6, (6, 6, 6, 1), False, 720, ""),
        (9, (1, 1, 9, 1), False, 64, ""),
        (6, UNTAGGED, False, 64, "taken for BT.601"),
        (1, UNTAGGED, False, 720, "taken for BT.709"),
        (1, (1, 1, 8, 1), False, 720, "colour matrix 8 unknown: taken for BT.709"),
    ],
)
def test_colours_follow_the_tags(
    tmp_path: Path, matrix: int, tags: tuple[int, int, int, int], full: bool, height: int, note: str
) -> None:
    planes = stripes(codes(PATCHES / 255, matrix, full=full), (height, 64))
    pixels, notes = first(write_video(tmp_path / "v.mkv", [planes], tags=tags))
    check_patches(pixels, 2)
    assert note in " ".join(notes) and bool(notes) == bool(note)


def test_an_mp4_of_a_phone(tmp_path: Path) -> None:
    """4:2:0 at full range, H.264."""
    planes = stripes(codes(PATCHES / 255, 1, full=True), (64, 64))
    video = write_video(tmp_path / "v.mp4", [planes] * 3, "yuvj420p", (1, 1, 1, 2), codec="libx264")
    check_patches(first(video)[0], 6)


def hdr_codes(transfer: int) -> np.ndarray:
    """The patches as a camera would write them for a display of 1,000 cd/m2 with SDR's white at 203 of them."""
    code = PATCHES / 255
    light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    display = light @ to_2020.T * 203
    if transfer == 16:
        return light_to_pq(display)
    scene = display / 1000 * ((display / 1000) @ [0.2627, 0.6780, 0.0593])[:, None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_brought_to_sdr(tmp_path: Path, transfer: int, name: str) -> None:
    planes = stripes(codes(hdr_codes(transfer), 9, bits=10), (64, 64))
    pixels, notes = first(write_video(tmp_path / "v.mkv", [planes], "yuv444p10le", (9, transfer, 9, 1)))
    check_patches(pixels, 8)
    assert notes == [f"HDR video ({name}): brought to SDR by the curve of ITU-R BT.2390, white at 203 cd/m2"]


def test_hdr_curves() -> None:
    """ST 2084's published points, and a curve that rises without a jump, keeps what is dark, and ends at white."""
    assert np.allclose(light_to_pq(np.array([0.0, 100.0, 1000.0, 10000.0])), [0, 0.508, 0.752, 1.0], atol=1e-3)
    light = np.linspace(0, 1000, 2001)
    assert np.allclose(pq_to_light(light_to_pq(light)), light, rtol=1e-6, atol=1e-6)
    bent = rolled_off(light)
    assert np.allclose(bent[light < 80], light[light < 80], atol=1e-6) and bent[-1] == pytest.approx(203)
    assert (np.diff(bent) >= 0).all() and np.diff(bent).max() < 0.51 and np.abs(np.diff(bent, 2)).max() < 0.01


def test_wide_gamut_is_converted(tmp_path: Path) -> None:
    grey = np.full((4, 3), 0.5)
    for primaries, what in ((9, "BT.2020"), (12, "Display P3")):
        planes = stripes(codes(grey, 1), (64, 64))
        pixels, notes = first(write_video(tmp_path / "v.mkv", [planes], tags=(primaries, 1, 1, 1)))
        assert np.abs(pixels.astype(int) - 128).max() <= 2 and what in notes[0]


@pytest.mark.parametrize(
    "matrix", [(0, ONE, -ONE, 0), (0, -ONE, ONE, 0), (-ONE, 0, 0, -ONE), (-ONE, 0, 0, ONE), (0, ONE, ONE, 0)]
)
def test_rotation_is_that_of_ffmpeg(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    random = np.random.default_rng(0).integers(0, 255, (4, 8), dtype=np.uint8)
    planes = np.stack([np.kron(random, np.ones((8, 8), np.uint8)), *np.full((2, 32, 64), 128, np.uint8)])
    a, b, c, d = matrix
    video = tmp_path / "v.mp4"
    write_video(video, [planes], codec="libx264", tags=(1, 1, 1, 1), matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30))
    pixels, _ = first(video)
    call = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", video, "-frames:v", "1", "-f", "rawvideo", "-"]
    shown = subprocess.run([*call[:-1], "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
    assert np.abs(np.frombuffer(shown, np.uint8).reshape(pixels.shape).astype(int) - pixels).max() <= 3


def test_pixels_become_squares(tmp_path: Path) -> None:
    planes = stripes(codes(PATCHES / 255, 1), (48, 64))
    video = write_video(tmp_path / "v.mp4", [planes], codec="libx264", tags=(1, 1, 1, 1), aspect=Fraction(4, 3))
    pixels, notes = first(video)
    assert pixels.shape == (48, 85, 3) and "64x48 brought to 85x48" in notes[0]
    check_patches(pixels, 2)


TIMES = [0, 33, 67, 100, 133, 233, 333, 433, 500]


def numbered(path: Path, times: list[int]) -> Path:
    """Frames that show their number: a grey of ten times it."""
    frames = [stripes(codes(np.full((1, 3), 10 * i / 255), 1), (32, 32)) for i in range(len(times))]
    return write_video(path, frames, tags=(1, 1, 1, 1), times=times)


@pytest.mark.parametrize("start", [0, 700])
def test_frames_by_the_time_at_which_they_are_shown(tmp_path: Path, start: int) -> None:
    """Thirty a second, then ten; also where the file's clock does not begin at zero."""
    video = numbered(tmp_path / "v.mkv", [time + start for time in TIMES])
    wanted = {0.0: 0, 0.0334: 1, 0.0667: 2, 0.0999: 3, 0.18: 4, 0.2325: 5, 0.41: 6, 0.45: 7, 0.51: 8, 9.0: None}
    found, notes = frames_at(video, list(wanted)[::-1])
    seen = {time: round(np.asarray(Image.open(io.BytesIO(data))).mean() / 10) for time, data in found.items()}
    assert seen == {time: number for time, number in wanted.items() if number is not None} and not notes


def test_seconds_are_told_of_each_frame(tmp_path: Path) -> None:
    with open_video(numbered(tmp_path / "v.mkv", TIMES)) as video:
        frames = [(frame.index, round(1000 * frame.seconds), int(frame.grey().mean())) for frame in video]
    assert [frame[:2] for frame in frames] == list(enumerate(TIMES))
    assert all(abs(grey - 10 * index) <= 17 for index, _, grey in frames)  # codes at limited range


def test_what_is_damaged_is_left_out_and_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    video = write_video(tmp_path / "v.mkv", [noise] * 6, "yuvj444p", (2, 2, 2, 2), codec="mjpeg")
    with av.open(str(video)) as container:
        third = list(container.demux(video=0))[2]
    data = bytearray(video.read_bytes())
    data[third.pos + 12 : third.pos + third.size] = bytes(third.size - 12)
    video.write_bytes(data)
    with open_video(video) as opened:
        assert len(list(opened)) == 5 and opened.notes == ["damaged frames left out: 1"]
    video.write_bytes(data[: len(data) * 3 // 4])
    with open_video(video) as opened:
        assert 2 <= len(list(opened)) <= 4
