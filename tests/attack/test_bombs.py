"""Small files that ask for much memory or time are refused, or read within the walls, wherever they are opened."""

from __future__ import annotations

from pathlib import Path

import bombs
import pytest
import torch

from data_tools.readers import open_scene
from data_tools.readers.archives import extract
from data_tools.readers.isolated import ProcessLimits, isolated
from data_tools.readers.points import read_ply
from nvs_app.errors import NVSError
from nvs_app.geometry.robust import camera_statistics
from nvs_app.web.services.uploads import inspect

MIB = 1 << 20
MAX_VIEWS, COMPARED = 5000, 1024
WALLS = ProcessLimits(memory_bytes=512 * MIB, cpu_seconds=30)


def test_more_views_than_can_be_used_are_sampled(tmp_path: Path) -> None:
    file = bombs.many_frames(tmp_path)
    assert file.stat().st_size < 100_000
    source = isolated(inspect, [file], tmp_path / "work", limits=WALLS)
    assert source.available == MAX_VIEWS
    assert any(f"30000 views: {MAX_VIEWS} of them taken" in note for note in source.scene.notes)


def test_averages_of_many_cameras_take_no_table_of_all_pairs() -> None:
    c2w = torch.eye(4).repeat(30_000, 1, 1)
    c2w[:, :3, 3] = torch.randn(30_000, 3, generator=torch.Generator().manual_seed(0))
    many = isolated(camera_statistics, c2w, limits=ProcessLimits(memory_bytes=1024 * MIB))
    all_pairs = camera_statistics(c2w[:COMPARED])
    assert many.center.norm() < 0.05 and many.spread == pytest.approx(float(all_pairs.spread), rel=0.05)
    assert camera_statistics(c2w[: COMPARED + 1]).spread == pytest.approx(float(all_pairs.spread), rel=0.01)


@pytest.mark.parametrize(
    ("bomb", "told"),
    [
        (bombs.empty_objects, "holds more than 4,000,000 values"),
        (bombs.packed_annotations, "unpacks to more than 16 MiB"),
        (bombs.long_name, "the name of an entry is too long"),
        (bombs.many_long_names, "the names of its entries are too long"),
        (bombs.skipped_entries, "refused as a zip bomb"),
        (bombs.long_directory, "its list of entries is too long"),
        (bombs.deep_lists, "not valid JSON"),
        (bombs.large_json, "larger than 64 MiB"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bomb_is_refused_in_one_line(bomb, told: str, tmp_path: Path) -> None:
    file = bomb(tmp_path)
    with pytest.raises(NVSError, match=told) as refused:
        isolated(inspect, [file], tmp_path / "work", limits=WALLS)
    assert "\n" not in str(refused.value)


def test_a_bomb_is_refused_by_the_readers_themselves(tmp_path: Path) -> None:
    """The command line reads in its own process: the same limits hold there."""
    with pytest.raises(NVSError, match="zip bomb"):
        extract(bombs.skipped_entries(tmp_path, 100 * MIB), tmp_path / "out")
    with pytest.raises(NVSError, match="too long"):
        extract(bombs.long_name(tmp_path, 8 * MIB), tmp_path / "out")
    with pytest.raises(NVSError, match="larger than 64 MiB"):
        open_scene(bombs.large_json(tmp_path))


def test_points_in_words_take_no_more_than_their_numbers(tmp_path: Path) -> None:
    file = bombs.ascii_points(tmp_path)
    points = isolated(read_ply, file, limits=ProcessLimits(memory_bytes=96 * MIB))
    assert len(points) == 400_000 and points.xyz[7].tolist() == pytest.approx([0.12345678] * 3)


def test_photos_of_an_odd_shape_and_broken_ones(tmp_path: Path) -> None:
    source = isolated(inspect, [bombs.tall_photos(tmp_path)], tmp_path / "work", limits=WALLS)
    assert source.available == 4 and set(source.skipped) == {"avif.heic", "heic.heic", "mif1.heic"}
    assert all("\n" not in why and len(why) < 300 for why in source.skipped.values())


def test_whatever_no_reader_foresees_ends_at_the_wall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = bombs.many_frames(tmp_path)
    with pytest.raises(NVSError, match="frames.zip: reading it takes more than 1 MB of memory"):
        isolated(inspect, [file], tmp_path / "work", limits=ProcessLimits(memory_bytes=MIB), what="frames.zip")
