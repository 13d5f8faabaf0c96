"""COLMAP models: files written by pycolmap, every camera model, and files that are broken."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from known_camera import C2W, CX, CY, FX, FY, HEIGHT, QUATERNION, TRANSLATION, WIDTH, check_rays, image
from PIL import Image

from data_tools.readers import open_scene
from data_tools.readers.colmap import COUNTS, lens_of
from data_tools.readers.fields import Record
from nvs_app.errors import NVSError
from nvs_app.scenes.images import Lens, read_image

pycolmap = pytest.importorskip("pycolmap")

PINHOLE = [FX, FY, CX, CY]
EXTRA = {  # plausible distortion of each model, after the focal lengths and the principal point
    "SIMPLE_PINHOLE": [],
    "PINHOLE": [],
    "SIMPLE_RADIAL": [-0.1],
    "RADIAL": [-0.1, 0.02],
    "OPENCV": [-0.1, 0.02, 0.001, -0.002],
    "OPENCV_FISHEYE": [-0.03, 0.01, 0.002, -0.001],
    "FULL_OPENCV": [-0.1, 0.02, 0.001, -0.002, 0.003, 0.01, -0.01, 0.002],
    "FOV": [0.7],
    "SIMPLE_RADIAL_FISHEYE": [0.02],
    "RADIAL_FISHEYE": [0.02, -0.01],
    "THIN_PRISM_FISHEYE": [-0.03, 0.01, 0.001, -0.001, 0.002, 0.001, 0.001, -0.001],
    "RAD_TAN_THIN_PRISM_FISHEYE": [-0.03, 0.01, 0.001, 0, 0, 0, 0.001, -0.001, 0.001, 0, -0.001, 0],
    "SIMPLE_DIVISION": [-0.1],
    "DIVISION": [-0.1],
    "SIMPLE_FISHEYE": [],
    "FISHEYE": [],
    "EUCM": [0.6, 1.1],
}


def camera_of(model: str, width: int = 64, height: int = 48):
    camera = pycolmap.Camera.create_from_model_name(1, model, 40.0, width, height)
    focal = [40.0] if len(camera.focal_length_idxs()) == 1 else [40.0, 41.0]
    camera.params = [*focal, 32.5, 23.0, *EXTRA[model]]
    return camera


def write_model(folder: Path, camera, names=("b.png", "a.png", "c.png"), text: bool = False) -> Path:
    """Write with pycolmap: the view a.png has the known camera's pose; some points, some none."""
    rec = pycolmap.Reconstruction()
    rec.add_camera_with_trivial_rig(camera)
    generator = np.random.default_rng(0)
    for number, name in enumerate(names, 1):
        rotation = generator.normal(size=4)
        rotation, shift = rotation / np.linalg.norm(rotation), generator.normal(size=3)
        if name.endswith("a.png"):
            rotation, shift = np.roll(QUATERNION, -1), np.array(TRANSLATION)  # pycolmap takes x, y, z, w
        image = pycolmap.Image(image_id=number, camera_id=1, name=name)
        if number != 2:
            image.points2D = pycolmap.Point2DList([pycolmap.Point2D(xy) for xy in generator.random((3, 2)) * 10])
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(rotation), shift)
        rec.add_image_with_trivial_frame(image, pose)
    folder.mkdir(parents=True, exist_ok=True)
    (rec.write_text if text else rec.write_binary)(str(folder))
    return folder


