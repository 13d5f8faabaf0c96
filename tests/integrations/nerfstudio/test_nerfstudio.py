"""The method `lact` in nerfstudio: train, eval, render and view through nerfstudio's own entry points.

One run of nerfstudio's trainer with a tiny network serves all tests; the scene is a bundled one.
"""

from __future__ import annotations

import copy
import json
import re
import shlex
import threading
import urllib.request
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.cli import main as data_tools
from data_tools.readers import open_scene
from nvs_app.cli import main as nvs
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import opencv_to_opengl
from nvs_app.geometry.paths import orbit
from nvs_app.integrations.nerfstudio.__main__ import main as nerfstudio
from nvs_app.integrations.nerfstudio.__main__ import prepare
from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.config import PRESETS, LaCTConfig
from nvs_app.model.detail import DetailHeadConfig
from nvs_app.model.lact import LaCT
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.camera_path import read_camera_path
from nvs_app.scenes.images import to_uint8
from nvs_app.scenes.nerfstudio_frame import is_identity, read_frame, to_nerfstudio

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:nerfstudio.*", "ignore::FutureWarning", "ignore::DeprecationWarning:viser.*"
)
SIZE = 64
HEAD = DetailHeadConfig(features=8, groups=4, guide=16, volume=4, blend=8, planes=4, fine_planes=3)
WITH_HEAD = LaCTConfig(dim=32, blocks=2, attention_head_dim=16, detail_head=HEAD)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for checkpoints, scenes and runs. The networks are tiny and random, what begins at zero too, so that
    images are not all grey; that of `detailed` has a detail head."""
    folder = tmp_path_factory.mktemp("nerfstudio")
    for name in ("plain", "as_given", "detailed"):
        torch.manual_seed(0)
        config = WITH_HEAD if name == "detailed" else PRESETS["tiny"]
        model = LaCT(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)
        card: dict = {"normalization": "object" if name == "as_given" else "auto", "train_image_hw": [SIZE, SIZE]}
        card["lact_resolution"] = {"least": 32}
        save_checkpoint(folder / "checkpoints" / name, model.state_dict(), config, card)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _environment(work: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NVS_CHECKPOINTS", str(work / "checkpoints"))
        patch.delenv("NVS_LPIPS_WEIGHTS", raising=False)
        patch.chdir(work)
        # Cameras that went through nerfstudio's frame differ in their last bit, which float32 hides in the pixels
        # and bfloat16, where a CPU is fast at it, does not.
        patch.setattr("nvs_app.rendering.renderer.fast_bfloat16", lambda device: False)
        yield


@pytest.fixture(scope="module")
def scene(work: Path, repo: Path) -> Path:
    """The bundled chair, converted by this project."""
    source = repo / "examples" / "object_chair"
    assert data_tools(["convert", str(source), str(work / "chair"), "--max-views", "30"]) == 0
    return work / "chair"


@pytest.fixture(scope="module")
def run(work: Path, scene: Path) -> Path:
    """The folder of a run of `ns-train lact`, with the dataparser's defaults (turned, centred and scaled)."""
    words = ["train", "--data", scene, "--output-dir", work / "out", "--timestamp", "t", "--vis", "tensorboard"]
    assert nerfstudio([*map(str, words), "--pipeline.model.checkpoint", "plain"]) == 0
    return work / "out" / "chair" / "lact" / "t"


@pytest.fixture(scope="module")
def pipeline(run: Path):
    """The run as nerfstudio loads it."""
    from nerfstudio.utils.eval_utils import eval_setup

    return eval_setup(run / "config.yml")[1]


