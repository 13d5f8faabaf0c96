"""LLFF, RealEstate10K, pixelSplat, MVSNet, 7-Scenes, ScanNet, CO3D, Bundler: files by hand, one known camera."""

from __future__ import annotations

import gzip
import json

import cv2
import numpy as np
import pytest
import torch
from known_camera import C2W, CX, CY, FX, FY, HEIGHT, W2C, WIDTH, check_rays, image
from scene_writers import (
    BUNDLE_CAMERA,
    LLFF_ROW,
    bundle,
    chunk_entry,
    co3d,
    co3d_frame,
    llff,
    re10k,
    rows,
    write,
)

from data_tools.readers import open_scene, open_scenes, scene_keys
from nvs_app.errors import NVSError

MIDDLE = {"cx": WIDTH / 2, "cy": HEIGHT / 2}


# LLFF


def test_llff(tmp_path) -> None:
    scene = open_scene(llff(tmp_path / "fern"))
    torch.testing.assert_close(scene.c2w[1], torch.tensor(C2W, dtype=torch.float64))
    check_rays(scene, 1, fy=20.0, **MIDDLE)
    scene = open_scene(llff(tmp_path / "small", "images_4", size=(4, 3)) / "poses_bounds.npy")
    assert scene.fxfycxcy[0].tolist() == [5.0, 5.0, 2.0, 1.5]
    assert "images/ is absent" in scene.notes[0]


def test_llff_malformed(tmp_path) -> None:
    folder = llff(tmp_path / "fern")
    image(folder / "images/extra.png")
    with pytest.raises(NVSError, match=r"2 cameras, but images/ has 3 images"):
        open_scene(folder)
    (folder / "images/extra.png").unlink()
    file = folder / "poses_bounds.npy"
    whole = file.read_bytes()
    for broken in (
        b"",
        whole.replace(b"}", b" "),
        whole[:40],
        whole[:-8],
        b"\x80\x04K\x01.",
        whole.replace(b"(2, 17)", b"(2000000000000, 17)"),
    ):
        file.write_bytes(broken)
        with pytest.raises(NVSError, match="fern/poses_bounds.npy: not a NumPy array") as caught:
            open_scene(folder)
        assert "\n" not in str(caught.value)
    np.save(file, np.array([{"a": 1}], dtype=object))  # a pickle
    with pytest.raises(NVSError, match="not a NumPy array"):
        open_scene(folder)
    for change, message in (
        ({0: np.nan}, "c2w holds NaN"),
        ({2: 0.0}, "c2w is no rigid motion"),
        ({2: 1.0}, "mirrors"),
        ({14: 0.0}, "focal is 0.0, expected a positive number"),
    ):
        row = np.array(LLFF_ROW)
        row[list(change)] = list(change.values())
        np.save(file, np.stack([row, row]))
        with pytest.raises(NVSError, match=rf"camera 0 \(IMG_0.JPG\): .*{message}"):
            open_scene(folder)


# RealEstate10K


def test_realestate10k_frames(tmp_path) -> None:
    file = re10k(tmp_path / "test/abc.txt")
    image(tmp_path / "test/abc/100000.png")
    image(tmp_path / "test/abc/400000.jpg")
    for path in (file, tmp_path / "test", f"{tmp_path}/test#abc"):
        scene = open_scene(path)
        assert scene.name == "abc" and len(scene) == 2
        assert scene.notes == ("1 of 3 frames left out: the image is not there (200000)",)
        check_rays(scene)
    re10k(tmp_path / "test/other.txt")
    for index in range(3):
        image(tmp_path / f"test/frames/other/{index:05d}_x.png")
    assert scene_keys(tmp_path / "test") == ["abc", "other"]
    assert [len(scene) for scene in open_scenes(tmp_path / "test")] == [2, 3]
    scene = open_scene(f"{tmp_path}/test#other")
    assert "taken in order" in scene.notes[0] and scene.image_paths[2].name == "00002_x.png"
    with pytest.raises(NVSError, match=r"holds 2 scenes, name one as test#KEY \(abc, other\)"):
        open_scene(tmp_path / "test")
    with pytest.raises(NVSError, match="no scene zzz among its 2"):
        open_scene(f"{tmp_path}/test#zzz")


