"""What nerfstudio's file has in its variants (fisheye, DL3DV), and our files in nerfstudio's own reader."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from known_camera import OPENGL_C2W, check_rays, image
from scene_writers import chunk_entry
from scene_writers import nerfstudio as known_scene
from test_readers import images, nerfstudio_content, write

from data_tools.readers import open_scene
from nvs_app.errors import NVSError
from nvs_app.geometry.rays import pixel_rays
from nvs_app.scenes.lens import Lens
from nvs_app.scenes.scene import Scene


def test_nerfstudio_fisheye_and_fourth_coefficient(scene_folder) -> None:
    content = {**nerfstudio_content(), "k1": 0.02, "k2": -0.01, "k3": 0.003, "k4": 0.001}
    scene = open_scene(write(scene_folder, content))
    assert scene.lenses[0].model == "BROWN4" and scene.lenses[0].coefficients == (
        0.02,
        -0.01,
        0,
        0,
        0.003,
        0.001,
    )
    listed = {**nerfstudio_content(), "distortion_params": [0.02, -0.01, 0.003, 0.001, 0, 0]}
    assert open_scene(write(scene_folder, listed)).lenses == scene.lenses
    for change in ({"camera_model": "OPENCV_FISHEYE"}, {"is_fisheye": True}):
        scene = open_scene(write(scene_folder, {**content, **change}))
        lens = scene.lenses[1]
        assert lens.model == "OPENCV_FISHEYE" and lens.coefficients == (0.02, -0.01, 0.003, 0.001)
        # A ray at 30 degrees, by the published polynomial of the angle.
        angle = math.radians(30)
        bent = angle * (1 + 0.02 * angle**2 - 0.01 * angle**4 + 0.003 * angle**6 + 0.001 * angle**8)
        pixel = lens.project(np.array([[math.tan(angle), 0.0]]))[0]
        np.testing.assert_allclose(pixel, [20 * bent + 8.5, 6.25], atol=1e-9)
        assert scene.load([1]).images.shape == (1, 3, 12, 16)
    # Another lens than OpenCV's is undistorted when the scene is saved.
    again = open_scene(scene.save(scene_folder.parent / "saved"))
    assert again.lenses == () and torch.equal(again.fxfycxcy, scene.fxfycxcy)
    torch.testing.assert_close(again.load([2]).images, scene.load([2]).images, atol=0.5 / 255 + 1e-6, rtol=0)
    with pytest.raises(NVSError, match="save with copy_images=True"):
        scene.save(scene_folder, copy_images=False)


def test_dl3dv_folder_with_downscaled_images(tmp_path) -> None:
    images(tmp_path / "hash/nerfstudio", [f"images_4/{i:03d}.png" for i in range(3)])
    write(tmp_path / "hash/nerfstudio", {**nerfstudio_content(), "w": 64, "h": 48})
    for path in (tmp_path / "hash", tmp_path / "hash/nerfstudio"):
        scene = open_scene(path)
        torch.testing.assert_close(scene.fxfycxcy[0], torch.tensor([5.0, 21 / 4, 8.5 / 4, 6.25 / 4]))
        assert scene.notes == ("images missing in images/ read from images_4/, intrinsics scaled to them",)


def test_a_saved_test_split_is_also_val_for_nerfstudio(scene_folder, tmp_path) -> None:
    content = {**nerfstudio_content(), "train_filenames": ["images/000.png", "images/001.png"]}
    scene = open_scene(write(scene_folder, {**content, "test_filenames": ["images/002.png"]}))
    saved = scene.save(tmp_path / "saved")
    assert json.loads((saved / "transforms.json").read_text())["val_filenames"] == ["images/002.png"]
    assert open_scene(saved).split == scene.split == ["train", "train", "test"]


def test_rays_of_a_known_camera(tmp_path) -> None:
    scene = open_scene(known_scene(tmp_path / "scene"))
    check_rays(scene, cx=8.0, cy=6.0)  # no cx, cy in the file: the middle
    check_rays(open_scene(scene.save(tmp_path / "saved")), cx=8.0, cy=6.0)


def parsed(folder: Path, split: str = "train", **options):
    """What nerfstudio's own reader makes of a folder, its poses left as they are."""
    pytest.importorskip("nerfstudio")
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    config = NerfstudioDataParserConfig(
        data=folder,
        orientation_method="none",
        center_method="none",
        auto_scale_poses=False,
        downscale_factor=1,
        **options,
    )
    return config.setup().get_dataparser_outputs(split=split)