def scene_folder(folder: Path, sub: str = "sparse/0", text: bool = False, images: str = "images", size=None) -> Path:
    camera = pycolmap.Camera.create_from_model_name(1, "PINHOLE", 1.0, WIDTH, HEIGHT)
    camera.params = PINHOLE
    write_model(folder / sub, camera, text=text)
    for name in "abc":
        image(folder / images / f"{name}.png", *(size or ()))
    return folder


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("sub", ["sparse/0", "sparse", "colmap/sparse/0", "."])
def test_layouts_and_rays(tmp_path, sub, text) -> None:
    folder = scene_folder(tmp_path / "garden", sub, text)
    scene = open_scene(folder)
    assert scene.name == "garden" and [p.name for p in scene.image_paths] == ["a.png", "b.png", "c.png"]
    torch.testing.assert_close(scene.c2w[0], torch.tensor(C2W, dtype=torch.float64))
    check_rays(scene)
    assert scene.lenses == () and scene.notes == ()
    again = open_scene(folder / sub / f"images.{'txt' if text else 'bin'}")
    assert torch.equal(again.c2w, scene.c2w) and again.image_paths == scene.image_paths


def test_downscaled_images_and_notes(tmp_path) -> None:
    folder = scene_folder(tmp_path / "garden", images="images_4", size=(WIDTH // 4, HEIGHT // 4))
    (folder / "images_4/a.png").rename(folder / "images_4/a.jpg")
    image(folder / "images_4/a.jpg", WIDTH // 4, HEIGHT // 4)
    scene = open_scene(folder)
    torch.testing.assert_close(scene.fxfycxcy[0], torch.tensor(PINHOLE) / 4)
    assert scene.notes == ("images missing in images/ read from images_4/, intrinsics scaled to them",)
    folder = scene_folder(tmp_path / "two")
    scene_folder(tmp_path / "two", "sparse/1")
    image(folder / "images/left.png")
    scene = open_scene(folder)
    assert len(scene) == 3 and "several models: 0 read (3 images are there), 1 (3) left alone" in scene.notes
    assert any("1 images without a camera in the model left out (left.png)" in note for note in scene.notes)


def test_nested_names(tmp_path) -> None:
    names = ("rig/left/a.png", "rig/right/a.png")
    camera = pycolmap.Camera.create_from_model_name(1, "PINHOLE", 1.0, WIDTH, HEIGHT)
    camera.params = PINHOLE
    write_model(tmp_path / "s/sparse/0", camera, names, text=True)
    for name in names:
        image(tmp_path / "s/images" / name)
    check_rays(open_scene(tmp_path / "s"))


@pytest.mark.parametrize("model", sorted(EXTRA))
def test_every_camera_model_projects_as_in_pycolmap(tmp_path, model) -> None:
    camera = camera_of(model)
    folder = write_model(tmp_path / "s/sparse/0", camera).parent.parent
    for name in "abc":
        image(folder / "images" / f"{name}.png", 64, 48)
    scene = open_scene(folder)
    fx, fy, cx, cy = scene.fxfycxcy[0].tolist()
    # The pinhole's border, as directions; pycolmap must find all of them inside the image.
    border = np.array([[u, v] for u in np.linspace(0, 64, 9) for v in np.linspace(0, 48, 7)])
    points = (border - [cx, cy]) / [fx, fy]
    pixels = camera.img_from_cam(np.concatenate([points, np.ones((len(points), 1))], 1))
    if not EXTRA[model] and "FISHEYE" not in model:
        assert scene.lenses == ()
        np.testing.assert_allclose(pixels, border, atol=1e-4)
        return
    np.testing.assert_allclose(scene.lenses[0].project(points), pixels, atol=1e-6)
    # OpenCV's own choice for its models is right to about a pixel, ours exact.
    slack = 1.0 if scene.lenses[0].model == "OPENCV" else 1e-3
    assert (pixels > -slack).all() and (pixels < np.array([64, 48]) + slack).all()
    assert min(pixels.min(0).max(), (np.array([64, 48]) - pixels.max(0)).min()) < 3  # and little is wasted
    assert scene.load([0]).images.shape == (1, 3, 48, 64)


def test_all_models_of_pycolmap_are_known() -> None:
    names = set(pycolmap.CameraModelId.__members__) - {"INVALID"}
    assert names == set(COUNTS) and names - set(EXTRA) == {"EQUIRECTANGULAR"}
    for name in names:
        camera = pycolmap.Camera.create_from_model_name(1, name, 1.0, 8, 8)
        assert len(camera.params) == COUNTS[name]


@pytest.mark.parametrize("model", ["FOV", "OPENCV_FISHEYE", "EUCM", "FULL_OPENCV"])
def test_undistorted_pixels_lie_where_the_pinhole_says(tmp_path, model) -> None:
    camera = camera_of(model, 160, 120)
    camera.params = [100.0, 102.0, 82.0, 58.0, *EXTRA[model]]
    record = Record("x", {})
    intrinsics, name, coefficients = lens_of(record, model, tuple(camera.params))
    assert coefficients is not None
    lens = Lens(intrinsics, coefficients, name)
    fx, fy, cx, cy = lens.pinhole((120, 160))
    y, x = np.mgrid[:120, :160] + 0.5
    for point in ([-0.35, -0.25], [0.4, 0.3], [0.3, -0.3], [0.0, 0.0]):
        px, py = camera.img_from_cam(np.array([[*point, 1.0]]))[0]
        dot = 255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8)
        Image.fromarray(dot.astype(np.uint8)).convert("RGB").save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png", lens=lens)[0].numpy()
        found = ((image * x).sum() / image.sum(), (image * y).sum() / image.sum())
        assert abs(found[0] - (fx * point[0] + cx)) < 0.15 and abs(found[1] - (fy * point[1] + cy)) < 0.15


def test_fisheye_against_cv2(tmp_path) -> None:
    lens = Lens((40.0, 41.0, 32.5, 23.0), (-0.03, 0.01, 0.002, -0.001), "OPENCV_FISHEYE")
    rays = np.array([[[0.3, -0.2, 1.0]], [[-1.0, 0.7, 1.0]]])
    k = np.array([[40.0, 0, 32.0], [0, 41.0, 22.5], [0, 0, 1]])
    pixels, _ = cv2.fisheye.projectPoints(rays, np.zeros(3), np.zeros(3), k, np.array(lens.coefficients))
    np.testing.assert_allclose(lens.project(rays[:, 0, :2]), pixels[:, 0] + 0.5, atol=1e-9)


def test_a_lens_that_folds_back_is_refused() -> None:
    with pytest.raises(NVSError, match="cannot be removed"):
        Lens((40.0, 40.0, -900.0, 23.0), (0.1, 0.0, 0.0, 0.0), "OPENCV_FISHEYE").pinhole((48, 64))
    # A strong barrel whose polynomial turns round inside the image: the pinhole stays before the turn.
    lens = Lens((40.0, 40.0, 32.0, 24.0), (-0.9, 0.0, 0.0, 0.0, 0.0, 0.0), "BROWN4")
    fx, fy, cx, cy = lens.pinhole((48, 64))
    assert (32 / fx) ** 2 + (24 / fy) ** 2 <= 1.05 / (3 * 0.9)


# Broken files


@pytest.fixture
def binary(tmp_path) -> Path:
    return scene_folder(tmp_path / "garden")


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin"])
def test_binary_cut_at_every_byte(binary, name) -> None:
    file = binary / "sparse/0" / name
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(NVSError, match=rf"0/{name}: cut short or no COLMAP file") as caught:
            open_scene(binary)
        assert "\n" not in str(caught.value)
    file.write_bytes(whole + b"x")
    with pytest.raises(NVSError, match="1 bytes too many"):
        open_scene(binary)
    file.write_bytes(struct.pack("<Q", 2**63) + whole[8:])
    with pytest.raises(NVSError, match="cut short"):
        open_scene(binary)


def test_binary_random_bytes_give_one_line(binary) -> None:
    generator = np.random.default_rng(0)
    for name in ("cameras.bin", "images.bin"):
        file = binary / "sparse/0" / name
        whole = file.read_bytes()
        for _ in range(150):
            data = bytearray(whole)
            for at in generator.integers(0, len(data), 3):
                data[at] = generator.integers(0, 256)
            file.write_bytes(data)
            try:
                open_scene(binary)
            except NVSError as error:
                assert "\n" not in str(error)
        file.write_bytes(whole)


def text_model(folder: Path, cameras: str, images: str) -> Path:
    (folder / "sparse/0").mkdir(parents=True)
    (folder / "sparse/0/cameras.txt").write_text(cameras)
    (folder / "sparse/0/images.txt").write_text(images)
    image(folder / "images/a.png")
    image(folder / "secret.png")
    return folder


GOOD_CAMERA = "# made by hand\n1 PINHOLE 16 12 20 21 8.5 6.25\n"
GOOD_IMAGE = "1 0.5 0.5 -0.5 0.5 2 3 -1 1 a.png\n\n"


def test_text_by_hand(tmp_path) -> None:
    folder = text_model(tmp_path / "s", GOOD_CAMERA, "# points follow\n" + GOOD_IMAGE)
    check_rays(open_scene(folder))
    (folder / "sparse/0/images.txt").write_text(GOOD_IMAGE.rstrip())  # no line of points at the end
    check_rays(open_scene(folder))


@pytest.mark.parametrize(
    ("cameras", "images", "message"),
    [
        (GOOD_CAMERA, "", "no registered image"),
        (GOOD_CAMERA, GOOD_IMAGE.replace("a.png", "b.png"), r"\(b.png\): the image file does not exist"),
        (GOOD_CAMERA, GOOD_IMAGE.replace("a.png", "../../x.png"), "leads out of the scene's folder"),
        (GOOD_CAMERA, GOOD_IMAGE.replace("a.png", "/etc/passwd"), "leads out of the scene's folder"),
        (GOOD_CAMERA, GOOD_IMAGE.replace(" 1 a", " 2 a"), "camera 2 is not in cameras.txt"),
        (GOOD_CAMERA, GOOD_IMAGE.replace("-0.5", "nan"), "no unit quaternion"),
        (GOOD_CAMERA, GOOD_IMAGE.replace("0.5", "0.0"), "no unit quaternion"),
        (GOOD_CAMERA, GOOD_IMAGE.replace(" 3 ", " inf "), "holds Infinity, expected finite numbers"),
        (GOOD_CAMERA, GOOD_IMAGE.replace(" 3 ", " x "), "line 1: 'x' where a number was expected"),
        (GOOD_CAMERA, "1 0.5 0.5\n", "line 1: expected IMAGE_ID"),
        (GOOD_CAMERA.replace("20 21", "nan 21"), GOOD_IMAGE, "fx is NaN, expected a positive number"),
        (GOOD_CAMERA.replace("20 21", "0 21"), GOOD_IMAGE, "fx is 0.0, expected a positive number"),
        (GOOD_CAMERA.replace("6.25", ""), GOOD_IMAGE, "PINHOLE has 3 parameters, expected 4"),
        (GOOD_CAMERA.replace("PINHOLE", "LENSBABY"), GOOD_IMAGE, "line 2: unknown camera model LENSBABY"),
        (GOOD_CAMERA.replace("16 12", "0 12"), GOOD_IMAGE, "its camera is 0x12 pixels"),
        (GOOD_CAMERA.replace("16 12", "12 16"), GOOD_IMAGE, "the image is 16x12 but its camera 12x16"),
        ("1 PINHOLE\n", GOOD_IMAGE, "line 1: expected CAMERA_ID"),
        ("1 EQUIRECTANGULAR 16 12 16 12\n", GOOD_IMAGE, "is a panorama"),
    ],
)
def test_malformed_text(tmp_path, cameras, images, message) -> None:
    with pytest.raises(NVSError, match=message) as caught:
        open_scene(text_model(tmp_path / "s", cameras, images))
    assert "\n" not in str(caught.value)


def test_no_images(binary) -> None:
    shutil.rmtree(binary / "images")
    with pytest.raises(NVSError, match="no folder images/"):
        open_scene(binary)
