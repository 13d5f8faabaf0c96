"""A benchmark's run: what is averaged, what is left out, resuming after a kill, several processes."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from camera_rings import ring_c2w
from image_scenes import image_scene, noise

from nvs_app.cli import main
from nvs_app.cli.eval_benchmark import BenchmarkProgress
from nvs_app.evaluation.baselines import gsplat_missing, nearest_views
from nvs_app.evaluation.benchmark.results import SceneResults
from nvs_app.evaluation.benchmark.run import BenchmarkRun, ProgressCallback, owners
from nvs_app.evaluation.benchmark.scene import MetricOptions
from nvs_app.evaluation.metrics import LPIPS, psnr, sharpness, ssim
from nvs_app.evaluation.protocols import find
from nvs_app.evaluation.protocols.base import Entry, Settings
from nvs_app.evaluation.report.files import views_csv
from nvs_app.model.checkpoint import save_checkpoint
from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.rendering.renderer import Renderer

REPO = Path(__file__).resolve().parents[3]


def write_scene(folder: Path, count: int, noisy: bool = True) -> None:
    """`count` images of 32x32: noise, or flat ones of grey 10 i."""
    flat = [np.full((32, 32, 3), 10 * index, np.uint8) for index in range(count)]
    images = noise(count, (32, 32)) if noisy else flat
    hidden, c2w = folder.parent / f".{folder.name}", ring_c2w(count, step=0.4)
    image_scene(hidden, images, c2w, (40.0, 40.0, 16.0, 16.0), folder.name).save(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint and five scenes: four of 10 views, and `short` with 5; `broken` cannot be read."""
    folder = tmp_path_factory.mktemp("benchmark")
    torch.manual_seed(0)
    card = {"normalization": "auto", "train_image_hw": [32, 32]}
    save_checkpoint(folder / "checkpoints" / "tiny", LaCT(PRESETS["tiny"]).state_dict(), PRESETS["tiny"], card)
    for name in ("a", "b", "c", "d"):
        write_scene(folder / "data" / name, 10)
    write_scene(folder / "data" / "short", 5)
    (folder / "data" / "broken").mkdir()
    (folder / "data" / "broken" / "transforms.json").write_text('{"frames": [{"file_path": "a.png"}]}')
    return folder


