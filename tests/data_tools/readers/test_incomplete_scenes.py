"""Scenes of which something is missing or was renamed: what is left opens, and the notes say what was done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from known_camera import C2W, OPENGL_C2W, W2C, check_rays, image
from scene_writers import co3d, co3d_frame, nerfstudio, rows, write

from data_tools.readers import open_scene
from data_tools.readers.fields import kept_within
from nvs_app.errors import NVSError, Refusal

NAMES = ["images/0.png", "images/1.png", "images/2.png"]


def transforms(folder: Path, names=NAMES, file: str = "transforms.json", **values) -> Path:
    frames = [{"file_path": name, "transform_matrix": OPENGL_C2W} for name in names]
    write(folder / file, json.dumps({"fl_x": 20, "fl_y": 21, "cx": 8.5, "cy": 6.25, "frames": frames, **values}))
    return folder


def lact(folder: Path, names=NAMES) -> Path:
    frames = [{"file_path": name, "w2c": W2C, "cx": 8.5, "cy": 6.25, "fx": 20, "fy": 21} for name in names]
    write(folder / "opencv_cameras.json", json.dumps(frames))
    return folder


def colmap(folder: Path, names=NAMES, model: str = "sparse/0") -> Path:
    write(folder / model / "cameras.txt", "1 PINHOLE 16 12 20 21 8.5 6.25\n")
    lines = [f"{i} 0.5 0.5 -0.5 0.5 2 3 -1 1 {name.removeprefix('images/')}\n\n" for i, name in enumerate(names, 1)]
    path = folder / model / "images.txt"
    path.write_bytes("".join(lines).encode("utf-8", "surrogateescape"))
    return folder


def bundler(folder: Path, names=NAMES) -> Path:
    rotation = "\n".join(" ".join(str(v * s) for v in row[:3]) for row, s in zip(W2C, (1, -1, -1)))
    camera = f"20 0 0\n{rotation}\n2 -3 1\n"
    write(folder / "bundle.out", f"# Bundle file v0.3\n{len(names)} 0\n" + camera * len(names))
    write(folder / "list.txt", "".join(f"{name}\n" for name in names))
    return folder


def named_scene(name: str, folder: Path, names=NAMES) -> Path:
    return {"nerfstudio": transforms, "lact": lact, "colmap": colmap, "bundler": bundler}[name](folder, names)


@pytest.mark.parametrize("name", ["nerfstudio", "lact", "colmap", "bundler"])
def test_frames_without_their_image_are_left_out(tmp_path, name) -> None:
    folder = named_scene(name, tmp_path / "s")
    for listed in (NAMES[0], NAMES[2]):
        image(folder / listed)
    scene = open_scene(folder)
    assert [path.name for path in scene.image_paths] == ["0.png", "2.png"]
    assert any("1 of 3 frames left out: the image is not there (" in note and "1.png" in note for note in scene.notes)
    image(folder / NAMES[1]).write_bytes(b"MZ\x90" * 50)
    assert any("1 of 3 frames left out: the image cannot be read (" in note for note in open_scene(folder).notes)
    for listed in NAMES:
        (folder / listed).unlink()
    with pytest.raises(NVSError, match="does not exist; none of the 3 frames can be used") as caught:
        open_scene(folder)
    assert caught.value.code == Refusal.NO_IMAGE and caught.value.told.endswith(" [no-image]")


def test_co3d_frames_without_their_image(tmp_path) -> None:
    viewpoint = {"focal_length": [2, 2], "principal_point": [0, 0]}
    category = co3d(tmp_path, [co3d_frame("1_2_3", number, **viewpoint) for number in (1, 2)])
    next(tmp_path.rglob("frame000002.jpg")).unlink()
    scene = open_scene(category)
    assert len(scene) == 1 and any("1 of 2 frames left out" in note for note in scene.notes)


@pytest.mark.parametrize(
    "pose", [[[float("nan")] * 4] * 4, [[0.0] * 4] * 4, [[0.0] * 4] * 3, None, [[0.0] * 4, *OPENGL_C2W[1:]]]
)
def test_frames_without_a_pose_are_left_out(tmp_path, pose) -> None:
    folder = transforms(tmp_path / "s")
    for listed in NAMES:
        image(folder / listed)
    content = json.loads((folder / "transforms.json").read_text())
    content["frames"][1]["transform_matrix"] = pose
    write(folder / "transforms.json", json.dumps(content))
    scene = open_scene(folder)
    assert len(scene) == 2
    assert scene.notes == ("1 of 3 frames left out: the pose is absent, not finite or zero (images/1.png)",)


@pytest.mark.parametrize("scale", [2.5, 1e-3])
def test_a_scale_of_the_rotation_is_divided_out(tmp_path, scale) -> None:
    """Of camera-to-world matrices, whose position stays, and of world-to-camera ones, all of whose rows are scaled."""
    matrix = np.array(OPENGL_C2W, dtype=float)
    matrix[:3, :3] *= scale
    scene = open_scene(nerfstudio(tmp_path / "s", matrix=matrix[:3].tolist()))
    check_rays(scene, cx=8.0, cy=6.0)
    assert scene.notes == (f"1 rotations are scaled by {scale:g}; the scale is divided out",)
    w2c = np.array(W2C, dtype=float)
    w2c[:3] *= scale
    folder = lact(tmp_path / "lact", NAMES[:1])
    image(folder / NAMES[0])
    content = json.loads((folder / "opencv_cameras.json").read_text())
    content[0]["w2c"] = w2c.tolist()
    write(folder / "opencv_cameras.json", json.dumps(content))
    check_rays(open_scene(folder))


def test_a_split_that_was_never_rendered(tmp_path) -> None:
    for split in ("train", "test"):
        transforms(tmp_path, [f"{split}/{i}" for i in range(3)], f"transforms_{split}.json")
    transforms(tmp_path, [], "transforms_val.json")
    for i in range(3):
        image(tmp_path / f"train/{i}.png")
    scene = open_scene(tmp_path)
    assert scene.split == ["train"] * 3
    assert "split test left out: none of its 3 images is there" in scene.notes
    assert "split val left out: none of its 0 images is there" in scene.notes


# Names


@pytest.mark.parametrize(
    ("listed", "there", "way"),
    [
        ("/home/me/chair/rgb/{}.png", "rgb/{}.png", "by the end of the path"),
        ("C:\\me\\chair\\images\\{}.PNG", "images/{}.png", "by the end of the path"),
        ("../other/rgb\\{}.png", "rgb/{}.png", "by the end of the path"),
        ("images/{}.jpg", "images/{}.png", "with another suffix"),
        ("images/{}", "images/{}.tif", "with another suffix"),
        ("Images/DJI_{}.JPG", "images/dji_{}.jpg", "in other letter case or Unicode form"),
        ("images/Bu\u0308ro{}.png", "images/Büro{}.png", "in other letter case or Unicode form"),
        ("images/Büro{}.png", "images/B\u0081ro{}.png", "as written in another encoding"),  # a zip of Windows, cp437
    ],
)
def test_names_of_another_machine(tmp_path, listed, there, way) -> None:
    folder = transforms(tmp_path / "chair", [listed.format(i) for i in range(3)])
    (tmp_path / "other").mkdir()
    for i in range(3):
        image(folder / there.format(i), value=40 * i)
        image(folder / "depth" / Path(there.format(i)).name)  # no photos
        image(tmp_path / "other" / Path(there.format(i)).name)  # outside
    scene = open_scene(folder)
    assert scene.image_paths == [folder / there.format(i) for i in range(3)]
    assert len(scene.notes) == 1 and f"3 images found {way}" in scene.notes[0]


@pytest.mark.parametrize("encoding", ["cp1252", "gbk"])
def test_names_in_a_code_page(tmp_path, encoding) -> None:
    name = {"cp1252": "Büro", "gbk": "照片"}[encoding]
    raw = [f"{name}_{i}.png".encode(encoding).decode("utf-8", "surrogateescape") for i in range(3)]
    folder = colmap(tmp_path / "s", raw)
    for i in range(3):
        image(folder / f"images/{name}_{i}.png")
    scene = open_scene(folder)
    assert [path.name for path in scene.image_paths] == [f"{name}_{i}.png" for i in range(3)]
    assert "3 images found as written in another encoding" in scene.notes[0] and scene.notes[0].isprintable()


def test_a_file_is_not_given_to_two_names(tmp_path) -> None:
    folder = transforms(tmp_path / "s", ["left/0.png", "right/0.png", "images/1.png"])
    image(folder / "images/0.png")
    image(folder / "images/1.png")
    assert [path.name for path in open_scene(folder).image_paths] == ["1.png"]
    (folder / "images/1.png").unlink()
    with pytest.raises(NVSError, match="images/0.png fits others as well"):
        open_scene(folder)
    image(transforms(folder, ["x/0.png"]) / "b/0.png")
    with pytest.raises(NVSError, match="b/0.png and images/0.png fit"):
        open_scene(folder)


def test_what_a_folder_lacks_is_not_taken_from_another(tmp_path) -> None:
    """An image that was deleted is absent, though its distorted original, or another split's, has the same name."""
    folder = colmap(tmp_path / "s")
    for name in NAMES:
        image(folder / "input" / Path(name).name)
    image(folder / NAMES[0])
    image(folder / NAMES[2])
    scene = open_scene(folder)
    assert scene.image_paths == [folder / NAMES[0], folder / NAMES[2]] and "1 of 3 frames left out" in scene.notes[-1]
    for split in ("train", "test"):
        transforms(tmp_path / "b", [f"./{split}/{i}" for i in range(2)], f"transforms_{split}.json")
        image(tmp_path / f"b/test/{0 if split == 'train' else 1}.png")
    scene = open_scene(tmp_path / "b")
    assert scene.split == ["test", "test"]
    with pytest.raises(NVSError, match="does not exist"):
        open_scene(tmp_path / "b/transforms_train.json")


