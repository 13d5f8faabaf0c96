"""Several reports of one benchmark: scenes are paired, and differences come with intervals.

result = compare_reports({"ours": read_report(a), "theirs": read_report(b)})
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from nvs_app.errors import NVSError
from nvs_app.evaluation.report.bootstrap import interval
from nvs_app.evaluation.report.measures import MEASURES, Measure, shown
from nvs_app.evaluation.report.tables import console, figure
from nvs_app.evaluation.report.words import rendering_words


def label_reports(reports: list[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """(file, report) -> label -> report. The label is the checkpoint's name where that tells them apart."""
    names = [str(report["model"]["checkpoint"]) for _, report in reports]
    if len(set(names)) < len(names):
        short = [_short(Path(file)) for file, _ in reports]
        files = short if len(set(short)) == len(short) else [file for file, _ in reports]
        names = [f"{name} ({file})" for name, file in zip(names, files)]
    if len(set(names)) < len(names):
        raise NVSError("--compare: the same report twice")
    return dict(zip(names, (report for _, report in reports)))


def _short(path: Path) -> str:
    path = path.resolve()
    return path.parent.name if path.name == "report.json" else path.stem


def compare_reports(reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Differences of every report to the first.

    A scene counts where both have it at the same number of context views with the same target views. Intervals come
    from drawing the paired scenes anew. Raises NVSError where reports are of different benchmarks or no scene pairs.
    """
    if len(reports) < 2:
        raise NVSError("--compare: name two reports or more")
    base, *others = reports
    result: dict[str, Any] = {"base": base, "benchmark": reports[base]["benchmark"]["title"], "others": {}}
    for label in others:
        a, b = reports[base], reports[label]
        if a["benchmark"]["name"] != b["benchmark"]["name"]:
            raise NVSError(
                f"--compare: {base} is of {a['benchmark']['name']}, {label} of {b['benchmark']['name']}; not comparable"
            )
        counts = {count: _pair(a, b, count) for count in a["overall"] if count in b["overall"]}
        counts = {count: row for count, row in counts.items() if row["scenes"]}
        if not counts:
            raise NVSError(f"--compare: {base} and {label} share no scene with the same views")
        result["others"][label] = {"counts": counts, "unlike": unlike(a, b)}
    return result


def _pair(a: dict[str, Any], b: dict[str, Any], count: str) -> dict[str, Any]:
    names = [
        name
        for name, scene in a["scenes"].items()
        if count in scene["counts"] and count in b["scenes"].get(name, {"counts": {}})["counts"]
    ]
    same = [n for n in names if _targets(a, n, count) == _targets(b, n, count)]
    row: dict[str, Any] = {
        "scenes": len(same),
        "other_targets": len(names) - len(same),
        "only_in_one": len({n for r in (a, b) for n, s in r["scenes"].items() if count in s["counts"]}) - len(names),
        "by_scene": {},
    }
    for name in same:
        first, second = a["scenes"][name]["counts"][count], b["scenes"][name]["counts"][count]
        row["by_scene"][name] = {m.name: second[m.name] - first[m.name] for m in shown(first) if m.name in second}
    for measure in MEASURES:
        pairs = [tuple(r["scenes"][name]["counts"][count].get(measure.name) for r in (a, b)) for name in same]
        pairs = [pair for pair in pairs if None not in pair]
        if pairs:
            row[measure.name] = _difference(pairs, measure)
    return row


def _difference(pairs: list[tuple[float, float]], measure: Measure) -> dict[str, Any]:
    """Mean difference of one measure with its interval, in how many scenes the second is better, and the verdict."""
    values = [second - first for first, second in pairs]
    gains = [measure.goodness(second) - measure.goodness(first) for first, second in pairs]
    ends = interval(values)
    return {
        "mean": sum(values) / len(values),
        "low": None if ends is None else ends[0],
        "high": None if ends is None else ends[1],
        "better": sum(gain > 0 for gain in gains),
        "verdict": _verdict(interval(gains)),
    }


def unlike(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """What was set differently, a line each: figures of unlike settings differ for that reason, too."""
    lines = []
    for section, keys in (("benchmark", ("image_hw", "seed")), ("measures", ("normalize_with", "rounded")),
                          ("model", ("precision",))):  # fmt: skip
        for key in keys:
            if a[section][key] != b[section][key]:
                lines.append(f"{key}: {a[section][key]}, {b[section][key]}")
    rendering = [rendering_words(r["model"]) for r in (a, b)]
    if rendering[0] != rendering[1]:
        lines.append(f"rendering: {rendering[0]}; {rendering[1]}")
    for name in sorted({*a["benchmark"]["options"], *b["benchmark"]["options"]}):
        values = [r["benchmark"]["options"].get(name, {}).get("value") for r in (a, b)]
        if values[0] != values[1]:
            lines.append(f"{name}: {values[0]}, {values[1]}")
    return lines


def print_comparison(result: dict[str, Any]) -> None:
    """A table for each other report."""
    out = console()
    for label, other in result["others"].items():
        title = escape(f"{label} minus {result['base']}; 95 % intervals over paired scenes")
        table = Table(title=title, title_justify="left")
        columns, rows = comparison_rows(other)
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        out.print(table)
        for line in comparison_notes(other):
            out.print(f"  {line}", markup=False, highlight=False)


def comparison_rows(other: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table of one other report: its head, and a row a number of context views."""
    beside = shown({name for row in other["counts"].values() for name in row}, beside_psnr=True)
    head = ["context", "scenes", "PSNR", "better in", *(m.title for m in beside), "verdict on PSNR"]
    return head, [
        [count, str(row["scenes"]), _signed(row["psnr"], 2), f"{row['psnr']['better']} of {row['scenes']}",
         *(_signed(row.get(m.name), m.digits) for m in beside), row["psnr"]["verdict"]]
        for count, row in other["counts"].items()
    ]  # fmt: skip


def comparison_notes(other: dict[str, Any]) -> list[str]:
    """What stands below that table."""
    return [f"set differently: {line}" for line in other["unlike"]] + [
        f"at {count} views: {row['other_targets']} scenes with other targets and {row['only_in_one']} that only one"
        " report has are left out"
        for count, row in other["counts"].items()
        if row["other_targets"] or row["only_in_one"]
    ]


def _signed(values: dict[str, Any] | None, digits: int) -> str:
    """A signed mean with its interval."""
    if values is None:
        return "-"
    text = f"{values['mean']:+.{digits}f}"
    if values["low"] is None:
        return text
    return f"{text} [{figure(values['low'], digits)}, {figure(values['high'], digits)}]"


def _targets(report: dict[str, Any], name: str, count: str) -> list[int]:
    return report["scenes"][name]["counts"][count]["target"]


def _verdict(gain: tuple[float, float] | None) -> str:
    if gain is None:
        return "too few scenes"
    low, high = gain
    return "better" if low > 0 else "worse" if high < 0 else "no clear difference"
