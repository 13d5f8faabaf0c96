"""nerfstudio's cameras, dataparsers and world frames as ours; what makes its import and its renders possible here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.readers import open_scene
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, look_at, opencv_to_opengl
from nvs_app.geometry.rays import pixel_rays
from nvs_app.geometry.rotations import matrix_to_quaternion
from nvs_app.integrations.nerfstudio.__main__ import prepare
from nvs_app.integrations.nerfstudio.ffmpeg import provide_ffmpeg
from nvs_app.scenes.nerfstudio_frame import (
    DATAPARSER_FILE,
    FRAME_FILE,
    frame_of,
    is_identity,
    read_frame,
    to_nerfstudio,
    to_scene,
    write_frame,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:nerfstudio.*", "ignore::FutureWarning")
COUNT = 4


@pytest.fixture(scope="module", autouse=True)
def _importable() -> None:
    prepare()


def c2w() -> torch.Tensor:
    """COUNT poses, OpenCV axes, far from the origin."""
    eye = torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(3)) * 3 + torch.tensor([5.0, -7, 2])
    return look_at(eye, torch.tensor([5.0, -7, 0]), torch.tensor([0.1, 0.2, 1]))


def draw(path: Path, image_hw: tuple[int, int], seed: int, channels: int = 3) -> None:
    """A smooth image, so that a resampled pixel more or less hardly matters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (4, 5, channels), np.uint8)
    Image.fromarray(small).resize(image_hw[::-1], Image.Resampling.BICUBIC).save(path)


def nerfstudio_scene(folder: Path, image_hws=((48, 64),), channels: int = 3, **values) -> Path:
    """A transforms.json with shared values, or with per-frame intrinsics where images differ in size."""
    frames = []
    for index, pose in enumerate(opencv_to_opengl(c2w())):
        height, width = image_hws[index % len(image_hws)]
        draw(folder / f"images/{index}.png", (height, width), index, channels)
        own = {"fl_x": 60.0 + index, "fl_y": 62.0, "cx": width / 2 + 3.3, "cy": height / 2 - 1.7}
        own |= {"file_path": f"images/{index}.png", "w": width, "h": height}
        frames.append({**own, "transform_matrix": pose.tolist()})
    (folder / "transforms.json").write_text(json.dumps({"frames": frames, **values}))
    return folder


def parsed(folder: Path):
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    return NerfstudioDataParserConfig(data=folder, eval_mode="all").setup().get_dataparser_outputs("train")


def compare(outputs, folder: Path, data: Path | None) -> None:
    """A dataparser's scene in its own frame is the scene that our reader opens: cameras and pixels."""
    from nvs_app.integrations.nerfstudio.cameras import scene_of

    theirs = scene_of(outputs, frame_of(outputs.dataparser_transform, outputs.dataparser_scale, data), "theirs")
    ours = open_scene(folder)
    order = [[path.name for path in ours.image_paths].index(path.name) for path in theirs.image_paths]
    assert sorted(order) == list(range(len(ours)))
    assert torch.allclose(theirs.c2w, ours.c2w[order], atol=2e-5)
    assert torch.allclose(theirs.fxfycxcy, ours.fxfycxcy[order], rtol=1e-4)
    assert torch.equal(theirs.image_hws, ours.image_hws[order])
    difference = (theirs.load(None, (32, 32)).images - ours.load(order, (32, 32)).images).abs()
    assert difference.max() < 0.01


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: nerfstudio_scene(folder),
        lambda folder: nerfstudio_scene(folder, ((48, 64), (64, 40))),
        lambda folder: nerfstudio_scene(folder, channels=4),
        lambda folder: nerfstudio_scene(folder, camera_model="OPENCV", k1=0.05, k2=-0.02, p1=0.003, p2=-0.002),
        lambda folder: nerfstudio_scene(folder, distortion_params=[0.05, -0.01, 0.002, 0.001, 0.0, 0.0]),
        lambda folder: nerfstudio_scene(folder, camera_model="OPENCV_FISHEYE", k1=0.02, k2=-0.01, k3=0.002, k4=0.0),
        lambda folder: nerfstudio_scene(
            folder, applied_transform=[[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0.5]], applied_scale=0.25
        ),
    ],
    ids=["plain", "sizes", "alpha", "opencv", "k4", "fisheye", "applied"],
)
def test_nerfstudio_dataparser(make: Callable, tmp_path: Path) -> None:
    folder = make(tmp_path / "scene")
    compare(parsed(folder), folder, folder)


