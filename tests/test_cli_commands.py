"""The command line in child processes: what it writes, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.readers import open_scene
from nvs_app.cli import main
from nvs_app.engine.metrics import psnr
from nvs_app.engine.renderer import Renderer
from nvs_app.geometry.cameras import look_at
from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.model.state import SceneState
from nvs_app.scenes.camera_path import read_camera_path
from nvs_app.scenes.scene import Scene

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small scenes, a broken one, and one tiny checkpoint of random weights."""
    folder = tmp_path_factory.mktemp("cli with a space")
    torch.manual_seed(0)
    config = PRESETS["tiny"]
    card = {"normalization": "auto", "train_image_hw": [32, 32]}
    save_checkpoint(folder / "checkpoints" / "tiny", LaCT(config).state_dict(), config, card)
    for name in ("one", "two"):
        pictures = folder / "pictures" / name
        pictures.mkdir(parents=True)
        for index in range(6):
            Image.fromarray(np.random.default_rng(index).integers(0, 255, (36, 48, 3), np.uint8)).save(
                pictures / f"{index:03d}.png"
            )
        angle = torch.linspace(0, 5, 6)
        eye = torch.stack((3 * angle.cos(), 3 * angle.sin(), torch.ones(6)), -1)
        Scene(
            name=name,
            root=pictures,
            image_paths=sorted(pictures.glob("*.png")),
            c2w=look_at(eye, torch.zeros(6, 3), torch.tensor([0.0, 0, 1]).expand(6, 3)),
            fxfycxcy=torch.tensor([50.0, 50.0, 24.0, 18.0]).expand(6, 4).clone(),
            image_hws=torch.tensor([[36, 48]]).expand(6, 2).clone(),
            split=[None] * 6,
        ).save(folder / name)
    (folder / "broken").mkdir()
    (folder / "broken" / "transforms.json").write_text('{"frames": [{"file_path": "a.png"}]}')
    return folder