def test_realestate10k_video(tmp_path) -> None:
    file = re10k(tmp_path / "abc.txt", (0, 200_000, 400_000, 9_000_000))
    writer = cv2.VideoWriter(str(tmp_path / "abc.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    for value in range(0, 250, 25):
        writer.write(np.full((HEIGHT, WIDTH, 3), value, dtype=np.uint8))
    writer.release()
    scene = open_scene(file)
    check_rays(scene)
    assert "frames decoded from abc.avi" in scene.notes[0] and "1 of 4" in scene.notes[1]
    values = scene.load().images.mean((1, 2, 3)) * 255
    torch.testing.assert_close(values, torch.tensor([0.0, 50.0, 100.0]), atol=3, rtol=0)
    saved = open_scene(scene.save(tmp_path / "saved"))
    assert saved.image_paths[1].name == "0200000.jpg" and torch.equal(saved.load([1]).images, scene.load([1]).images)
    (tmp_path / "abc.avi").write_bytes(b"RIFF")
    with pytest.raises(NVSError, match="abc.avi: not a video that can be read"):
        open_scene(file)
    (tmp_path / "abc.avi").unlink()
    with pytest.raises(NVSError, match="no frames named by timestamp in abc/ and no video abc.mp4"):
        open_scene(file)


def test_realestate10k_malformed(tmp_path) -> None:
    file = re10k(tmp_path / "abc.txt")
    image(tmp_path / "abc/100000.png")
    text = file.read_text()
    for old, new, message in (
        ("100000 1.25", "100000 nan", "frame 100000: fx is NaN"),
        ("100000 1.25", "100000 20.5", "expected in units of the image's size"),
        ("100000 1.25", "100000", "line 2: 17 numbers, expected 18"),
        ("100000 1.25", "100000 x", "line 2: 'x' where a number was expected"),
        ("0 -1 0 2", "0 0 0 2", "w2c is no rigid motion"),
        ("100000 1.25", "9" * 400 + " 1.25", "line 2: the timestamp is out of range"),
    ):
        assert old in text
        file.write_text(text.replace(old, new))
        with pytest.raises(NVSError, match=message):
            open_scene(file)


# pixelSplat


def test_pixelsplat_chunks(tmp_path) -> None:
    (tmp_path / "test").mkdir()
    one, many = tmp_path / "test/000000.torch", tmp_path / "test/000001.torch"
    torch.save([chunk_entry("solo")], one)
    torch.save([chunk_entry("aa"), chunk_entry("bb", 3)], many)
    scene = open_scene(one)
    assert scene.name == "solo" and [p.name for p in scene.image_paths] == ["0.jpg", "33000.jpg"]
    check_rays(scene, 1)
    with pytest.raises(NVSError, match="holds 2 scenes, name one as 000001.torch#KEY"):
        open_scene(many)
    assert len(open_scene(f"{many}#bb")) == 3
    assert [scene.name for scene in open_scenes(tmp_path / "test")] == ["solo", "aa", "bb"]
    write(tmp_path / "test/index.json", json.dumps({"bb": "000001.torch", "solo": "000000.torch"}))
    assert scene_keys(tmp_path / "test") == ["bb", "solo"]
    scene = open_scene(f"{tmp_path}/test#bb")
    saved = open_scene(scene.subset([2, 0]).save(tmp_path / "saved"))
    assert torch.equal(saved.load().images, scene.load([2, 0]).images) and saved.name == "saved"
    with pytest.raises(NVSError, match="save with copy_images=True"):
        scene.save(tmp_path / "x", copy_images=False)


# MVSNet, DTU, BlendedMVS


def cam_text(extrinsic=W2C, k=((FX, 0, CX), (0, FY, CY), (0, 0, 1))) -> str:
    return f"extrinsic\n{rows(extrinsic)}\nintrinsic\n{rows(k)}\n425.0 2.5 192 935.0\n"


@pytest.mark.parametrize(
    "images", ["images/{0:08d}.jpg", "blended_images/{0:08d}.jpg", "image/rect_{1:03d}_3_r5000.png"]
)
def test_mvsnet(tmp_path, images) -> None:
    for index in (0, 1, 2):
        write(tmp_path / f"scan1/cams/{index:08d}_cam.txt", cam_text())
        if index < 2:
            image(tmp_path / "scan1" / images.format(index, index + 1))
            image(tmp_path / "scan1" / images.format(index, index + 1).replace("_3_", "_5_"))
            image((tmp_path / "scan1" / images.format(index, index + 1)).with_stem(f"{index:08d}_masked"))
    write(tmp_path / "scan1/cams/pair.txt", "2\n")
    for path in (tmp_path / "scan1", tmp_path / "scan1/cams"):
        scene = open_scene(path)
        check_rays(scene, 1)
        assert len(scene) == 2 and "1 of 3 frames left out: the image is not there (00000002" in scene.notes[-1]
    assert ("2 lights a view: light 3 read" in scene.notes) == ("rect" in images)


def test_mvsnet_malformed(tmp_path) -> None:
    file = write(tmp_path / "s/cams/00000000_cam.txt", cam_text())
    with pytest.raises(NVSError, match="no images in images/"):
        open_scene(tmp_path / "s")
    image(tmp_path / "s/images/00000000.png")
    for text, message in (
        ("", "no extrinsic where it was expected"),
        (cam_text()[:60], "numbers|no intrinsic"),
        (cam_text().replace("extrinsic\n0 -1", "extrinsic\n0 nan"), "extrinsic holds NaN"),
        (cam_text(extrinsic=[[0] * 4] * 3 + [[0, 0, 0, 1]]), "no rigid motion"),
        (cam_text(k=((FX, 3, CX), (0, FY, CY), (0, 0, 1))), "without skew"),
        (cam_text(k=((80, 0, 34), (0, 84, 25), (0, 0, 1))), "seem to belong to another size"),
        (cam_text(k=((np.nan, 0, 8), (0, 84, 6), (0, 0, 1))), "fx is NaN"),
    ):
        file.write_text(text)
        with pytest.raises(NVSError, match=message):
            open_scene(tmp_path / "s")


# 7-Scenes and ScanNet

LOST = [[-np.inf] * 4] * 4


def test_seven_scenes(tmp_path) -> None:
    folder = tmp_path / "chess/seq-01"
    for index, pose in enumerate((C2W, LOST, C2W)):
        image(folder / f"frame-{index:06d}.color.png", 640, 480)
        image(folder / f"frame-{index:06d}.depth.png", 640, 480)
        write(folder / f"frame-{index:06d}.pose.txt", rows(pose))
    scene = open_scene(folder)
    assert [p.name for p in scene.image_paths] == ["frame-000000.color.png", "frame-000002.color.png"]
    check_rays(scene, 1, 585.0, 585.0, 320.0, 240.0)
    assert (
        len(scene.notes) == 2
        and "1 of 3 frames left out: the pose is absent, not finite or zero (frame-000001)" in scene.notes[1]
    )
    image(folder / "frame-000000.color.png", 320, 240)
    with pytest.raises(NVSError, match="no intrinsics, looked for"):
        open_scene(folder)


def test_scannet(tmp_path) -> None:
    folder = tmp_path / "scene0000_00"
    for index in (10, 9, 2):
        image(folder / f"color/{index}.jpg", value=index * 10)
        write(folder / f"pose/{index}.txt", rows(C2W))
    write(folder / "pose/11.txt", rows(C2W))
    k = np.eye(4)
    k[:2, :3] = [[FX, 0, CX], [0, FY, CY]]
    write(folder / "intrinsic/intrinsic_color.txt", rows(k))
    scene = open_scene(folder)
    assert [p.name for p in scene.image_paths] == ["2.jpg", "9.jpg", "10.jpg"]
    check_rays(scene, 2)
    assert scene.notes == ("1 of 4 frames left out: the image is not there (11)",)
    for name, text, message in (
        ("pose/2.txt", rows(C2W)[:10], "expected 4x4 or 3x4"),
        ("pose/2.txt", rows(np.diag([1, 1, 1, 2])), "last row"),
        ("intrinsic/intrinsic_color.txt", rows(k * 5), "camera matrix|another size"),
        ("intrinsic/intrinsic_color.txt", "a b\n", "'a' where a number was expected"),
        ("intrinsic/intrinsic_color.txt", rows(k[:2]), "holds 2x4 numbers, expected 3x3"),
    ):
        before = (folder / name).read_text()
        (folder / name).write_text(text)
        with pytest.raises(NVSError, match=message):
            open_scene(folder)
        (folder / name).write_text(before)
    (folder / "intrinsic/intrinsic_color.txt").unlink()
    write(folder / "intrinsics.txt", f"{FX} {FY} {CX} {CY}\n")
    check_rays(open_scene(folder), 2)


# CO3D

ISOTROPIC = {  # half the shorter side, 6 pixels, is 1
    "intrinsics_format": "ndc_isotropic",
    "focal_length": [FX / 6, FY / 6],
    "principal_point": [(8 - CX) / 6, (6 - CY) / 6],
}
NORM = {  # half the width, 8 pixels, and half the height, 6, are 1; the format of old files without the field
    "focal_length": [FX / 8, FY / 6],
    "principal_point": [(8 - CX) / 8, (6 - CY) / 6],
}


def test_co3d(tmp_path) -> None:
    folder = co3d(tmp_path, [co3d_frame("1_2_3", 1, **ISOTROPIC), co3d_frame("4_5_6", 7, **NORM)])
    assert scene_keys(folder) == ["1_2_3", "4_5_6"]
    for path in (f"{folder}#4_5_6", f"{folder}/frame_annotations.jgz#1_2_3", folder / "1_2_3"):
        scene = open_scene(path)
        check_rays(scene)
        assert scene.name == str(path)[-5:]


def test_co3d_malformed(tmp_path) -> None:
    good = co3d_frame("1_2_3", 1, **ISOTROPIC)
    folder = co3d(tmp_path, [good])
    for change, message in (
        ({"viewpoint": None}, "viewpoint is missing"),
        ({"viewpoint": {**good["viewpoint"], "R": [[0] * 3] * 3}}, "R is no rigid motion"),
        ({"viewpoint": {**good["viewpoint"], "T": [1, 2, None]}}, r"T\[2\] is null"),
        ({"viewpoint": {**good["viewpoint"], "focal_length": [np.nan, 1]}}, r"focal_length\[0\] is NaN"),
        ({"viewpoint": {**good["viewpoint"], "intrinsics_format": "x"}}, "intrinsics_format is x"),
        ({"image": {"path": "../../etc/passwd", "size": [12, 16]}}, "leads out of the scene's folder"),
        ({"image": {"path": "apple/no.jpg", "size": [12, 16]}}, "does not exist"),
    ):
        file = folder / "frame_annotations.jgz"
        file.write_bytes(gzip.compress(json.dumps([{**good, **change}]).encode()))
        with pytest.raises(NVSError, match=f"sequence 1_2_3: frame 1: .*{message}"):
            open_scene(folder)
    whole = gzip.compress(b"[" + b"1," * 5000)
    for data in (whole[: len(whole) // 2], b"", b"plain", whole, gzip.compress(b"{}")):
        file.write_bytes(data)
        with pytest.raises(NVSError, match="cut short or not gzipped|not valid JSON|expected a list") as caught:
            open_scene(folder)
        assert "\n" not in str(caught.value)


# Bundler


@pytest.mark.parametrize("images", ["", "images"])
def test_bundler(tmp_path, images) -> None:
    scene = open_scene(bundle(tmp_path / "rome", images=images))
    check_rays(scene, fy=20.0, **MIDDLE)
    assert len(scene) == 1 and scene.notes == ("1 of 2 images left out: Bundler gave them no camera",)


def test_bundler_distortion_and_malformed(tmp_path) -> None:
    text = f"# Bundle file v0.3\n2 0\n{BUNDLE_CAMERA}{BUNDLE_CAMERA}"
    folder = bundle(tmp_path / "rome", text.replace("20 0 0", "20 -0.1 0.02"))
    scene = open_scene(folder)
    assert scene.lenses[0].coefficients == (-0.1, 0.02, 0, 0, 0) and scene.lenses[0].fxfycxcy == (
        20,
        20,
        8,
        6,
    )
    for change, message in (
        (lambda t: t[:60], "cut short|numbers, expected 3"),
        (lambda t: t.replace("v0.3", "v0.1"), "does not start with"),
        (lambda t: t.replace("2 0\n", "3 0\n", 1), "3 cameras, but the list has 2 images"),
        (lambda t: t.replace("20 0 0", "nan 0 0"), "f is NaN"),
        (lambda t: t.replace("0 0 1\n", "0 0 0\n"), "no rigid motion"),
        (lambda t: t.replace("2 -3 1", "2 x 1"), "'x' where a number"),
    ):
        (folder / "bundle.out").write_text(change(text))
        with pytest.raises(NVSError, match=message):
            open_scene(folder)
    (folder / "bundle.out").write_text(text)
    write(folder / "list.txt", "../x.jpg\n../y.jpg\n")
    with pytest.raises(NVSError, match="does not exist|leads out"):
        open_scene(folder)
    (folder / "list.txt").unlink()
    with pytest.raises(NVSError, match="no list.txt"):
        open_scene(folder)