def test_blender_dataparser(tmp_path: Path) -> None:
    from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

    for split in ("train", "val", "test"):
        frames = []
        for index, pose in enumerate(opencv_to_opengl(c2w())):
            draw(tmp_path / f"{split}/{split}_{index}.png", (64, 64), index, 4)
            frames.append({"file_path": f"./{split}/{split}_{index}", "transform_matrix": pose.tolist()})
        content = {"camera_angle_x": 0.7, "frames": frames}
        (tmp_path / f"transforms_{split}.json").write_text(json.dumps(content))
    outputs = BlenderDataParserConfig(data=tmp_path).setup().get_dataparser_outputs("train")
    alone = tmp_path / "alone"
    (alone / "train").mkdir(parents=True)
    for path in outputs.image_filenames:
        (alone / "train" / Path(path).name).write_bytes(Path(path).read_bytes())
    (alone / "transforms_train.json").write_bytes((tmp_path / "transforms_train.json").read_bytes())
    compare(outputs, alone, None)


def test_colmap_dataparser(tmp_path: Path) -> None:
    """A distorted camera; nerfstudio turns COLMAP's world before its own turning, which is undone too."""
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    cameras = Cameras(c2w(), torch.zeros(COUNT, 4), (48, 64))
    lines = []
    for index, w2c in enumerate(cameras.w2c.double()):
        draw(tmp_path / f"images/{index}.png", (48, 64), index)
        turn = " ".join(map(str, matrix_to_quaternion(w2c[:3, :3]).tolist()))
        shift = " ".join(map(str, w2c[:3, 3].tolist()))
        lines.append(f"{index + 1} {turn} {shift} 1 {index}.png\n\n")
    sparse = tmp_path / "sparse/0"
    sparse.mkdir(parents=True)
    (sparse / "cameras.txt").write_text("1 OPENCV 64 48 60 62 33 22 0.05 -0.02 0.003 -0.002\n")
    (sparse / "images.txt").write_text("".join(lines))
    (sparse / "points3D.txt").write_text("")
    config = ColmapDataParserConfig(
        data=tmp_path, colmap_path=Path("sparse/0"), eval_mode="all", load_3D_points=False, downscale_factor=1
    )
    compare(config.setup().get_dataparser_outputs("train"), tmp_path, None)


def test_cameras_both_ways() -> None:
    """Exactly; and nerfstudio draws our rays."""
    from nvs_app.integrations.nerfstudio import cameras as convert

    intrinsics = torch.tensor([60.0, 50, 21.5, 13.25]) + torch.rand(COUNT, 4)
    ours = Cameras(c2w(), intrinsics, (30, 45))
    theirs = convert.to_nerfstudio(ours)
    back = convert.from_nerfstudio(theirs)
    assert torch.equal(back.c2w, ours.c2w) and torch.equal(back.fxfycxcy, ours.fxfycxcy) and back.image_hw == (30, 45)
    bundle = theirs.generate_rays(camera_indices=1, keep_shape=True)
    origins, directions = pixel_rays(ours[1])
    assert torch.allclose(bundle.origins.permute(2, 0, 1), origins, atol=1e-5)
    assert torch.allclose(bundle.directions.permute(2, 0, 1), directions, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.camera_type.fill_(2), "camera type fisheye"),
        (lambda c: setattr(c, "distortion_params", torch.full((COUNT, 6), 0.1)), "lens distortion"),
        (lambda c: c.height.__setitem__(1, 31), r"cameras of sizes \[\(30, 45\), \(31, 45\)\]"),
    ],
)
def test_cameras_that_cannot_be_drawn(change: Callable, said: str) -> None:
    from nvs_app.integrations.nerfstudio import cameras as convert

    theirs = convert.to_nerfstudio(Cameras(c2w(), torch.full((COUNT, 4), 20.0), (30, 45)))
    change(theirs)
    with pytest.raises(NVSError, match=said):
        convert.from_nerfstudio(theirs)


