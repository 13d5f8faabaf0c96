"""Which views each protocol reads and draws, on small copies of the data sets in their real layouts."""

from __future__ import annotations

import json
from pathlib import Path

import bench_datasets as made
import numpy as np
import pytest
import torch
from camera_rings import ring_c2w
from PIL import Image

from nvs_app.errors import NVSError
from nvs_app.evaluation.protocols import BENCHMARKS, find
from nvs_app.evaluation.protocols.base import Listing, Settings, Views, view_name
from nvs_app.evaluation.protocols.procedural import WORLD_SEED
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.views import kmeans_views, pick_views
from nvs_app.training.trainer import HELD_OUT_SEED


def listed(name: str, data: Path | None, contexts: tuple[int, ...] = (), **options: str) -> tuple[Settings, Listing]:
    settings = find(name).complete(Settings(data, contexts, options=options))
    return settings, find(name).entries(settings)


def chosen(name: str, settings: Settings, views: Views, count: int) -> tuple[list[str], list[str]]:
    """File names of context and targets."""
    split = find(name).split(views, count, settings)
    return [view_name(views, i) for i in split.context], [view_name(views, i) for i in split.target]


def gso(*places: str) -> list[str]:
    return [f"images/{place}.png" for place in places]


TARGETS = gso("e00_a03", "e00_a11", "e20_a07", "e20_a15", "e40_a01", "e40_a09", "e60_a05", "e60_a13")
EIGHT = gso("e00_a00", "e00_a04", "e00_a08", "e00_a12", "e40_a02", "e40_a06", "e40_a10", "e40_a14")
FOUR = gso("e20_a00", "e20_a04", "e20_a08", "e20_a12")


@pytest.mark.parametrize("turn", [0.0, 7.0])
def test_gso(tmp_path: Path, turn: float) -> None:
    order = torch.randperm(64).tolist() if turn else list(range(64))
    made.gso_object(tmp_path / "SHOE", order, turn)
    settings, listing = listed("gso", tmp_path)
    assert settings.contexts == (4, 8, 12, 20) and [entry.name for entry in listing.entries] == ["SHOE"]
    views = listing.entries[0].open()
    assert chosen("gso", settings, views, 4) == (FOUR, sorted_like(views, TARGETS))
    assert chosen("gso", settings, views, 8)[0] == EIGHT
    assert chosen("gso", settings, views, 12)[0] == EIGHT + FOUR
    larger = chosen("gso", settings, views, 48)[0]
    assert larger[:12] == EIGHT + FOUR and len(set(larger)) == 48 and not set(larger) & set(TARGETS)
    assert chosen("gso", settings, views, 20)[0] == larger[:20]  # nested
    with pytest.raises(NVSError, match="56 of the 64"):
        find("gso").split(views, 57, settings)
    assert find("gso").remarks(views, settings) == []


def sorted_like(views: Views, names: list[str]) -> list[str]:
    """Targets come in the order of the files."""
    order = [view_name(views, index) for index in range(len(views))]
    return sorted(names, key=order.index)


def test_gso_layouts(tmp_path: Path) -> None:
    made.gso_object(tmp_path / "A" / "SHOE", range(64))
    made.gso_object(tmp_path / "A" / "HALF", range(32))  # no views at 40 and 60 degrees
    settings, listing = listed("gso", tmp_path / "A", layout="lrm-zero")
    half, shoe = (entry.open() for entry in listing.entries)
    assert settings.contexts == (4, 8) and chosen("gso", settings, shoe, 8) == (EIGHT, TARGETS)
    with pytest.raises(NVSError, match="HALF: no view at elevation 40"):
        find("gso").split(half, 8, settings)
    with pytest.raises(NVSError, match="4 or 8"):
        find("gso").split(shoe, 12, settings)
    settings, _ = listed("gso", tmp_path / "A", layout="lvsm")
    context, target = chosen("gso", settings, shoe, 4)
    assert context == gso("e20_a02", "e20_a06", "e20_a10", "e20_a14")
    assert len(set(target)) == 10 and not set(target) & set(context)
    assert chosen("gso", settings, shoe, 4)[1] == target  # drawn, but always the same


