"""From the records of scenes to a report: averages, intervals, the images worth showing, and the seconds apart.

Everything outside `report["timing"]` is a function of the scenes, the model and the settings: two runs, one of them
interrupted, or on more processes, give the same.
"""

from __future__ import annotations

from typing import Any

from nvs_app.evaluation.report.bootstrap import interval
from nvs_app.evaluation.report.measures import Measure, shown

FORMAT = "nvs_app benchmark 1"
IMAGES = 6  # of the worst and of the best views


def assemble(
    header: dict[str, Any],
    records: dict[str, dict[str, Any]],
    failed: dict[str, dict[str, str]],
    listed: int,
    timing: dict[str, Any],
    kinds: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The report.

    header: what was measured (see `benchmark.run.describe`). records: scene -> {"result", "timing"}, in order.
    failed: scene -> {"*" or a number of views: why it is left out}. listed: scenes that the benchmark has.
    kinds: scene -> its kind, where scenes are of several: the means of each stand beside the whole.
    """
    scenes = {name: record["result"] for name, record in records.items()}
    contexts = header["benchmark"]["contexts"]
    of_kind: dict[str, dict[str, Any]] = {}
    for name, kind in (kinds or {}).items():
        if name in scenes:
            of_kind.setdefault(kind, {})[name] = scenes[name]
    images = {which: _shown(scenes, which) for which in ("worst", "best")}
    return {
        "format": FORMAT,
        **header,
        "overall": overall(scenes, contexts),
        **({"kinds": {kind: overall(own, contexts) for kind, own in of_kind.items()}} if of_kind else {}),
        "coverage": {"listed": listed, "measured": len(scenes)},
        "scenes": {name: {k: v for k, v in scene.items() if k != "pictures"} for name, scene in scenes.items()},
        "failed": dict(sorted(failed.items())),
        "pictures": images,
        "timing": {
            **timing,
            "counts": _seconds(records, contexts),
            "scenes": {name: record["timing"] for name, record in records.items()},
        },
    }


def _shown(scenes: dict[str, dict[str, Any]], which: str) -> list[dict[str, Any]]:
    """The worst or the best views of the scenes, one of each, the most extreme first."""
    views = [
        {"scene": name, **scene["pictures"][which]}
        for name, scene in scenes.items()
        if scene.get("pictures", {}).get(which)
    ]
    sign = 1 if which == "worst" else -1
    return sorted(views, key=lambda view: (sign * view["psnr"], view["scene"]))[:IMAGES]


def keep_shown_images(scenes: dict[str, dict[str, Any]]) -> None:
    """Takes the images that no report of these scenes or of more would show out of the results, in place."""
    shown = {which: {view["scene"] for view in _shown(scenes, which)} for which in ("worst", "best")}
    for name, scene in scenes.items():
        scene["pictures"] = {w: v for w, v in scene.get("pictures", {}).items() if name in shown[w]}


def overall(scenes: dict[str, dict[str, Any]], contexts: list[int]) -> dict[str, dict[str, Any]]:
    """Number of context views -> figures over the scenes that have them."""
    result = {}
    for count in map(str, contexts):
        cases = [scene["counts"][count] for scene in scenes.values() if count in scene["counts"]]
        if not cases:
            continue
        result[count] = {
            "scenes": len(cases),
            "views": sum(len(case["views"]) for case in cases),
            "tokens": round(sum(case["tokens"] for case in cases) / len(cases)),
            **{m.name: _figure([_values(case, m) for case in cases if m.name in case]) for m in _measured(cases)},
            "baselines": {
                name: {
                    m.name: _figure([[v["baselines"][name][m.name] for v in case["views"]] for case in cases])
                    for m in shown(baseline)
                }
                for name, baseline in cases[0]["baselines"].items()
            },
        }
    return result


def _measured(cases: list[dict[str, Any]]) -> list[Measure]:
    """The measures that some case has: where no view shows a surface, there is no error of depth."""
    return shown({name for case in cases for name in case})


def _values(case: dict[str, Any], measure: Measure) -> list[float]:
    return [view[measure.name] for view in case["views"] if view[measure.name] is not None]


def _figure(by_scene: list[list[float]]) -> dict[str, float | None]:
    """Mean over the views of a scene, then over scenes, with its interval; and pooled, over all views alike."""
    means = [sum(values) / len(values) for values in by_scene]
    ends = interval(means)
    everything = [value for values in by_scene for value in values]
    return {
        "mean": round(sum(means) / len(means), 6),
        "low": None if ends is None else round(ends[0], 6),
        "high": None if ends is None else round(ends[1], 6),
        "pooled": round(sum(everything) / len(everything), 6),
    }


def _seconds(records: dict[str, dict[str, Any]], contexts: list[int]) -> dict[str, dict[str, float]]:
    """Mean seconds of a scene's encoding and of a view's decoding, at each number of context views."""
    result = {}
    for count in map(str, contexts):
        cases = [
            (record["timing"]["counts"][count], len(record["result"]["counts"][count]["views"]))
            for record in records.values()
            if count in record["timing"]["counts"]
        ]
        if cases:
            result[count] = {
                "encode_s": sum(seconds["encode_s"] for seconds, _ in cases) / len(cases),
                "decode_s_per_view": sum(s["decode_s"] for s, _ in cases) / sum(views for _, views in cases),
            }
            if all("gsplat_s" in seconds for seconds, _ in cases):
                result[count]["gsplat_s"] = sum(seconds["gsplat_s"] for seconds, _ in cases) / len(cases)
    return result
