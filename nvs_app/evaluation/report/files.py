"""Reports on disk: JSON with everything, CSV with a row a view and a row a scene. Written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from nvs_app.atomic_io import write_whole
from nvs_app.errors import NVSError, reading
from nvs_app.evaluation.report.measures import BASELINE_MEASURES, MEASURES
from nvs_app.evaluation.report.summary import FORMAT


def write_json(report: dict[str, Any], path: Path, option: str = "") -> None:
    """The whole report. Raises NVSError, which names the option that asked for the file."""
    write_whole(path, json.dumps(report, indent=1, allow_nan=False) + "\n", f"{option} {path}".lstrip())


def read_report(path: Path) -> dict[str, Any]:
    """A report that `write_json` wrote, also by the name of its folder. Raises NVSError for anything else."""
    path = path / "report.json" if path.is_dir() else path
    try:
        with reading(path):
            report = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise NVSError(f"{path}: not JSON ({error})") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise NVSError(f"{path}: not a benchmark's report; `eval --benchmark` writes them")
    return report


def views_csv(report: dict[str, Any]) -> str:
    """A row a view: scene, context views, tokens, view, file, our figures, the baselines'."""
    cases = [(name, count, case) for name, scene in report["scenes"].items() for count, case in scene["counts"].items()]
    columns = _columns(report)
    header = ["scene", "context_views", "tokens", "view", "file", *map("_".join, columns)]
    rows = [
        [name, count, case["tokens"], view["index"], view["file"], *_cells(view, columns)]
        for name, count, case in cases
        for view in case["views"]
    ]
    return _csv(header, rows)


def scenes_csv(report: dict[str, Any]) -> str:
    """A row a scene and number of context views, averaged over its views."""
    columns = _columns(report)
    rows = [
        [name, count, case["tokens"], len(case["views"]), *_cells(case, columns)]
        for name, scene in report["scenes"].items()
        for count, case in scene["counts"].items()
    ]
    return _csv(["scene", "context_views", "tokens", "views", *map("_".join, columns)], rows)


def _columns(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """What the report measured: (measure,) of ours, then (baseline, measure)."""
    rows = list(report["overall"].values())
    columns: list[tuple[str, ...]] = [(m.name,) for m in MEASURES if any(m.name in row for row in rows)]
    for baseline in report["measures"]["baselines"]:
        columns += [
            (baseline, m.name) for m in BASELINE_MEASURES if any(m.name in row["baselines"][baseline] for row in rows)
        ]
    return columns


def _cells(figures: dict[str, Any], columns: list[tuple[str, ...]]) -> list[float | None]:
    """The columns of one view, or of one scene's means."""
    return [figures["baselines"][c[0]][c[1]] if len(c) == 2 else figures.get(c[0]) for c in columns]


def _csv(header: list[str], rows: list[list[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()
