"""Frames of a video: even in motion, sharp, and clear words where there are none."""

from __future__ import annotations

from pathlib import Path

import cv2
import imageio.v2 as imageio
import numpy as np
import pytest

from data_tools.structure_from_motion.video import choose_frames, image_motion, pick_even, write_frames
from nvs_app.errors import NVSError


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    random = np.random.default_rng(0)
    coarse = cv2.resize(random.integers(0, 255, (40, 160), dtype=np.uint8), (1280, 320), interpolation=cv2.INTER_CUBIC)
    return np.repeat(coarse[:, :, None], 3, axis=2)


def make_video(path: Path, texture: np.ndarray, offsets: list[int], blurred: set[int]) -> Path:
    """A window of 320x240 that moves over the texture."""
    codec = "libvpx" if path.suffix == ".webm" else "libx264"
    with imageio.get_writer(path, fps=30, codec=codec) as writer:
        for number, offset in enumerate(offsets):
            frame = np.ascontiguousarray(texture[40:280, offset : offset + 320])
            writer.append_data(cv2.GaussianBlur(frame, (0, 0), 4) if number in blurred else frame)
    return path


def test_frames_follow_the_motion_and_are_sharp(tmp_path: Path, texture: np.ndarray) -> None:
    """Still for 30 frames, slow for 40, fast for 40; every fourth frame is blurred."""
    offsets = [0] * 30 + [2 * i for i in range(40)] + [80 + 12 * i for i in range(40)]
    blurred = {i for i in range(110) if i % 4 == 1}
    video = make_video(tmp_path / "walk.mp4", texture, offsets, blurred)
    told: list[float] = []
    chosen = choose_frames(video, 12, told.append)
    assert len(chosen) == 12 and told[-1] == 1.0 and told == sorted(told)
    assert not {frame.index for frame in chosen} & blurred
    steps = np.diff([offsets[frame.index] for frame in chosen])
    assert steps.min() > 15 and steps.max() < 85, steps  # 548 pixels in all; even steps would be 46
    assert sum(frame.index < 30 for frame in chosen) <= 1
    paths = write_frames(video, chosen, tmp_path / "frames")
    assert [path.name for path in paths] == [f"frame_{frame.index:06d}.jpg" for frame in chosen]
    assert cv2.imread(str(paths[0])).shape == (240, 320, 3)


def test_webm_is_read_and_a_still_camera_gives_few_frames(tmp_path: Path, texture: np.ndarray) -> None:
    video = make_video(tmp_path / "still.webm", texture, [0] * 40, set())
    assert len(choose_frames(video, 20)) <= 3


def test_motion_is_measured_in_widths(texture: np.ndarray) -> None:
    grey = texture[:, :, 0]
    assert image_motion(grey[:, :320].copy(), grey[:, 8:328].copy()) == pytest.approx(8 / 320, rel=0.1)
    flat = np.full((240, 320), 90, np.uint8)
    assert image_motion(flat, flat) == 0.0
    assert image_motion(flat, 200 - flat) == 0.1  # a cut


def test_picks_are_even_whatever_the_frame_rate() -> None:
    motion, sharpness = np.full(1000, 0.01), np.ones(1000)
    sharpness[::10] = 2.0
    picks = pick_even(motion, sharpness, 20)
    assert len(picks) == 20 and all(pick % 10 == 0 for pick in picks)
    assert 30 <= np.diff(picks).min() and np.diff(picks).max() <= 70
    assert pick_even(np.zeros(5), np.ones(5), 10) == sorted(set(pick_even(np.zeros(5), np.ones(5), 10)))


def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path, texture: np.ndarray) -> None:
    whole = make_video(tmp_path / "a.mp4", texture, list(range(20)), set()).read_bytes()
    for name, content in (("text.mp4", b"hello"), ("cut.mp4", whole[:200]), ("empty.mov", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NVSError, match="convert it to mp4") as caught:
            choose_frames(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(NVSError, match="no such file"):
        choose_frames(tmp_path / "none.mp4")
