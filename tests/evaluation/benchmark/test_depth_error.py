"""The error of depth in benchmark reports: the measure, where it is known, and how it is averaged."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from nvs_app.evaluation.benchmark.run import BenchmarkRun
from nvs_app.evaluation.benchmark.scene import MetricOptions
from nvs_app.evaluation.metrics import depth_error
from nvs_app.evaluation.protocols import find
from nvs_app.evaluation.protocols.base import Settings
from nvs_app.evaluation.report.compare import compare_reports
from nvs_app.evaluation.report.files import scenes_csv, views_csv
from nvs_app.evaluation.report.tables import print_report
from nvs_app.model.config import LaCTConfig
from nvs_app.model.detail import DetailHeadConfig
from nvs_app.model.lact import LaCT
from nvs_app.rendering.renderer import Renderer

HEAD = DetailHeadConfig(features=8, groups=4, guide=16, volume=4, blend=8, planes=4, fine_planes=3)
HW = (24, 32)


def test_median_over_the_pixels_that_show_a_surface() -> None:
    true = torch.tensor([[[0.0, torch.inf, 2.0], [4.0, 1.0, 0.0]], [[0.0, torch.inf, 0.0], [0.0, 0.0, 0.0]]])
    depth = torch.tensor([[[9.0, 9.0, 3.0], [3.0, 1.1, 9.0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]])
    error = depth_error(depth, true)
    assert error[0] == pytest.approx(0.25) and error[1].isnan()  # of 0.5, 0.25 and 0.1


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    torch.manual_seed(0)
    model = LaCT(LaCTConfig(dim=32, blocks=2, attention_head_dim=16, detail_head=HEAD))
    return Renderer(model, "cpu", "fp32")


def settings(**options: str) -> Settings:
    asked = Settings(None, (2, 3), HW, options={"scenes": "3", "kinds": "object,room", **options})
    return find("procedural").complete(asked)


@pytest.fixture(scope="module")
def report(renderer: Renderer, tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("depth") / "run"
    return BenchmarkRun(renderer, find("procedural"), settings(), MetricOptions(), out)()


def test_figures_are_those_of_the_renderer(renderer: Renderer, report: dict) -> None:
    views = find("procedural").entries(settings()).entries[1].open()
    case = report["scenes"]["room-001"]["counts"]["3"]
    state = renderer.encode(views.load(case["context"]))
    target = views.load(case["target"])
    rendered = renderer.render(state, target.cameras, depth=True)
    assert target.depth is not None
    for view, depth, true in zip(case["views"], rendered.depth, target.depth):
        surface = (true > 0) & true.isfinite()
        expected = ((depth - true).abs() / true)[surface].median()
        assert view["depth_error"] == pytest.approx(float(expected), rel=1e-4)
    assert case["depth_error"] == pytest.approx(sum(v["depth_error"] for v in case["views"]) / 8, abs=1e-6)


def test_it_is_averaged_and_shown(report: dict, capsys: pytest.CaptureFixture[str]) -> None:
    """By scene, by kind and over all; in the tables and CSV files, not of the baselines."""
    for count in ("2", "3"):
        by_scene = {name: scene["counts"][count]["depth_error"] for name, scene in report["scenes"].items()}
        mean = report["overall"][count]["depth_error"]["mean"]
        assert mean == pytest.approx(sum(by_scene.values()) / 3, abs=1e-6)
        of_objects = report["kinds"]["object"][count]["depth_error"]["mean"]
        assert of_objects == pytest.approx((by_scene["object-000"] + by_scene["object-002"]) / 2, abs=1e-6)
        assert all("depth_error" not in figures for figures in report["overall"][count]["baselines"].values())
    print_report(report)
    assert capsys.readouterr().out.count("depth error") == 3  # overall, by kind, by scene
    for text, rows in ((views_csv(report), 48), (scenes_csv(report), 6)):
        column = [row["depth_error"] for row in csv.DictReader(io.StringIO(text))]
        assert len(column) == rows and all(float(value) > 0 for value in column)
    paired = compare_reports({"a": report, "b": report})["others"]["b"]["counts"]["3"]
    assert paired["depth_error"]["mean"] == 0


def test_without_a_head_there_is_none(renderer: Renderer, tmp_path: Path) -> None:
    alone = Renderer(renderer.model, "cpu", "fp32", detail=False)
    report = BenchmarkRun(alone, find("procedural"), settings(scenes="1"), MetricOptions(), tmp_path)()
    assert "depth_error" not in report["overall"]["2"] and "depth_error" not in views_csv(report)


def test_views_without_a_surface_do_not_count(renderer: Renderer, tmp_path: Path, capsys) -> None:
    """Sky alone in some target views, or in all of a scene's: the others give the mean."""
    benchmark = find("procedural")
    listing = benchmark.entries(settings())

    class Sky:
        """The first target view, or every one, shows nothing but sky."""

        def __init__(self, views, count: int) -> None:
            self.views, self.count = views, count

        def __getattr__(self, name: str):
            return getattr(self.views, name)

        def __len__(self) -> int:
            return len(self.views)

        def load(self, indices, image_hw=None):
            posed = self.views.load(indices, image_hw)
            hidden = torch.tensor([index < self.count for index in indices])
            return replace(posed, depth=posed.depth.masked_fill(hidden[:, None, None], torch.inf))

    def opened(entry, count: int) -> Sky:
        return Sky(entry.open(), count)

    run = BenchmarkRun(renderer, benchmark, settings(), MetricOptions(), tmp_path)
    counts = (1, 8, 0)
    run.entries = [
        replace(entry, open=partial(opened, entry, n)) for entry, n in zip(listing.entries, counts, strict=True)
    ]
    report = run()
    cases = [scene["counts"]["2"] for scene in report["scenes"].values()]
    assert cases[0]["views"][0]["depth_error"] is None and cases[0]["depth_error"] > 0
    assert "depth_error" not in cases[1] and all(view["depth_error"] is None for view in cases[1]["views"])
    expected = (cases[0]["depth_error"] + cases[2]["depth_error"]) / 2
    assert report["overall"]["2"]["depth_error"]["mean"] == pytest.approx(expected, abs=1e-6)
    print_report(report)
    rows = list(csv.DictReader(io.StringIO(scenes_csv(report))))
    assert [bool(row["depth_error"]) for row in rows] == [True, True, False, False, True, True]
    assert "depth error" in capsys.readouterr().out