def re10k(folder: Path) -> Path:
    """Two chunks in test/, and the index: one scene to do, one null, one that is not in the data."""
    (folder / "test").mkdir(parents=True)
    torch.save([made.re10k_entry("aaa", 8), made.re10k_entry("bbb", 5)], folder / "test" / "000000.torch")
    torch.save([made.re10k_entry("ccc", 8)], folder / "test" / "000001.torch")
    index = {
        "aaa": {"context": [1, 6], "target": [2, 4, 5]},
        "bbb": None,
        "ccc": {"context": [0, 7], "target": [9, 3, 1]},
        "ddd": {"context": [0, 1], "target": [1, 2, 3]},
        "eee": None,
    }
    (folder / "evaluation_index_re10k.json").write_text(json.dumps(index))
    return folder


def test_re10k_chunks(tmp_path: Path) -> None:
    settings, listing = listed("re10k", re10k(tmp_path))
    assert settings.contexts == (2,)
    assert [entry.name for entry in listing.entries] == ["aaa", "ccc"] and list(listing.absent) == ["ddd"]
    views = listing.entries[0].open()
    split = find("re10k").split(views, 2, settings)
    assert (split.context, split.target) == ([1, 6], [2, 4, 5])
    assert views.load(split.context, (32, 32)).cameras.c2w[:, 0, 3].tolist() == [1.0, 6.0]
    with pytest.raises(NVSError, match="ccc: no frame 9"):
        find("re10k").split(listing.entries[1].open(), 2, settings)
    with pytest.raises(NVSError, match="the index lists 2 context views"):
        find("re10k").split(views, 3, settings)


def test_re10k_resizes_as_pixelsplat_does(tmp_path: Path) -> None:
    entry = made.re10k_entry("aaa", 2)
    settings, listing = listed("re10k", re10k(tmp_path))
    posed = listing.entries[0].open().load([1], (24, 24))
    # 36x64 -> 24x43 (42.67 rounded), then 24 of 43 columns from column 9.
    photo = Image.open(as_file(entry["images"][1], tmp_path)).resize((43, 24), Image.LANCZOS).crop((9, 0, 33, 24))
    expected = torch.from_numpy(np.array(photo)).movedim(-1, 0) / 255
    torch.testing.assert_close(posed.images[0], expected, atol=1e-6, rtol=0)
    # cx: half of 43 columns, less the 9 cut off; fx: half of the scaled width.
    torch.testing.assert_close(posed.cameras.fxfycxcy[0], torch.tensor([21.5, 21.6, 12.5, 12.0]))
    settings, listing = listed("re10k", tmp_path, resize="area")
    ours = listing.entries[0].open().load([1], (24, 24))
    torch.testing.assert_close(ours.cameras.fxfycxcy[0], torch.tensor([64 / 36 * 12, 21.6, 12.0, 12.0]))


def as_file(data: torch.Tensor, folder: Path) -> Path:
    (folder / "one.jpg").write_bytes(data.numpy().tobytes())
    return folder / "one.jpg"


def test_re10k_text_files_with_lost_frames(tmp_path: Path) -> None:
    """Frame numbers of the index are lines of the camera file, also where images are missing before them."""
    made.re10k_text(tmp_path, "aaa", 8, without=(0, 3))
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"aaa": {"context": [1, 6], "target": [2, 4, 5]}}))
    settings, listing = listed("re10k", tmp_path, index=str(index))
    context, target = chosen("re10k", settings, listing.entries[0].open(), 2)
    assert context == ["aaa/33000.png", "aaa/198000.png"]
    assert target == ["aaa/66000.png", "aaa/132000.png", "aaa/165000.png"]
    index.write_text(json.dumps({"aaa": {"context": [0, 6], "target": [2]}}))
    with pytest.raises(NVSError, match="no frame 0, which the index lists as context"):
        find("re10k").split(listed("re10k", tmp_path, index=str(index))[1].entries[0].open(), 2, settings)
    index.write_text(json.dumps({"aaa": {"context": 5}}))
    with pytest.raises(NVSError, match="scene aaa: expected lists"):
        listed("re10k", tmp_path, index=str(index))


