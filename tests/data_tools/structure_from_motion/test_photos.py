"""Photos without cameras: the cameras of a bundled example are recovered from its images alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools import cli as command_line
from data_tools.readers import open_scene
from data_tools.readers.isolated import ProcessLimits
from data_tools.structure_from_motion import job as sfm
from data_tools.structure_from_motion.pairs import WORDS, choose_pairs, word_histograms
from data_tools.structure_from_motion.photo_files import find_images
from data_tools.structure_from_motion.photos import (
    Cancelled,
    PhotoOptions,
    PhotoReport,
    open_input,
    reconstruct,
)
from data_tools.structure_from_motion.prepare import Photo, prepare_photos
from data_tools.structure_from_motion.run import WORK
from data_tools.structure_from_motion.scene import upright_frame
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import look_at
from nvs_app.scenes.scene import Scene

pycolmap = pytest.importorskip("pycolmap")


@pytest.fixture(scope="module")
def room(repo: Path) -> Path:
    return repo / "examples" / "room_desk"


@pytest.fixture(scope="module")
def found(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, PhotoReport, dict]]:
    """The example's images as a zip, cancelled while photos are compared, then run to its end."""
    folder = tmp_path_factory.mktemp("photos")
    archive = folder / "room.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted((room / "images").iterdir()):
            packed.write(path, f"holiday/{path.name}")
        packed.writestr("holiday/readme.txt", "no image")
        packed.writestr("holiday/broken.jpg", "no image either")
    stages: list[str] = []

    def stop() -> bool:
        return stages.count("matches") >= 3

    with pytest.raises(Cancelled, match="room.zip: cancelled"):
        reconstruct([archive], folder / "scene", progress=lambda stage, *_: stages.append(stage), cancelled=stop)
    assert (folder / "scene" / WORK / "database.db").is_file()
    assert not (folder / "scene" / "transforms.json").exists()
    again: list[tuple[str, float]] = []
    report = reconstruct([archive], folder / "scene", progress=lambda s, f, _: again.append((s, f)))
    yield folder, report, {"first": stages, "again": again}


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation and translation that bring points [n, 3] closest (Umeyama 1991)."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    flip = np.diag([1.0, 1.0, np.linalg.det(u @ vt)])
    rotation = u @ flip @ vt
    scale = float((s * np.diag(flip)).sum() / (a**2).sum())
    return scale, rotation, target.mean(0) - scale * rotation @ source.mean(0)


def test_cameras_agree_with_the_known_ones(room: Path, found: tuple) -> None:
    truth, scene = open_scene(room), open_scene(found[0] / "scene")
    assert len(scene) == len(truth) == 28
    order = {path.stem: i for i, path in enumerate(truth.image_paths)}
    known = truth.c2w[[order[path.stem] for path in scene.image_paths]].double().numpy()
    ours = scene.c2w.double().numpy()
    scale, rotation, shift = similarity(ours[:, :3, 3], known[:, :3, 3])
    miss = np.linalg.norm(scale * ours[:, :3, 3] @ rotation.T + shift - known[:, :3, 3], axis=1)
    spread = np.linalg.norm(known[:, :3, 3] - known[:, :3, 3].mean(0), axis=1).mean()
    assert miss.max() < 0.05 * spread
    cosine = (np.einsum("ij,njk,nik->n", rotation, ours[:, :3, :3], known[:, :3, :3]) - 1) / 2
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 2.0
    assert scene.fxfycxcy[:, 0].numpy() == pytest.approx(truth.fxfycxcy[0, 0].item(), rel=0.02)
    # Up is up, to what hand-held cameras tell; the cameras stand around the origin.
    assert np.degrees(np.arccos(rotation[2, 2])) < 8.0
    assert scene.c2w[:, :3, 3].norm(dim=-1).median().item() == pytest.approx(2.0, rel=1e-3)


def test_the_report_tells_what_was_done(found: tuple) -> None:
    folder, report, told = found
    assert len(report.registered) == 28 and not report.unregistered
    assert "broken.jpg" in report.skipped and report.reprojection_error < 1.0 and report.points > 300
    assert {"features", "matches", "cameras", "scene"} <= set(report.seconds)
    assert any("28 of 28 photos have cameras" in line for line in report.lines())
    content = json.loads((folder / "scene" / "report.json").read_text())
    assert content["registered"] == report.registered
    assert not (folder / "scene" / WORK).exists()
    header, points = (folder / "scene" / "sparse.ply").read_bytes().split(b"end_header\n", 1)
    assert len(points) == 15 * int(header.split(b"element vertex ")[1].split()[0]) > 0


