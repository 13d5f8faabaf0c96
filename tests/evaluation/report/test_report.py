"""Reports: intervals, comparisons by hand, the files, and the page in a real headless browser."""

from __future__ import annotations

import base64
import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nvs_app.cli import main
from nvs_app.errors import NVSError
from nvs_app.evaluation.report.bootstrap import interval
from nvs_app.evaluation.report.compare import compare_reports, label_reports
from nvs_app.evaluation.report.files import read_report, scenes_csv, views_csv, write_json
from nvs_app.evaluation.report.page import write_page
from nvs_app.evaluation.report.summary import assemble

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def uri(value: int) -> str:
    stream = io.BytesIO()
    Image.new("RGB", (32, 24), (value, 90, 160)).save(stream, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def made_report(
    psnr: dict[str, list[float]], name: str = "model", failed: dict | None = None, sharpness: float | None = None
) -> dict[str, Any]:
    """A report at 4 and 8 context views: scene -> PSNR of its two views at 4; 1 dB more at 8. Without `sharpness`, as
    old reports are."""
    records = {}
    sharp = {} if sharpness is None else {"sharpness": sharpness}
    for scene, values in psnr.items():
        counts = {}
        for count, more in (("4", 0.0), ("8", 1.0)):
            views = [
                {
                    "index": index, "file": f"images/{index}.png", "psnr": value + more, "ssim": 0.5, **sharp,
                    "baselines": {b: {"psnr": 12.0, "ssim": 0.25, **sharp} for b in ("nearest_view", "mean_colour")},
                }
                for index, value in enumerate(values)
            ]  # fmt: skip
            counts[count] = {
                "psnr": sum(values) / len(values) + more, "ssim": 0.5, **sharp, "tokens": 64 * int(count),
                "context": [5, 6],
                "baselines": {b: {"psnr": 12.0, "ssim": 0.25, **sharp} for b in ("nearest_view", "mean_colour")},
                "target": list(range(len(values))), "views": views,
            }  # fmt: skip
        strip = {key: uri(int(values[0] * 4)) for key in ("render", "photo", "error", "nearest")}
        images = {
            which: {"context": 8, "view": "images/0.png", "psnr": pick(values) + 1, **strip}
            for which, pick in (("worst", min), ("best", max))
        }
        result = {"path": scene, "image_hw": [24, 32], "notes": [], "counts": counts, "pictures": images}
        seconds = {count: {"encode_s": 0.1, "decode_s": 0.04, "compare_s": 0.01} for count in counts}
        records[scene] = {"result": result, "failed": {}, "timing": {"load_s": 0.1, "counts": seconds}}
    header = {
        "benchmark": {
            "name": "folder", "title": "Scenes <of> a folder", "source": "no paper", "notes": ["a note"], "seed": 0,
            "options": {"targets": {"value": "auto", "help": "which", "meaning": "every 8th"}}, "contexts": [4, 8],
            "image_hw": [24, 32], "published": [{"of": "LaCT", "context": 4, "psnr": 30.0}],
        },
        "model": {"checkpoint": name, "hash": "0" * 64, "parameters": 3_000_000, "precision": "fp32",
                  "normalization": "auto", "train_image_hw": [32, 32]},
        "measures": {"normalize_with": "context", "normalize_with_means": "alone", "rounded": False, "ssim": "11x11",
                     "lpips": "not measured", "baselines": {"nearest_view": "n", "mean_colour": "m"},
                     "gsplat": "off"},
    }  # fmt: skip
    spent = {"startup_s": 1.0, "wall_s": 2.0, "model_s": 1.7, "waiting_s": 0.1, "compare_s": 0.1, "gsplat_s": 0.0,
             "scenes": len(psnr), "views": 4, "memory": {"4": {"encode_bytes": 2**20, "decode_bytes": 2**21}},
             "not_in_model": 0.15, "process_peak_bytes": 2**30}  # fmt: skip
    return assemble(header, records, failed or {}, len(psnr), {"device": "cpu", "processes": [spent]})


SCENES = {f"scene-{number}": [20.0 + number, 22.0 + number] for number in range(5)}


def test_intervals() -> None:
    assert interval([1.0, 2.0]) is None and interval([3.0] * 9) == (3.0, 3.0)
    values = np.random.default_rng(0).normal(30, 2, 400).tolist()
    low, high = interval(values)
    half = 1.96 * np.std(values) / math.sqrt(400)  # the normal approximation
    assert low == pytest.approx(np.mean(values) - half, abs=0.03)
    assert high == pytest.approx(np.mean(values) + half, abs=0.03)
    assert interval(values) == (low, high)  # the same draws every time
    assert interval(values, level=0.5)[0] > low


def test_means_by_hand() -> None:
    report = made_report({"a": [10.0, 20.0], "b": [30.0], "c": [23.0, 25.0]})
    psnr = report["overall"]["4"]["psnr"]
    assert psnr["mean"] == pytest.approx((15 + 30 + 24) / 3) and psnr["pooled"] == pytest.approx(108 / 5, abs=1e-5)
    assert report["overall"]["8"]["psnr"]["mean"] == pytest.approx(24.0)
    assert [view["scene"] for view in report["pictures"]["worst"]] == ["a", "c", "b"]
    assert [view["scene"] for view in report["pictures"]["best"]] == ["b", "c", "a"]
    assert report["timing"]["counts"]["4"]["encode_s"] == pytest.approx(0.1)
    assert report["timing"]["counts"]["4"]["decode_s_per_view"] == pytest.approx(3 * 0.04 / 5)
    assert len(views_csv(report).splitlines()) == 1 + 2 * 5 and len(scenes_csv(report).splitlines()) == 1 + 2 * 3


def test_comparison_by_hand() -> None:
    better = {name: [value + 0.5 + 0.1 * number for value in values]
              for number, (name, values) in enumerate(SCENES.items())}  # fmt: skip
    other = made_report({**better, "extra": [9.0, 9.0]}, "other")
    other["scenes"]["scene-4"]["counts"]["8"]["target"] = [0, 7]  # not the views that the first one drew
    result = compare_reports({"base": made_report(SCENES), "other": other})["others"]["other"]
    row = result["counts"]["4"]
    assert (row["scenes"], row["only_in_one"], row["other_targets"]) == (5, 1, 0)
    assert row["psnr"]["mean"] == pytest.approx(0.7) and row["psnr"]["better"] == 5
    assert 0.5 < row["psnr"]["low"] < 0.7 < row["psnr"]["high"] < 0.9 and row["psnr"]["verdict"] == "better"
    assert row["ssim"]["mean"] == 0 and row["ssim"]["verdict"] == "no clear difference"
    assert (result["counts"]["8"]["scenes"], result["counts"]["8"]["other_targets"]) == (4, 1)
    back = compare_reports({"other": other, "base": made_report(SCENES)})["others"]["base"]["counts"]["4"]["psnr"]
    assert back["mean"] == pytest.approx(-0.7) and back["verdict"] == "worse" and back["better"] == 0


def test_sharpness_is_best_at_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = {str(value): made_report(SCENES, str(value), sharpness=value) for value in (0.5, 0.8, 1.6, 3.0)}
    found = {}
    for label, other in compare_reports(reports)["others"].items():
        row = other["counts"]["4"]["sharpness"]
        found[label] = (round(row["mean"], 6), row["better"], row["verdict"])
    # By factors: 1.6 is nearer to 1 than 0.5 is, 3 is further away.
    assert found == {"0.8": (0.3, 5, "better"), "1.6": (1.1, 5, "better"), "3.0": (2.5, 0, "worse")}
    old = made_report(SCENES, "old")
    row = compare_reports({"old": old, "new": reports["0.8"]})["others"]["new"]["counts"]["4"]
    assert "sharpness" not in row and row["ssim"]["verdict"] == "no clear difference"
    assert "sharpness" not in views_csv(old) and "sharpness" not in old["overall"]["4"]
    header = views_csv(reports["0.8"]).splitlines()[0].split(",")
    assert header[5:] == ["psnr", "ssim", "sharpness", *(f"{b}_{m}" for b in ("nearest_view", "mean_colour")
                                                         for m in ("psnr", "ssim", "sharpness"))]  # fmt: skip
    assert scenes_csv(reports["0.8"]).splitlines()[1].split(",")[4:7] == ["21.0", "0.5", "0.8"]
    for name in ("0.5", "1.6"):
        write_json(reports[name], tmp_path / f"{name}.json")
    assert main(["report", str(tmp_path / "0.5.json"), "--html"]) == 0
    out = capsys.readouterr().out
    assert out.count(" sharpness ") == 3 and out.count(" 0.500 ") == 2 + 4 + len(SCENES)
    assert "sharpness 0.500" in (tmp_path / "0.5.html").read_text("utf-8")
    assert main(["report", "--compare", str(tmp_path / "0.5.json"), str(tmp_path / "1.6.json")]) == 0
    assert "+1.100 [1.100, 1.100]" in capsys.readouterr().out


def test_what_cannot_be_compared() -> None:
    one, two = made_report(SCENES), made_report({"elsewhere": [1.0, 2.0]})
    with pytest.raises(NVSError, match="share no scene"):
        compare_reports({"one": one, "two": two})
    two["benchmark"]["name"] = "gso"
    with pytest.raises(NVSError, match="not comparable"):
        compare_reports({"one": one, "two": two})
    with pytest.raises(NVSError, match="two reports or more"):
        compare_reports({"one": one})
    three = made_report(SCENES)
    three["measures"]["normalize_with"] = "context+target"
    three["benchmark"]["options"]["targets"]["value"] = "rest"
    assert compare_reports({"one": one, "three": three})["others"]["three"]["unlike"] == [
        "normalize_with: context, context+target", "targets: auto, rest",
    ]  # fmt: skip
    assert list(label_reports([("a/report.json", one), ("b/report.json", three)])) == ["model (a)", "model (b)"]
    with pytest.raises(NVSError, match="same report twice"):
        label_reports([("a.json", one), ("a.json", one)])


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left_out = {"gone": {"*": "gone: no such file"}, "scene-1": {"8": "too few views"}}
    write_json(made_report(SCENES, failed=left_out), tmp_path / "one" / "report.json")
    write_json(made_report(SCENES, "other"), tmp_path / "two.json")
    assert main(["report", str(tmp_path / "one"), "--csv", str(tmp_path / "tables")]) == 0
    out = capsys.readouterr().out
    assert "23.00" in out and "targets=auto: every 8th" in out and "LaCT 30.0" in out
    assert "left out: gone: gone: no such file" in out and "left out: scene-1 at 8 views: too few views" in out
    assert (tmp_path / "tables" / "views.csv").read_text() == views_csv(made_report(SCENES))
    differences = tmp_path / "differences.json"
    files = [str(tmp_path / "one" / "report.json"), str(tmp_path / "two.json")]
    assert main(["report", "--compare", *files, "--json", str(differences)]) == 0
    assert "no clear difference" in capsys.readouterr().out
    assert json.loads(differences.read_text())["others"]["other"]["counts"]["4"]["psnr"]["mean"] == 0
    (tmp_path / "wrong.json").write_text('{"overall": {}}')
    (tmp_path / "cut.json").write_text("{")
    wrong = {"wrong.json": "not a benchmark's report", "cut.json": "not JSON", "nowhere": "cannot be read"}
    for name, message in wrong.items():
        assert main(["report", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err
    assert read_report(tmp_path / "one") == read_report(tmp_path / "one" / "report.json")


@pytest.mark.browser
def test_page_in_a_browser(tmp_path: Path) -> None:
    """One file: no request leaves it, its charts are drawn, its images decode, its table sorts and filters."""
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no chromium")
    many = {f"scene-{number:02d}": [20.0 + number % 7, 22.0 + number % 5] for number in range(15)}
    report = made_report(many, "<b>bold</b>", {"gone": {"*": "</script><script>window.hacked = 1</script>"}})
    write_page(report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert text.count("plotly.js v") == 1  # inlined once
    differences = made_report({name: [v + 1 for v in values] for name, values in many.items()}, "other")
    write_json(report, tmp_path / "a.json")
    write_json(differences, tmp_path / "b.json")
    compared = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert main(["report", "--compare", *compared, "--html", str(tmp_path / "compared.html")]) == 0
    said: list[str] = []
    asked: list[str] = []

    def look() -> None:
        with api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            page.goto((tmp_path / "report.html").as_uri())
            page.wait_for_selector("html[data-drawn=yes]")
            assert page.title() == "Scenes <of> a folder · <b>bold</b>" and page.evaluate("window.hacked") is None
            assert page.locator(".chart .main-svg").count() >= 4
            assert page.locator("#views .scatterlayer .trace").count() == 5  # interval, ours, two baselines, published
            assert page.locator(".strip img").count() == 2 * 6 * 4
            assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth === 32)")

            def column(number: int) -> list[str]:
                return page.locator(f"#scenes tbody tr:visible td:nth-child({number})").all_inner_texts()

            page.get_by_role("button", name="PSNR at 4").click()
            assert column(2) == sorted(column(2), key=float, reverse=True) and len(column(2)) == 15
            page.get_by_role("button", name="PSNR at 4").click()
            assert column(2) == sorted(column(2), key=float)
            page.get_by_label("find a scene").fill("E-07")
            assert column(1) == ["scene-07"]
            page.set_viewport_size({"width": 390, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            page.goto((tmp_path / "compared.html").as_uri())
            page.wait_for_selector("html[data-drawn=yes]")
            assert page.locator("#difference0 .point").count() == 30
            assert page.get_by_text("+1.00 [1.00, 1.00]").count() == 2
            browser.close()

    with ThreadPoolExecutor(1) as thread:  # in the tests' own, another test's browser may be open
        thread.submit(look).result()
    assert not said, said
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]
