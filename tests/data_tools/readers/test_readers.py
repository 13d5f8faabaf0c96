"""Readers of nerfstudio, LaCT and Blender files: right values, and one line for each malformed field."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.readers import open_scene
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import look_at, opencv_to_opengl
from nvs_app.geometry.normalize import normalize_context

UP = torch.tensor([0.0, 0.0, 1.0])
EYES = torch.tensor([[3.0, 0, 1], [0, 3, 1], [-3, 0, 1]])
C2W = look_at(EYES, torch.zeros(3), UP)


def images(folder: Path, names: list[str], width: int = 16, height: int = 12, mode: str = "RGB") -> None:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((height, width, len(mode)), 40 * index + 10, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def write(folder: Path, content, name: str = "transforms.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def nerfstudio_content() -> dict:
    frames = [
        {"file_path": f"images/{i:03d}.png", "transform_matrix": opencv_to_opengl(C2W[i]).tolist()} for i in range(3)
    ]
    return {"fl_x": 20.0, "fl_y": 21.0, "cx": 8.5, "cy": 6.25, "w": 16, "h": 12, "frames": frames}


# nerfstudio


def test_nerfstudio_shared_intrinsics_and_splits(scene_folder) -> None:
    content = nerfstudio_content()
    content["train_filenames"] = ["images/000.png", "./images/001.png"]
    content["test_filenames"] = ["images/002.png"]
    scene = open_scene(write(scene_folder, content))
    assert scene.name == "scene" and len(scene) == 3
    torch.testing.assert_close(scene.c2w.float(), C2W)
    torch.testing.assert_close(scene.fxfycxcy, torch.tensor([20.0, 21, 8.5, 6.25]).expand(3, 4))
    assert scene.image_hws.tolist() == [[12, 16]] * 3
    assert scene.split == ["train", "train", "test"] and scene.lenses == ()
    assert torch.equal(open_scene(scene_folder / "transforms.json").c2w, scene.c2w)
    assert open_scene(str(scene_folder)).load([0]).images.shape == (1, 3, 12, 16)


def test_nerfstudio_frame_intrinsics_win_and_angles_work(scene_folder) -> None:
    content = nerfstudio_content()
    content["frames"][1].update(fl_x=30.0, cx=7.0)
    scene = open_scene(write(scene_folder, content))
    assert scene.fxfycxcy[1].tolist() == [30, 21, 7, 6.25]
    content = {"camera_angle_x": 0.8, "frames": content["frames"][:1]}
    scene = open_scene(write(scene_folder, content))
    focal = 8 / math.tan(0.4)
    torch.testing.assert_close(scene.fxfycxcy[0], torch.tensor([focal, focal, 8, 6]))
    scene = open_scene(write(scene_folder, {**content, "camera_angle_y": 0.5}))
    torch.testing.assert_close(scene.fxfycxcy[0, 1], torch.tensor(6 / math.tan(0.25)))


def test_nerfstudio_resized_images_scale_the_camera(scene_folder) -> None:
    content = {**nerfstudio_content(), "w": 64, "h": 48}
    scene = open_scene(write(scene_folder, content))
    torch.testing.assert_close(scene.fxfycxcy[0], torch.tensor([5.0, 21 / 4, 8.5 / 4, 6.25 / 4]))
    content["frames"][1].update(w=48, h=48)
    with pytest.raises(NVSError, match=r"frame 1 \(images/001.png\): the image is 16x12 but its camera 48x48"):
        open_scene(write(scene_folder, content))


def test_nerfstudio_distortion(scene_folder) -> None:
    content = {**nerfstudio_content(), "camera_model": "OPENCV", "k1": -0.1, "k2": 0.01, "p1": 0.0, "p2": 0.0}
    scene = open_scene(write(scene_folder, content))
    assert scene.lenses[0].coefficients == (-0.1, 0.01, 0.0, 0.0, 0.0)
    assert scene.lenses[0].fxfycxcy == (20.0, 21.0, 8.5, 6.25)
    assert scene.fxfycxcy[0, 0] != 20 and scene.load([0]).images.shape == (1, 3, 12, 16)
    for change, message in (
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model EQUIRECTANGULAR is a panorama"),
        ({"camera_model": 3}, "camera_model 3 is not supported"),
        ({"is_fisheye": True, "p1": 0.1}, "a fisheye with p1, p2 is not supported"),
        ({"k4": math.nan}, "k4 is NaN, expected a number"),
        ({"k1": "a"}, 'k1 is "a", expected a number'),
        ({"distortion_params": [0.1]}, "distortion_params is no list of six numbers"),
    ):
        with pytest.raises(NVSError, match=message):
            open_scene(write(scene_folder, {**content, **change}))


def test_nearly_orthonormal_matrices_are_mended(scene_folder) -> None:
    content = nerfstudio_content()
    content["frames"][0]["transform_matrix"] = (opencv_to_opengl(C2W[0]) * 1000).round().div(1000).tolist()
    rotation = open_scene(write(scene_folder, content)).c2w[0, :3, :3].float()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(rotation, C2W[0, :3, :3], atol=2e-3, rtol=0)


def broken(change) -> dict:
    content = nerfstudio_content()
    change(content)
    return content


def set_frame(**values):
    return lambda content: content["frames"][2].update(values)


MATRIX = opencv_to_opengl(C2W[2]).tolist()
MISFIT = "another shape, so the camera cannot belong to it"
FRAME = "scene/transforms.json: frame 2 (images/002.png): "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_frame(transform_matrix=MATRIX[:2]), FRAME + "transform_matrix is 2x4, expected 4x4"),
        (set_frame(transform_matrix=5), FRAME + "transform_matrix is 5, expected 4x4"),
        (set_frame(transform_matrix=[]), FRAME + "transform_matrix is a list of 0, expected 4x4"),
        (set_frame(transform_matrix=[[1, 2], [3]]), FRAME + "transform_matrix is rows of 2, 1 numbers, expected 4x4"),
        (set_frame(transform_matrix=[["a"] * 4] * 4), FRAME + 'transform_matrix holds "a", expected numbers'),
        (
            set_frame(transform_matrix=[[0.5 * value for value in MATRIX[0]], *MATRIX[1:]]),
            FRAME + "transform_matrix is no rigid motion (its 3x3 part is sheared), expected a rotation",
        ),
        (
            set_frame(transform_matrix=[*MATRIX[:3], [0, 0, 0, 2]]),
            FRAME + "transform_matrix has the last row [0.0, 0.0, 0.0, 2.0], expected [0, 0, 0, 1]",
        ),
        (
            set_frame(transform_matrix=[[-value for value in MATRIX[0]], *MATRIX[1:]]),
            FRAME + "transform_matrix mirrors (the determinant of its 3x3 part is negative), expected a rotation",
        ),
        (set_frame(file_path=7), "scene/transforms.json: frame 2: file_path is 7, expected the name of an image file"),
        (set_frame(fl_x=-20), FRAME + "fl_x is -20, expected a positive number"),
        (set_frame(cy=10**400), FRAME + f"cy is 1{'0' * 56}..., expected a number"),
        (set_frame(fl_x=None), FRAME + "fl_x is null, expected a positive number"),
        (set_frame(fl_y=True), FRAME + "fl_y is true, expected a positive number"),
        (set_frame(cx=math.inf), FRAME + "cx is Infinity, expected a number"),
        (set_frame(w=0), FRAME + "w is 0, expected a positive number"),
        (
            lambda c: [c.pop(k) for k in ("fl_x", "fl_y")],
            FRAME.replace("2", "0") + "no focal length, expected fl_x (pixels) or camera_angle_x (radians)",
        ),
        (
            lambda c: (c.pop("fl_x"), c.update(camera_angle_x=50)),
            "scene/transforms.json: frame 0 (images/000.png): camera_angle_x is 50, expected radians below pi",
        ),
        (lambda c: c.update(frames=[]), "scene/transforms.json: frames is empty, expected one frame or more"),
        (lambda c: c.update(frames={}), "scene/transforms.json: frames is an object, expected a list"),
        (lambda c: c["frames"].append(3), "scene/transforms.json: frame 3 is 3, expected an object"),
        (lambda c: c.pop("frames"), "scene/transforms.json: frames is missing"),
        (lambda c: c.update(val_filenames="a"), "scene/transforms.json: val_filenames is no list of file paths"),
    ],
)
def test_malformed_nerfstudio_fields(scene_folder, change, message) -> None:
    with pytest.raises(NVSError) as caught:
        open_scene(write(scene_folder, broken(change)))
    assert str(caught.value) == message


def test_malformed_files(scene_folder) -> None:
    for content, message in (
        ('{"frames": [', "scene/transforms.json: not valid JSON"),
        ("[1]", 'scene/transforms.json: expected an object with "frames"'),
        ("[" * 100_000, "scene/transforms.json: not valid JSON"),
    ):
        with pytest.raises(NVSError, match=message):
            open_scene(write(scene_folder, content))
    (scene_folder / "transforms.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(NVSError, match="not valid JSON"):
        open_scene(scene_folder)


def test_links_out_of_the_folder_are_refused(scene_folder, tmp_path) -> None:
    images(tmp_path, ["outside.png"])
    (scene_folder / "images/000.png").unlink()
    (scene_folder / "images/000.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(NVSError, match="leads out of the scene's folder"):
        open_scene(write(scene_folder, nerfstudio_content()))


# LaCT


def lact_frames() -> list[dict]:
    w2c = torch.linalg.inv(C2W.double())
    return [
        {
            "file_path": f"images/{i:03d}.png",
            "w2c": w2c[i].tolist(),
            "w": 16,
            "h": 12,
            "fx": 20,
            "fy": 21,
            "cx": 8.5,
            "cy": 6,
        }
        for i in range(3)
    ]


@pytest.mark.parametrize("wrapped", [False, True])
def test_lact(scene_folder, wrapped) -> None:
    frames = lact_frames()
    scene = open_scene(write(scene_folder, {"frames": frames} if wrapped else frames, "opencv_cameras.json"))
    torch.testing.assert_close(scene.c2w.float(), C2W)
    assert scene.fxfycxcy[2].tolist() == [20, 21, 8.5, 6] and scene.split == [None] * 3
    assert torch.equal(open_scene(scene_folder / "opencv_cameras.json").c2w, scene.c2w)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w2c": [[1, 0], [0, 1]]}, "frame 1 (images/001.png): w2c is 2x2, expected 4x4"),
        ({"fx": 0}, "frame 1 (images/001.png): fx is 0, expected a positive number"),
        ({"cy": "6"}, 'frame 1 (images/001.png): cy is "6", expected a number'),
        (
            {"w": 32},
            f"frame 1 (images/001.png): the image is 16x12 but its camera 32x12: {MISFIT}",
        ),
    ],
)
def test_malformed_lact_fields(scene_folder, change, message) -> None:
    frames = lact_frames()
    frames[1].update(change)
    with pytest.raises(NVSError) as caught:
        open_scene(write(scene_folder, frames, "opencv_cameras.json"))
    assert str(caught.value) == "scene/opencv_cameras.json: " + message
    del frames[0]["fy"]
    with pytest.raises(NVSError, match="frame 0 .*: fy is missing"):
        open_scene(write(scene_folder, frames, "opencv_cameras.json"))


# Blender


def test_blender_splits_and_transparency(tmp_path) -> None:
    folder = tmp_path / "lego"
    for split, count in (("test", 2), ("train", 3)):
        images(folder, [f"{split}/r_{i}.png" for i in range(count)], width=16, height=16, mode="RGBA")
        frames = [
            {"file_path": f"./{split}/r_{i}", "rotation": 0.01, "transform_matrix": opencv_to_opengl(C2W[i]).tolist()}
            for i in range(count)
        ]
        write(folder, {"camera_angle_x": 0.69, "frames": frames}, f"transforms_{split}.json")
    scene = open_scene(folder)
    assert scene.split == ["train"] * 3 + ["test"] * 2
    assert [p.name for p in scene.image_paths] == ["r_0.png", "r_1.png", "r_2.png", "r_0.png", "r_1.png"]
    torch.testing.assert_close(scene.c2w.float(), C2W[[0, 1, 2, 0, 1]])
    torch.testing.assert_close(scene.fxfycxcy[0], torch.tensor([8 / math.tan(0.345)] * 2 + [8.0, 8.0]))
    # Alpha and colour are both 10 in the first image.
    alpha = 10 / 255
    assert abs(scene.load([0]).images.mean() - (alpha * alpha + 1 - alpha)) < 1e-6
    only = open_scene(folder / "transforms_test.json")
    assert only.split == ["test"] * 2
    again = open_scene(scene.save(tmp_path / "copy"))
    assert torch.equal(again.c2w, scene.c2w) and again.split == scene.split


# ProgressCallback formats apart


def test_open_scene_says_what_it_looked_for(tmp_path) -> None:
    with pytest.raises(NVSError, match="no scene found, looked for transforms.json, opencv_cameras.json"):
        open_scene(tmp_path)
    with pytest.raises(NVSError, match="no such file or folder"):
        open_scene(tmp_path / "nothing")
    (tmp_path / "a.txt").touch()
    with pytest.raises(NVSError, match="expected a folder or a .json file"):
        open_scene(tmp_path / "a.txt")
    write(tmp_path, {"a": 1}, "b.json")
    with pytest.raises(NVSError, match='looked for "frames"'):
        open_scene(tmp_path / "b.json")


def test_open_scene_prefers_transforms(scene_folder) -> None:
    frames = lact_frames()
    write(scene_folder, frames[:2], "opencv_cameras.json")
    write(scene_folder, {**nerfstudio_content(), "camera_angle_x": 0.5}, "transforms_train.json")
    assert len(open_scene(scene_folder)) == 2
    write(scene_folder, nerfstudio_content())
    assert len(open_scene(scene_folder)) == 3
    write(scene_folder, frames[:1], "other_name.json")
    assert len(open_scene(scene_folder / "other_name.json")) == 1


# The bundled scenes


def test_bundled_object(repo, tmp_path) -> None:
    scene = open_scene(repo / "examples" / "object_chair")
    assert len(scene) == 28
    cameras = scene.cameras(image_hw=(128, 128))
    origin = cameras.w2c[:, :3, 3]  # the world's origin in each camera
    pixel = origin[:, :2] / origin[:, 2:] * cameras.fxfycxcy[:, :2] + cameras.fxfycxcy[:, 2:]
    assert (pixel - 64).abs().max() < 20  # every camera looks at about the middle of the object
    transform = normalize_context(scene.c2w)
    distance = transform.apply_c2w(scene.c2w)[:, :3, 3].norm(dim=-1)
    assert abs(distance.mean() - 1) < 1e-3 and distance.std() < 0.15
    assert transform.inverse().translation.norm() < 0.05 and transform.rotation[2, 2] > 0.999
    again = open_scene(scene.save(tmp_path / "chair"))
    assert torch.equal(again.c2w, scene.c2w) and torch.equal(again.fxfycxcy, scene.fxfycxcy)
    images = scene.load([0, 25], (128, 128)).images
    assert images[:, :, 0, 0].min() > 0.99  # white behind the object


def test_bundled_room_in_a_wide_image(repo, tmp_path) -> None:
    """As `opencv_cameras.json`, with images of 455x256: the middle of each is what is read."""
    room = open_scene(repo / "examples" / "room_desk")
    fx, fy, cx, cy = room.fxfycxcy[0].tolist()
    frames = []
    for index, (path, w2c) in enumerate(zip(room.image_paths, room.cameras().w2c)):
        wide = Image.new("RGB", (455, 256))
        wide.paste(Image.open(path), (99, 0))
        wide.save(tmp_path / f"{index:03}.png")
        camera = {"w": 455, "h": 256, "fx": fx, "fy": fy, "cx": cx + 99, "cy": cy, "w2c": w2c.tolist()}
        frames.append({"file_path": f"{index:03}.png", **camera})
    scene = open_scene(write(tmp_path, frames, "opencv_cameras.json"))
    assert len(scene) == 28 and scene.image_hws[0].tolist() == [256, 455]
    cameras = scene.cameras(image_hw=(128, 128))
    # 455x256 -> the middle 256 columns (99 cut on the left), halved.
    torch.testing.assert_close(
        cameras.fxfycxcy[0], (scene.fxfycxcy[0] - torch.tensor([0.0, 0, 99, 0])) / 2, atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        scene.load([3], (256, 256)).float().images, room.load([3], (256, 256)).float().images, atol=1e-6, rtol=0
    )
    for step in (1, 4, 8):
        c2w = scene.c2w[::step]
        distance = normalize_context(c2w).apply_c2w(c2w)[:, :3, 3].norm(dim=-1)
        assert 0.8 < distance.mean() < 1.25
