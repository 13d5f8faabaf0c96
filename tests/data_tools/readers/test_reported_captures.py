"""Files as people have reported them in public, each rebuilt small; the address of the report stands with each."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from known_camera import C2W, CX, CY, FX, FY, HEIGHT, OPENGL_C2W, WIDTH, check_rays, image
from scene_writers import write

from data_tools.readers import open_scene
from data_tools.structure_from_motion.photos import open_input
from nvs_app.errors import NVSError, Refusal

CAMERA = "1 PINHOLE 16 12 20 21 8.5 6.25\n"
POSE = "0.5 0.5 -0.5 0.5 2 3 -1 1"


def model(folder: Path, images: str) -> Path:
    write(folder / "cameras.txt", CAMERA)
    write(folder / "images.txt", images)
    return folder


def frames(*names: str, **values) -> list[dict]:
    return [{"file_path": name, "transform_matrix": OPENGL_C2W, **values} for name in names]


def transforms(folder: Path, listed: list[dict], **values) -> Path:
    content = {"fl_x": FX, "fl_y": FY, "cx": CX, "cy": CY, "w": WIDTH, "h": HEIGHT, **values, "frames": listed}
    write(folder / "transforms.json", json.dumps(content))
    return folder


def test_realityscans_flat_model_with_spaces_in_names(tmp_path: Path) -> None:
    """github.com/MrNeRF/LichtFeld-Studio/issues/810, /issues/514: long exponents, images beside the model."""
    line = POSE.replace("0.5", "5.0e-001")
    for name in ("A-DJI 0002 (402).jpg", "2024 07 1.jpg"):
        image(tmp_path / name)
    model(tmp_path, f"1 {line} A-DJI 0002 (402).jpg\n775.2 1029.3 8574\n2 {line} 2024 07 1.jpg\n\n")
    scene = open_scene(tmp_path)
    assert [path.name for path in scene.image_paths] == ["2024 07 1.jpg", "A-DJI 0002 (402).jpg"]
    check_rays(scene, 1)


@pytest.mark.parametrize("points", ["", "\n", "775.2 1029.3 8574\n", "1 2 3 4 5 6 7 8 9 10 11 12\n"])
def test_images_without_points(tmp_path: Path, points: str) -> None:
    """github.com/openvdb/fvdb-reality-capture/pull/177, github.com/nerfstudio-project/gsplat/issues/402."""
    for name in "ab":
        image(tmp_path / f"images/{name}.png")
    model(tmp_path / "sparse/0", f"1 {POSE} a.png\n{points}2 {POSE} b.png\n{points}")
    assert len(open_scene(tmp_path)) == 2


def test_infinite_translations_of_one_image(tmp_path: Path) -> None:
    """github.com/ETH3D/dataset-pipeline/issues/14, github.com/yanmin-wu/OpenGaussian/issues/17."""
    for name in "ab":
        image(tmp_path / f"images/{name}.png")
    model(tmp_path / "sparse", f"1 {POSE} a.png\n\n2 {POSE.replace('2 3', '-inf -inf')} b.png\n\n")
    scene = open_scene(tmp_path)
    assert len(scene) == 1 and "1 of 2 frames left out: the pose is absent, not finite or zero (b.png)" in scene.notes


def test_columns_in_another_order_are_no_rotation(tmp_path: Path) -> None:
    """github.com/colmap/colmap/issues/1902: translation first in one line. A length that all share is divided out."""
    for name in "ab":
        image(tmp_path / f"images/{name}.png")
    swapped = "2.69382 -4.16628 -0.620812 0.996875 -0.0510672 -0.0510524 -0.0320357 1"
    model(tmp_path / "sparse", f"1 {POSE} a.png\n\n2 {swapped} b.png\n\n")
    with pytest.raises(NVSError, match=r"\(b.png\): its rotation is no unit quaternion \(length 5.0") as caught:
        open_scene(tmp_path)
    assert caught.value.code == Refusal.BAD_POSE
    model(
        tmp_path / "sparse", "".join(f"{i} {POSE.replace('0.5', '1.5')} {name}.png\n\n" for i, name in enumerate("ab"))
    )
    scene = open_scene(tmp_path)
    check_rays(scene)
    assert "quaternions are of length 3; the length is divided out" in scene.notes


@pytest.mark.parametrize("listed", ["imagelist.lst", "bundle.lst", "list.txt"])
def test_realitycaptures_bundle_with_its_list(tmp_path: Path, listed: str) -> None:
    """github.com/nerfstudio-project/nerfstudio/issues/2419: paths of the exporting machine, with spaces."""
    rotation = "0 -1 0\n0 0 1\n-1 0 0\n"
    write(tmp_path / "bundle.out", "# Bundle file v0.3\n2 0\n" + f"{FX} 0 0\n{rotation}2 -3 1\n" * 2)
    focal = " 0 20.5" if listed == "list.txt" else ""
    write(tmp_path / listed, "".join(f"D:\\My scans\\img {i}.jpg{focal}\n" for i in (1, 2)))
    for i in (1, 2):
        image(tmp_path / f"undistorted/img {i}.jpg")
    scene = open_scene(tmp_path)
    check_rays(scene, 1, fy=FX, cx=8.0, cy=6.0)
    assert [path.name for path in scene.image_paths] == ["img 1.jpg", "img 2.jpg"]


@pytest.mark.parametrize("place", ["dense/0", "input", "."])
def test_colmaps_own_folders(tmp_path: Path, place: str) -> None:
    """github.com/graphdeco-inria/gaussian-splatting/issues/272, /issues/97: the model is further down."""
    model(tmp_path / place / "sparse", f"1 {POSE} a.png\n\n")
    image(tmp_path / place / "images/a.png")
    write(tmp_path / "database.db", "")
    write(tmp_path / place / "stereo/depth_maps/a.png.geometric.bin", "")
    check_rays(open_scene(tmp_path))


def test_a_model_that_was_not_undistorted_yet(tmp_path: Path) -> None:
    """github.com/graphdeco-inria/gaussian-splatting/issues/1061, /issues/177: input/ and distorted/sparse alone."""
    model(tmp_path / "distorted/sparse/0", f"1 {POSE} a.png\n\n")
    model(tmp_path / "distorted/sparse/1", f"1 {POSE} a.png\n\n2 {POSE} b.png\n\n")
    for name in "ab":
        image(tmp_path / f"input/{name}.png")
    assert len(open_scene(tmp_path)) == 2


def test_frames_without_a_transform(tmp_path: Path) -> None:
    """github.com/joreeves/mr2nerf/issues/3, github.com/nerfstudio-project/nerfstudio/pull/1285: photos that were not
    aligned have no pose, and more cameras than photos were exported."""
    listed = frames("images/0.png", "images/1.png", "images/2.png")
    del listed[1]["transform_matrix"]
    image(tmp_path / "images/0.png")
    image(tmp_path / "images/1.png")
    scene = open_scene(transforms(tmp_path, listed))
    assert len(scene) == 1 and len(scene.notes) == 2


def test_nerfcaptures_names(tmp_path: Path) -> None:
    """github.com/jc211/NeRFCapture/issues/4, github.com/lukasHoel/text2room/issues/7: names without a suffix, depth
    maps beside the photos."""
    for i in range(2):
        image(tmp_path / f"images/{i}.png")
        image(tmp_path / f"images/{i}.depth.png")
    listed = frames("images/0", "images/1", depth_path="images/0.depth.png", timestamp=1.5)
    scene = open_scene(transforms(tmp_path, listed, integer_depth_scale=0.001, depth_unit_scale_factor=1.0))
    check_rays(scene, 1)
    assert [path.name for path in scene.image_paths] == ["0.png", "1.png"] and scene.notes == ()


def test_intrinsics_in_the_frames_alone(tmp_path: Path) -> None:
    """github.com/MrNeRF/LichtFeld-Studio/pull/1608: as Metashape's exports by way of nerfstudio have them."""
    own = {"fl_x": FX, "fl_y": FY, "cx": CX, "cy": CY, "w": WIDTH, "h": HEIGHT, "camera_model": "PINHOLE"}
    write(tmp_path / "transforms.json", json.dumps({"frames": frames("images/0.png", **own)}))
    image(tmp_path / "images/0.png")
    check_rays(open_scene(tmp_path))


