"""The charts of the page as plain plotly figures (data and layout); `page.js` gives them the page's colours."""

from __future__ import annotations

from typing import Any

from nvs_app.evaluation.report.tables import SHORT

OURS, GREY, LIGHT = "@ours", "@grey", "@light"  # page.js puts in the colours of the light or the dark page
SERIES = ["@ours", "@second", "@third", "@fourth", "@fifth"]
BASELINES = {"nearest_view": (GREY, "dash"), "mean_colour": (LIGHT, "dot"), "gsplat": ("@second", "solid")}


def against_views(report: dict[str, Any]) -> dict[str, Any]:
    """PSNR of ours with its interval, of the baselines, and the published figures, against context views."""
    rows = report["overall"]
    return _psnr_lines(report, [int(count) for count in rows], "context views", published=True)


def against_tokens(report: dict[str, Any]) -> dict[str, Any]:
    """The same against the mean number of context tokens."""
    return _psnr_lines(report, [row["tokens"] for row in report["overall"].values()], "context tokens", published=False)


def _psnr_lines(report: dict[str, Any], x: list[int], label: str, published: bool) -> dict[str, Any]:
    rows = list(report["overall"].values())
    data: list[dict[str, Any]] = []
    ours = [row["psnr"] for row in rows]
    if all(values["low"] is not None for values in ours):
        data.append({
            "x": x + x[::-1], "y": [v["high"] for v in ours] + [v["low"] for v in ours][::-1], "fill": "toself",
            "fillcolor": "@band", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "mode": "lines",
        })  # fmt: skip
    data.append(_line(x, [v["mean"] for v in ours], "this model", OURS, "solid", 3))
    for name, (colour, dash) in BASELINES.items():
        if all(name in row["baselines"] for row in rows):
            means = [row["baselines"][name]["psnr"]["mean"] for row in rows]
            data.append(_line(x, means, SHORT[name], colour, dash, 2))
    ticks = list(x)
    for number, of in enumerate(dict.fromkeys(p["of"] for p in report["benchmark"]["published"] if published)):
        figures = [p for p in report["benchmark"]["published"] if p["of"] == of]
        line = _line([p["context"] for p in figures], [p["psnr"] for p in figures], f"{of}, published",
                     SERIES[1 + number % 4], "solid", 1)  # fmt: skip
        ticks += [p["context"] for p in figures]
        data.append(line | {"marker": {"symbol": "diamond-open", "size": 9, "color": SERIES[1 + number % 4]}})
    axis = {"title": {"text": label}, "type": "log", "tickvals": sorted(set(ticks)),
            "ticktext": [_short(value) for value in sorted(set(ticks))]}  # fmt: skip
    return {"data": data, "layout": {"xaxis": axis, "yaxis": {"title": {"text": "PSNR, dB"}}}}


def several_against_views(reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """PSNR of several reports against context views."""
    data, ticks = [], set()
    for number, (label, report) in enumerate(reports.items()):
        rows = report["overall"]
        x, psnr = [int(count) for count in rows], [row["psnr"] for row in rows.values()]
        ticks |= set(x)
        line = _line(x, [v["mean"] for v in psnr], label, SERIES[number % 5], "solid", 3)
        if all(v["low"] is not None for v in psnr):
            up, down = ([abs(v[key] - v["mean"]) for v in psnr] for key in ("high", "low"))
            line["error_y"] = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.5}
        data.append(line)
    axis = {"title": {"text": "context views"}, "type": "log", "tickvals": sorted(ticks),
            "ticktext": [_short(value) for value in sorted(ticks)]}  # fmt: skip
    return {"data": data, "layout": {"xaxis": axis, "yaxis": {"title": {"text": "PSNR, dB"}}}}