def test_a_stopped_run_goes_on(found: tuple) -> None:
    _, _, told = found
    assert "features" in told["first"] and "cameras" not in told["first"]
    stages = [stage for stage, _ in told["again"]]
    assert "photos" not in stages and "unpack" in stages
    assert min(f for stage, f in told["again"] if stage == "features" if f > 0) == 1.0  # none computed again
    for stage in ("features", "matches", "cameras", "scene"):
        fractions = [f for s, f in told["again"] if s == stage]
        assert fractions == sorted(fractions) and 0 <= fractions[0] and fractions[-1] <= 1


def test_a_finished_folder_is_kept(found: tuple, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, report, _ = found
    monkeypatch.setattr(sfm, "WORKER", ("false",))  # nothing is computed again
    assert reconstruct([folder / "room.zip"], folder / "scene").registered == report.registered
    with pytest.raises(NVSError, match="another input"):
        reconstruct([room / "images"], folder / "scene")
    (folder / "mine").mkdir()
    (folder / "mine" / "text.txt").write_text("keep me")
    with pytest.raises(NVSError, match="not empty"):
        reconstruct([room / "images"], folder / "mine")


def test_open_input_opens_what_has_cameras(room: Path, tmp_path: Path) -> None:
    assert len(open_input(room)) == 28
    archive = tmp_path / "posed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(room.rglob("*")):
            packed.write(path, f"top/{path.relative_to(room)}")
    for _ in range(2):  # unpacked, then found
        scene = open_input(archive, tmp_path / "cache")
        assert len(scene) == 28 and scene.load([0], (32, 32)).images.shape == (1, 3, 32, 32)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    with pytest.raises(NVSError, match="one photo alone"):
        open_input(room / "images" / "000.jpg")


def test_open_input_of_photos_uses_the_cache(found: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def fake(paths: list, output: Path, *_: object) -> PhotoReport:
        calls.append(output)
        return found[1]

    monkeypatch.setattr("data_tools.structure_from_motion.photos.reconstruct", fake)
    monkeypatch.setattr(
        "data_tools.structure_from_motion.photos.open_scene", lambda path: open_scene(found[0] / "scene")
    )
    scene = open_input(found[0] / "room.zip", tmp_path)
    assert isinstance(scene, Scene) and scene.name == "room" and "28 of 28" in " ".join(scene.notes)
    assert calls[0].parent == tmp_path and calls[0].name.startswith("room-")
    assert not list(tmp_path.glob(".*")), "the unpacked upload was left behind"


def blank(folder: Path, count: int, color: int = 200) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (320, 240), (color, color, color)).save(folder / f"{number}.png")
    return folder


def test_hopeless_inputs_end_in_one_message(room: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("000.jpg", "001.jpg"):
        (few / name).write_bytes((room / "images" / name).read_bytes())
    empty = tmp_path / "empty"
    empty.mkdir()
    for inputs, words in [
        ([few], "few: 2 photos, three is the least"),
        ([blank(tmp_path / "blank", 3)], "3 are of one colour"),
        ([empty], "no images found"),
        ([tmp_path / "none"], "no such file"),
    ]:
        assert command_line.main(["photos", *map(str, inputs), str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and words in error
        assert not (tmp_path / "out").exists()
    assert command_line.main(["photos", str(few), str(tmp_path / "out"), "--max-size", "9"]) == 2
    assert "expected 64 to 8192" in capsys.readouterr().err


def test_our_own_output_is_no_input(tmp_path: Path) -> None:
    """A scene or masks written inside the folder of photos do not count as photos the next time."""
    photos = blank(tmp_path / "photos", 2)
    blank(photos / "scene", 2)
    (photos / "scene" / "transforms.json").write_text("{}")
    blank(photos / "masks", 2)
    blank(photos / ".thumbnails", 2)
    assert [path.name for path in find_images([photos], leave_out=photos / "masks")] == ["0.png", "1.png"]


def facts(features: int, raw: int, best: int, sharpness: float = 0.1) -> tuple[list[Photo], dict]:
    photos = [Photo(f"{i}.jpg", f"{i}.jpg", (60, 80), 70.0, False, 0, False, sharpness, 900.0) for i in range(6)]
    names = [photo.name for photo in photos]
    return photos, {
        "registered": [],
        "weak": {},
        "points": 0,
        **{k: dict.fromkeys(names, v) for k, v in (("features", features), ("raw_pair", raw), ("best_pair", best))},
    }


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (facts(2000, 200, 180, sharpness=0.001), "6 are blurred"),
        (facts(40, 5, 0), "little texture"),
        (facts(2000, 300, 20), "moved"),
        (facts(2000, 20, 8), "little in common"),
        (facts(2000, 300, 280), "too little parallax"),
    ],
)
def test_what_went_wrong_is_named(seen: tuple, words: str) -> None:
    assert words in sfm._failure(*seen)


def test_reasons_for_single_photos() -> None:
    for seen, words in ((facts(40, 0, 0), "too few features"), (facts(900, 9, 9), "too few matches"),
                        (facts(900, 99, 99), "left out")):  # fmt: skip
        assert words in sfm._reason(seen[0][0], seen[1])


def test_a_worker_that_dies_is_one_message(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the C++ library aborts; the work is kept, and so is its log."""
    code = "import os, sys; print('boom', file=sys.stderr, flush=True); os.abort()"
    monkeypatch.setattr(sfm, "WORKER", (sys.executable, "-c", code))
    with pytest.raises(sfm.WorkerFailed, match="exit code -6: boom"):
        reconstruct([room / "images"], tmp_path / "out")
    assert (tmp_path / "out" / WORK / "worker.log").is_file()


def test_cancel_kills_the_worker(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "pid"
    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(sfm, "WORKER", (sys.executable, "-c", code))
    with pytest.raises(Cancelled):
        reconstruct([room / "images"], tmp_path / "out", cancelled=lambda: note.is_file() and bool(note.read_text()))
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_the_worker_ends_with_its_parent(tmp_path: Path) -> None:
    code = "import threading, time; from data_tools.structure_from_motion.worker import _end_with_parent as e; "
    code += "threading.Thread(target=e, daemon=True).start(); time.sleep(100)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 1


def test_photos_are_turned_scaled_and_grouped(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
    pixels[:20, :30] = (255, 0, 0)  # upper left
    for number, (orientation, focal35) in enumerate([(1, 26), (6, 26), (1, 52)]):
        exif = Image.Exif()
        exif[0x0112], exif[0x0110] = orientation, "Phone"
        exif.get_ifd(0x8769)[0xA405] = focal35
        Image.fromarray(pixels).save(tmp_path / f"p{number + 1}0.jpg", exif=exif, quality=95)
    Image.fromarray(np.dstack([pixels, pixels[:, :, 0]])).save(tmp_path / "p2.png")
    images = find_images([tmp_path])
    assert [path.name for path in images] == ["p2.png", "p10.jpg", "p20.jpg", "p30.jpg"]
    photos, skipped = prepare_photos(images, tmp_path / "work", 50)
    assert not skipped
    clear, level, turned, zoomed = photos
    assert level.image_hw == (30, 50) and turned.image_hw == (50, 30)
    # Turned clockwise: what was upper left is upper right.
    upright = np.asarray(Image.open(tmp_path / "work" / "images" / turned.name)).astype(int)
    assert upright[4, -5, 0] > 200 and upright[4, -5, 1] < 60
    assert level.focal == pytest.approx(50 * 26 / 36) and turned.focal == pytest.approx(50 * 26 / 36)
    assert level.has_focal and not clear.has_focal
    assert clear.masked and (tmp_path / "work" / "masks" / f"{clear.name}.png").is_file()
    assert len({photo.camera for photo in photos}) == 4


def test_a_photo_that_asks_for_much_ends_a_child_alone(tmp_path: Path) -> None:
    """Apart, what a decoder asks for is refused in a line, and the other photos are read as they would be here."""
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "c.png"):
        Image.fromarray(rng.integers(0, 255, (60, 100, 3), dtype=np.uint8)).save(tmp_path / name)
    Image.fromarray(np.zeros((6000, 4000, 4), np.uint8)).save(tmp_path / "b.png", compress_level=1)  # 96 MB unpacked
    images, limits = find_images([tmp_path]), ProcessLimits(memory_bytes=48 << 20)
    photos, skipped = prepare_photos(images, tmp_path / "apart", 50, apart=limits)
    assert [photo.source for photo in photos] == ["a.jpg", "c.png"]
    assert skipped == {"b.png": "reading it takes more than 48 MB of memory; send less"}
    here, _ = prepare_photos([images[0], images[2]], tmp_path / "here", 50)
    assert photos == here
    for photo in photos:
        assert (tmp_path / "apart/images" / photo.name).read_bytes() == (
            tmp_path / "here/images" / photo.name
        ).read_bytes()


def test_masks_make_images_transparent(found: tuple, tmp_path: Path) -> None:
    """Written by the last stage; a missing mask is named."""
    from data_tools.structure_from_motion.job import SfMResult
    from data_tools.structure_from_motion.scene import write_scene

    source, masks = tmp_path / "photos", tmp_path / "masks"
    masks.mkdir()
    blank(source, 3, 90)
    for number in range(3):
        mask = np.zeros((240, 320), np.uint8)
        mask[60:180, 80:240] = 255
        Image.fromarray(mask).save(masks / f"{number}.png")
    photos, _ = prepare_photos(find_images([source]), tmp_path / "work", 320, masks)
    eyes = torch.tensor([[2.0, 0, 1], [0, -2, 1], [-2, 0, 1]], dtype=torch.float64)
    up = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    c2w = look_at(eyes, torch.zeros(3, 3, dtype=torch.float64), up.expand(3, 3)).numpy()
    lens = np.tile([300.0, 160, 120, 0.05], (3, 1))
    points = np.zeros((5, 3))
    result = SfMResult([p.name for p in photos], c2w, lens, points, np.zeros((5, 3), np.uint8), np.full(5, 3),
                       {}, 0.5, "", {})  # fmt: skip
    scene = write_scene(result, photos, tmp_path / "work", tmp_path / "scene", "masked")
    again = open_scene(tmp_path / "scene")
    image = again.load([0]).images[0]
    assert image[:, 5, 5].min() == 1.0 and image[:, 120, 160].max() < 0.4
    torch.testing.assert_close(again.c2w, scene.c2w)
    (masks / "1.png").unlink()
    photos, skipped = prepare_photos(find_images([source]), tmp_path / "work2", 320, masks)
    assert len(photos) == 2 and "no mask" in skipped["1.png"]


def test_the_frame_is_upright_and_centred() -> None:
    """A tilted, shifted and scaled ring of cameras comes back with +z up around the origin."""
    angle = torch.linspace(0, 2 * torch.pi, 13, dtype=torch.float64)[:12]
    eyes = torch.stack([3 * angle.cos(), 3 * angle.sin(), torch.full_like(angle, 1.5)], dim=-1)
    up = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(12, 3)
    c2w = look_at(eyes, torch.zeros(12, 3, dtype=torch.float64), up)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    turn = turn * torch.det(turn)
    moved = c2w.clone()
    moved[:, :3, :3] = turn @ c2w[:, :3, :3]
    moved[:, :3, 3] = 7.0 * c2w[:, :3, 3] @ turn.T + torch.tensor([5.0, -3.0, 20.0], dtype=torch.float64)
    back = upright_frame(moved).apply_c2w(moved)
    height = 2.0 * 1.5 / (9 + 2.25) ** 0.5
    assert back[:, 2, 3].tolist() == pytest.approx([height] * 12, abs=0.02)
    assert back[:, :3, 3].norm(dim=-1).tolist() == pytest.approx([2.0] * 12, abs=0.02)


def test_pairs_follow_the_number_of_photos() -> None:
    assert choose_pairs(40, False, None) == (
        [(i, j) for i in range(40) for j in range(i + 1, 40)],
        "exhaustive",
    )
    random = np.random.default_rng(0)
    records = random.random((10, 40, 128)).astype(np.float32) * 200  # ten places, 40 features each
    photos = [records[i % 10] + random.normal(0, 4, (40, 128)).astype(np.float32) for i in range(100)]
    words = word_histograms(photos)
    assert words.shape == (100, WORDS)
    pairs, name = choose_pairs(100, False, words)
    assert len(pairs) < 2500 and "look-alikes" in name and all(i < j for i, j in pairs)
    assert {(i, i + 1) for i in range(99)} <= set(pairs)
    assert sum((i, i + 50) in set(pairs) for i in range(50)) > 25  # the same place, far apart in the sequence
    video, name = choose_pairs(100, True, None)
    assert name == "sequential" and (0, 8) in video and (0, 16) in video and (0, 99) not in video


def test_options_are_checked() -> None:
    for options in ({"max_size": 10}, {"frames": 2}, {"masks": Path("nowhere")}):
        with pytest.raises(NVSError, match="expected|no such"):
            PhotoOptions(**options)
