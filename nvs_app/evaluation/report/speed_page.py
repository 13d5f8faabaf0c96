"""The figures of `benchmark-speed` as one HTML file that needs no network.

write_speed_page(report, Path("speed.html"))
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from nvs_app.evaluation.report import page
from nvs_app.evaluation.report.words import rendering_words

LINES = {"median_ms": ("this path", "@ours", "solid"), "plain_ms": ("plain path", "@second", "dash"),
         "floor_ms": ("floor", "@grey", "dot")}  # fmt: skip
COLUMNS = {"tokens": ("tokens", "{:,}"), "median_ms": ("median, ms", "{:.2f}"), "best_ms": ("best, ms", "{:.2f}"),
           "plain_ms": ("plain, ms", "{:.2f}"), "floor_ms": ("floor, ms", "{:.2f}"),
           "peak_gib": ("peak, GiB", "{:.1f}"), "views_per_s": ("views/s", "{:.0f}"),
           "difference": ("differs by", "{:.2g}")}  # fmt: skip


def write_speed_page(report: dict[str, Any], path: Path) -> None:
    """Raises NVSError where plotly is not installed or the disk refuses."""
    rows: dict[str, dict[str, Any]] = report["figures"]
    encoding = [row for what, row in rows.items() if what.startswith("encode")]
    alone = [row for what, row in rows.items() if what.endswith("LaCT alone") and row["views"] == 1]
    head = [row for what, row in rows.items() if what.endswith("detail head") and row["views"] == 1]
    charts = {"encode": _against(encoding, "context tokens", lambda row: row["tokens"])}
    texts = [page._chart("encode", "Encoding", "Milliseconds for a scene, against its context tokens.")]
    for name, some, title in (("alone", alone, "A view, by LaCT alone"), ("head", head, "A view, by the detail head")):
        if some:
            charts[name] = _against(some, "side of a view, pixels", lambda row: row["image_hw"][0])
            texts.append(page._chart(name, title, "Milliseconds for one view; the floor counts LaCT's products."))
    columns = {key: column for key, column in COLUMNS.items() if any(key in row for row in rows.values())}
    cells = [
        [what, *(form.format(row[key]) if key in row else "-" for key, (_, form) in columns.items())]
        for what, row in rows.items()
    ]
    ceilings = report["ceilings"]
    pairs = [
        ("device", report["device"]), ("processes", report["processes"]), ("precision", report["precision"]),
        ("compiled", "yes" if report["compiled"] else "no"), ("rendering", rendering_words(report)),
        ("parameters", f"{report['parameters'] / 1e6:.1f} M"), ("products", f"{ceilings['tflops']:.3g} TFLOP/s"),
        ("copies", f"{ceilings['gb_per_s']:.0f} GB/s"), ("repeats", report["repeats"]),
    ]  # fmt: skip
    chips = [f"<span>{escape(name)}</span> {escape(str(value))}" for name, value in pairs]
    name = str(report["checkpoint"]["name"])
    table = page._table(["", *(heading for heading, _ in columns.values())], cells, name="speed")
    caption = (
        "The floor is the time of the products at the rate of a large product measured in the same run, or of reading"
        " the weights once, whichever is longer. Fast weights differ by the share of a matrix, images at most."
    )
    parts = [
        page._header("Speed", name, chips),
        f'<section class="pair">{"".join(texts)}</section>',
        f'<section><h2>Figures</h2><p class="caption">{caption}</p>{table}</section>',
    ]
    page._write(path, f"Speed · {name}", parts, charts)


def _against(rows: list[dict[str, Any]], label: str, x: Any) -> dict[str, Any]:
    """Lines of milliseconds, both axes logarithmic."""
    data = [
        {
            "x": [x(row) for row in rows], "y": [row[key] for row in rows], "name": name, "mode": "lines+markers",
            "line": {"color": colour, "dash": dash, "width": 2},
        }
        for key, (name, colour, dash) in LINES.items()
        if all(key in row for row in rows)
    ]  # fmt: skip
    axes = {"xaxis": {"title": {"text": label}, "type": "log"}, "yaxis": {"title": {"text": "ms"}, "type": "log"}}
    return {"data": data, "layout": axes}
