"""The command line in child processes: what it writes, what it prints, how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_scenes import REPO, cli, start
from PIL import Image

from data_tools.readers import open_scene
from nvs_app.evaluation.metrics import psnr
from nvs_app.model.state import SceneState
from nvs_app.rendering.renderer import Renderer
from nvs_app.scenes.camera_path import read_camera_path


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
    video, state, path = tmp_path / "out.mp4", tmp_path / "one.safetensors", tmp_path / "path.json"
    out, _ = cli(
        folder,
        *("render", folder / "one", "--context", 3, "--frames", 5, "--image-hw", 33, 47),
        *("--out", video, "--state", state, "--save-path", path, "--fps", 10, "--fov", 50),
    )
    assert "5 images of 33x47" in out and "encoded 3 views" in out
    frames = frames_of(video)
    assert len(frames) == 5 and frames[0].shape == (34, 48, 3)  # H.264 wants even sides
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name or "tmp" in p.name] == []
    # The state alone, along the path that was written, gives the same video without any photo.
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
    target = tmp_path / "images"
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
    assert "all 4 images" in out and "skipped" in out
    # Another path into the same folder would mix two videos.
    _, err = here(*words[:-4], "--path", "orbit", "--out", target, code=2)
    assert err.startswith("error: ") and "rendered with another" in err
    # A user's own images are never taken for ours.
    own = tmp_path / "own"
    own.mkdir()
    (own / "00000.png").write_bytes(first)
    _, err = here(*words[:-1], own, code=2)
    assert "another origin" in err


@pytest.mark.parametrize(
    ("options", "said", "arguments"),
    [
        ((), "32x40, LaCT at 16x16, detail head on 4 views", {}),
        (("--look-at", 1), "32x40, LaCT at 16x16, detail head on 1 view", {"views": 1}),
        (("--no-detail",), "32x40, LaCT alone", {"detail": False}),
    ],
)
def test_ways_of_rendering_are_used_and_named(folder: Path, here, options, said: str, arguments: dict) -> None:
    """`eval` with a detail head: named in the report and the table, the figures are those of the renderer."""
    file = folder / "eval.json"
    words = ("eval", folder / "one", "--context", 3, "--image-hw", 32, 40, "--checkpoint", "detailed", "--json", file)
    out, _ = here(*words, *options)
    report = json.loads(file.read_text())
    renderer = Renderer.from_checkpoint(folder / "checkpoints" / "detailed", "cpu", **arguments)
    assert f"detailed: {said}, cpu" in out and report["rendering"] == renderer.settings((32, 40))
    scene, one = open_scene(folder / "one"), report["scenes"]["one"]
    target = scene.load(one["target"], (32, 40))
    rendered = renderer.render(renderer.encode(scene.load(one["context"], (32, 40))), target.cameras)
    assert one["psnr"] == pytest.approx(float(psnr(rendered, target.images.float()).mean()), abs=1e-4)


def test_a_folder_is_gone_on_with_in_the_same_way_only(folder: Path, tmp_path: Path, here) -> None:
    """From the photos, or from a state with what the head looks at; not by LaCT alone, which reads and renders
    otherwise, and not where nothing says how the images were rendered."""
    state, target = tmp_path / "one.safetensors", tmp_path / "images"
    words = ("render", folder / "one", "--context", 3, "--frames", 2, "--path", "capture", "--out", target)
    words += ("--context-hw", 33, 47, "--image-hw", 32, 40, "--checkpoint", "detailed")
    out, _ = here(*words, "--state", state)
    assert "2 images of 32x40, LaCT at 16x16; encoded 3 views of 33x47" in out
    notes = json.loads((target / "render.json").read_text())
    assert notes["rendering"] == {"detail": True, "views": 4, "plan": "32x40, LaCT at 16x16"}
    assert SceneState.load(state).context is not None
    for more in (("--state", state), ()):  # and encoded again: the same
        (target / "00001.png").unlink()
        out, _ = here(*words, *more)
        assert "(1 were there)" in out
    assert "rendered with another rendering" in here(*words, "--state", state, "--no-detail", code=2)[1]
    assert "rendered with another context, rendering" in here(*words, "--no-detail", code=2)[1]
    assert "rendered with another rendering" in here(*words, "--look-at", 2, code=2)[1]
    del notes["rendering"]
    (target / "render.json").write_text(json.dumps(notes))
    assert "rendered with another rendering" in here(*words, code=2)[1]


def test_a_state_without_photos_is_rendered_by_lact(folder: Path, tmp_path: Path, here) -> None:
    """As states of before the detail head, and those of --no-detail, are; with a note."""
    state = tmp_path / "one.safetensors"
    words = ("render", "--checkpoint", "detailed", "--state", state, "--out")
    path = ("--path", "orbit", "--frames", 2, "--save-path", tmp_path / "path.json")
    here(*words, tmp_path / "alone", folder / "one", "--context", 3, "--no-detail", *path)
    _, err = here(*words, tmp_path / "again", "--path", tmp_path / "path.json")
    assert "note: " in err and "encoded without a detail head, rendered by LaCT alone" in err
    for name in ("00000.png", "00001.png"):
        alone, again = (np.asarray(Image.open(tmp_path / folder / name)) for folder in ("alone", "again"))
        assert np.abs(alone.astype(int) - again).max() <= 1 and alone.std() > 1  # the file's cameras are rounded


def test_render_many_scenes(folder: Path, tmp_path: Path, here) -> None:
    words = ("render", folder / "one", folder / "broken", folder / "two", "--context", 99, "--frames", 2)
    _, err = here(*words, "--out", tmp_path / "video.mp4", code=2)
    assert "{scene}" in err
    out, err = here(*words, "--out", tmp_path / "{scene}.gif", code=2)
    assert "error: broken: " in err and err.count("error: ") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.gif", "two.gif"]
    assert "encoded 6 views" in out and "note: --context 99: one has 6 views; all are input, none is held out" in err
    here("render", folder / "one", folder / "two", "--frames", 2, "--out", tmp_path / "all")
    assert sorted(p.name for p in (tmp_path / "all" / "two").iterdir()) == ["00000.png", "00001.png", "render.json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("render", "SCENE", "--out", "x.mp4", "--checkpoint", "absent"), "checkpoint absent: not found"),
        (("render", "SCENE", "--out", "x.avi"), "expected a name that ends in .mp4 or .gif"),
        (("render", "--out", "x.mp4"), "no SCENE given"),
        (
            ("render", "SCENE", "--out", "x.mp4", "--path", "zigzag"),
            "expected orbit, sway, spiral, capture or a camera",
        ),
        (("render", "SCENE", "--out", "x.mp4", "--frames", "0"), "0: expected a whole number of 1 or more"),
        (("render", "SCENE", "--out", "x.mp4", "--context-views", "0,0"), "none of them twice"),
        (("eval", "/absent/scene"), "/absent/scene: no such file or folder"),
        (("eval", "SCENE", "--image-hw", "4", "4"), "expected 11 pixels or more"),
        (("eval", "SCENE", "--look-at", "0"), "--look-at: 0: expected a whole number of 1 or more"),
        (("eval", "SCENE", "--look-at", "2"), "--look-at 2: checkpoint tiny has no detail head"),
        (
            ("eval", "SCENE", "--look-at", "2", "--no-detail", "--checkpoint", "detailed"),
            "--look-at 2: --no-detail switches the detail head off",
        ),
        (("eval", "SCENE", "--device", "toaster"), "device: 'toaster'"),
        (("eval", "SCENE", "--context-views", "77"), "context view 77 does not exist"),
        (("eval", "SCENE", "--lpips", "/absent.pth"), "no such file"),
        (("dance",), "invalid choice: 'dance'"),
        (("eval", "SCENE", "--context", "100"), "100 context views asked for, expected 1 to 5"),
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
    assert err == "error: /absent/scene: no such file or folder [no-scene]\n" and out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("render", "one", "--out", "x.mp4", "--framse", "3"), "unknown option --framse; did you mean --frames? ("),
        (("render", "one", "--out", "x.mp4", "--zzz=3"), "unknown option --zzz ("),
        (("render", "one", "--framse", "3"), "unknown option --framse; did you mean --frames? ("),  # no --out, either
        (("rendr", "one"), "; did you mean render? (`python -m nvs_app --help`"),
    ],
)
def test_what_was_meant(folder: Path, words: tuple[str, ...], said: str) -> None:
    """One line, and the help of the command that was typed."""
    out, err = cli(folder, *words, code=2)
    assert said in err and err.count("\n") == 1 and out == ""
    if words[0] == "render":
        assert err.endswith("(`python -m nvs_app render --help` shows what there is)\n")


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
        "print([n for n in ('gradio', 'av', 'imageio', 'nerfstudio') if n in sys.modules])"
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
    words = ("benchmark-speed", "--sizes", 16, 32, "--views", 2, "--repeats", 2, "--json", file)
    out, _ = here(*words)
    assert "encode 2 views 32x32" in out and "LaCT alone" in out and "threads" in out
    figures = json.loads(file.read_text())["figures"]
    assert all(0 < f["best_ms"] <= f["median_ms"] for f in figures.values())
    alone = ["render 1 view 16x16, LaCT alone", "render 1 view 32x32, LaCT alone"]
    assert list(figures) == ["encode 2 views 32x32", *alone]
    out, _ = here(*words, "--checkpoint", "detailed")
    report = json.loads(file.read_text())
    assert "detail head on 4 views" in out and report["rendering"] == {"detail": True, "views": 4}
    assert list(report["figures"]) == [
        "encode 2 views 32x32, LaCT at 16x16",
        *alone,
        "render 1 view 16x16, LaCT at 16x16, detail head",
        "render 1 view 32x32, LaCT at 16x16, detail head",
    ]
    here(*words, "--checkpoint", "detailed", "--no-detail")
    assert list(json.loads(file.read_text())["figures"]) == ["encode 2 views 32x32", *alone]


def test_benchmark_speed_ladder(tmp_path: Path, here) -> None:
    """Rungs of tokens beside the plain path and the floors; the page holds the same figures."""
    file, page = tmp_path / "speed.json", tmp_path / "speed.html"
    out, _ = here(
        "benchmark-speed", "--preset", "tiny", "--tokens", 20, 40, "--context-hw", 16, 40, "--sizes", 16, "--at-once",
        1, 2, "--repeats", 1, "--plain", "--profile", 3, "--json", file, "--html", page,
    )  # fmt: skip
    assert "tiny, random weights" in out and "TFLOP/s" in out
    report = json.loads(file.read_text())
    rows = report["figures"]
    assert list(rows) == [
        "encode 2 views 16x40", "encode 4 views 16x40", "render 1 view 16x16, LaCT alone",
        "render 2 views 16x16, LaCT alone",
    ]  # fmt: skip
    assert [row["tokens"] for row in rows.values()] == [20, 40, 4, 8]
    for row in rows.values():
        assert len(row["kernels"]) == 3 and row["kernels"][0][0] in out
        assert 0 < row["floor_ms"] < row["best_ms"] and row["plain_ms"] > 0 and 0 <= row["difference"] < 0.2
    assert report["ceilings"]["tflops"] > 0 and report["processes"] == 1
    text = page.read_text()
    assert "encode 4 views 16x40" in text and '"name": "floor"' in text and "https://" not in text.split("<script>")[0]