def words(folder: Path, out: Path, *more: object) -> list[str]:
    """The command line of the benchmark at 2 and 6 context views."""
    base = ("eval", "--benchmark", "folder", "--data", folder / "data", "--context", "2,6", "--image-hw", 32, 32)
    options = ("--checkpoint", folder / "checkpoints" / "tiny", "--device", "cpu", "--threads", 1, "--out", out)
    return [str(word) for word in (*base, *options, *more)]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The folder of an uninterrupted run of one process."""
    assert main(words(folder, folder / "whole")) == 2  # `broken` was left out
    return folder / "whole"


def load(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def same(one: Path, other: Path) -> bool:
    """Whether two runs give the same files, times apart."""
    tables = all((one / name).read_bytes() == (other / name).read_bytes() for name in ("views.csv", "scenes.csv"))
    reports = [{key: value for key, value in load(out).items() if key != "timing"} for out in (one, other)]
    return tables and reports[0] == reports[1]


class Gray(Renderer):
    """Answers half gray wherever it looks."""

    def stream(self, state, cameras, chunk=None, on_device=False):
        yield torch.full((len(cameras), 3, *cameras.image_hw), 0.5)


def test_averages_over_views_then_scenes(tmp_path: Path) -> None:
    for name, count in (("five", 9), ("nine", 17)):  # every 8th is a target: 2 and 3 of them
        write_scene(tmp_path / "data" / name, count, noisy=False)
    settings = find("folder").complete(Settings(tmp_path / "data", (4,), (32, 32)))
    run = BenchmarkRun(Gray(LaCT(PRESETS["tiny"]), "cpu"), find("folder"), settings, MetricOptions(), tmp_path / "out")
    report = run()

    def decibel(a: float, b: float) -> float:
        return min(100.0, -20 * math.log10(max(abs(a - b), 1e-9) / 255))

    five = [decibel(127.5, 10 * i) for i in (0, 8)]
    nine = [decibel(127.5, 10 * i) for i in (0, 8, 16)]
    row = report["overall"]["4"]
    assert [view["psnr"] for view in report["scenes"]["nine"]["counts"]["4"]["views"]] == pytest.approx(nine, abs=1e-3)
    assert row["psnr"]["mean"] == pytest.approx((sum(five) / 2 + sum(nine) / 3) / 2, abs=1e-3)
    assert row["psnr"]["pooled"] == pytest.approx(sum(five + nine) / 5, abs=1e-3)
    assert row["psnr"]["low"] is None  # two scenes say nothing about others
    case = report["scenes"]["five"]["counts"]["4"]
    colour = sum(10 * i for i in case["context"]) / 4
    near = {0: 1 if 1 in case["context"] else min(case["context"]), 8: max(case["context"])}
    for view in case["views"]:
        grey, baselines = 10 * view["index"], view["baselines"]
        assert baselines["mean_colour"]["psnr"] == pytest.approx(decibel(colour, grey), abs=1e-3)
        assert baselines["nearest_view"]["psnr"] == pytest.approx(decibel(10 * near[view["index"]], grey), abs=1e-3)
    assert case["tokens"] == 4 * 16 and row["views"] == 5 and row["scenes"] == 2
    assert report["timing"]["counts"]["4"]["encode_s"] > 0


def test_figures_are_those_of_the_renderer_and_of_scikit_image(folder: Path, whole: Path) -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    from data_tools.readers import open_scene

    case = load(whole)["scenes"]["b"]["counts"]["6"]
    scene = open_scene(folder / "data" / "b")
    renderer = Renderer.from_checkpoint(folder / "checkpoints" / "tiny", "cpu")
    state = renderer.encode(scene.load(case["context"], (32, 32)))
    target = scene.load(case["target"], (32, 32))
    for view, ours, photo in zip(case["views"], renderer.render(state, target.cameras), target.images):
        arrays = [image.double().numpy() for image in (photo, ours.clamp(0, 1))]
        measured = peak_signal_noise_ratio(*arrays, data_range=1.0)
        similar = structural_similarity(
            *arrays, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert view["psnr"] == pytest.approx(measured, abs=1e-3)
        assert view["ssim"] == pytest.approx(similar, abs=1e-4)
        assert view["psnr"] == pytest.approx(float(psnr(ours, photo)), abs=1e-3)
        assert view["ssim"] == pytest.approx(float(ssim(ours, photo)), abs=1e-4)
        assert view["sharpness"] == pytest.approx(float(sharpness(ours, photo)), rel=1e-3, abs=1e-4)


def test_bad_scenes_are_told_and_left_out(folder: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = load(whole)
    assert list(report["scenes"]) == ["a", "b", "c", "d", "short"]
    assert set(report["failed"]) == {"broken", "short"} and report["coverage"] == {"listed": 6, "measured": 5}
    assert "6 context views asked for, 4 of 5" in report["failed"]["short"]["6"]
    assert report["overall"]["2"]["scenes"] == 5 and report["overall"]["6"]["scenes"] == 4
    assert main(words(folder, whole)) == 2  # everything is there: only the tables
    out, err = capsys.readouterr()
    assert "error: short at 6 views" not in err  # told when it was measured; the table tells it again
    assert "left out: short at 6 views" in out and "left out: broken" in out and err.count("error: broken") == 1
    assert load(whole)["timing"]["processes"][0]["scenes"] == 0


class Difference(LPIPS):
    """Stands in for LPIPS, whose weights are not part of this project: the mean absolute difference."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (prediction - target).abs().mean((-3, -2, -1))


class NoNumber(Gray):
    """Draws NaN where a camera stands near that of view 8."""

    def stream(self, state, cameras, chunk=None, on_device=False):
        (images,) = super().stream(state, cameras)
        images[(cameras.c2w - ring_c2w(17, step=0.4)[8]).abs().amax((1, 2)) < 1e-3] = torch.nan
        yield images