@pytest.mark.parametrize("name", ["EQUIRECTANGULAR", "equirectangular", "SPHERICAL"])
def test_spherical_cameras_are_told(tmp_path: Path, name: str) -> None:
    """github.com/nerfstudio-project/nerfstudio/issues/1634."""
    image(tmp_path / "images/0.png")
    with pytest.raises(NVSError, match="is a panorama, cut it into perspective views first") as caught:
        open_scene(transforms(tmp_path, frames("images/0.png"), camera_model=name))
    assert caught.value.code == Refusal.PANORAMA


def test_an_empty_export_is_told(tmp_path: Path) -> None:
    """github.com/nerfstudio-project/nerfstudio/issues/3573."""
    with pytest.raises(NVSError, match="frames is empty, expected one frame or more"):
        open_scene(transforms(tmp_path, []))


def test_a_r3d_file(tmp_path: Path) -> None:
    """github.com/marek-simonik/record3d/issues/93, /issues/83: a zip by another suffix; intrinsics of each frame."""
    k = [9.0, 0, 0, 0, 9.0, 0, CX, CY, 1]
    pose = [0.5, -0.5, -0.5, 0.5, 1, 2, 3]
    own = [[FX, FY, CX, CY]] * 3
    content = {"poses": [pose] * 3, "K": k, "perFrameIntrinsicCoeffs": own, "w": WIDTH, "h": HEIGHT, "fps": 60}
    photo = image(tmp_path / "photo.jpg").read_bytes()
    with zipfile.ZipFile(tmp_path / "scan.r3d", "w") as packed:
        packed.writestr("metadata", json.dumps(content))
        packed.writestr("icon", photo)
        for i in (0, 2):
            packed.writestr(f"rgbd/{i}.jpg", photo)
            packed.writestr(f"rgbd/{i}.depth", b"lzfse")
    scene = open_input(tmp_path / "scan.r3d", tmp_path / "work")
    check_rays(scene, 1)
    assert [path.name for path in scene.image_paths] == ["0.jpg", "2.jpg"]
    assert scene.notes[0] == "1 of 3 poses have no photo"