def test_images_of_another_size_than_calibrated(tmp_path: Path) -> None:
    folder = nerfstudio_scene(tmp_path / "scene")
    draw(folder / "images/2.png", (24, 32), 0)
    with pytest.raises(NVSError, match="2.png: 32x24 pixels, its camera says 64x48"):
        compare(parsed(folder), folder, folder)


@pytest.mark.parametrize(
    ("stored", "size", "fitted"),
    [
        ((480, 640), 256, (192, 256)),
        ((1080, 1920), 256, (144, 256)),
        ((64, 64), 256, (64, 64)),
        ((300, 200), 128, (128, 88)),
    ],
)
def test_sizes(stored: tuple[int, int], size: int, fitted: tuple[int, int]) -> None:
    from nvs_app.integrations.nerfstudio.data import fit_image_hw

    assert fit_image_hw(stored, size) == fitted


# The world frame


def test_frame_files(tmp_path: Path) -> None:
    """A run of another method: what its dataparser did, from the coordinates of transforms.json on."""
    folder = nerfstudio_scene(
        tmp_path / "scene", applied_transform=[[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0.5]], applied_scale=0.25
    )
    outputs = parsed(folder)
    run = tmp_path / "run"
    outputs.save_dataparser_transform(run / DATAPARSER_FILE)
    frame = read_frame(run, folder)
    opened = open_scene(folder).cameras()
    moved = opencv_to_opengl(to_nerfstudio(frame, opened).c2w)[:, :3].float()
    assert torch.allclose(moved, outputs.cameras.camera_to_worlds, atol=1e-5)
    assert torch.allclose(to_scene(frame, to_nerfstudio(frame, opened)).c2w, opened.c2w, atol=1e-5)
    write_frame(run / FRAME_FILE, frame)
    (run / "config.yml").write_text("")
    for path in (run, run / "config.yml", run / FRAME_FILE):
        read = read_frame(path)  # needs no scene
        assert torch.allclose(read.translation, frame.translation, atol=1e-12) and not is_identity(read)
    same = frame_of(torch.eye(4)[:3], 1.0)
    assert is_identity(same) and to_scene(same, opened) is opened


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no nerfstudio frame there"),
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "not a nerfstudio frame"),
        ('{"transform": [[1, 0], [0, 1]], "scale": 1}', "expected 3 rows of 4 numbers"),
        ('{"transform": [[1,0,0,0],[0,1,0,0],[0,0,1,0]], "scale": 0}', "no similarity"),
        ('{"transform": [[1,0,0,0],[0,1,0,0],[0,0,-1,0]], "scale": 1}', "no similarity"),
    ],
)
def test_frames_that_are_none(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / FRAME_FILE).write_text(content)
    with pytest.raises(NVSError, match=said) as error:
        read_frame(tmp_path)
    assert "\n" not in str(error.value)


# What the surroundings lack


def test_ffmpeg_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    provide_ffmpeg.cache_clear()
    try:
        program = provide_ffmpeg()
        assert program and os.environ["PATH"].endswith(str(Path(program).parent))
        shown = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60, check=True)
        assert shown.stdout.startswith("ffmpeg version")
    finally:
        provide_ffmpeg.cache_clear()


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_torchvision_imports_after_the_declaration(repo: Path) -> None:
    """Beside a CPU build of torch it does not without, with PyPI's build; elsewhere nothing is declared."""
    alone = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "PYTHONPATH": str(repo)}
    bare = python("import torchvision", **alone)
    code = "from nvs_app.torchvision_ops import declare; print(declare(), declare()); import torchvision.ops"
    done = python(code, **alone)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(bare.returncode != 0), "False"]
    # Installed, the entry point does it: no line of ours is in this program.
    installed = python("import torchvision.ops", TORCH_DEVICE_BACKEND_AUTOLOAD="1")
    assert installed.returncode == 0, installed.stderr


def test_nerfstudios_own_script_knows_the_method() -> None:
    """The bare `ns-train`, as a user types it."""
    script = Path(sys.executable).with_name("ns-train")
    if not script.is_file():
        pytest.skip("nerfstudio's scripts are not beside this Python")
    done = subprocess.run(
        [sys.executable, script, "lact", "--help"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "--pipeline.model.checkpoint" in done.stdout and "--pipeline.datamanager.num-context" in done.stdout
