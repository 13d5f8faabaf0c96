"""A video that is a list of other files, or an image sequence, opens none of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest

from data_tools.readers.video_frames import frames_at
from data_tools.structure_from_motion.video import video_size
from nvs_app.errors import NVSError


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A video elsewhere, in two containers."""
    with imageio.get_writer(tmp_path / "secret.avi", format="FFMPEG", mode="I", fps=10, macro_block_size=1) as video:  # type: ignore[arg-type]
        for number in range(12):
            video.append_data(np.full((64, 64, 3), 20 * number, np.uint8))
    copy = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", "secret.avi", "-c:v", "libx264", "secret.ts"]
    subprocess.run(copy, cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize("name", ["secret.ts", "secret.avi"])
def test_videos_are_opened(secret: Path, name: str) -> None:
    assert video_size(secret / name)[1] == (64, 64)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{folder}/secret.ts\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile secret.avi\n",
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'/>",
    ],
    ids=["hls", "hls beside", "concat", "dash"],
)
def test_lists_are_not(secret: Path, text: str) -> None:
    video = secret / "video.mp4"
    video.write_text(text.format(folder=secret))
    with pytest.raises(NVSError, match="not a video that can be read"):
        video_size(video)
    with pytest.raises(NVSError, match="not a video that can be read"):
        frames_at(video, [0.0])


def test_a_pattern_of_images_is_not(secret: Path) -> None:
    for number in range(3):
        imageio.imwrite(secret / f"img_{number}.png", np.zeros((32, 32, 3), np.uint8))
    (secret / "img_%d.png").write_bytes(b"no image")
    with pytest.raises(NVSError, match="not a video"):
        frames_at(secret / "img_%d.png", [0.0])