def start(folder: Path, *words: object, **options: object) -> subprocess.Popen:
    environment = {**os.environ, "NVS_CHECKPOINTS": str(folder / "checkpoints"), "OMP_NUM_THREADS": "1"}
    environment.pop("NVS_LPIPS_WEIGHTS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "nvs_app", *map(str, words)],
        cwd=REPO,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def cli(folder: Path, *words: object, code: int = 0) -> tuple[str, str]:
    child = start(folder, *words)
    out, err = child.communicate(timeout=120)
    assert child.returncode == code, f"exit {child.returncode}\n{out}\n{err}"
    assert "Traceback" not in err
    return out, err


@pytest.fixture
def here(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    """As `cli`, but in this process: a child spends two seconds on importing torch."""
    monkeypatch.setenv("NVS_CHECKPOINTS", str(folder / "checkpoints"))
    monkeypatch.delenv("NVS_LPIPS_WEIGHTS", raising=False)

    def run(*words: object, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        try:
            found = main([str(word) for word in words])
        except SystemExit as exit_:  # argparse ends the process itself
            found = exit_.code
        out, err = capsys.readouterr()
        assert found == code, f"exit {found}\n{out}\n{err}"
        return out, err

    return run


def frames_of(path: Path) -> list[np.ndarray]:
    import imageio.v3 as iio

    return list(iio.imiter(path, plugin="FFMPEG" if path.suffix == ".mp4" else "pillow"))


def test_eval_writes_figures_and_goes_on_after_a_broken_scene(folder: Path, tmp_path: Path) -> None:
    report_file, strips = tmp_path / "new" / "eval.json", tmp_path / "strips"
    out, err = cli(
        folder,
        *("eval", folder / "one", folder / "broken", folder / "two", "--context", 3, "--image-hw", 32, 40),
        *("--json", report_file, "--side-by-side", strips),
        code=2,
    )
    assert "one" in out and "two" in out and "overall" in out and "LPIPS not measured" in out
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "broken" in errors[0]
    report = json.loads(report_file.read_text())
    assert set(report["scenes"]) == {"one", "two"} and set(report["failed"]) == {"broken"}
    assert report["image_hw"] == [32, 40] and report["num_context"] == 3
    assert report["checkpoint"]["name"] == "tiny" and len(report["checkpoint"]["hash"]) == 64
    one = report["scenes"]["one"]
    assert one["seed"] == 0 and one["mode"] == "spread"
    assert len(one["context"]) == 3 and sorted(one["context"] + one["target"]) == list(range(6))
    assert [view["index"] for view in one["views"]] == one["target"]
    assert one["psnr"] == pytest.approx(np.mean([view["psnr"] for view in one["views"]]))
    both = [report["scenes"][name]["psnr"] for name in ("one", "two")]
    assert report["overall"]["psnr"] == pytest.approx(np.mean(both))
    assert "ssim" in report["overall"] and set(one["baselines"]) == {"white", "mean_colour", "nearest_view"}
    # nearest | rendering | photo | error, with gaps of 4
    assert Image.open(strips / "one" / f"view_{one['target'][0]:04d}.png").size == (4 * 40 + 3 * 4, 32)
    assert not list(tmp_path.rglob(".*tmp"))


def test_eval_says_before_the_work_that_its_figures_cannot_be_kept(folder: Path, tmp_path: Path, here) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "eval.json", tmp_path):
        # The scene does not exist either: had the work begun, that would be the message.
        _, err = here("eval", folder / "absent", "--json", target, code=2)
        assert err.startswith(f"error: --json {target}: cannot be written (") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_eval_listed_views(folder: Path, tmp_path: Path, here) -> None:
    report_file = tmp_path / "eval.json"
    here(
        *("eval", folder / "one", "--context-views", "0,4", "--target-views", "1-3", "--json", report_file),
        *("--checkpoint", folder / "checkpoints" / "tiny", "--device", "cpu"),
    )
    one = json.loads(report_file.read_text())["scenes"]["one"]
    assert one["context"] == [0, 4] and one["target"] == [1, 2, 3] and one["mode"] == "listed"


def test_render_mp4_state_and_skip(folder: Path, tmp_path: Path, here) -> None:
    film, state, path = tmp_path / "out.mp4", tmp_path / "one.safetensors", tmp_path / "path.json"
    out, _ = cli(
        folder,
        *("render", folder / "one", "--context", 3, "--frames", 5, "--image-hw", 33, 47),
        *("--out", film, "--state", state, "--save-path", path, "--fps", 10, "--fov", 50),
    )
    assert "5 pictures of 33x47" in out and "encoded 3 views" in out
    frames = frames_of(film)
    assert len(frames) == 5 and frames[0].shape == (34, 48, 3)  # H.264 wants even sides
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name or "tmp" in p.name] == []
    before = film.stat().st_mtime_ns
    out, _ = here("render", folder / "one", "--out", film)
    assert "skipped" in out and film.stat().st_mtime_ns == before

    # The state alone, along the path that was written, gives the same film without any picture.
    again = tmp_path / "again.mp4"
    assert len(read_camera_path(path).cameras) == 5
    out, _ = here("render", "--state", state, "--path", path, "--out", again)
    assert "state from" in out
    assert all(np.abs(a.astype(int) - b).mean() < 1 for a, b in zip(frames, frames_of(again), strict=True))
    # Also around the cameras that it remembers.
    gif = tmp_path / "spiral.gif"
    here("render", "--state", state, "--path", "spiral", "--frames", 3, "--out", gif, "--fov", 40)
    assert len(frames_of(gif)) == 3


def test_render_folder_resumes(folder: Path, tmp_path: Path, here) -> None:
    target = tmp_path / "pictures"
    words = ("render", folder / "one", "--context", 3, "--frames", 4, "--path", "capture", "--out", target)
    here(*words)
    names = [f"{index:05d}.png" for index in range(4)]
    assert sorted(p.name for p in target.iterdir()) == [*names, "render.json"]
    first = (target / names[2]).read_bytes()
    (target / names[2]).unlink()
    kept = (target / names[1]).stat().st_mtime_ns
    out, _ = here(*words)
    assert "(3 were there)" in out
    assert (target / names[2]).read_bytes() == first and (target / names[1]).stat().st_mtime_ns == kept
    out, _ = here(*words)
    assert "all 4 pictures" in out and "skipped" in out
    # Another path into the same folder would mix two films.
    _, err = here(*words[:-4], "--path", "orbit", "--out", target, code=2)
    assert err.startswith("error: ") and "rendered with another" in err
    # A user's own pictures are never taken for ours.
    own = tmp_path / "own"
    own.mkdir()
    (own / "00000.png").write_bytes(first)
    _, err = here(*words[:-1], own, code=2)
    assert "another origin" in err


def eval_with(folder: Path, here, option: str, values: tuple[int, int], shown: str, other: Renderer) -> None:
    """`eval` without and with a way of drawing: named in the report and the table, the figures those of `other`."""
    report_file, found = folder / "eval.json", {}
    for value in values:
        words = ("eval", folder / "one", "--context", 3, "--image-hw", 32, 40, "--json", report_file)
        out, _ = here(*words, f"--{option}", value)
        found[value] = json.loads(report_file.read_text())
        assert found[value][option.replace("-", "_")] == value and (shown in out) == (value == values[1])
    scene = open_scene(folder / "one")
    without, one = (found[value]["scenes"]["one"] for value in values)
    target = scene.load(one["target"], (32, 40))
    drawn = other.render(other.encode(scene.load(one["context"], (32, 40))), target.cameras)
    assert one["psnr"] == pytest.approx(float(psnr(drawn, target.images.float()).mean()), abs=1e-4)
    assert one["psnr"] != pytest.approx(without["psnr"], abs=1e-4)


def test_the_working_side_is_used_and_named(folder: Path, tmp_path: Path, here) -> None:
    """The figures are those of the renderer, and what was made with another working side is not gone on with."""
    state, target = tmp_path / "one.safetensors", tmp_path / "pictures"
    renderer = Renderer.from_checkpoint("tiny", "cpu", working_side=48)
    eval_with(folder, here, "working-side", (0, 48), "working side 48", renderer)

    words = ("render", folder / "one", "--context", 3, "--frames", 2, "--path", "capture", "--out", target)
    words += ("--context-hw", 33, 47, "--image-hw", 32, 40)
    here(*words, "--state", state, "--working-side", 48)
    assert json.loads((target / "render.json").read_text())["working_side"] == 48
    assert SceneState.load(state).meta["working_side"] == "48"
    (target / "00001.png").unlink()
    out, _ = here(*words, "--state", state, "--working-side", 48)  # from the state, where it was encoded before
    assert "(1 were there)" in out
    (target / "00001.png").unlink()
    out, _ = here(*words, "--working-side", 48)  # and encoded again: the same
    assert "(1 were there)" in out
    _, err = here(*words, code=2)
    assert "rendered with another context, working_side" in err


def test_grids_are_used_and_named(folder: Path, tmp_path: Path, here) -> None:
    target = tmp_path / "pictures"
    eval_with(folder, here, "grids", (1, 2), "two grids", Renderer.from_checkpoint("tiny", "cpu", grids=2))

    words = ("render", folder / "one", "--context", 3, "--frames", 2, "--path", "capture", "--out", target)
    here(*words, "--grids", 2)
    assert json.loads((target / "render.json").read_text())["grids"] == 2
    (target / "00001.png").unlink()
    assert "rendered with another grids" in here(*words, code=2)[1]
    assert "(1 were there)" in here(*words, "--grids", 2)[0]


def test_raw_is_used_and_named(folder: Path, tmp_path: Path, here) -> None:
    """Drawn once, with the borders of patches as they are; without it they are mended."""
    scene, words = open_scene(folder / "one"), ("eval", folder / "one", "--context", 3, "--image-hw", 32, 40)
    for raw in (False, True):
        out, _ = here(*words, "--json", tmp_path / "e.json", *(("--raw",) if raw else ("--grids", 1)))
        report = json.loads((tmp_path / "e.json").read_text())
        assert report["mended"] is not raw and report["grids"] == 1 and ("as drawn" in out) == raw
        one, renderer = report["scenes"]["one"], Renderer.from_checkpoint("tiny", "cpu", grids=1, mend=not raw)
        target = scene.load(one["target"], (32, 40))
        drawn = renderer.render(renderer.encode(scene.load(one["context"], (32, 40))), target.cameras)
        assert one["psnr"] == pytest.approx(float(psnr(drawn, target.images.float()).mean()), abs=1e-4)
    assert "not allowed with" in here(*words, "--raw", "--grids", 2, code=2)[1]

    words = ("render", folder / "one", "--context", 3, "--frames", 2, "--path", "capture", "--out", tmp_path / "out")
    here(*words, "--raw")
    (tmp_path / "out" / "00001.png").unlink()
    assert "rendered with another mended" in here(*words, "--grids", 1, code=2)[1]
    assert "(1 were there)" in here(*words, "--raw")[0]


def test_a_folder_of_before_the_working_side_is_gone_on_with(folder: Path, tmp_path: Path, here) -> None:
    words = ("render", folder / "one", "--context", 3, "--frames", 2, "--path", "capture", "--out", tmp_path / "out")
    words += ("--raw",)
    here(*words)
    notes = tmp_path / "out" / "render.json"
    old = json.loads(notes.read_text())
    assert old.pop("working_side") == 0 and old.pop("grids") == 1 and not old.pop("mended")
    notes.write_text(json.dumps(old))
    (tmp_path / "out" / "00001.png").unlink()
    assert "(1 were there)" in here(*words)[0]


def test_render_many_scenes(folder: Path, tmp_path: Path, here) -> None:
    words = ("render", folder / "one", folder / "broken", folder / "two", "--context", 99, "--frames", 2)
    _, err = here(*words, "--out", tmp_path / "film.mp4", code=2)
    assert "{scene}" in err
    out, err = here(*words, "--out", tmp_path / "{scene}.gif", code=2)
    assert "error: broken: " in err and err.count("error: ") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.gif", "two.gif"]
    assert "encoded 6 views" in out  # rendering holds nothing out, so 99 means all
    here("render", folder / "one", folder / "two", "--frames", 2, "--out", tmp_path / "all")
    assert sorted(p.name for p in (tmp_path / "all" / "two").iterdir()) == ["00000.png", "00001.png", "render.json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("render", "SCENE", "--out", "x.mp4", "--checkpoint", "absent"), "checkpoint absent: not found"),
        (("render", "SCENE", "--out", "x.avi"), "expected a name that ends in .mp4 or .gif"),
        (("render", "--out", "x.mp4"), "no SCENE given"),
        (("render", "SCENE", "--out", "x.mp4", "--path", "zigzag"), "expected orbit, spiral, capture or a camera"),
        (("render", "SCENE", "--out", "x.mp4", "--frames", "0"), "0: expected a whole number of 1 or more"),
        (("render", "SCENE", "--out", "x.mp4", "--context-views", "0,0"), "none of them twice"),
        (("eval", "/absent/scene"), "/absent/scene: no such file or folder"),
        (("eval", "SCENE", "--image-hw", "4", "4"), "expected 11 pixels or more"),
        (("eval", "SCENE", "--working-side", "-8"), "--working-side: -8: expected a whole number of 0 or more"),
        (("eval", "SCENE", "--device", "toaster"), "device: 'toaster'"),
        (("eval", "SCENE", "--context-views", "77"), "context view 77 does not exist"),
        (("eval", "SCENE", "--lpips", "/absent.pth"), "no such file"),
        (("dance",), "invalid choice: 'dance'"),
        ((), "required: COMMAND"),
    ],
)
def test_mistakes_get_one_line(folder: Path, tmp_path: Path, here, words: tuple[str, ...], said: str) -> None:
    words = tuple(str(folder / "one") if w == "SCENE" else w.replace("x.", f"{tmp_path}/x.") for w in words)
    _, err = here(*words, code=2)
    last = err.strip().splitlines()[-1]
    assert said in last and "error: " in last
    assert not list(tmp_path.iterdir())


