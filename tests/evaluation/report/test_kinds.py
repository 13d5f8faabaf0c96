"""Means of each kind of scene beside the whole: in the report, the tables and the page."""

from __future__ import annotations

import pytest
from test_report import made_report

from nvs_app.evaluation.report.page import write_page
from nvs_app.evaluation.report.summary import assemble
from nvs_app.evaluation.report.tables import kind_rows, print_report


def of_kinds(kinds: dict[str, str]) -> dict:
    """The report of scenes a, b, c with PSNR 15, 30 and 24 dB at 4 views, 1 dB more at 8."""
    plain = made_report({"a": [10.0, 20.0], "b": [30.0], "c": [23.0, 25.0]})
    assert "kinds" not in plain
    records = {
        name: {"result": scene, "timing": plain["timing"]["scenes"][name]} for name, scene in plain["scenes"].items()
    }
    header = {key: plain[key] for key in ("benchmark", "model", "measures")}
    timing = {key: plain["timing"][key] for key in ("device", "processes")}
    report = assemble(header, records, {}, 3, timing, kinds)
    assert report["overall"] == plain["overall"]
    return report


def test_means_of_kinds(tmp_path, capsys) -> None:
    report = of_kinds({"a": "object", "b": "outdoor", "c": "object", "missing": "room"})
    assert list(report["kinds"]) == ["object", "outdoor"]
    assert report["kinds"]["object"]["4"]["psnr"]["mean"] == pytest.approx((15 + 24) / 2)
    assert report["kinds"]["outdoor"]["8"]["psnr"]["mean"] == pytest.approx(31)
    assert report["kinds"]["object"]["4"]["scenes"] == 2
    head, rows = kind_rows(report)
    assert [row[:3] for row in rows] == [["object", "4", "2"], ["object", "8", "2"], ["outdoor", "4", "1"],
                                         ["outdoor", "8", "1"]]  # fmt: skip
    assert rows[1][head.index("PSNR")] == "20.50" and rows[1][head.index("nearest PSNR")] == "12.00"
    assert kind_rows(report, pooled=True)[1][0][head.index("PSNR")] == "19.50"
    print_report(report)
    out = capsys.readouterr().out
    assert "Means by kind of scene" in out and "outdoor" in out
    write_page(report, tmp_path / "page.html")
    assert "Kinds of scene" in (tmp_path / "page.html").read_text("utf-8")


def test_one_kind_says_no_more_than_the_whole(tmp_path, capsys) -> None:
    report = of_kinds(dict.fromkeys("abc", "object"))
    print_report(report)
    assert "by kind" not in capsys.readouterr().out
    write_page(report, tmp_path / "page.html")
    assert "Kinds of scene" not in (tmp_path / "page.html").read_text("utf-8")