def test_dl3dv(tmp_path: Path) -> None:
    """Frames 0, 8, 16, 24 are targets; three groups of seven cameras have their middle ones chosen."""
    xs = [10.0 * (number // 8) + 0.1 * (number % 8) for number in range(25)]
    names = [f"images/frame_{number + 1:05d}.png" for number in range(25)]
    scene = made.transforms(tmp_path / "1K" / "0a1b" / "nerfstudio", made.line(xs), names)
    (scene / "images").rename(scene / "images_4")  # the benchmark's smaller download
    settings, listing = listed("dl3dv", tmp_path)
    assert settings.contexts == (16, 32, 64, 128) and [entry.name for entry in listing.entries] == ["0a1b"]
    views = listing.entries[0].open()
    context, target = chosen("dl3dv", settings, views, 3)
    assert target == [f"images_4/frame_{number + 1:05d}.png" for number in (0, 8, 16, 24)]
    assert context == [f"images_4/frame_{number + 1:05d}.png" for number in (4, 12, 20)]
    assert find("dl3dv").size(views, settings) == (540, 960)
    assert find("dl3dv").size(views, listed("dl3dv", tmp_path, size="256x256")[0]) == (256, 256)
    with pytest.raises(NVSError, match="32 context views asked for, 21 of 25 are not held out"):
        find("dl3dv").split(views, 32, settings)


def test_kmeans_sees_directions() -> None:
    """Two cameras at one place that look apart are two clusters, unless positions alone count."""
    c2w = made.line([0.0, 0.0, 0.01, 0.02, 5.0, 5.0])
    c2w[[1, 3], :3, :3] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    groups = [{0, 2}, {1, 3}, {4, 5}]
    assert [len(group & set(kmeans_views(c2w, 3))) for group in groups] == [1, 1, 1]
    assert kmeans_views(c2w, 2, directions=False) == [2, 4]  # 0.01 is nearest to the mean 0.0075
    assert kmeans_views(made.line([1.0] * 4), 3) == [0, 1, 2]  # never one camera twice
    assert pick_views(ring_c2w(17), 3, "even") == [0, 8, 16] and pick_views(ring_c2w(3), 1, "even") == [0]
    assert pick_views(ring_c2w(17), 3, "first") == [0, 1, 2]


def test_nerf_synthetic(tmp_path: Path) -> None:
    scene = tmp_path / "nerf_synthetic" / "chair"
    for split, count in (("train", 100), ("val", 3), ("test", 200)):
        made.transforms(scene, ring_c2w(count), [f"./{split}/r_{i}" for i in range(count)], (4, 4),
                        f"transforms_{split}", ".png")  # fmt: skip
    settings, listing = listed("nerf-synthetic", tmp_path, context="dietnerf", test="every8")
    assert settings.contexts == (8,) and [entry.name for entry in listing.entries] == ["chair"]
    views = listing.entries[0].open()
    context, target = chosen("nerf-synthetic", settings, views, 8)
    assert context == [f"train/r_{number}.png" for number in (26, 86, 2, 55, 75, 93, 16, 73)]
    assert target == [f"test/r_{number}.png" for number in range(0, 200, 8)] and len(target) == 25
    with pytest.raises(NVSError, match="8 of 100 views"):
        find("nerf-synthetic").split(views, 4, settings)
    settings, _ = listed("nerf-synthetic", tmp_path, context="first")
    context, target = chosen("nerf-synthetic", settings, views, 3)
    assert context == ["train/r_0.png", "train/r_1.png", "train/r_2.png"] and len(target) == 200
    spread = chosen("nerf-synthetic", listed("nerf-synthetic", tmp_path)[0], views, 4)[0]
    assert all(name.startswith("train/") for name in spread)
    assert find("nerf-synthetic").size(views, settings) == (800, 800)


def test_llff(tmp_path: Path) -> None:
    made.llff_scene(tmp_path / "fern", 20)
    settings, listing = listed("llff", tmp_path)
    assert settings.contexts == (3, 6, 9)
    views = listing.entries[0].open()
    # Candidates are 1-7, 9-15, 17-19; of these 17, numbers 0, 8, 16 and 0, 3, 6, 10, 13, 16.
    for count, numbers in ((3, (1, 10, 19)), (6, (1, 4, 7, 12, 15, 19))):
        context, target = chosen("llff", settings, views, count)
        assert context == [f"images/IMG_{number:04d}.png" for number in numbers]
        assert target == [f"images/IMG_{number:04d}.png" for number in (0, 8, 16)]


def test_mipnerf360(tmp_path: Path) -> None:
    for name in ("garden", "kitchen", "room"):
        made.colmap_scene(tmp_path / "360_v2" / name, 18)
    (tmp_path / "360_v2" / "kitchen" / "images").rename(tmp_path / "360_v2" / "kitchen" / "images_2")
    settings, listing = listed("mipnerf360", tmp_path)
    assert [entry.name for entry in listing.entries] == ["garden", "kitchen", "room"]
    garden, kitchen, room = (entry.open() for entry in listing.entries)
    context, target = chosen("mipnerf360", settings, garden, 2)
    assert target == [f"images/DSC{8000 + number}.png" for number in (0, 8, 16)]
    # Candidates at x = 1-7, 9-15, 17 fall into 1-7 and 9-17 (means 4 and 12.625).
    assert context == ["images/DSC8004.png", "images/DSC8013.png"]
    assert find("mipnerf360").size(garden, settings) == (12, 16)  # a quarter outdoors, half indoors
    assert find("mipnerf360").size(room, settings) == (24, 32)
    assert find("mipnerf360").size(kitchen, settings) == (48, 64)  # only images_2 is there: half already
    assert find("mipnerf360").size(room, listed("mipnerf360", tmp_path, size="256")[0]) == (256, 341)


def test_objaverse(tmp_path: Path) -> None:
    for uid in ("aa11", "bb22", "cc33"):
        made.transforms(tmp_path / uid, ring_c2w(12), [f"{number}.png" for number in range(12)])
    (tmp_path / "held_out.txt").write_text("bb22\nzz99\n")
    settings, listing = listed("objaverse", tmp_path, list=str(tmp_path / "held_out.txt"))
    assert [entry.name for entry in listing.entries] == ["bb22"] and list(listing.absent) == ["zz99"]
    context, target = chosen("objaverse", settings, listing.entries[0].open(), 4)
    assert context == ["0.png", "1.png", "2.png", "3.png"]  # 10 and 11 come after 9, not after 1
    assert target == [f"{number}.png" for number in range(4, 12)]
    assert len(listed("objaverse", tmp_path)[1].entries) == 3
    with pytest.raises(NVSError, match="5 context views asked for, 4 of 12"):
        find("objaverse").split(listing.entries[0].open(), 5, settings)


def test_folder(tmp_path: Path) -> None:
    names = [f"images/{number:02d}.png" for number in range(20)]
    made.transforms(tmp_path / "plain", ring_c2w(20), names)
    own = {"train_filenames": names[:15], "test_filenames": names[15:]}
    made.transforms(tmp_path / "with split", ring_c2w(20), names, **own)
    made.image(tmp_path / "photos" / "a.png")
    settings, listing = listed("folder", tmp_path)
    assert [entry.name for entry in listing.entries] == ["plain", "with split"]
    assert "recover their cameras first" in listing.absent["photos"]
    plain, split = (entry.open() for entry in listing.entries)
    assert chosen("folder", settings, plain, 4)[1] == [names[0], names[8], names[16]]
    assert chosen("folder", settings, plain, 8)[1] == chosen("folder", settings, plain, 4)[1]
    assert chosen("folder", settings, split, 4)[1] == names[15:]
    context, target = chosen("folder", listed("folder", tmp_path, targets="rest")[0], plain, 4)
    assert sorted(context + target) == names
    assert [entry.name for entry in listed("folder", tmp_path / "plain")[1].entries] == ["plain"]
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "linked").symlink_to(tmp_path / "plain", target_is_directory=True)
    linked = listed("folder", tmp_path / "links")[1].entries[0].open()
    assert chosen("folder", settings, linked, 4) == chosen("folder", settings, plain, 4)  # names under the link
    torch.save([made.re10k_entry("aaa", 9), made.re10k_entry("bbb", 9)], tmp_path / "000.torch")
    assert [entry.name for entry in listed("folder", tmp_path / "000.torch")[1].entries][1].endswith("#bbb")


class FakeSource:
    """Grey images whose value is the scene's number, and a note of what was asked for."""

    asked: list[tuple] = []

    def __init__(self, device: torch.device, seed: int, assets: Path | None) -> None:
        self.seed = seed

    def batch(
        self, numbers: list[int], views: int, image_hw: tuple[int, int], kinds: list[str], depth: bool,
        captures: list[str],
    ) -> PosedImages:  # fmt: skip
        self.asked.append((self.seed, *zip(numbers, kinds, captures)))
        images = torch.tensor(numbers, dtype=torch.uint8).view(-1, 1, 1, 1, 1).expand(-1, views, 3, *image_hw)
        c2w = ring_c2w(views).expand(len(numbers), views, 4, 4)
        far = torch.ones(len(numbers), views, *image_hw) if depth else None
        return PosedImages(images, Cameras(c2w, torch.full((len(numbers), views, 4), 9.0), image_hw), far)


def test_procedural(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvs_app.evaluation.protocols.procedural.ProceduralSource", FakeSource)
    settings = find("procedural").complete(Settings(options={"scenes": "19"}, image_hw=(16, 16), seed=2))
    entries = find("procedural").entries(settings).entries
    assert [entry.name for entry in entries[:3]] == ["object-000", "room-001", "object-002"]
    # A group, which is one process's, is what is made together: on a GPU an eighth of all scenes, or 16.
    assert len({entry.group for entry in entries}) == 19
    for count, size in ((8, 1), (19, 3), (400, 16)):
        there = Settings(options={"scenes": str(count)}, image_hw=(16, 16), device=torch.device("cuda"))
        groups = [entry.group for entry in find("procedural").entries(find("procedural").complete(there)).entries]
        assert groups == [str(number // size) for number in range(count)]
    views = entries[3].open()
    split = find("procedural").split(views, 8, settings)
    assert split.target == list(range(8)) and len(set(split.context) & set(range(8, 32))) == 8
    posed = views.load(split.target, (16, 16))
    assert posed.images.shape == (8, 3, 16, 16) and posed.images.unique().tolist() == [3]
    assert posed.depth is not None and posed.depth.shape == (8, 16, 16)
    assert FakeSource.asked == [(WORLD_SEED + 2, (3, "room", "plain"))]
    # A seed that no training has: far from small ones and from that of training's own held-out scenes.
    assert WORLD_SEED > 1_000_000 and abs(WORLD_SEED - HELD_OUT_SEED) > 1_000_000
    for options, message in (
        ({"kinds": "asset"}, "assets=DIR"), ({"kinds": "cat"}, "object, room"), ({"scenes": "0"}, "1 or more"),
    ):  # fmt: skip
        with pytest.raises(NVSError, match=message):
            find("procedural").entries(find("procedural").complete(Settings(options=options)))


def test_procedural_kinds_of_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvs_app.evaluation.protocols.procedural.ProceduralSource", FakeSource)
    monkeypatch.setattr(FakeSource, "asked", [])
    benchmark, kinds = find("procedural"), "outdoor,rolled,object,wide,narrow,rolled-room"
    settings = benchmark.complete(Settings(options={"scenes": "12", "kinds": kinds}, image_hw=(16, 16)))
    entries = benchmark.entries(settings).entries
    assert [entry.kind for entry in entries[:6]] == kinds.split(",")
    assert entries[7].name == "rolled-007"
    for entry in entries[6:]:
        assert benchmark.split(entry.open(), 4, settings).target == list(range(8))
    # Rolled and narrow ones show the scene of kind object of the same turn; no upright room is asked for.
    assert [asked[1] for asked in FakeSource.asked] == [
        (6, "outdoor", "plain"), (8, "object", "rolled"), (8, "object", "plain"), (9, "outdoor", "wide"),
        (8, "object", "narrow"), (11, "room", "rolled"),
    ]  # fmt: skip


def test_mistakes_are_told(tmp_path: Path) -> None:
    for name in BENCHMARKS:
        with pytest.raises(NVSError, match="no such option"):
            listed(name, tmp_path, colour="blue")
        if find(name).needs_data:
            with pytest.raises(NVSError, match="--data DIR"):
                listed(name, None)
            with pytest.raises(NVSError):
                listed(name, tmp_path)  # an empty folder
    with pytest.raises(NVSError, match="expected one of lact, lrm-zero, lvsm"):
        listed("gso", tmp_path, layout="x")
    with pytest.raises(NVSError, match="unknown, expected one of gso"):
        find("imagenet")
    with pytest.raises(NVSError, match="no such folder"):
        listed("llff", tmp_path / "nowhere")


def test_every_protocol_says_its_source() -> None:
    for benchmark in BENCHMARKS.values():
        assert benchmark.source and benchmark.title and benchmark.layout
        assert all(option.help for option in benchmark.options)
        for figure in benchmark.published:
            assert 15 < figure.psnr < 45