def test_lpips_and_images_that_are_no_numbers(tmp_path: Path, folder: Path) -> None:
    settings = find("folder").complete(Settings(folder / "data", (2,), (32, 32)))
    model = LaCT(PRESETS["tiny"])
    measures = MetricOptions(lpips=Difference())
    report = BenchmarkRun(Gray(model, "cpu"), find("folder"), settings, measures, tmp_path / "lpips", only=("a",))()
    case = report["scenes"]["a"]["counts"]["2"]
    mean = sum(view["lpips"] for view in case["views"]) / len(case["views"])
    assert case["lpips"] == pytest.approx(mean, abs=2e-6) and report["measures"]["lpips"] == "VGG-16"
    assert report["overall"]["2"]["lpips"]["mean"] == pytest.approx(mean, abs=2e-6)
    assert "lpips" in (views_csv(report).splitlines()[0]).split(",")
    broken = BenchmarkRun(NoNumber(model, "cpu"), find("folder"), settings, MetricOptions(), tmp_path / "nan")()
    assert "has values that are no numbers" in broken["failed"]["a"]["*"]
    assert set(broken["scenes"]) == {"short"} and broken["overall"]["2"]["scenes"] == 1


def test_csv_has_a_row_a_view(whole: Path) -> None:
    report, rows = load(whole), list(csv.DictReader((whole / "views.csv").open()))
    assert len(rows) == sum(row["views"] for row in report["overall"].values())
    first = report["scenes"]["a"]["counts"]["2"]["views"][0]
    assert rows[0]["scene"] == "a" and float(rows[0]["psnr"]) == first["psnr"]
    assert float(rows[0]["nearest_view_psnr"]) == first["baselines"]["nearest_view"]["psnr"]
    assert len(list(csv.DictReader((whole / "scenes.csv").open()))) == 9


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), **more}


