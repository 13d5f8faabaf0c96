"""Reports in a terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nvs_app.evaluation.report.measures import PSNR, Measure, shown
from nvs_app.evaluation.report.words import rendering_words

MANY = 24  # scenes; of more, the worst are shown
SHORT = {"nearest_view": "nearest", "mean_colour": "mean colour", "gsplat": "gsplat"}


def console() -> Console:
    """Standard output; not cut to 80 columns when piped into a file."""
    return Console() if sys.stdout.isatty() else Console(width=150)


def print_report(report: dict[str, Any], pooled: bool = False) -> None:
    """What was measured, the figures by number of views and by scene, the seconds, and what is missing."""
    out = console()
    benchmark, model, measures = report["benchmark"], report["model"], report["measures"]
    title = f"{benchmark['title']}: {model['checkpoint']}, {model['precision']}, {rendering_words(model)}"
    out.print(title, style="bold", markup=False, highlight=False)
    lines = [f"source: {benchmark['source']}"]
    lines += [f"{name}={option['value']}" + (f": {option['meaning']}" if option["meaning"] else f" ({option['help']})")
              for name, option in benchmark["options"].items() if option["value"]]  # fmt: skip
    lines.append(f"cameras normalised with {measures['normalize_with']}: {measures['normalize_with_means']}")
    lines += [f"note: {note}" for note in benchmark["notes"]]
    for line in lines:
        out.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if report["overall"]:
        out.print(_overall(report, pooled))
        if len(report.get("kinds", {})) > 1:
            out.print(_kinds(report, pooled))
        out.print(_baselines(report, pooled))
        out.print(_scenes(report))
        out.print(_seconds(report["timing"]), markup=False, highlight=False, soft_wrap=True)
    for name in ("lpips", "gsplat"):
        if measures[name].startswith("not measured"):
            out.print(f"{name}: {measures[name]}", markup=False, highlight=False, soft_wrap=True)
    coverage = report["coverage"]
    if report["failed"]:
        out.print(f"{coverage['measured']} of {coverage['listed']} scenes measured", style="bold", highlight=False)
    for name, messages in list(report["failed"].items())[:10]:
        for count, message in messages.items():
            where = name if count == "*" else f"{name} at {count} views"
            out.print(f"  left out: {where}: {message}", markup=False, highlight=False, soft_wrap=True)
    if len(report["failed"]) > 10:
        out.print(f"  and {len(report['failed']) - 10} more, all in the JSON")


def figure(value: float | None, digits: int = 2) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def span(values: dict[str, float | None], digits: int = 2) -> str:
    """Mean with its interval."""
    if values["low"] is None:
        return figure(values["mean"], digits)
    return f"{figure(values['mean'], digits)} [{figure(values['low'], digits)}, {figure(values['high'], digits)}]"


def _overall(report: dict[str, Any], pooled: bool) -> Table:
    how = "over all views alike (pooled)" if pooled else "over views, then scenes; 95 % interval of PSNR over scenes"
    table = Table(title=f"Means {how}", title_justify="left")
    some = next(iter(report["overall"].values()))
    columns = ["context", "tokens", "scenes", *(measure.title for measure in shown(some))]
    published = report["benchmark"]["published"]
    timing = report["timing"]["counts"]
    columns += ["encode ms", "ms a view", *(["published PSNR"] if published else [])]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)

    def show(values: dict[str, float | None], measure: Measure) -> str:
        if pooled:
            return figure(values["pooled"], measure.digits)
        # Intervals of every measure would be wider than a terminal; the JSON has them.
        return span(values, measure.digits) if measure is PSNR else figure(values["mean"], measure.digits)

    for count, row in report["overall"].items():
        cells = [count, f"{row['tokens']:,}", str(row["scenes"])]
        cells += [show(row[measure.name], measure) for measure in shown(some)]
        spent = timing.get(count, {})
        cells += [figure(1e3 * spent[key], 1) if key in spent else "-" for key in ("encode_s", "decode_s_per_view")]
        if published:
            cells.append(", ".join(f"{p['of']} {p['psnr']}" for p in published if str(p["context"]) == count) or "-")
        table.add_row(*cells)
    return table


def _baselines(report: dict[str, Any], pooled: bool) -> Table:
    """The same means of what needs no network, a row each."""
    table = Table(title="Baselines", title_justify="left")
    some = next(iter(report["overall"].values()))["baselines"]
    measures = shown(next(iter(some.values())))
    timing = report["timing"]["counts"]
    fitted = any("gsplat_s" in spent for spent in timing.values())
    for column in ("context", "baseline", *(m.title for m in measures), *(["s a scene"] if fitted else [])):
        table.add_column(column, justify="left" if column == "baseline" else "right", no_wrap=True)
    for count, row in report["overall"].items():
        for name, figures in row["baselines"].items():
            cells = [figure(figures[m.name]["pooled" if pooled else "mean"], m.digits) for m in measures]
            if fitted:
                cells.append(figure(timing.get(count, {}).get("gsplat_s") if name == "gsplat" else None, 1))
            table.add_row(count, SHORT[name], *cells)
    return table


def kind_rows(report: dict[str, Any], pooled: bool = False) -> tuple[list[str], list[list[str]]]:
    """The means of each kind of scene: column titles, and a row for each kind and number of context views."""
    some = next(iter(report["overall"].values()))
    head = ["kind", "context", "scenes", *(measure.title for measure in shown(some))]
    head += [f"{SHORT[name]} PSNR" for name in some["baselines"]]
    which, rows = "pooled" if pooled else "mean", []
    for kind, by_count in report.get("kinds", {}).items():
        for count, row in by_count.items():
            cells = [figure(row.get(m.name, {}).get(which), m.digits) for m in shown(some)]
            cells += [figure(b["psnr"][which]) for b in row["baselines"].values()]
            rows.append([kind, count, str(row["scenes"]), *cells])
    return head, rows


def _kinds(report: dict[str, Any], pooled: bool) -> Table:
    head, rows = kind_rows(report, pooled)
    table = Table(title="Means by kind of scene", title_justify="left")
    for column in head:
        table.add_column(column, justify="left" if column == "kind" else "right", no_wrap=True)
    for row in rows:
        table.add_row(escape(row[0]), *row[1:])
    return table


def _scenes(report: dict[str, Any]) -> Table:
    counts = list(report["overall"])
    scenes = report["scenes"]
    names = list(scenes)
    title = "PSNR by scene"
    if len(scenes) > MANY:
        last = counts[-1]
        names = sorted(
            (name for name in scenes if last in scenes[name]["counts"]),
            key=lambda name: scenes[name]["counts"][last]["psnr"],
        )[:MANY]
        title = f"PSNR of the {MANY} worst of {len(scenes)} scenes"
    table = Table(title=title, title_justify="left")
    table.add_column("scene", no_wrap=True)
    beside = [m for m in shown(report["overall"][counts[-1]], beside_psnr=True) if m.name != "lpips"]
    columns = [f"{count} views" for count in counts] + [m.title for m in beside] + ["nearest", "mean colour"]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name in names:
        cases = scenes[name]["counts"]
        last = cases[list(cases)[-1]]
        cells = [figure(cases[count]["psnr"]) if count in cases else "-" for count in counts]
        nearest, mean = (last["baselines"][key]["psnr"] for key in ("nearest_view", "mean_colour"))
        cells += [figure(last.get(m.name), m.digits) for m in beside]
        table.add_row(escape(name), *cells, figure(nearest), figure(mean))
    return table


def _seconds(timing: dict[str, Any]) -> str:
    lines = [f"on {timing['device']}, {len(timing['processes'])} processes"]
    for rank, spent in enumerate(timing["processes"]):
        if not spent["scenes"]:
            continue
        share = spent["not_in_model"]
        lines.append(
            f"  process {rank}: {spent['scenes']} scenes, {spent['views']} views in {spent['wall_s']:.2f} s"
            f" ({spent['scenes'] / max(spent['wall_s'], 1e-9):.2f} scenes/s) after {spent['startup_s']:.1f} s of start;"
            f" model {spent['model_s']:.2f} s, comparing {spent['compare_s']:.2f} s, waiting for scenes"
            f" {spent['waiting_s']:.2f} s; share of time not in the model {100 * share:.1f} %"
        )
        for count, peaks in spent["memory"].items():
            parts = ", ".join(f"{key.removesuffix('_bytes')} {value / 2**20:.0f} MiB" for key, value in peaks.items())
            lines.append(f"    memory at {count} views: {parts}")
    return "\n".join(lines)