def test_one_folder_holds_what_another_machine_had_in_one(tmp_path) -> None:
    folder = transforms(tmp_path / "s", [f"/data/chair/pictures/{i}.png" for i in range(3)])
    for i in (0, 1):
        image(folder / f"rgb/{i}.png")
    image(folder / "extra/2.png")  # of the same name, but the folder of the others is rgb/
    scene = open_scene(folder)
    assert [path.parent.name for path in scene.image_paths] == ["rgb", "rgb"]


def test_another_format_is_read_where_the_first_cannot_be(tmp_path) -> None:
    folder = colmap(tmp_path)
    for name in NAMES:
        image(folder / name)
    write(folder / "transforms.json", json.dumps({"fl_x": 20, "frames": []}))
    scene = open_scene(folder)
    assert len(scene) == 3 and scene.notes[0].startswith(
        "read as colmap; the folder also holds nerfstudio, which cannot"
    )
    write(folder / "transforms.json", json.dumps({"frames": [{"file_path": "/etc/passwd", "transform_matrix": 3}]}))
    assert len(open_scene(folder)) == 3
    mirrored = [[-value for value in OPENGL_C2W[0]], *OPENGL_C2W[1:]]
    write(
        folder / "transforms.json",
        json.dumps({"fl_x": 9, "frames": [{"file_path": NAMES[0], "transform_matrix": mirrored}]}),
    )
    with pytest.raises(NVSError, match="mirrors"):
        open_scene(folder)