def test_a_mistake_ends_the_process_with_2(folder: Path) -> None:
    out, err = cli(folder, "eval", "/absent/scene", code=2)
    assert err == "error: /absent/scene: no such file or folder\n" and out == ""


def test_help_names_every_command(folder: Path, here) -> None:
    out, _ = cli(folder, "--help")
    for command in ("render", "eval", "train", "weights", "benchmark-speed"):
        assert command in out
    out, _ = here("render", "--help")
    assert "--save-path" in out


def test_train_imports_no_face() -> None:
    """A machine that trains has no gradio and no encoder; the parser of another command imports neither."""
    code = (
        "import sys\n"
        "from nvs_app.cli import build_parser\n"
        "for command in ('weights', 'train'): build_parser(command)\n"
        "print([n for n in ('gradio', 'imageio', 'imageio_ffmpeg', 'nerfstudio') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_interrupt_leaves_nothing_half_written(folder: Path, tmp_path: Path) -> None:
    child = start(folder, "render", folder / "one", "--frames", 100000, "--out", tmp_path / "long.mp4")
    deadline = time.monotonic() + 60
    while not any("partial" in p.name for p in tmp_path.iterdir()) and time.monotonic() < deadline:
        assert child.poll() is None, child.communicate()
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_benchmark_speed(tmp_path: Path, here) -> None:
    file = tmp_path / "speed.json"
    out, _ = here("benchmark-speed", "--sizes", 16, 32, "--views", 2, "--repeats", 2, "--json", file)
    assert "encode 2 views 32x32" in out and "decode 1 view 16x16 " in out and "threads" in out
    assert "decode 1 view 16x16, drawn at 32x32 " in out  # as fine as what was written
    assert "decode 1 view 32x32, drawn twice" in out and "16x16, drawn at 32x32 twice" not in out
    figures = json.loads(file.read_text())["figures"]
    assert all(0 < f["best_ms"] <= f["median_ms"] for f in figures.values()) and len(figures) == 5
    here("benchmark-speed", "--sizes", 16, 32, "--views", 2, "--repeats", 1, "--json", file, "--working-side", 32)
    assert list(json.loads(file.read_text())["figures"]) == [
        "encode 2 views 32x32",
        "decode 1 view 16x16",
        "decode 1 view 16x16, drawn at 32x32",
        "decode 1 view 32x32",
        "decode 1 view 32x32, drawn twice",
    ]