def nerfstudio_rays(cameras, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Origins and unit directions [3, h, w] from nerfstudio's camera."""
    bundle = cameras.generate_rays(camera_indices=index, keep_shape=True)
    return bundle.origins.permute(2, 0, 1), bundle.directions.permute(2, 0, 1)


@pytest.mark.filterwarnings("ignore")
def test_our_scenes_open_in_nerfstudio_with_the_same_rays(tmp_path) -> None:
    # A chunk's scene: intrinsics the same for all; then views that differ; then lenses; then splits.
    torch.save([chunk_entry("a", 4)], tmp_path / "000000.torch")
    scenes = {"same": open_scene(tmp_path / "000000.torch")}
    scenes["differ"] = Scene(**{**scenes["same"].__dict__, "fxfycxcy": scenes["same"].fxfycxcy + torch.rand(4, 4)})
    lens = Lens((20.0, 21.0, 8.5, 6.25), (-0.1, 0.01, 0.001, -0.002, 0.0))
    pinhole = torch.tensor(lens.pinhole((12, 16))).expand(4, 4).clone()
    scenes["lens"] = Scene(**{**scenes["same"].__dict__, "lenses": (lens,) * 4, "fxfycxcy": pinhole})
    splits = ["train", "test", "train", "test"]
    scenes["split"] = Scene(**{**scenes["same"].__dict__, "split": splits})
    for name, scene in scenes.items():
        folder = scene.save(tmp_path / name)
        outputs = parsed(folder, **({} if name == "split" else {"eval_mode": "all"}))
        paths = [path.relative_to(folder).as_posix() for path in outputs.image_filenames]
        assert len(paths) == (2 if name == "split" else 4)
        listed = [path.name for path in scene.image_paths]
        ours = open_scene(folder)
        for record, path in enumerate(paths):
            index = listed.index(Path(path).name)
            origins, directions = nerfstudio_rays(outputs.cameras, record)
            expected_o, expected_d = (part.float() for part in pixel_rays(ours.cameras([index])[0]))
            torch.testing.assert_close(origins, expected_o, atol=1e-5, rtol=0)
            if name != "lens":
                torch.testing.assert_close(directions, expected_d, atol=1e-5, rtol=0)
                continue
            # nerfstudio keeps the distorted image: its ray of a pixel must lie where our lens puts that pixel.
            local = ours.c2w[index, :3, :3].float().T @ directions[:, 3, 10]
            bent = lens.project((local[:2] / local[2]).double().numpy()[None])[0]
            np.testing.assert_allclose(bent, [10.5, 3.5], atol=1e-3)
        if name == "split":
            assert len(parsed(folder, "val").image_filenames) == len(parsed(folder, "test").image_filenames) == 2


# Files by nerfstudio's own writers


def test_record3d_and_polycam_as_nerfstudio_writes_them(tmp_path) -> None:
    record3d = pytest.importorskip("nerfstudio.process_data.record3d_utils")
    polycam = pytest.importorskip("nerfstudio.process_data.polycam_utils")
    folder = tmp_path / "record3d"
    image(folder / "images/frame_00001.png")
    # The export's quaternion (x, y, z, w) and position are camera-to-world with OpenGL axes; K is by columns.
    pose = [0.5, -0.5, -0.5, 0.5, 1, 2, 3]
    metadata = {"poses": [pose], "K": [20.0, 0, 0, 0, 20.0, 0, 8.0, 6.0, 1], "w": 16, "h": 12}
    write(tmp_path, metadata, "metadata.json")
    images = [Path("images/frame_00001.png")]
    record3d.record3d_to_json(images, tmp_path / "metadata.json", folder, np.array([0]))
    check_rays(open_scene(folder), fy=20.0, cx=8.0, cy=6.0)

    folder = tmp_path / "polycam"
    image(folder / "images/frame_00001.jpg")
    # Polycam's world has +y up; nerfstudio's writer turns its rows 2, 0, 1 into rows 0, 1, 2.
    rows = {f"t_{row}{column}": OPENGL_C2W[(row + 1) % 3][column] for row in range(3) for column in range(4)}
    write(
        tmp_path / "cameras",
        {**rows, "fx": 20, "fy": 21, "cx": 8.5, "cy": 6.25, "width": 16, "height": 12},
        "7.json",
    )
    polycam.polycam_to_json([Path("7.jpg")], [], None, tmp_path / "cameras", folder)
    check_rays(open_scene(folder))


@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE", "SIMPLE_RADIAL", "PINHOLE"])
def test_colmap_model_as_nerfstudio_writes_it(tmp_path, model) -> None:
    """COLMAP's files read here, and read by way of nerfstudio's transforms.json, give the same lenses and poses."""
    pytest.importorskip("pycolmap")
    utils = pytest.importorskip("nerfstudio.process_data.colmap_utils")
    from test_colmap import camera_of, write_model

    recon = write_model(tmp_path / "s/colmap/sparse/0", camera_of(model))
    for name in "abc":
        image(tmp_path / f"s/images/{name}.png", 64, 48)
    direct = open_scene(tmp_path / "s")
    utils.colmap_to_json(recon, tmp_path / "s", keep_original_world_coordinate=True)
    turned = open_scene(tmp_path / "s")
    assert any("the folder also holds colmap" in note for note in turned.notes)
    order = [[p.name for p in turned.image_paths].index(p.name) for p in direct.image_paths]
    torch.testing.assert_close(turned.c2w[order], direct.c2w, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.fxfycxcy[order], direct.fxfycxcy)
    assert turned.lenses == direct.lenses