def test_polycam_before_its_loop_closure(tmp_path: Path) -> None:
    """github.com/PolyCam/polyform/issues/12: no corrected folders; one camera without its photo."""
    rows = {f"t_{row}{column}": OPENGL_C2W[row][column] for row in range(3) for column in range(4)}
    camera = {**rows, "fx": FX, "fy": FY, "cx": CX, "cy": CY, "width": WIDTH, "height": HEIGHT, "blur_score": 5.0}
    for stamp in ("1", "2", "3"):
        write(tmp_path / f"keyframes/cameras/{stamp}.json", json.dumps(camera))
    for stamp in ("1", "2"):
        image(tmp_path / f"keyframes/images/{stamp}.jpg")
    for path in (tmp_path, tmp_path / "keyframes"):
        scene = open_scene(path)
        check_rays(scene, 1)
        assert "cameras of keyframes/cameras read (before the app's loop closure)" in scene.notes[0]
        assert scene.notes[1].startswith("1 of 3 frames left out: the image is not there (3)")


def test_a_rotation_in_other_units_than_the_position(tmp_path: Path) -> None:
    """github.com/city-super/MatrixCity/issues/37: rotations a hundredth of their size."""
    image(tmp_path / "images/0.png")
    matrix = np.array(OPENGL_C2W, dtype=float)
    matrix[:3, :3] /= 100.0
    frame = {"file_path": "images/0.png", "transform_matrix": matrix.tolist()}
    scene = open_scene(transforms(tmp_path, [frame]))
    check_rays(scene)
    assert scene.notes == ("1 rotations are scaled by 0.01; the scale is divided out",)


def test_names_in_another_script(tmp_path: Path) -> None:
    """github.com/MegaScenes/nvs/issues/3: names of several bytes a character."""
    image(tmp_path / "images/Łódź/площадь.png")
    model(tmp_path / "sparse", f"1 {POSE} Łódź/площадь.png\n\n")
    check_rays(open_scene(tmp_path))


def test_scannets_lost_frames(tmp_path: Path) -> None:
    """github.com/WU-CVGL/GS-Reasoner/issues/6."""
    for i, pose in enumerate((C2W, [[-np.inf] * 4] * 4)):
        image(tmp_path / f"color/{i}.png")
        write(tmp_path / f"pose/{i}.txt", "\n".join(" ".join(map(str, row)) for row in pose))
    write(tmp_path / "intrinsics.txt", f"{FX} {FY} {CX} {CY}\n")
    scene = open_scene(tmp_path)
    assert len(scene) == 1 and "1 of 2 frames left out" in scene.notes[0]


def test_llff_with_fewer_poses_than_images_is_refused(tmp_path: Path) -> None:
    """github.com/Fyusion/LLFF/issues/69: nothing tells which image a row belongs to."""
    for i in range(3):
        image(tmp_path / f"images/{i}.png")
    np.save(tmp_path / "poses_bounds.npy", np.ones((2, 17)))
    with pytest.raises(NVSError, match="2 cameras, but images/ has 3 images; they must match") as caught:
        open_scene(tmp_path)
    assert caught.value.code
