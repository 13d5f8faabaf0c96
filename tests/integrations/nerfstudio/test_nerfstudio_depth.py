"""Depth through nerfstudio's own commands: a run of a network with a detail head, ns-render, ns-eval.

What its outputs are in nerfstudio's frame, test_nerfstudio.py compares ray by ray.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_scenes import HEAD, write_scenes
from PIL import Image

from data_tools.readers import open_scene
from nvs_app.integrations.nerfstudio.__main__ import main as nerfstudio
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:nerfstudio.*", "ignore::FutureWarning", "ignore::DeprecationWarning:viser.*"
)


@pytest.fixture(scope="module", autouse=True)
def work(tmp_path_factory: pytest.TempPathFactory):
    """Scenes, checkpoints and a run."""
    folder = tmp_path_factory.mktemp("nerfstudio_depth")
    write_scenes(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NVS_CHECKPOINTS", str(folder / "checkpoints"))
        patch.setattr("nvs_app.rendering.renderer.fast_bfloat16", lambda device: False)
        patch.chdir(folder)
        words = ["train", "--data", folder / "one", "--output-dir", folder / "out", "--timestamp", "t"]
        words += ["--vis", "tensorboard", "--pipeline.model.checkpoint", "detailed"]
        words += ["--pipeline.datamanager.num-context", "3", "--pipeline.datamanager.image-size", "48"]
        words += ["nerfstudio-data", "--train-split-fraction", "0.5"]
        assert nerfstudio(list(map(str, words))) == 0
        yield folder


@pytest.fixture(scope="module")
def run(work: Path) -> Path:
    return work / "out" / "one" / "lact" / "t"


def test_a_run_keeps_what_the_head_looks_at(run: Path) -> None:
    assert f"look_at: {HEAD.views}" in (run / "config.yml").read_text()
    state = SceneState.load(run / "scene_state.safetensors")
    assert state.context is not None and state.context.images.dtype == torch.uint8
    saved = torch.load(run / "nerfstudio_models" / "step-000000000.ckpt", weights_only=True)
    assert "context.features" in saved["pipeline"]["_model._extra_state"]["tensors"]


def test_ns_render_writes_depth(run: Path, work: Path) -> None:
    """`raw-depth` is distance along the ray in the units of the scene: nerfstudio takes its scale out."""
    out = work / "set"
    words = ["render", "dataset", "--load-config", run / "config.yml", "--output-path", out, "--image-format", "png"]
    words += ["--rendered-output-names", "rgb", "depth", "raw-depth", "accumulation"]
    assert nerfstudio(list(map(str, words))) == 0
    files = sorted((out / "test" / "raw-depth").glob("*.npy.gz"))
    assert len(files) == 3
    scene = open_scene(work / "one")
    renderer = Renderer.from_checkpoint("detailed", "cpu", "fp32")
    state = SceneState.load(run / "scene_state.safetensors")
    for file in files:
        name = file.name.removesuffix(".npy.gz")
        found = np.load(gzip.open(file))[..., 0]
        height, width = found.shape
        target = scene.load([[path.stem for path in scene.image_paths].index(name)], (height, width))
        views = renderer.render(state, target.cameras, depth=True)
        fx, fy, cx, cy = target.cameras.fxfycxcy[0].tolist()
        x, y = (np.arange(width) + 0.5 - cx) / fx, (np.arange(height)[:, None] + 0.5 - cy) / fy
        expected = views.depth[0].numpy() * np.sqrt(1 + x**2 + y**2)
        surface = views.surface[0].numpy() > 0.505
        assert surface.any() and np.allclose(found[surface], expected[surface], rtol=0.01)
        for kind in ("rgb", "depth", "accumulation"):
            image = np.asarray(Image.open(out / "test" / kind / f"{name}.png").convert("RGB"))
            assert image.shape == (height, width, 3)


def test_ns_eval_and_camera_paths(run: Path, work: Path) -> None:
    assert nerfstudio(["eval", "--load-config", str(run / "config.yml"), "--output-path", str(work / "e.json")]) == 0
    words = ["render", "spiral", "--load-config", str(run / "config.yml"), "--output-path", str(work / "s.mp4")]
    assert nerfstudio([*words, "--seconds", "0.1", "--rendered-output-names", "rgb", "depth"]) == 0
    assert (work / "s.mp4").is_file()