def images(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def test_the_installed_project_is_found() -> None:
    """By nerfstudio's own registry; and torch calls the declaration that lets nerfstudio import torchvision."""
    prepare()
    from nerfstudio.plugins.registry import discover_methods

    assert "lact" in entry_points(group="nerfstudio.method_configs").names, "not installed: run make setup"
    assert "nvs_app_torchvision_ops" in entry_points(group="torch.backends").names, "not installed: run make setup"
    configs, descriptions = discover_methods()
    assert configs["lact"].max_num_iterations == 1 and "views" in descriptions["lact"]


def test_train_leaves_a_run(run: Path, scene: Path) -> None:
    """nerfstudio's files, with the defaults resolved, and ours; the checkpoint holds tensors and text only."""
    config = (run / "config.yml").read_text()
    assert re.search(r"checkpoint: plain\b", config) and re.search(rf"image_size: {SIZE}\b", config)
    assert re.search(r"detail: true\b", config) and re.search(r"look_at: null\b", config)  # it has no head
    saved = torch.load(run / "nerfstudio_models" / "step-000000000.ckpt", weights_only=True)
    extra = saved["pipeline"]["_model._extra_state"]
    state = SceneState.load(run / "scene_state.safetensors")
    assert all(torch.equal(value, state.tensors()[name]) for name, value in extra["tensors"].items())
    names = state.meta["context_images"].splitlines()
    assert len(set(names)) == 8 and all(Path(name).is_relative_to(scene) for name in names)
    assert not is_identity(read_frame(run))


def test_runs_of_the_former_module_names_load(run: Path, work: Path) -> None:
    """config.yml names our classes by their modules."""
    from nerfstudio.utils.eval_utils import eval_setup

    former = (run / "config.yml").read_text().replace("nvs_app.integrations.nerfstudio.", "nvs_app.nerfstudio_plugin.")
    assert "nvs_app.nerfstudio_plugin.model" in former
    (work / "former.yml").write_text(former)
    assert eval_setup(work / "former.yml")[0] == eval_setup(run / "config.yml")[0]


def test_eval_gives_our_own_figures(run: Path, work: Path, scene: Path, pipeline, capsys) -> None:
    """ns-eval's figures are those of `python -m nvs_app eval` for the same held-out views: with the views listed as
    `views` prints them, and with the targets listed and the context chosen as ever."""
    assert nerfstudio(["eval", "--load-config", str(run / "config.yml"), "--output-path", str(work / "e.json")]) == 0
    theirs = json.loads((work / "e.json").read_text())["results"]
    capsys.readouterr()
    assert nerfstudio(["views", str(run / "config.yml")]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[:3] == ["python", "-m", "nvs_app"]
    targets = words[words.index("--target-views") + 1]
    held_out = {path.name for path in pipeline.datamanager.eval_dataset.image_filenames}
    assert {open_scene(scene).image_paths[int(i)].name for i in targets.split(",")} == held_out and len(held_out) == 2
    chosen = ["eval", str(scene), "--target-views", targets, "--context", "8", "--checkpoint", "plain"]
    for command in (words[3:], chosen):
        assert nvs([*command, "--json", str(work / "ours.json")]) == 0
        ours = json.loads((work / "ours.json").read_text())["overall"]
        assert theirs["psnr"] == pytest.approx(ours["psnr"], abs=1e-4)
        assert theirs["ssim"] == pytest.approx(ours["ssim"], abs=1e-5)
    assert theirs["psnr_std"] > 0


@pytest.mark.parametrize(
    ("checkpoint", "look_at", "method", "scale"),
    [
        ("plain", None, "pca", 3.0),
        ("as_given", None, "up", 0.2),
        ("detailed", None, "up", 0.2),
        ("detailed", 1, "pca", 3.0),
    ],
)
def test_the_dataparsers_frame_does_not_matter(
    checkpoint: str, look_at: int | None, method: str, scale: float, scene: Path
) -> None:
    """However a dataparser turns, centres and scales, the network sees the scene as in its own frame: also where the
    network wants it as given, and a turn or scale would show. Depth comes out in nerfstudio's frame."""
    from nvs_app.integrations.nerfstudio.method import lact

    config = copy.deepcopy(lact.config.pipeline)
    config.model.checkpoint = checkpoint
    config.model.look_at = look_at
    config.datamanager.data = scene
    config.datamanager.dataparser.orientation_method = method
    config.datamanager.dataparser.scale_factor = scale
    pipeline = config.setup(device="cpu", test_mode="test")
    state = pipeline.model.encoded()
    opened = open_scene(scene)
    names = state.meta["context_images"].splitlines()
    indices = [[str(path) for path in opened.image_paths].index(name) for name in names]
    renderer = Renderer.from_checkpoint(checkpoint, "cpu", views=look_at)
    expected = renderer.encode(opened.load(indices, (SIZE, SIZE)))
    assert renderer.detail == (checkpoint == "detailed")
    assert config.model.look_at == ((look_at or HEAD.views) if renderer.detail else None)  # resolved
    assert state.transform is not None and expected.transform is not None
    assert torch.allclose(state.transform.translation, expected.transform.translation, atol=1e-5)
    assert torch.allclose(state.transform.rotation, expected.transform.rotation, atol=1e-5)
    camera, batch = pipeline.datamanager.fixed_indices_eval_dataloader.get_camera(0)
    index = [path.name for path in opened.image_paths].index(pipeline.datamanager.eval_dataset.image_filenames[0].name)
    target = opened.load([index], (SIZE, SIZE))
    assert torch.equal(batch["image"].permute(2, 0, 1), target.images[0])
    assert (camera.camera_to_worlds[0, :, 3] - opencv_to_opengl(target.cameras.c2w)[0, :3, 3]).abs().max() > 0.1
    outputs = pipeline.model.get_outputs_for_camera(camera)
    rendered = outputs["rgb"].permute(2, 0, 1)
    if not renderer.detail:
        assert torch.allclose(rendered, renderer.render(expected, target.cameras)[0], atol=1e-4)
        assert list(outputs) == ["rgb"]
        return
    assert list(outputs) == ["rgb", "depth", "accumulation"]
    assert all(values.shape[:2] == (SIZE, SIZE) and values.shape[2] in (1, 3) for values in outputs.values())
    views = renderer.render(expected, target.cameras, depth=True)
    assert torch.allclose(rendered, views.images[0], atol=2e-3)
    assert torch.allclose(outputs["accumulation"][..., 0], (views.surface * views.seen)[0], atol=2e-3)
    # A point at that distance along nerfstudio's own ray is ours at that depth, in nerfstudio's frame.
    bundle = camera.generate_rays(camera_indices=0, keep_shape=True)
    theirs = (bundle.origins + bundle.directions * outputs["depth"]).reshape(-1, 3)
    ours = pipeline.datamanager.frame.to("cpu", torch.float32).apply_points(points_of(target.cameras, views.depth))
    surface = (views.surface[0] > 0.51).reshape(-1)
    assert surface.any() and (theirs - ours)[surface].abs().max() < 0.01 * theirs.abs().max()
    assert torch.all(outputs["depth"].reshape(-1)[views.surface[0].reshape(-1) < 0.49] == outputs["depth"].max())


def points_of(cameras, depth: torch.Tensor) -> torch.Tensor:
    """The points [h * w, 3] of one view's depth map [1, h, w]."""
    fx, fy, cx, cy = cameras.fxfycxcy[0]
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    local = torch.stack([(x - cx) / fx, (y - cy) / fy, torch.ones_like(x)], -1) * depth[0, ..., None]
    c2w = cameras.c2w[0].to(local.dtype)
    return local.reshape(-1, 3) @ c2w[:3, :3].T + c2w[:3, 3]


def viewer_path(cameras, image_hw: tuple[int, int]) -> dict:
    """The file that nerfstudio's viewer writes ("Generate Command"), for cameras in its own frame."""
    height, width = image_hw
    poses = opencv_to_opengl(cameras.c2w).double()
    entries = [
        {"camera_to_world": pose.flatten().tolist(), "fov": 40.0 + 0.377 * i, "aspect": width / height}
        for i, pose in enumerate(poses)
    ]
    return {
        "default_fov": 40.0,
        "default_transition_sec": 0.5,
        "keyframes": [],
        "camera_type": "perspective",
        "render_height": height,
        "render_width": width,
        "fps": 24,
        "seconds": len(entries) / 24,
        "is_cycle": False,
        "smoothness_value": 0.5,
        "camera_path": entries,
    }


def ns_render_path(run: Path, path: Path, out: Path) -> list[np.ndarray]:
    words = ["render", "camera-path", "--load-config", run / "config.yml", "--camera-path-filename", path]
    words += ["--output-path", out, "--output-format", "images", "--image-format", "png"]
    assert nerfstudio(list(map(str, words))) == 0
    return images(out)


def test_a_path_of_the_viewer_renders_here(run: Path, scene: Path, work: Path) -> None:
    """Pixel by pixel what ns-render makes of it, at a size that is no multiple of a patch."""
    cameras = to_nerfstudio(read_frame(run), orbit(open_scene(scene).cameras(), 4))
    (work / "viewer.json").write_text(json.dumps(viewer_path(cameras, (44, 61))))
    theirs = ns_render_path(run, work / "viewer.json", work / "theirs")
    words = ["render", "--state", run / "scene_state.safetensors", "--path", work / "viewer.json", "--path-frame", run]
    assert nvs([*map(str, words), "--checkpoint", "plain", "--out", str(work / "ours")]) == 0
    ours = images(work / "ours")
    assert len(ours) == len(theirs) == 4 and ours[0].shape == (44, 61, 3) and ours[0].std() > 1
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


def test_a_path_made_here_renders_there(run: Path, scene: Path, work: Path) -> None:
    """`--save-path --path-frame RUN` writes it in the run's world; ns-render and we draw the same pixels from the
    file, and the ones that we drew from the cameras themselves but for their rounding in the file."""
    state = ["--state", str(run / "scene_state.safetensors"), "--checkpoint", "plain", "--path-frame", str(run)]
    size = ["--frames", "3", "--image-hw", "40", "56"]
    save = ["--save-path", str(work / "made.json"), "--out", str(work / "made")]
    assert nvs(["render", str(scene), *state, "--path", "orbit", *size, *save]) == 0
    assert nvs(["render", *state, "--path", str(work / "made.json"), "--out", str(work / "again")]) == 0
    theirs = ns_render_path(run, work / "made.json", work / "made_theirs")
    made, again = images(work / "made"), images(work / "again")
    assert len(theirs) == 3 and all(np.array_equal(a, b) for a, b in zip(again, theirs))
    assert max(np.abs(a.astype(int) - b.astype(int)).max() for a, b in zip(made, theirs)) <= 1
    # What "Load Path" in the viewer reads.
    content = json.loads((work / "made.json").read_text())
    assert [len(key["matrix"]) for key in content["keyframes"]] == [16] * 3 and content["default_fov"] > 0
    assert len(read_camera_path(work / "made.json").keyframes) == 3


def test_other_renders(run: Path, work: Path, pipeline) -> None:
    """ns-render dataset, interpolate and spiral; without a system ffmpeg too."""
    config = ["--load-config", str(run / "config.yml"), "--output-path"]
    assert nerfstudio(["render", "dataset", *config, str(work / "set"), "--image-format", "png"]) == 0
    data = pipeline.datamanager
    for index, name in enumerate(path.with_suffix(".png").name for path in data.eval_dataset.image_filenames):
        camera, batch = data.fixed_indices_eval_dataloader.get_camera(index)
        drawn = to_uint8(pipeline.model.get_outputs_for_camera(camera)["rgb"].permute(2, 0, 1)).numpy()
        assert np.array_equal(np.asarray(Image.open(work / "set/test/rgb" / name).convert("RGB")), drawn)
        photo = (batch["image"].numpy() * 255 + 0.5).astype(np.uint8)
        assert np.array_equal(np.asarray(Image.open(work / "set/test/gt-rgb" / name).convert("RGB")), photo)
    assert nerfstudio(["render", "interpolate", *config, str(work / "i.mp4"), "--interpolation-steps", "4"]) == 0
    assert nerfstudio(["render", "spiral", *config, str(work / "s.mp4"), "--seconds", "0.1"]) == 0
    for video, frames in (("i.mp4", 4), ("s.mp4", 2)):
        assert iio.imread(work / video).shape == (frames, SIZE, SIZE, 3)


def test_the_viewer_serves_a_image(run: Path, pipeline) -> None:
    """nerfstudio's viewer starts on the run; its render thread asks the model for an image and sends it."""
    from nerfstudio.configs.base_config import ViewerConfig
    from nerfstudio.viewer.render_state_machine import RenderStateMachine
    from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer

    config = ViewerConfig(websocket_host="127.0.0.1", max_num_display_images=2)
    viewer = Viewer(config, run / "viewer_log.txt", run, pipeline, train_lock=threading.Lock())
    try:
        viewer.init_scene(pipeline.datamanager.train_dataset, "completed", pipeline.datamanager.eval_dataset)
        (address,) = re.findall(r"http://\S+", viewer.viewer_info[0])
        page = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=20)
        assert page.status == 200
        sent: list[tuple[np.ndarray, dict]] = []
        client = SimpleNamespace(
            camera=SimpleNamespace(aspect=1.5),
            scene=SimpleNamespace(set_background_image=lambda image, **options: sent.append((image, options))),
        )
        machine = RenderStateMachine(viewer, VISER_NERFSTUDIO_SCALE_RATIO, client)
        viewer.control_panel._max_res.value = 96
        camera = pipeline.datamanager.eval_dataset.cameras[0]
        state = SimpleNamespace(
            fov=0.7, aspect=1.5, c2w=camera.camera_to_worlds, camera_type=type_of(camera), time=0.0, idx=0
        )
        machine.state = "high"
        outputs = machine._render_img(state)
        assert outputs["rgb"].shape == (64, 96, 3) and list(outputs) == ["rgb", "gl_z_buf_depth"]
        machine._send_output_to_viewer(outputs)
        ((image, options),) = sent
        assert image.shape == (64, 96, 3) and image.std() > 1
        # Behind the cameras that the viewer draws, in front of the end of its world.
        assert 10 < options["depth"].min() / VISER_NERFSTUDIO_SCALE_RATIO < 51
    finally:
        viewer.viser_server.stop()


def type_of(camera):
    from nerfstudio.cameras.cameras import CameraType

    return CameraType(int(camera.camera_type))


def told(capsys, words: list[object]) -> str:
    """The last line that a mistake leaves; exit code 2."""
    capsys.readouterr()
    assert nerfstudio([str(word) for word in words]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: setattr(d, "data", d.data / "absent"), "--data .*absent: does not exist"),
        (lambda d: setattr(d, "data", d.data / "images"), "holds no transforms.json; name the dataparser"),
        (lambda d: setattr(d, "num_context", 0), "num_context: 0, expected a view or more"),
        (lambda d: setattr(d, "image_size", 4), "image_size 4: photos of .* sides of 16 or more"),
        (lambda d: setattr(d, "context_views", (0, 99)), "context view 99 does not exist"),
        (lambda d: setattr(d, "context_views", (1, 1)), "context view 1 is listed twice"),
    ],
)
def test_mistakes_in_options(change: Callable, said: str, scene: Path) -> None:
    from nvs_app.integrations.nerfstudio.method import lact

    config = copy.deepcopy(lact.config.pipeline)
    config.model.checkpoint = "plain"
    config.datamanager.data = scene
    change(config.datamanager)
    with pytest.raises(NVSError, match=said):
        config.setup(device="cpu", test_mode="test").model.encoded()


def test_mistakes_are_one_line(run: Path, work: Path, scene: Path, capsys) -> None:
    assert "absent.yml: No such file" in told(capsys, ["eval", "--load-config", work / "absent.yml"])
    assert "expected the config.yml of a run" in told(capsys, ["views", work / "absent.yml"])
    train = ["train", "--data", scene, "--output-dir", work / "bad", "--pipeline.model.checkpoint", "none"]
    assert "checkpoint none: not found" in told(capsys, train)
    assert not (work / "bad").exists()