def test_killed_and_resumed_gives_the_same_files(folder: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    script = Path(__file__).with_name("slow_benchmark.py")
    child = subprocess.Popen([sys.executable, str(script), *words(folder, out)], env=environment(),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(out.glob("scenes/*.json")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=60)
    done = len(list(out.glob("scenes/*.json")))
    assert 1 <= done < 5 and not (out / "report.json").exists()
    assert main(words(folder, out)) == 2
    assert load(out)["timing"]["processes"][0]["scenes"] == 5 - done  # the others were not done again
    assert same(out, whole)
    assert not list(out.rglob(".*tmp"))


def test_two_processes_give_the_figures_of_one(folder: Path, whole: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                "--rdzv-endpoint", "localhost:0", "-m", "nvs_app"]  # fmt: skip
    done = subprocess.run([*torchrun, *words(folder, tmp_path / "two")], env=environment(), cwd=REPO,
                          capture_output=True, text=True, timeout=200, check=False)  # fmt: skip
    # torchrun tells of exit code 2 (a scene was left out) with a traceback of its own.
    assert "6/6 scenes" in done.stderr and "Traceback" not in done.stderr.split("exitcode")[0], done.stderr[-3000:]
    assert [spent["scenes"] for spent in load(tmp_path / "two")["timing"]["processes"]] == [2, 3]
    assert same(tmp_path / "two", whole)


def test_other_settings_are_done_again(folder: Path, tmp_path: Path) -> None:
    class Notes(ProgressCallback):
        def note(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    renderer = Renderer.from_checkpoint(folder / "checkpoints" / "tiny", "cpu")
    reports = []
    for how in ("context", "context+target"):
        settings = find("folder").complete(Settings(folder / "data", (2,), (32, 32)))
        run = BenchmarkRun(
            renderer,
            find("folder"),
            settings,
            MetricOptions(normalize_with=how),
            tmp_path,
            only=("a", "b"),
            callback=Notes(),
        )
        reports.append(run())
    assert len(said) == 1 and "2 scenes done under other settings" in said[0]
    # The target cameras move the frame, so the network sees other numbers.
    assert reports[0]["overall"]["2"]["psnr"] != reports[1]["overall"]["2"]["psnr"]
    assert reports[1]["measures"]["normalize_with"] == "context+target"
    (tmp_path / "scenes" / "a.json").write_text('{"fingerprint": "cut sho')
    assert run.results.read("a") is None and run.results.read("b") is not None


def test_names_of_scenes_become_files(tmp_path: Path) -> None:
    results = SceneResults(tmp_path, "f")
    names = ["plain", "x/y#z", "x_y_z", "..", "ü" * 300, "a b"]
    assert len({results.path(name) for name in names}) == len(names)
    paths = [results.path(name) for name in names]
    assert all(path.parent == tmp_path / "scenes" and len(path.name) < 120 for path in paths)
    assert results.path("plain").name == "plain.json"
    for name in names:
        results.write(name, {"value": name})
    assert [results.read(name)["value"] for name in names] == names


def test_groups_stay_with_one_process() -> None:
    def entry(name: str, group: str = "") -> Entry:
        return Entry(name, lambda: None, group)

    assert owners([entry(name) for name in "abcde"], 2) == [0, 1, 0, 1, 0]
    mixed = [entry("a", "x"), entry("b", "x"), entry("c", "y"), entry("d", "x"), entry("e")]
    assert owners(mixed, 2) == [0, 0, 1, 0, 0]


def test_baselines() -> None:
    c2w = ring_c2w(6, step=0.4)
    assert nearest_views(c2w, c2w).tolist() == list(range(6))
    assert gsplat_missing(torch.device("cpu")) == "it needs a GPU"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--benchmark", "x"), "unknown, expected one of gso"),
        (("--benchmark", "folder"), "give --data DIR"),
        (("--benchmark", "procedural", "scene"), "the protocol chooses"),
        (("--benchmark", "procedural", "--option", "scenes"), "expected KEY=VALUE"),
        (("--benchmark", "procedural", "--gsplat", "many"), "expected a number of steps"),
        (("--benchmark", "procedural", "--gsplat", "100", "--device", "cpu"), "it needs a GPU"),
        (("--benchmark", "procedural", "--image-hw", "8", "8"), "11 pixels or more"),
        (("--data", "somewhere", "scene"), "only with --benchmark"),
        (("--context", "4,8", "scene"), "several numbers only with --benchmark"),
        ((), "name a SCENE"),
    ],
)
def test_mistakes_are_one_line(wrong: tuple, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *wrong]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_time_left() -> None:
    progress = BenchmarkProgress(quiet=True)
    progress.started, progress.first, progress.measured = 100.0, 1, 2
    assert progress.left(3, 43, now=104.0) == ", 2.00 s a scene, 1:20 left"
    assert progress.left(43, 43, now=104.0) == progress.left(1, 43, now=104.0) == ""


def test_protocols_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--benchmark", "list"]) == 0
    out = capsys.readouterr().out
    assert "re10k: " in out and "arXiv 2505.23884" in out and "lvsm: 4 views" in out


def test_readme_command_runs_whole(folder: Path, tmp_path: Path) -> None:
    """The generator, the loader and the report together, in a process of its own, smaller."""
    what = ("eval", "--benchmark", "procedural", "--option", "scenes=2", "--image-hw", 24, 24, "--context", 2)
    where = ("--device", "cpu", "--out", tmp_path / "out", "--json", tmp_path / "figures.json")
    command = [*what, "--checkpoint", folder / "checkpoints" / "tiny", *where]
    done = subprocess.run(
        [sys.executable, "-m", "nvs_app", *map(str, command)],
        env=environment(), cwd=REPO, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "figures.json").read_text())
    assert list(report["scenes"]) == ["object-000", "room-001"] and report["overall"]["2"]["views"] == 16
    assert "share of time not in the model" in done.stdout and "2/2 scenes" in done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    assert {view["scene"] for view in report["pictures"]["worst"]} == {"object-000", "room-001"}
