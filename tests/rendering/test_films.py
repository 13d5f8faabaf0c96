"""Films: the colours that a player shows are those that were rendered, and the file says how it is meant."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from nvs_app.errors import NVSError
from nvs_app.rendering.video import VideoWriter

PATCHES = np.array([[200, 60, 40], [40, 160, 60], [60, 80, 200], [180, 180, 180]])


def patches(height: int, width: int) -> torch.Tensor:
    """Four upright stripes, [3, h, w]."""
    columns = torch.from_numpy(PATCHES / 255).float().repeat_interleave(width // 4, 0)
    return columns.T[:, None].expand(3, height, width).contiguous()


@pytest.mark.parametrize("height", [64, 720])
def test_a_player_shows_the_colours(tmp_path: Path, height: int) -> None:
    """Decoded by hand as BT.709 at limited range, which the tags name at every size."""
    with VideoWriter(tmp_path / "v.mp4", 24) as video:
        video.add(patches(height, 64)[None].repeat(2, 1, 1, 1))
    with av.open(str(tmp_path / "v.mp4")) as file:
        frame = next(file.decode(video=0))
        planes = [np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[:, : p.width].astype(float) for p in frame.planes]
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
    y, cb, cr = planes[0][height // 2, 8::16], planes[1][height // 4, 4::8], planes[2][height // 4, 4::8]
    y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    red, blue = y + 1.5748 * cr, y + 1.8556 * cb
    shown = np.stack([red, (y - 0.2126 * red - 0.0722 * blue) / 0.7152, blue], axis=1) * 255
    assert np.abs(shown - PATCHES).max() < 3, shown


def test_odd_sides_and_rates(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", 23.976) as video:
        for part in torch.rand(5, 3, 33, 47).split(2):
            video.add(part)
    with av.open(str(tmp_path / "v.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.height, stream.width, stream.frames) == (34, 48, 5)
        assert float(stream.average_rate or 0) == pytest.approx(23.976)


def test_a_pipe_gets_a_film(tmp_path: Path) -> None:
    pipe, read = tmp_path / "v.mp4", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with VideoWriter(pipe, 10) as video:
        video.add(torch.rand(3, 3, 32, 48))
    reader.join(20)
    (tmp_path / "copy.mp4").write_bytes(read[0])
    with av.open(str(tmp_path / "copy.mp4")) as file:
        assert len(list(file.decode(video=0))) == 3


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "v.mp4", tmp_path / ("n" * 300 + ".mp4")):
        with pytest.raises(NVSError, match="cannot be written"), VideoWriter(path, 10) as video:
            video.add(torch.rand(1, 3, 16, 16))
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "v.mp4", 10) as video:
        video.add(torch.rand(1, 3, 16, 16))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