def test_lists_of_splits_may_name_removed_frames(tmp_path) -> None:
    folder = transforms(tmp_path, NAMES[:2], train_filenames=[NAMES[0], "images/9.png"], test_filenames=[NAMES[1]])
    image(folder / NAMES[0])
    image(folder / NAMES[1])
    scene = open_scene(folder)
    assert scene.split == ["train", "test"] and scene.notes == (
        "train_filenames lists 1 that no frame has (images/9.png)",
    )


def test_nothing_outside_is_found(tmp_path) -> None:
    folder = transforms(tmp_path / "s", ["../t/0.png"])
    image(tmp_path / "t/0.png")
    (folder / "linked").symlink_to(tmp_path / "t")
    for path in (folder, tmp_path / "s"):
        with pytest.raises(NVSError, match="leads out of the scene's folder"):
            open_scene(path)
    # A camera file that is named itself may lie in a folder beside its images; not where the folder is a limit.
    inner = transforms(tmp_path / "t/colmap", ["../0.png"])
    assert len(open_scene(inner / "transforms.json")) == 1
    with kept_within(inner), pytest.raises(NVSError, match="leads out of the scene's folder"):
        open_scene(inner / "transforms.json")
    model = colmap(tmp_path / "u", NAMES[:1]) / "sparse/0"
    image(tmp_path / "u" / NAMES[0])
    assert len(open_scene(model)) == 1
    with kept_within(model), pytest.raises(NVSError, match="no folder images/"):
        open_scene(model)


# Layouts


def test_the_colmap_model_with_most_images(tmp_path) -> None:
    folder = colmap(tmp_path, NAMES[:1])
    colmap(folder, NAMES[1:], "sparse/1")
    colmap(folder, [f"gone{i}.png" for i in range(9)], "sparse/2")
    write(folder / "sparse/3/images.txt", "broken")
    write(folder / "sparse/3/cameras.txt", "")
    for name in NAMES:
        image(folder / name)
    scene = open_scene(folder)
    assert [path.name for path in scene.image_paths] == ["1.png", "2.png"]
    assert "several models: 1 read (2 images are there), 0 (1), 2 (0), 3 (cannot be read) left alone" in scene.notes


