"""A report as one HTML file that needs no network: plotly's script, styles, data and images are inside.

write_page(report, Path("report.html"))
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from nvs_app.atomic_io import write_whole
from nvs_app.errors import NVSError
from nvs_app.evaluation.report import charts
from nvs_app.evaluation.report.compare import comparison_notes, comparison_rows
from nvs_app.evaluation.report.measures import shown
from nvs_app.evaluation.report.tables import SHORT, figure, kind_rows
from nvs_app.evaluation.report.words import rendering_words

HERE = Path(__file__).parent
IMAGES = (
    ("render", "rendered"),
    ("photo", "photo"),
    ("error", "error ×4"),
    ("nearest", "nearest context view"),
)


def plotly_missing() -> bool:
    """Whether a page cannot be made here."""
    return importlib.util.find_spec("plotly") is None


def write_page(report: dict[str, Any], path: Path) -> None:
    """The page of one report. Raises NVSError where plotly is not installed or the disk refuses."""
    if not report["overall"]:
        raise NVSError(f"{path}: no scene was measured, there is nothing to show")
    benchmark, model = report["benchmark"], report["model"]
    figures = {
        "views": charts.against_views(report),
        "tokens": charts.against_tokens(report),
        "spread": charts.spread(report),
        "time": charts.seconds(report),
    }
    parts = [
        _header(benchmark["title"], str(model["checkpoint"]), _chips(report)),
        _cards(report),
        '<section class="pair">'
        + _chart("views", "PSNR against context views", "The band is the 95 % interval over scenes.")
        + _chart("tokens", "PSNR against context tokens", "One token is one patch of a context view.")
        + "</section>",
        _kind_table(report),
        _scene_table(report),
        _images(report),
        '<section class="pair">'
        + _chart("spread", "Scenes, sorted", "PSNR of every scene at each number of context views.")
        + _chart("time", "Seconds", "Encoding a scene once, and rendering one view.")
        + "</section>",
        _timing(report),
        _left_out(report),
        _method(report),
    ]
    _write(path, f"{benchmark['title']} · {model['checkpoint']}", parts, figures)


def write_comparison_page(reports: dict[str, dict[str, Any]], result: dict[str, Any], path: Path) -> None:
    """The page of a comparison (see `compare.compare`). Raises NVSError."""
    figures = {"views": charts.several_against_views(reports)}
    parts = [
        _header(f"{result['benchmark']}: comparison", f"against {result['base']}", []),
        '<section class="pair">'
        + _chart("views", "PSNR against context views", "Bars are 95 % intervals over each report's scenes."),
    ]
    for number, (label, other) in enumerate(result["others"].items()):
        figures[f"difference{number}"] = charts.differences(other)
        parts[1] += _chart(f"difference{number}", f"{label} minus {result['base']}", "PSNR, one point a paired scene.")
    parts[1] += "</section>"
    for label, other in result["others"].items():
        head, rows = comparison_rows(other)
        head[:3] = "context views", "paired scenes", "PSNR, dB"
        notes = "".join(f"<li>{escape(line)}</li>" for line in comparison_notes(other))
        title = f"{escape(label)} minus {escape(result['base'])}"
        notes = f'<ul class="caption">{notes}</ul>' if notes else ""
        parts.append(f"<section><h2>{title}</h2>{_table(head, rows)}{notes}</section>")
    _write(path, f"{result['benchmark']}: comparison", parts, figures)


def _write(path: Path, title: str, parts: Sequence[str], figures: dict[str, Any]) -> None:
    if plotly_missing():
        raise NVSError(f"{path}: a page needs the package plotly (pip install plotly)")
    from plotly.offline import get_plotlyjs

    data = json.dumps(figures, allow_nan=False).replace("</", "<\\/")
    # No external address anywhere: the page is the same file years from now.
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{(HERE / 'page.css').read_text('utf-8')}</style></head><body><main>"
        f"{''.join(parts)}</main>"
        f"<script>{get_plotlyjs()}</script>"
        f'<script type="application/json" id="figures">{data}</script>'
        f"<script>{(HERE / 'page.js').read_text('utf-8')}</script></body></html>\n"
    )
    write_whole(path, text)


def _header(title: str, subtitle: str, chips: list[str]) -> str:
    shown = "".join(f"<li>{chip}</li>" for chip in chips)
    return f'<header><p class="kind">Benchmark</p><h1>{escape(title)}</h1><p class="model">{escape(subtitle)}</p>' + (
        f'<ul class="chips">{shown}</ul></header>' if chips else "</header>"
    )


def _chips(report: dict[str, Any]) -> list[str]:
    """The variants used, short; the last section tells what they mean."""
    benchmark, model, coverage = report["benchmark"], report["model"], report["coverage"]
    sizes = sorted({tuple(scene["image_hw"]) for scene in report["scenes"].values()})
    size = f"{sizes[0][0]}×{sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} sizes"
    pairs = [
        ("scenes", f"{coverage['measured']} of {coverage['listed']}"),
        ("size", size),
        ("precision", model["precision"]),
        ("rendering", rendering_words(model)),
        ("parameters", f"{model['parameters'] / 1e6:.1f} M"),
        ("cameras from", report["measures"]["normalize_with"]),
        *((name, option["value"]) for name, option in benchmark["options"].items() if option["value"]),
        ("seed", benchmark["seed"]),
    ]
    shown, seen = [], set()
    for name, value in pairs:
        if name not in seen:
            shown.append(f"<span>{escape(name)}</span> {escape(str(value))}")
        seen.add(name)
    return shown


def _cards(report: dict[str, Any]) -> str:
    cards = []
    for count, row in report["overall"].items():
        psnr, nearest = row["psnr"], row["baselines"]["nearest_view"]["psnr"]["mean"]
        few = f"{row['scenes']} scene{'s' if row['scenes'] > 1 else ''}: no interval"
        ends = few if psnr["low"] is None else f"95 %: {psnr['low']:.2f} to {psnr['high']:.2f}"
        beside = " · ".join(f"{m.title} {row[m.name]['mean']:.3f}" for m in shown(row, beside_psnr=True))
        views = "view" if count == "1" else "views"
        cards.append(
            f'<div class="card"><p>{count} context {views}</p><p class="big">{psnr["mean"]:.2f}<small>dB</small></p>'
            f"<p>{ends}</p><p>{beside}</p>"
            f'<p class="gain">{psnr["mean"] - nearest:+.2f} dB to the nearest view</p></div>'
        )
    return f'<section class="cards">{"".join(cards)}</section>'


def _chart(name: str, title: str, caption: str) -> str:
    return (
        f'<figure><h2>{escape(title)}</h2><p class="caption">{escape(caption)}</p>'
        f'<div class="chart" id="{name}" role="img" aria-label="{escape(title)}"></div></figure>'
    )


def _kind_table(report: dict[str, Any]) -> str:
    if len(report.get("kinds", {})) < 2:
        return ""
    return f"<section><h2>Kinds of scene</h2>{_table(*kind_rows(report))}</section>"


def _scene_table(report: dict[str, Any]) -> str:
    counts = list(report["overall"])
    some = next(iter(report["overall"].values()))
    beside = shown(some, beside_psnr=True)
    head = ["scene", *(f"PSNR at {count}" for count in counts), *(m.title for m in beside)]
    head += [SHORT[name] for name in some["baselines"]] + ["targets"]
    rows = []
    for name, scene in report["scenes"].items():
        cases = scene["counts"]
        last = cases[list(cases)[-1]]
        row = [name, *(figure(cases[count]["psnr"]) if count in cases else "-" for count in counts)]
        row += [figure(last.get(m.name), 3) for m in beside]
        row += [figure(last["baselines"][b]["psnr"]) for b in some["baselines"]] + [str(len(last["target"]))]
        rows.append(row)
    psnr = [some_count["psnr"]["mean"] for some_count in report["overall"].values()]
    last_row = list(report["overall"].values())[-1]
    foot = ["mean", *(figure(value) for value in psnr), *(figure(last_row[m.name]["mean"], 3) for m in beside)]
    foot += [figure(b["psnr"]["mean"]) for b in last_row["baselines"].values()] + [""]
    search = (
        '<input type="search" placeholder="find a scene" aria-label="find a scene" data-filter="scenes">'
        if len(rows) > 12
        else ""
    )
    names = ", ".join(m.title for m in beside)
    caption = f"{names} and baselines (PSNR, dB) at {counts[-1]} context views. A click on a column sorts."
    return (
        f'<section><div class="row"><h2>Scenes</h2>{search}</div><p class="caption">{caption}</p>'
        f"{_table(head, rows, foot, 'scenes')}</section>"
    )


def _table(head: list[str], rows: list[list[str]], foot: list[str] | None = None, name: str = "") -> str:
    identity = f' id="{name}"' if name else ""
    heads = "".join(f'<th scope="col"><button type="button">{escape(cell)}</button></th>' for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    last = f"<tfoot><tr>{''.join(f'<td>{escape(cell)}</td>' for cell in foot)}</tr></tfoot>" if foot else ""
    return (
        f'<div class="scroll" tabindex="0"><table{identity}><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody>{last}</table></div>"
    )


def _images(report: dict[str, Any]) -> str:
    groups = []
    for which, title in (("worst", "Worst views"), ("best", "Best views")):
        views = report["pictures"][which]
        if not views:
            continue
        strips = "".join(_strip(view) for view in views)
        groups.append(f'<h3 class="{which}">{title}</h3><div class="strips">{strips}</div>')
    if not groups:
        return ""
    caption = "The worst and the best view of a scene, of the scenes where they are lowest and highest."
    return f'<section><h2>Views</h2><p class="caption">{caption}</p>{"".join(groups)}</section>'


def _strip(view: dict[str, Any]) -> str:
    images = "".join(
        f'<figure><img src="{view[key]}" alt="{label} of {escape(view["scene"])}">'
        f"<figcaption>{label}</figcaption></figure>"
        for key, label in IMAGES
    )
    where = f"{escape(view['scene'])} <span>{escape(view['view'])}, {view['context']} context views</span>"
    where = f'<p class="where"><b>{view["psnr"]:.2f} dB</b> {where}</p>'
    return f'<article>{where}<div class="strip">{images}</div></article>'


def _timing(report: dict[str, Any]) -> str:
    timing = report["timing"]
    rows, keys = [], ("encode_bytes", "decode_bytes") if any(p["memory"] for p in timing["processes"]) else ()
    fitted = any("gsplat_s" in seconds for seconds in timing["counts"].values())
    for count, seconds in timing["counts"].items():
        peaks = [p["memory"][count] for p in timing["processes"] if count in p["memory"]]
        memory = [f"{max(p[key] for p in peaks) / 2**20:.0f} MiB" if peaks else "-" for key in keys]
        spent = [_duration(seconds[key]) for key in ("encode_s", "decode_s_per_view")]
        spent += [_duration(seconds["gsplat_s"]) if "gsplat_s" in seconds else "-"] if fitted else []
        rows.append([count, f"{report['overall'][count]['tokens']:,}", *spent, *memory])
    head = ["context views", "tokens", "encode a scene", "render a view"]
    head += ["fit gsplat"] if fitted else []
    head += ["memory, encode", "memory, one view"] if keys else []
    processes = []
    for rank, spent in enumerate(timing["processes"]):
        if spent["scenes"]:
            processes.append([
                str(rank), str(spent["scenes"]), f"{spent['wall_s']:.1f} s", f"{spent['startup_s']:.1f} s",
                f"{spent['model_s']:.1f} s", f"{spent['compare_s']:.1f} s", f"{spent['waiting_s']:.1f} s",
                f"{100 * spent['not_in_model']:.1f} %", f"{spent['process_peak_bytes'] / 2**30:.1f} GiB",
            ])  # fmt: skip
    columns = ["process", "scenes", "time", "start before it", "in the model", "comparing", "waiting for scenes",
               "not in the model", "peak memory"]  # fmt: skip
    second = _table(columns, processes) if processes else '<p class="caption">Every scene was done earlier.</p>'
    memory_is = " Memory is the GPU's, beyond what was there before." if keys else ""
    caption = f"On {escape(timing['device'])}.{memory_is}"
    return f'<section><h2>Timing</h2><p class="caption">{caption}</p>{_table(head, rows)}{second}</section>'


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def _left_out(report: dict[str, Any]) -> str:
    if not report["failed"]:
        return ""
    lines = [
        f"<li><b>{escape(name)}</b>{'' if count == '*' else f' at {count} views'}: {escape(message)}</li>"
        for name, messages in list(report["failed"].items())[:50]
        for count, message in messages.items()
    ]
    more = f"<p>and {len(report['failed']) - 50} more, all in the JSON</p>" if len(report["failed"]) > 50 else ""
    return f'<section class="warning"><h2>Left out</h2><ul>{"".join(lines)}</ul>{more}</section>'


def _method(report: dict[str, Any]) -> str:
    benchmark, model, measures = report["benchmark"], report["model"], report["measures"]
    rows = [("Protocol", benchmark["source"])]
    rows += [
        (name, f"{option['value']}" + (f": {option['meaning']}" if option["meaning"] else f" ({option['help']})"))
        for name, option in benchmark["options"].items()
        if option["value"]
    ]
    rows += [("Note", note) for note in benchmark["notes"]]
    rows += [
        ("PSNR", "of each image, averaged over the views of a scene, then over scenes"),
        ("Intervals", "95 % bootstrap over scenes, 10,000 draws of a fixed seed"),
        ("SSIM", measures["ssim"]),
        *((("Sharpness", measures["sharpness"]),) if "sharpness" in measures else ()),
        ("LPIPS", measures["lpips"]),
        *((("Depth error", measures["depth_error"]),) if "depth_error" in measures else ()),
        ("Cameras", f"normalised with {measures['normalize_with']}: {measures['normalize_with_means']}"),
        ("Renderings", "rounded to 8 bits before comparing" if measures["rounded"] else "compared unrounded"),
        *((f"Baseline {SHORT[name]}", text) for name, text in measures["baselines"].items()),
        ("Baseline gsplat", measures["gsplat"]),
        ("Checkpoint", f"{model['checkpoint']} ({str(model['hash'])[:12]}), normalization {model['normalization']}"),
    ]  # fmt: skip
    if model["train_image_hw"]:
        rows.append(("Trained at", "×".join(map(str, model["train_image_hw"]))))
    rows.append(("Rendering", rendering_words(model)))
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(text))}</dd>" for name, text in rows)
    return f"<section><h2>How it was measured</h2><dl>{listed}</dl></section>"