def differences(other: dict[str, Any]) -> dict[str, Any]:
    """A point a paired scene: its difference in PSNR, by number of context views; the mean as a bar."""
    data: list[dict[str, Any]] = []
    counts = list(other["counts"])
    for number, row in enumerate(other["counts"].values()):
        values = [figures["psnr"] for figures in row["by_scene"].values()]
        data.append({
            "x": [number + 0.3 * ((7 * slot) % 11 / 10 - 0.5) for slot in range(len(values))], "y": values,
            "mode": "markers", "text": list(row["by_scene"]), "hovertemplate": "%{text}: %{y:+.2f} dB<extra></extra>",
            "marker": {"color": [OURS if value > 0 else "@bad" for value in values], "size": 8, "opacity": 0.75},
            "showlegend": False,
        })  # fmt: skip
        data.append({"x": [number - 0.3, number + 0.3], "y": [row["psnr"]["mean"]] * 2, "mode": "lines",
                     "line": {"color": "@ink", "width": 2}, "hoverinfo": "skip", "showlegend": False})  # fmt: skip
    axis = {"title": {"text": "context views"}, "tickvals": list(range(len(counts))), "ticktext": counts,
            "range": [-0.6, len(counts) - 0.4]}  # fmt: skip
    value_axis = {"title": {"text": "difference in PSNR, dB"}, "zeroline": True}
    return {"data": data, "layout": {"xaxis": axis, "yaxis": value_axis}}


def spread(report: dict[str, Any]) -> dict[str, Any]:
    """The PSNR of every scene, sorted, a line for each number of context views."""
    data = []
    counts = list(report["overall"])
    for number, count in enumerate(counts):
        cases = sorted(
            (scene["counts"][count]["psnr"], name)
            for name, scene in report["scenes"].items()
            if count in scene["counts"]
        )
        line = _line(list(range(1, len(cases) + 1)), [value for value, _ in cases], f"{count} views",
                     f"@step{round(4 * (number + 1) / len(counts))}", "solid", 2)  # fmt: skip
        line |= {"text": [name for _, name in cases], "hovertemplate": "%{text}: %{y:.2f} dB<extra></extra>"}
        line["mode"] = "lines+markers" if len(cases) <= 60 else "lines"
        data.append(line)
    axis: dict[str, Any] = {"title": {"text": "scene, from worst to best"}}
    if len(report["scenes"]) <= 20:
        axis["dtick"] = 1
    return {"data": data, "layout": {"xaxis": axis, "yaxis": {"title": {"text": "PSNR, dB"}}}}


def seconds(report: dict[str, Any]) -> dict[str, Any]:
    """Seconds or milliseconds of encoding a scene and of rendering a view, at each number of context views."""
    rows = report["timing"]["counts"]
    names = [f"{count} views" for count in rows]
    data = []
    slow = max((row["encode_s"] for row in rows.values()), default=0) >= 2
    factor, unit = (1, "s") if slow else (1000, "ms")
    for key, label, colour in (("encode_s", "encode a scene", OURS), ("decode_s_per_view", "render a view", GREY)):
        values = [factor * row[key] for row in rows.values()]
        texts = [f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for value in values]
        data.append({"type": "bar", "x": names, "y": values, "name": label, "marker": {"color": colour},
                     "text": texts, "textposition": "outside", "cliponaxis": False,
                     "hovertemplate": "%{x}: %{y:.3g} " + unit + "<extra>" + label + "</extra>"})  # fmt: skip
    value_axis = {"title": {"text": "seconds" if slow else "milliseconds"}, "rangemode": "tozero"}
    layout = {"barmode": "group", "bargap": 0.35, "yaxis": value_axis, "xaxis": {"type": "category"}}
    return {"data": data, "layout": layout}


def _line(x: list[int], y: list[float], name: str, colour: str, dash: str, width: int) -> dict[str, Any]:
    return {
        "x": x, "y": y, "name": name, "mode": "lines+markers", "marker": {"color": colour, "size": 4 + 2 * (width > 1)},
        "line": {"color": colour, "dash": dash, "width": width},
        "hovertemplate": "%{x}: %{y:.2f} dB<extra>" + name + "</extra>",
    }  # fmt: skip


def _short(value: int) -> str:
    if value >= 1_000_000:
        return f"{value / 1e6:.3g}M"
    return f"{value / 1000:.3g}k" if value >= 10_000 else f"{value:,}"