@pytest.mark.parametrize("folder", ["images", "input", "rgb/left", "."])
def test_the_image_folder_is_the_one_with_the_models_names(tmp_path, folder) -> None:
    colmap(tmp_path)
    for name in NAMES:
        image(tmp_path / folder / Path(name).name)
    image(tmp_path / "images/other.png")
    image(tmp_path / "images_2/0.png", 8, 6)
    scene = open_scene(tmp_path)
    assert scene.image_paths == [tmp_path / folder / Path(name).name for name in NAMES]


def test_scannetpp(tmp_path) -> None:
    frames = [{"file_path": f"DSC{i}.JPG", "transform_matrix": OPENGL_C2W} for i in (1, 2, 3)]
    transforms(tmp_path / "a1/dslr/nerfstudio", [], frames=frames[:2], test_frames=frames[2:], is_fisheye=True, k1=0.01)
    transforms(tmp_path / "a1/dslr/nerfstudio", [], "transforms_undistorted.json", frames=frames)
    for i in (1, 2, 3):
        image(tmp_path / f"a1/dslr/resized_images/DSC{i}.JPG")
        image(tmp_path / f"a1/dslr/resized_undistorted_images/DSC{i}.JPG")
    for path in ("a1", "a1/dslr", "a1/dslr/nerfstudio", "a1/dslr/nerfstudio/transforms.json"):
        scene = open_scene(tmp_path / path)
        assert scene.split == ["train", "train", "test"] and len(scene.notes) == 1
        assert {file.parent.name for file in scene.image_paths} == {"resized_images"}
    scene = open_scene(tmp_path / "a1/dslr/nerfstudio/transforms_undistorted.json")
    assert {file.parent.name for file in scene.image_paths} == {"resized_undistorted_images"}


def test_instant_ngps_fields_and_any_name(tmp_path) -> None:
    folder = transforms(tmp_path, NAMES[:1], "base_cam.json")
    image(folder / NAMES[0])
    content = {"x_fov": 50.0, "y_fov": 40.0, "aabb_scale": 16, "scale": 0.3, "offset": [0.5, 0.5, 0.5]}
    frames = [{"file_path": NAMES[0], "transform_matrix": OPENGL_C2W}]
    write(folder / "base_cam.json", json.dumps({**content, "frames": frames}))
    write(folder / "settings.json", "{}")
    scene = open_scene(folder)
    expected = [8 / np.tan(np.radians(25)), 6 / np.tan(np.radians(20)), 8.0, 6.0]
    torch.testing.assert_close(scene.fxfycxcy[0], torch.tensor(expected, dtype=torch.float32))
    assert scene.notes == ("cameras read from base_cam.json, the only file with frames",)
    transforms(folder, NAMES[:1], "other_cam.json")
    with pytest.raises(NVSError, match=r"2 files of cameras \(base_cam.json, other_cam.json\); name one") as caught:
        open_scene(folder)
    assert caught.value.code == Refusal.SEVERAL_SCENES
    for bad in (0, -3, 180, "a"):
        write(folder / "transforms.json", json.dumps({"x_fov": bad, "frames": frames}))
        with pytest.raises(NVSError, match="x_fov is"):
            open_scene(folder)


def test_json_in_utf16(tmp_path) -> None:
    folder = nerfstudio(tmp_path / "s")
    file = folder / "transforms.json"
    file.write_bytes(file.read_text().encode("utf-16"))
    check_rays(open_scene(folder), cx=8.0, cy=6.0)


def test_every_refusal_has_a_code(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, code in ((tmp_path, Refusal.NO_SCENE), (tmp_path / "none", Refusal.NO_SCENE)):
        with pytest.raises(NVSError) as caught:
            open_scene(path)
        assert caught.value.code == code
    write(tmp_path / "transforms.json", "{")
    with pytest.raises(NVSError) as caught:
        open_scene(tmp_path)
    assert caught.value.code == Refusal.BROKEN_FILE
    mirrored = [[-value for value in OPENGL_C2W[0]], *OPENGL_C2W[1:]]
    with pytest.raises(NVSError) as caught:
        open_scene(nerfstudio(tmp_path / "m", matrix=mirrored))
    assert caught.value.code == Refusal.BAD_POSE


def test_lost_poses_of_text_files(tmp_path) -> None:
    for index, pose in enumerate((C2W, np.zeros((4, 4)), np.full((4, 4), np.nan), C2W)):
        image(tmp_path / f"color/{index}.png")
        write(tmp_path / f"pose/{index}.txt", rows(pose))
    write(tmp_path / "intrinsics.txt", "20 21 8.5 6.25\n")
    scene = open_scene(tmp_path)
    assert [path.stem for path in scene.image_paths] == ["0", "3"] and "2 of 4 frames left out" in scene.notes[0]
